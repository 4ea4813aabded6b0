//! The reasons for a partition's crash, and the record of its vCPU at that moment.

use crate::space::{CrashReason, CrashText};
use crate::time::Ns;
use crate::virt::{CpuState, Regs, TaskSource, TaskSwitch};
use core::fmt::Write;

/// Why a partition cannot go on: the guest's fault, its disk's, or the operator's wish; never the
/// hypervisor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashCause {
    /// A fault while a double fault was delivered: the guest has lost its tables.
    TripleFault,
    /// The guest reported it through pvpanic.
    Panic,
    /// The guest recorded a panic in the error record store.
    PanicRecord,
    /// The operator asked for it.
    Operator,
    /// The guest hangs, and an NMI has not helped.
    Watchdog,
    /// The CPU refused to enter the guest.
    EntryFailed(u64),
    /// An exit that the hypervisor has not asked for, with its code.
    UnknownExit(u64),
    /// A page could not be read back from the paging device.
    PageLost(u64),
    /// The paging device takes no pages, so no frame came free for this address.
    Unwritable(u64),
    /// The guest accessed a device with an instruction that the hypervisor does not emulate.
    NotEmulated(u64),
    /// The guest fetches instructions from an address without memory.
    ExecutedNothing(u64),
    /// The guest tried a hardware task switch, which is not offered.
    TaskSwitch(TaskSwitch),
    /// The host's CPU reported a machine check while the guest ran; whose memory was hit is
    /// unknown.
    MachineCheck,
    /// The CPU itself, not an instruction, accessed an address without memory: page tables, or the
    /// stack of an exception.
    NoMemory(u64),
}

impl CrashCause {
    /// Returns the word for events and the space record.
    pub const fn as_str(self) -> &'static str {
        match self {
            CrashCause::TripleFault => "triple fault",
            CrashCause::Panic => "panic",
            CrashCause::PanicRecord => "panic record",
            CrashCause::Operator => "operator",
            CrashCause::Watchdog => "watchdog",
            CrashCause::EntryFailed(_) => "entry failed",
            CrashCause::UnknownExit(_) => "unknown exit",
            CrashCause::PageLost(_) => "page lost",
            CrashCause::Unwritable(_) => "pages cannot be written",
            CrashCause::NotEmulated(_) => "instruction not emulated",
            CrashCause::ExecutedNothing(_) => "execution outside memory",
            CrashCause::NoMemory(_) => "tables or stack outside memory",
            CrashCause::TaskSwitch(_) => "task switch",
            CrashCause::MachineCheck => "machine check",
        }
    }

    /// Returns its number in the space record.
    pub const fn recorded(self) -> CrashReason {
        match self {
            CrashCause::TripleFault => CrashReason::TRIPLE_FAULT,
            CrashCause::Panic => CrashReason::PVPANIC,
            CrashCause::PanicRecord => CrashReason::ERST,
            CrashCause::Operator => CrashReason::OPERATOR,
            CrashCause::Watchdog => CrashReason::WATCHDOG,
            CrashCause::EntryFailed(_) => CrashReason::ENTRY_FAILED,
            CrashCause::UnknownExit(_) => CrashReason::UNKNOWN_EXIT,
            CrashCause::PageLost(_) => CrashReason::LOST_PAGE,
            CrashCause::Unwritable(_) => CrashReason::UNWRITABLE,
            CrashCause::NotEmulated(_) => CrashReason::NOT_EMULATED,
            CrashCause::ExecutedNothing(_) => CrashReason::EXECUTED_NOTHING,
            CrashCause::NoMemory(_) => CrashReason::NO_MEMORY,
            CrashCause::TaskSwitch(_) => CrashReason::TASK_SWITCH,
            CrashCause::MachineCheck => CrashReason::MACHINE_CHECK,
        }
    }

    /// Returns the crash in words: the guest's own if the guest itself ended, else the reason's.
    pub fn in_words(self, guests_own: Option<CrashText>) -> CrashText {
        let own = match self {
            CrashCause::TripleFault
            | CrashCause::Panic
            | CrashCause::PanicRecord
            | CrashCause::Watchdog => guests_own,
            CrashCause::TaskSwitch(switch) => Some(task_switch(switch)),
            CrashCause::Operator
            | CrashCause::MachineCheck
            | CrashCause::EntryFailed(_)
            | CrashCause::UnknownExit(_)
            | CrashCause::PageLost(_)
            | CrashCause::Unwritable(_)
            | CrashCause::NotEmulated(_)
            | CrashCause::ExecutedNothing(_)
            | CrashCause::NoMemory(_) => None,
        };
        own.unwrap_or_else(|| CrashText::from(self.as_str()).unwrap_or_default())
    }

    /// Returns the reason's code or address, zero if it has none.
    pub const fn detail(self) -> u64 {
        match self {
            CrashCause::TripleFault
            | CrashCause::Panic
            | CrashCause::PanicRecord
            | CrashCause::Operator
            | CrashCause::Watchdog
            | CrashCause::MachineCheck => 0,
            CrashCause::TaskSwitch(switch) => switch.selector as u64,
            CrashCause::EntryFailed(n)
            | CrashCause::UnknownExit(n)
            | CrashCause::PageLost(n)
            | CrashCause::Unwritable(n)
            | CrashCause::NotEmulated(n)
            | CrashCause::ExecutedNothing(n)
            | CrashCause::NoMemory(n) => n,
        }
    }
}

/// Describes the hardware task switch that the guest tried.
fn task_switch(TaskSwitch { source, selector }: TaskSwitch) -> CrashText {
    let by = match source {
        TaskSource::Call => "a far CALL",
        TaskSource::Iret => "IRET with NT set",
        TaskSource::Jump => "a far JMP",
        TaskSource::Gate => "a task gate in the IDT",
    };
    let mut text = CrashText::new();
    // The longest of these texts fills half of the room.
    let _ = write!(text, "hardware task switch by {by} to TSS {selector:#x}, which is not offered");
    text
}

/// The facts known at the moment of a crash; the dump's notes are made from them.
#[derive(Clone, Copy, Debug)]
pub struct CrashRecord {
    /// Why the partition crashed.
    pub reason: CrashCause,
    /// The reason in words.
    pub text: CrashText,
    /// The incarnation that crashed.
    pub incarnation: u64,
    /// Nanoseconds since the hypervisor's start.
    pub at_ns: Ns,
    /// The vCPU's registers.
    pub regs: Regs,
    /// The rest of its state.
    pub state: CpuState,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0x1234_5678_9abc_def0;

    /// One of each.
    const ALL: [CrashCause; 14] = [
        CrashCause::TripleFault,
        CrashCause::Panic,
        CrashCause::PanicRecord,
        CrashCause::Operator,
        CrashCause::Watchdog,
        CrashCause::MachineCheck,
        CrashCause::TaskSwitch(TaskSwitch { source: TaskSource::Jump, selector: 0x18 }),
        CrashCause::EntryFailed(ADDRESS),
        CrashCause::UnknownExit(ADDRESS),
        CrashCause::PageLost(ADDRESS),
        CrashCause::NotEmulated(ADDRESS),
        CrashCause::ExecutedNothing(ADDRESS),
        CrashCause::NoMemory(ADDRESS),
        CrashCause::Unwritable(ADDRESS),
    ];

    #[test]
    fn every_reason_has_a_number_of_its_own_on_disk() {
        let mut numbers = ALL.map(|reason| reason.recorded().0);
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert!(ALL.iter().all(|reason| reason.recorded().name() != "other"));
    }

    #[test]
    fn a_guest_is_heard_only_where_it_ended_by_itself() {
        let said = CrashText::from("Kernel panic - not syncing: x").ok();
        for reason in ALL.into_iter().filter(|reason| !matches!(reason, CrashCause::TaskSwitch(_)))
        {
            let by_itself = matches!(reason.recorded().0, 1 | 2 | 3 | 7);
            let expected =
                if by_itself { "Kernel panic - not syncing: x" } else { reason.as_str() };
            assert_eq!(&*reason.in_words(said), expected);
            assert_eq!(&*reason.in_words(None), reason.as_str());
        }
    }

    #[test]
    fn a_task_switch_is_told_by_what_asked_for_it() {
        for (source, by) in [
            (TaskSource::Call, "a far CALL"),
            (TaskSource::Iret, "IRET with NT set"),
            (TaskSource::Jump, "a far JMP"),
            (TaskSource::Gate, "a task gate in the IDT"),
        ] {
            let reason = CrashCause::TaskSwitch(TaskSwitch { source, selector: 0xfff8 });
            let told = format!("hardware task switch by {by} to TSS 0xfff8, which is not offered");
            assert_eq!((&*reason.in_words(None), reason.detail()), (&*told, 0xfff8));
        }
    }

    #[test]
    fn addresses_stay_whole() {
        assert!(ALL[7..].iter().all(|reason| reason.detail() == ADDRESS));
    }
}
