//! Decodes VMX's exit reason and qualification to a vendor-neutral [`VmExit`], or to an action of
//! the back end.
//!
//! Pure: the information fields are read through [`ExitInformation`], and only for reasons that
//! have them, so that the most frequent exits cost one VMREAD. Tables in `decode/tests.rs`.

use super::event::InterruptionInfo;
use super::qualification::{
    ControlQualification, EptQualification, PortQualification, TaskQualification,
};
use crate::addr::{Gpa, Gva};
use crate::virt::exit::{
    AccessWidth, IoAccess, IoDirection, PageAccess, TaskSource, TaskSwitch, VmExit,
};
use crate::virt::state::Gpr;

#[cfg(test)]
mod tests;

/// Source of the information fields of an exit.
pub(super) trait ExitInformation {
    /// Exit qualification.
    fn qualification(&self) -> u64;
    /// Guest-physical address.
    fn guest_physical(&self) -> Gpa;
    /// Guest-linear address.
    fn guest_linear(&self) -> Gva;
    /// VM-exit interruption information.
    fn interruption(&self) -> InterruptionInfo;
}

/// The exit-reason field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExitReason(u32);

/// Basic exit reasons that we name (SDM 3D "VMX Basic Exit Reasons").
pub(super) mod reason {
    pub(crate) const EXCEPTION_OR_NMI: u16 = 0;
    pub(crate) const EXTERNAL_INTERRUPT: u16 = 1;
    pub(crate) const TRIPLE_FAULT: u16 = 2;
    pub(crate) const INTERRUPT_WINDOW: u16 = 7;
    pub(crate) const NMI_WINDOW: u16 = 8;
    pub(crate) const TASK_SWITCH: u16 = 9;
    pub(crate) const CPUID: u16 = 10;
    pub(crate) const GETSEC: u16 = 11;
    pub(crate) const HLT: u16 = 12;
    pub(crate) const INVD: u16 = 13;
    pub(crate) const RDPMC: u16 = 15;
    pub(crate) const RSM: u16 = 17;
    pub(crate) const VMCALL: u16 = 18;
    pub(crate) const VMCLEAR: u16 = 19;
    pub(crate) const VMXON: u16 = 27;
    pub(crate) const CONTROL_REGISTER: u16 = 28;
    pub(crate) const DEBUG_REGISTER: u16 = 29;
    pub(crate) const IO_INSTRUCTION: u16 = 30;
    pub(crate) const RDMSR: u16 = 31;
    pub(crate) const WRMSR: u16 = 32;
    pub(crate) const MWAIT: u16 = 36;
    pub(crate) const MONITOR: u16 = 39;
    pub(crate) const ENTRY_MACHINE_CHECK: u16 = 41;
    pub(crate) const EPT_VIOLATION: u16 = 48;
    pub(crate) const EPT_MISCONFIGURATION: u16 = 49;
    pub(crate) const INVEPT: u16 = 50;
    pub(crate) const RDTSCP: u16 = 51;
    pub(crate) const PREEMPTION_TIMER: u16 = 52;
    pub(crate) const INVVPID: u16 = 53;
    pub(crate) const WBINVD: u16 = 54;
    pub(crate) const XSETBV: u16 = 55;
    pub(crate) const INVPCID: u16 = 58;
    pub(crate) const ENCLS: u16 = 60;
    pub(crate) const XSAVES: u16 = 63;
    pub(crate) const PCONFIG: u16 = 65;
    pub(crate) const UMWAIT: u16 = 67;
    pub(crate) const LOADIWKEY: u16 = 69;
    pub(crate) const ENCLV: u16 = 70;
    pub(crate) const ENQCMD: u16 = 72;
    pub(crate) const ENQCMDS: u16 = 73;
    pub(crate) const SEAMCALL: u16 = 76;
    pub(crate) const UWRMSR: u16 = 81;
}

/// A set of reasons below 64.
const fn set<const N: usize>(reasons: [u16; N]) -> u64 {
    let (mut bits, mut i) = (0, 0);
    while i < N {
        bits |= 1 << reasons[i];
        i += 1;
    }
    bits
}

impl ExitReason {
    /// Wraps the field's value.
    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }
    /// Returns the basic exit reason.
    pub(super) const fn basic(self) -> u16 {
        self.0 as u16
    }
    /// Returns whether the entry failed: the guest did not run.
    pub(super) const fn entry_failed(self) -> bool {
        self.0 & (1 << 31) != 0
    }
    /// Returns whether the guest ran, and accessed a page that the EPT does not permit.
    pub(super) const fn is_ept_violation(self) -> bool {
        self.0 == reason::EPT_VIOLATION as u32
    }
    const fn is_in(self, set: u64) -> bool {
        // An entry failure and the modifier bits of SGX and SMM make the word large: it is in no
        // set.
        self.0 < 64 && set >> self.0 & 1 != 0
    }

    /// Returns whether an event delivery may have been interrupted: IDT-vectoring information must
    /// then be read. SDM 3C "Information for VM Exits During Event Delivery"; an exit due to an
    /// instruction never interrupts a delivery.
    pub(super) const fn may_interrupt_delivery(self) -> bool {
        use reason::*;
        self.is_in(set([EXCEPTION_OR_NMI, TASK_SWITCH, EPT_VIOLATION, EPT_MISCONFIGURATION]))
    }
}

/// A control-register access that exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ControlAccess {
    WriteCr0(Gpr),
    WriteCr4(Gpr),
    WriteCr8(Gpr),
    ReadCr8(Gpr),
}

/// How an exit is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DecodedExit {
    /// The exit is returned to the caller.
    Exit(VmExit),
    /// The guest did not run: VM-entry failure, with the basic exit reason.
    EntryFailed(u16),
    /// A control register, handled by the back end.
    Control(ControlAccess),
    /// A MOV to or from a debug register, the first since there were no breakpoints.
    DebugRegister,
    /// A host NMI, which the exit has consumed.
    HostNmi,
    /// An exception that exits only so that the guest cannot hang the CPU by it: #DB or #AC. It is
    /// given to the guest.
    Reflect(InterruptionInfo),
    /// RDPMC: no counter is offered, which gives #GP, not #UD.
    GeneralProtection,
    /// An invalid EPT entry: our bug.
    Misconfigured(Gpa),
}

/// Decodes an exit that needs only its reason: the fastest path, for the most frequent exits.
pub(super) const fn plain(raw: ExitReason) -> Option<VmExit> {
    use reason::*;
    /// An entry failure, and the modifier bits of SGX and SMM, make the word larger.
    const LAST: u32 = XSETBV as u32;
    if raw.0 > LAST {
        return None;
    }
    Some(match raw.basic() {
        CPUID => VmExit::Cpuid,
        // After a stay that long, the timer's exit lets the hypervisor check for host interrupts
        // that the stay may have missed.
        EXTERNAL_INTERRUPT | PREEMPTION_TIMER => VmExit::HostInterrupt,
        INTERRUPT_WINDOW => VmExit::InterruptWindow,
        NMI_WINDOW => VmExit::NmiWindow,
        HLT => VmExit::Halt,
        RDMSR => VmExit::ReadMsr,
        WRMSR => VmExit::WriteMsr,
        VMCALL => VmExit::Hypercall,
        XSETBV => VmExit::Xsetbv,
        INVD | WBINVD => VmExit::CacheFlush,
        TRIPLE_FAULT => VmExit::TripleFault,
        GETSEC | VMCLEAR..=VMXON | MWAIT | MONITOR | INVEPT | INVVPID => VmExit::Undefined,
        _ => return None,
    })
}

/// Decodes an exit that is not [`plain`].
pub(super) fn decode(raw: ExitReason, info: &impl ExitInformation) -> DecodedExit {
    match raw.basic() {
        // The error occurred at the entry, or the CPU noticed it only then.
        reason::ENTRY_MACHINE_CHECK if raw.entry_failed() => {
            DecodedExit::Exit(VmExit::MachineCheck)
        }
        failed if raw.entry_failed() => DecodedExit::EntryFailed(failed),
        reason::TASK_SWITCH => {
            DecodedExit::Exit(VmExit::TaskSwitch(task_switch(info.qualification())))
        }
        reason::EPT_VIOLATION => DecodedExit::Exit(ept_violation(info)),
        reason::IO_INSTRUCTION => DecodedExit::Exit(VmExit::Io(port_access(info.qualification()))),
        reason::RDPMC => DecodedExit::GeneralProtection,
        reason::EXCEPTION_OR_NMI => exception(raw, info.interruption()),
        reason::CONTROL_REGISTER => control(raw, info.qualification()),
        reason::DEBUG_REGISTER => DecodedExit::DebugRegister,
        reason::EPT_MISCONFIGURATION => DecodedExit::Misconfigured(info.guest_physical()),
        basic if is_hidden_instruction(basic) => DecodedExit::Exit(VmExit::Undefined),
        _ => DecodedExit::Exit(unknown(raw)),
    }
}

/// Returns whether a reason belongs to an instruction that CPUID hides. Most exit only if a control
/// requests it, and none of ours does. SEAMCALL and TDCALL exit on every CPU that has them, and
/// ENCLS if requested.
const fn is_hidden_instruction(basic: u16) -> bool {
    use reason::*;
    // VMFUNC lies inside the first range, TPAUSE inside the third. The last six reasons are
    // SEAMCALL, TDCALL, RDMSRLIST, WRMSRLIST, URDMSR and UWRMSR.
    matches!(
        basic,
        RSM | RDTSCP
            | INVPCID..=ENCLS
            | XSAVES..=PCONFIG
            | UMWAIT..=LOADIWKEY
            | ENCLV
            | ENQCMD..=ENQCMDS
            | SEAMCALL..=UWRMSR
    )
}

/// SDM 3C "Exit Qualification for Task Switches".
const fn task_switch(q: u64) -> TaskSwitch {
    let q = TaskQualification::from_bits(q);
    let source = match q.source() {
        0 => TaskSource::Call,
        1 => TaskSource::Iret,
        2 => TaskSource::Jump,
        _ => TaskSource::Gate,
    };
    TaskSwitch { source, selector: q.selector() }
}

const fn unknown(raw: ExitReason) -> VmExit {
    VmExit::Unknown { code: raw.0 as u64 }
}

/// SDM 3C "Exit Qualification for EPT Violations". An access to the guest's page tables counts as a
/// write if A/D bits are on. Here it always counts as one: the CPU's next access mostly sets a bit
/// there, and Bochs sets it although it reported only the read.
#[inline]
pub(super) fn ept_violation(info: &impl ExitInformation) -> VmExit {
    let q = EptQualification::from_bits(info.qualification());
    let during_walk = q.linear_valid() && !q.translated();
    let access = match q {
        _ if q.write() || during_walk => PageAccess::Write,
        _ if q.fetch() => PageAccess::Execute,
        _ => PageAccess::Read,
    };
    VmExit::SecondLevelFault {
        gpa: info.guest_physical(),
        access,
        during_walk,
        gva: q.linear_valid().then(|| info.guest_linear()),
    }
}

/// Returns whether an EPT violation is an instruction's access to data, and not part of a return
/// from an NMI.
#[inline(always)]
pub(super) const fn is_data_access(qualification: u64) -> bool {
    let q = EptQualification::from_bits(qualification);
    q.linear_valid() && q.translated() && !q.fetch() && !q.nmi_unblocked_by_iret()
}

/// SDM 3C "Exit Qualification for I/O Instructions".
#[inline(always)]
pub(super) const fn port_access(q: u64) -> IoAccess {
    let q = PortQualification::from_bits(q);
    let width = match q.size() {
        0 => AccessWidth::Byte,
        1 => AccessWidth::Word,
        // 3 is the only other value in the manual.
        _ => AccessWidth::Dword,
    };
    let direction = if q.input() { IoDirection::In } else { IoDirection::Out };
    IoAccess { port: q.port(), width, direction, string: q.string() }
}

/// Decodes an exception. Only #DB, #AC and #MC are requested, see `setup::EXCEPTIONS`.
fn exception(raw: ExitReason, interruption: InterruptionInfo) -> DecodedExit {
    const DEBUG: u8 = 1;
    const ALIGNMENT: u8 = 17;
    const MACHINE_CHECK: u8 = 18;
    match interruption.vector() {
        _ if interruption.is_nmi() => DecodedExit::HostNmi,
        DEBUG | ALIGNMENT => DecodedExit::Reflect(interruption),
        MACHINE_CHECK => DecodedExit::Exit(VmExit::MachineCheck),
        _ => DecodedExit::Exit(unknown(raw)),
    }
}

/// SDM 3C "Exit Qualification for Control-Register Accesses". CLTS and LMSW change no host-owned
/// bit.
const fn control(raw: ExitReason, q: u64) -> DecodedExit {
    let q = ControlQualification::from_bits(q);
    let gpr = Gpr::from_number(q.operand());
    DecodedExit::Control(match (q.register(), q.access()) {
        (0, 0) => ControlAccess::WriteCr0(gpr),
        (4, 0) => ControlAccess::WriteCr4(gpr),
        (8, 0) => ControlAccess::WriteCr8(gpr),
        (8, 1) => ControlAccess::ReadCr8(gpr),
        _ => return DecodedExit::Exit(unknown(raw)),
    })
}
