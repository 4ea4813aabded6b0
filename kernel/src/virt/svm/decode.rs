//! Turns a raw exit into an [`Exit`]. Pure.
//!
//! See: APM 2 "SVM Intercept Codes" (appendix C), "IOIO Intercepts", "Nested versus Guest Page Faults".

use crate::addr::Gpa;
use crate::virt::exit::{Access, Exit, IoAccess, IoDirection, Width};

/// Exit codes, named as in the manual without `VMEXIT_`.
#[allow(missing_docs)]
pub mod code {
    pub const EXCP_DB: u64 = 0x41;
    pub const EXCP_AC: u64 = 0x51;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const VINTR: u64 = 0x64;
    pub const RDPMC: u64 = 0x6f;
    pub const CPUID: u64 = 0x72;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT_ARMED: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const RDPRU: u64 = 0x8e;
    pub const NPF: u64 = 0x400;
}

/// What VMEXIT wrote about an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawExit {
    /// `exit_code`.
    pub code: u64,
    /// `exit_info_1`.
    pub info_1: u64,
    /// `exit_info_2`.
    pub info_2: u64,
}

/// Names the exit.
pub fn decode(raw: RawExit) -> Exit {
    match raw.code {
        code::CPUID => Exit::Cpuid,
        code::NPF => second_level_fault(raw),
        code::IOIO => io_access(raw.info_1).map_or(Exit::Unknown { code: raw.code }, Exit::Io),
        code::MSR if raw.info_1 == 0 => Exit::ReadMsr,
        code::MSR => Exit::WriteMsr,
        code::HLT => Exit::Halt,
        // A host NMI was taken when the world switch set the global interrupt flag; it too may want the loop's attention.
        code::INTR | code::NMI => Exit::HostInterrupt,
        code::VINTR => Exit::InterruptWindow,
        // The back end's own: the vCPU settles them.
        code::IRET | code::EXCP_DB | code::EXCP_AC => Exit::Handled,
        code::VMMCALL => Exit::Hypercall,
        code::XSETBV => Exit::Xsetbv,
        code::INVD | code::WBINVD => Exit::CacheFlush,
        code::SHUTDOWN => Exit::TripleFault,
        code::RDPMC | code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT => Exit::Undefined,
        code::MONITOR..=code::MWAIT_ARMED | code::RDPRU => Exit::Undefined,
        // VMEXIT_INVALID is -1; QEMU's TCG (7.2 to 10.0) writes only its lower half.
        code if code as u32 == u32::MAX => Exit::EntryFailed { code },
        code => Exit::Unknown { code },
    }
}

/// EXITINFO1 is the page-fault error code of the access, with the walk in bit 33.
fn second_level_fault(raw: RawExit) -> Exit {
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    const GUEST_TABLE_WALK: u64 = 1 << 33;
    let during_walk = raw.info_1 & GUEST_TABLE_WALK != 0;
    let access = if raw.info_1 & WRITE != 0 {
        Access::Write
    } else if raw.info_1 & FETCH != 0 && !during_walk {
        Access::Execute
    } else {
        Access::Read
    };
    Exit::SecondLevelFault { gpa: Gpa::new(raw.info_2), access, during_walk, gva: None }
}

/// EXITINFO1 of IOIO: port 31:16, size 6:4 one-hot, string 2, direction 0 (1 = IN).
#[inline(always)]
pub fn io_access(info: u64) -> Option<IoAccess> {
    let width = match (info >> 4) & 7 {
        1 => Width::Byte,
        2 => Width::Word,
        4 => Width::Dword,
        _ => return None,
    };
    let direction = if info & 1 != 0 { IoDirection::In } else { IoDirection::Out };
    Some(IoAccess { port: (info >> 16) as u16, width, direction, string: info & (1 << 2) != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: u64) -> Exit {
        decode(RawExit { code, info_1: 0, info_2: 0 })
    }

    #[test]
    fn codes_without_information_have_names() {
        let table = [
            (0x72, Exit::Cpuid),
            (0x78, Exit::Halt),
            (0x60, Exit::HostInterrupt),
            (0x61, Exit::HostInterrupt),
            (0x64, Exit::InterruptWindow),
            (0x7f, Exit::TripleFault),
            (0x81, Exit::Hypercall),
            (0x8d, Exit::Xsetbv),
            (0x76, Exit::CacheFlush),
            (0x89, Exit::CacheFlush),
            (0x7c, Exit::ReadMsr),
            (0x41, Exit::Handled),
            (0x51, Exit::Handled),
            (0x74, Exit::Handled),
        ];
        for (code, exit) in table {
            assert_eq!(plain(code), exit, "{code:#x}");
        }
        assert_eq!(decode(RawExit { code: 0x7c, info_1: 1, info_2: 0 }), Exit::WriteMsr);
    }

    #[test]
    fn instructions_that_are_not_offered_are_undefined() {
        for code in [0x6f, 0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86, 0x8a, 0x8b, 0x8c, 0x8e] {
            assert_eq!(plain(code), Exit::Undefined, "{code:#x}");
        }
    }

    #[test]
    fn what_nobody_asked_for_stays_representable() {
        for code in [0, 0x1f, 0x4e, 0x52, 0x62, 0x63, 0x7d, 0x7e, 0x87, 0x88, 0x8f, 0x401, 0x1234_5678_9abc] {
            assert_eq!(plain(code), Exit::Unknown { code });
        }
    }

    #[test]
    fn an_invalid_state_is_known_in_both_widths() {
        for code in [u64::MAX, 0xffff_ffff] {
            assert_eq!(plain(code), Exit::EntryFailed { code });
        }
    }

    #[test]
    fn nested_page_faults_tell_access_and_walk() {
        let table = [
            (0x1_0000_0004, Access::Read, false),
            (0x1_0000_0006, Access::Write, false),
            (0x1_0000_0007, Access::Write, false),
            (0x1_0000_0014, Access::Execute, false),
            (0x1_0000_0015, Access::Execute, false),
            (0x2_0000_0006, Access::Write, true),
            (0x2_0000_0004, Access::Read, true),
            (0x2_0000_0014, Access::Read, true),
        ];
        for (info_1, access, during_walk) in table {
            let exit = decode(RawExit { code: 0x400, info_1, info_2: 0x12_3456 });
            let expected = Exit::SecondLevelFault { gpa: Gpa::new(0x12_3456), access, during_walk, gva: None };
            assert_eq!(exit, expected, "{info_1:#x}");
        }
    }

    #[test]
    fn port_accesses_tell_port_width_and_direction() {
        let io = |port, width, direction, string| Exit::Io(IoAccess { port, width, direction, string });
        let table = [
            (0x03f8_0210, io(0x3f8, Width::Byte, IoDirection::Out, false)),
            (0x0060_0221, io(0x60, Width::Word, IoDirection::In, false)),
            (0x0080_0240, io(0x80, Width::Dword, IoDirection::Out, false)),
            (0x03f8_021c, io(0x3f8, Width::Byte, IoDirection::Out, true)),
            (0xffff_0225, io(0xffff, Width::Word, IoDirection::In, true)),
            (0x0080_0200, Exit::Unknown { code: 0x7b }),
            (0x0080_0270, Exit::Unknown { code: 0x7b }),
        ];
        for (info_1, expected) in table {
            assert_eq!(decode(RawExit { code: 0x7b, info_1, info_2: 0 }), expected, "{info_1:#x}");
        }
    }
}
