//! Turns a raw exit into an [`VmExit`]. Pure.
//!
//! See: APM 2 "SVM Intercept Codes" (appendix C), "IOIO Intercepts", "Nested versus Guest Page
//! Faults".

use super::event;
use super::exit_info::{NestedFaultInfo, PortInfo, TaskSwitchInfo};
use crate::addr::Gpa;
use crate::virt::exit::{
    AccessWidth, DebugNumber, IoAccess, IoDirection, PageAccess, SystemMove, TaskSource,
    TaskSwitch, VmExit,
};

/// Exit codes, named as in the manual without `VMEXIT_`.
pub(super) mod code {
    pub(crate) const WRITE_CR4: u64 = 0x14;
    pub(crate) const WRITE_CR8: u64 = 0x18;
    pub(crate) const READ_DR5: u64 = 0x25;
    pub(crate) const READ_DR7: u64 = 0x27;
    pub(crate) const WRITE_DR5: u64 = 0x35;
    pub(crate) const WRITE_DR7: u64 = 0x37;
    pub(crate) const EXCP_DB: u64 = 0x41;
    pub(crate) const EXCP_AC: u64 = 0x51;
    pub(crate) const EXCP_MC: u64 = 0x52;
    pub(crate) const INTR: u64 = 0x60;
    pub(crate) const NMI: u64 = 0x61;
    pub(crate) const VINTR: u64 = 0x64;
    pub(crate) const CR0_SEL_WRITE: u64 = 0x65;
    pub(crate) const RDPMC: u64 = 0x6f;
    pub(crate) const CPUID: u64 = 0x72;
    pub(crate) const RSM: u64 = 0x73;
    pub(crate) const IRET: u64 = 0x74;
    pub(crate) const INVD: u64 = 0x76;
    pub(crate) const HLT: u64 = 0x78;
    pub(crate) const INVLPGA: u64 = 0x7a;
    pub(crate) const IOIO: u64 = 0x7b;
    pub(crate) const MSR: u64 = 0x7c;
    pub(crate) const TASK_SWITCH: u64 = 0x7d;
    pub(crate) const FERR_FREEZE: u64 = 0x7e;
    pub(crate) const SHUTDOWN: u64 = 0x7f;
    pub(crate) const VMRUN: u64 = 0x80;
    pub(crate) const VMMCALL: u64 = 0x81;
    pub(crate) const VMLOAD: u64 = 0x82;
    pub(crate) const RDTSCP: u64 = 0x87;
    pub(crate) const WBINVD: u64 = 0x89;
    pub(crate) const MONITOR: u64 = 0x8a;
    pub(crate) const MWAIT_ARMED: u64 = 0x8c;
    pub(crate) const XSETBV: u64 = 0x8d;
    pub(crate) const RDPRU: u64 = 0x8e;
    pub(crate) const INVLPGB: u64 = 0xa0;
    pub(crate) const TLBSYNC: u64 = 0xa4;
    pub(crate) const NPF: u64 = 0x400;
    /// The vCPU's own code for [`VmExit::ShadowedWindow`], from the range that the manual leaves to
    /// the host.
    ///
    /// [`VmExit::ShadowedWindow`]: super::VmExit::ShadowedWindow
    pub(crate) const SHADOWED_WINDOW: u64 = 0xf000_0000;
}

/// The words that #VMEXIT wrote about an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct VmcbExit {
    /// `exit_code`.
    pub code: u64,
    /// `exit_info_1`.
    pub info_1: u64,
    /// `exit_info_2`.
    pub info_2: u64,
    /// `exit_interrupt_info`: the event whose delivery the exit interrupted.
    pub interrupted: u64,
}

/// Names the exit.
pub(super) fn decode(raw: VmcbExit) -> VmExit {
    // The most frequent reason for which this function is called.
    if raw.code == code::NPF {
        return second_level_fault(raw);
    }
    match raw.code {
        code::CPUID => VmExit::Cpuid,
        code::IOIO => io_access(raw.info_1).map_or(VmExit::Unknown { code: raw.code }, VmExit::Io),
        code::MSR if raw.info_1 == 0 => VmExit::ReadMsr,
        code::MSR => VmExit::WriteMsr,
        code::HLT => VmExit::Halt,
        // A host NMI was taken when the world switch set the global interrupt flag; it too may need
        // the loop's attention.
        code::INTR | code::NMI => VmExit::HostInterrupt,
        code::VINTR => VmExit::InterruptWindow,
        // Handled by the vCPU itself.
        code::IRET | code::EXCP_DB | code::EXCP_AC => VmExit::Handled,
        code::SHADOWED_WINDOW => VmExit::ShadowedWindow,
        code::VMMCALL => VmExit::Hypercall,
        code::XSETBV => VmExit::Xsetbv,
        code::INVD | code::WBINVD => VmExit::CacheFlush,
        code::SHUTDOWN => VmExit::TripleFault,
        code::RDPMC => VmExit::ReadCounter,
        code::TASK_SWITCH => VmExit::TaskSwitch(task_switch(raw)),
        code::EXCP_MC => VmExit::MachineCheck,
        code::FERR_FREEZE => VmExit::FloatingPointFrozen,
        code::RSM | code::INVLPGA | code::VMRUN | code::VMLOAD..=code::RDTSCP => VmExit::Undefined,
        // INVPCID and MCOMMIT lie inside the last range.
        code::MONITOR..=code::MWAIT_ARMED | code::RDPRU | code::INVLPGB..=code::TLBSYNC => {
            VmExit::Undefined
        }
        code::CR0_SEL_WRITE => VmExit::System(SystemMove::ToCr0),
        code::WRITE_CR4 => VmExit::System(SystemMove::ToCr4),
        code::WRITE_CR8 => VmExit::System(SystemMove::ToCr8),
        code::WRITE_DR5 => VmExit::System(SystemMove::ToDr7(DebugNumber::Alias)),
        code::WRITE_DR7 => VmExit::System(SystemMove::ToDr7(DebugNumber::Own)),
        code::READ_DR5 => VmExit::System(SystemMove::FromDr7(DebugNumber::Alias)),
        code::READ_DR7 => VmExit::System(SystemMove::FromDr7(DebugNumber::Own)),
        // VMEXIT_INVALID is -1; QEMU's TCG (7.2 to 10.0) writes only its lower half. The codes from
        // -2 to -4 belong to features that are off.
        code if code as u32 >= u32::MAX - 3 => VmExit::EntryFailed { code },
        code => VmExit::Unknown { code },
    }
}

/// Returns whether a nested page fault is an instruction's access to data.
#[inline(always)]
pub(super) const fn is_data_access(info_1: u64) -> bool {
    let info = NestedFaultInfo::from_bits(info_1);
    !info.fetch() && !info.table_walk()
}

const fn task_switch(raw: VmcbExit) -> TaskSwitch {
    let source = match TaskSwitchInfo::from_bits(raw.info_2) {
        _ if event::holds_event(raw.interrupted) => TaskSource::Gate,
        info if info.iret() => TaskSource::Iret,
        info if info.jump() => TaskSource::Jump,
        _ => TaskSource::Call,
    };
    TaskSwitch { source, selector: raw.info_1 as u16 }
}

fn second_level_fault(raw: VmcbExit) -> VmExit {
    let info = NestedFaultInfo::from_bits(raw.info_1);
    let during_walk = info.table_walk();
    let access = if info.write() {
        PageAccess::Write
    } else if info.fetch() && !during_walk {
        PageAccess::Execute
    } else {
        PageAccess::Read
    };
    VmExit::SecondLevelFault { gpa: Gpa::new(raw.info_2), access, during_walk, gva: None }
}

/// Decodes EXITINFO1 of IOIO; `None` for a size that the manual does not have.
#[inline(always)]
pub(super) fn io_access(info: u64) -> Option<IoAccess> {
    let info = PortInfo::from_bits(info);
    let width = match info.size() {
        1 => AccessWidth::Byte,
        2 => AccessWidth::Word,
        4 => AccessWidth::Dword,
        _ => return None,
    };
    let direction = if info.input() { IoDirection::In } else { IoDirection::Out };
    Some(IoAccess { port: info.port(), width, direction, string: info.string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: u64) -> VmExit {
        decode(VmcbExit { code, ..VmcbExit::default() })
    }

    #[test]
    fn codes_without_information_have_names() {
        let table = [
            (0x72, VmExit::Cpuid),
            (0x78, VmExit::Halt),
            (0x60, VmExit::HostInterrupt),
            (0x61, VmExit::HostInterrupt),
            (0x64, VmExit::InterruptWindow),
            (0x7f, VmExit::TripleFault),
            (0x81, VmExit::Hypercall),
            (0x8d, VmExit::Xsetbv),
            (0x76, VmExit::CacheFlush),
            (0x89, VmExit::CacheFlush),
            (0x7c, VmExit::ReadMsr),
            (0x41, VmExit::Handled),
            (0x51, VmExit::Handled),
            (0x74, VmExit::Handled),
        ];
        for (code, exit) in table {
            assert_eq!(plain(code), exit, "{code:#x}");
        }
        assert_eq!(
            decode(VmcbExit { code: 0x7c, info_1: 1, ..VmcbExit::default() }),
            VmExit::WriteMsr
        );
    }

    #[test]
    fn instructions_that_are_not_offered_are_undefined() {
        for code in [
            0x73, 0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x8a, 0x8b, 0x8c, 0x8e, 0xa0,
            0xa1, 0xa2, 0xa3, 0xa4,
        ] {
            assert_eq!(plain(code), VmExit::Undefined, "{code:#x}");
        }
    }

    #[test]
    fn moves_of_system_registers_tell_direction_and_name() {
        use DebugNumber::{Alias, Own};
        for (code, access) in [
            (0x65, SystemMove::ToCr0),
            (0x14, SystemMove::ToCr4),
            (0x18, SystemMove::ToCr8),
            (0x25, SystemMove::FromDr7(Alias)),
            (0x27, SystemMove::FromDr7(Own)),
            (0x35, SystemMove::ToDr7(Alias)),
            (0x37, SystemMove::ToDr7(Own)),
        ] {
            assert_eq!(plain(code), VmExit::System(access), "{code:#x}");
        }
        assert_eq!(plain(0x6f), VmExit::ReadCounter);
    }

    /// How an exit code is handled.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum SvmExitFate {
        /// Decided by the code, or by fields that other tests cover.
        Known,
        /// #UD: CPUID hides the instruction.
        Hidden,
        /// None of our intercepts requests it, or a guest cannot cause it.
        NotAsked,
    }

    fn fate_of(code: u64) -> SvmExitFate {
        // A valid port width, so that the code alone decides.
        match decode(VmcbExit { code, info_1: 1 << 4, ..VmcbExit::default() }) {
            VmExit::Undefined => SvmExitFate::Hidden,
            VmExit::Unknown { code: told } => {
                assert_eq!(told, code);
                SvmExitFate::NotAsked
            }
            _ => SvmExitFate::Known,
        }
    }

    /// Every code of APM 2 appendix C, "SVM Intercept Exit Codes", and the gaps between them.
    #[test]
    fn every_exit_code_has_a_fate() {
        use SvmExitFate::{Hidden, Known, NotAsked};
        let runs = [
            (0x00..=0x13, NotAsked), // reads of control registers, writes of CR0 to CR3
            (0x14..=0x14, Known),    // CR4
            (0x15..=0x17, NotAsked),
            (0x18..=0x18, Known), // CR8
            (0x19..=0x24, NotAsked),
            (0x25..=0x25, Known), // reads of DR5 and DR7
            (0x26..=0x26, NotAsked),
            (0x27..=0x27, Known),
            (0x28..=0x34, NotAsked),
            (0x35..=0x35, Known), // writes of DR5 and DR7
            (0x36..=0x36, NotAsked),
            (0x37..=0x37, Known),
            (0x38..=0x40, NotAsked),
            (0x41..=0x41, Known), // #DB
            (0x42..=0x50, NotAsked),
            (0x51..=0x52, Known), // #AC, #MC
            (0x53..=0x5f, NotAsked),
            (0x60..=0x61, Known),    // INTR, NMI
            (0x62..=0x63, NotAsked), // SMI, INIT
            (0x64..=0x65, Known),    // VINTR, selected writes of CR0
            (0x66..=0x6e, NotAsked), // descriptor tables, RDTSC
            (0x6f..=0x6f, Known),    // RDPMC
            (0x70..=0x71, NotAsked), // PUSHF, POPF
            (0x72..=0x72, Known),    // CPUID
            (0x73..=0x73, Hidden),   // RSM
            (0x74..=0x74, Known),    // IRET
            (0x75..=0x75, NotAsked), // INT n
            (0x76..=0x76, Known),    // INVD
            (0x77..=0x77, NotAsked), // PAUSE
            (0x78..=0x78, Known),    // HLT
            (0x79..=0x79, NotAsked), // INVLPG
            (0x7a..=0x7a, Hidden),   // INVLPGA
            (0x7b..=0x7f, Known),    // ports, MSRs, task switch, FERR, shutdown
            (0x80..=0x80, Hidden),   // VMRUN
            (0x81..=0x81, Known),    // VMMCALL
            (0x82..=0x87, Hidden),   // VMLOAD to RDTSCP
            (0x88..=0x88, NotAsked), // INT1
            (0x89..=0x89, Known),    // WBINVD
            (0x8a..=0x8c, Hidden),   // MONITOR, MWAIT
            (0x8d..=0x8d, Known),    // XSETBV
            (0x8e..=0x8e, Hidden),   // RDPRU
            (0x8f..=0x9f, NotAsked), // traps behind writes of EFER and control registers
            (0xa0..=0xa4, Hidden),   // INVLPGB to TLBSYNC
            (0xa5..=0x3ff, NotAsked),
            (0x400..=0x400, Known), // nested page fault
            (0x401..=0x500, NotAsked),
        ];
        let mut next = 0;
        for (codes, fate) in runs {
            assert_eq!(*codes.start(), next, "no gap");
            next = codes.end() + 1;
            codes.for_each(|code| assert_eq!(fate_of(code), fate, "{code:#x}"));
        }
        assert_eq!(
            (fate_of(0xf000_0000), fate_of(0xf000_0001), fate_of(0x1234_5678_9abc)),
            (Known, NotAsked, NotAsked)
        );
    }

    #[test]
    fn task_switches_tell_what_asked_for_them() {
        use TaskSource::{Call, Gate, Iret, Jump};
        for (info_2, interrupted, source) in [
            (0, 0, Call),
            (1 << 36, 0, Iret),
            (1 << 38, 0, Jump),
            (1 << 44 | 3, 0x8000_0308, Gate),
            (0, 0x308, Call),
        ] {
            let found = decode(VmcbExit { code: 0x7d, info_1: 0x28, info_2, interrupted });
            assert_eq!(found, VmExit::TaskSwitch(TaskSwitch { source, selector: 0x28 }));
        }
        assert_eq!((plain(0x52), plain(0x7e)), (VmExit::MachineCheck, VmExit::FloatingPointFrozen));
    }

    #[test]
    fn an_invalid_state_is_known_in_both_widths() {
        for code in [u64::MAX, 0xffff_ffff, u64::MAX - 1, 0xffff_fffc] {
            assert_eq!(plain(code), VmExit::EntryFailed { code });
        }
    }

    #[test]
    fn nested_page_faults_tell_access_and_walk() {
        let table = [
            (0x1_0000_0004, PageAccess::Read, false),
            (0x1_0000_0006, PageAccess::Write, false),
            (0x1_0000_0007, PageAccess::Write, false),
            (0x1_0000_0014, PageAccess::Execute, false),
            (0x1_0000_0015, PageAccess::Execute, false),
            (0x2_0000_0006, PageAccess::Write, true),
            (0x2_0000_0004, PageAccess::Read, true),
            (0x2_0000_0014, PageAccess::Read, true),
        ];
        for (info_1, access, during_walk) in table {
            let exit = decode(VmcbExit { code: 0x400, info_1, info_2: 0x12_3456, interrupted: 0 });
            let expected = VmExit::SecondLevelFault {
                gpa: Gpa::new(0x12_3456),
                access,
                during_walk,
                gva: None,
            };
            assert_eq!(exit, expected, "{info_1:#x}");
            assert_eq!(
                is_data_access(info_1),
                access != PageAccess::Execute && !during_walk,
                "{info_1:#x}"
            );
        }
    }

    #[test]
    fn port_accesses_tell_port_width_and_direction() {
        let io = |port, width, direction, string| {
            VmExit::Io(IoAccess { port, width, direction, string })
        };
        let table = [
            (0x03f8_0210, io(0x3f8, AccessWidth::Byte, IoDirection::Out, false)),
            (0x0060_0221, io(0x60, AccessWidth::Word, IoDirection::In, false)),
            (0x0080_0240, io(0x80, AccessWidth::Dword, IoDirection::Out, false)),
            (0x03f8_021c, io(0x3f8, AccessWidth::Byte, IoDirection::Out, true)),
            (0xffff_0225, io(0xffff, AccessWidth::Word, IoDirection::In, true)),
            (0x0080_0200, VmExit::Unknown { code: 0x7b }),
            (0x0080_0270, VmExit::Unknown { code: 0x7b }),
        ];
        for (info_1, expected) in table {
            assert_eq!(
                decode(VmcbExit { code: 0x7b, info_1, ..VmcbExit::default() }),
                expected,
                "{info_1:#x}"
            );
        }
    }
}
