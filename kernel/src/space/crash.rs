//! The crash that a space records: reason, time, text, registers, and the name of its dump.

use arrayvec::{ArrayString, ArrayVec};

use super::raw::{REGISTERS_LEN, TEXT_LEN};
use super::uuid::Uuid;

/// Why the owner crashed. Unknown numbers are preserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashReason(pub u32);

impl CrashReason {
    /// No reason was recorded.
    pub const NONE: Self = Self(0);
    /// A triple fault.
    pub const TRIPLE_FAULT: Self = Self(1);
    /// The guest reported it by pvpanic.
    pub const PVPANIC: Self = Self(2);
    /// The guest stored a panic log by ERST.
    pub const ERST: Self = Self(3);
    /// An operator's command.
    pub const OPERATOR: Self = Self(4);
    /// A page could not be read back.
    pub const LOST_PAGE: Self = Self(5);
    /// The CPU refused to enter the guest (VM entry failed).
    pub const ENTRY_FAILED: Self = Self(6);
    /// A watchdog.
    pub const WATCHDOG: Self = Self(7);
    /// The CPU left the guest for a reason that the hypervisor does not handle.
    pub const UNKNOWN_EXIT: Self = Self(8);
    /// An instruction that accesses a device is not emulated by the hypervisor.
    pub const NOT_EMULATED: Self = Self(9);
    /// Instructions were fetched from an address without memory.
    pub const EXECUTED_NOTHING: Self = Self(10);
    /// Page tables or a stack lie at an address without memory.
    pub const NO_MEMORY: Self = Self(11);
    /// The paging device accepted no pages.
    pub const UNWRITABLE: Self = Self(12);
    /// The guest used a hardware task switch.
    pub const TASK_SWITCH: Self = Self(13);
    /// The host CPU has reported a machine check.
    pub const MACHINE_CHECK: Self = Self(14);

    /// No crash: the operator has suspended the partition.
    pub const SUSPENDED: Self = Self(15);

    /// No crash: the partition was suspended to go on at another node.
    pub const MOVED: Self = Self(16);

    /// Every numbered reason, with its name for people and events.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::TRIPLE_FAULT, "triple fault"),
        (Self::PVPANIC, "pvpanic"),
        (Self::ERST, "panic log by ERST"),
        (Self::OPERATOR, "operator"),
        (Self::LOST_PAGE, "page could not be read back"),
        (Self::ENTRY_FAILED, "entry failed"),
        (Self::WATCHDOG, "watchdog"),
        (Self::UNKNOWN_EXIT, "unknown exit"),
        (Self::NOT_EMULATED, "instruction not emulated"),
        (Self::EXECUTED_NOTHING, "execution outside memory"),
        (Self::NO_MEMORY, "tables or stack outside memory"),
        (Self::UNWRITABLE, "pages cannot be written"),
        (Self::TASK_SWITCH, "task switch"),
        (Self::MACHINE_CHECK, "machine check"),
        (Self::SUSPENDED, "suspended"),
        (Self::MOVED, "moves"),
    ];

    /// Returns the name for people and events.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.into_iter().find(|(reason, _)| *reason == self);
        known.map_or(if self == Self::NONE { "none" } else { "other" }, |(_, name)| name)
    }
}

/// Description of a crash: the guest's own if it gave one, else the reason's. At most 128 bytes.
pub type CrashText = ArrayString<TEXT_LEN>;

/// The crash that a dump belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordedCrash {
    /// The dump's unique name. For an [`super::RecordFormat::Original`] record it is computed from
    /// the record's fields.
    pub name: Uuid,
    /// The reason.
    pub reason: CrashReason,
    /// A number whose meaning depends on the reason: a code or a guest address.
    pub detail: u64,
    /// Time of the crash, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The description.
    pub text: CrashText,
    /// The vCPU at the crash, as the notes `CORE` and `QEMU` of an ELF core.
    pub registers: ArrayVec<u8, REGISTERS_LEN>,
}

/// Why a dump is not complete. Unknown numbers are preserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartialCause(pub u32);

impl PartialCause {
    /// The dump is complete, or no cause was recorded.
    pub const NONE: Self = Self(0);
    /// The machine stopped before the drain had ended.
    pub const CUT_OFF: Self = Self(1);
    /// The disk refused a write for good.
    pub const WRITE_FAILED: Self = Self(2);
    /// Blocks are unreadable or do not match their checksums.
    pub const BAD_BLOCKS: Self = Self(3);

    /// Returns the words for people and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NONE => "cause not recorded",
            Self::CUT_OFF => "the machine stopped before the drain had ended",
            Self::WRITE_FAILED => "the disk refused a write",
            Self::BAD_BLOCKS => "blocks are unreadable or wrong",
            _ => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_disk_are_stable_and_each_has_its_own_word() {
        let numbers = CrashReason::ALL.map(|(reason, _)| reason.0);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let mut words = CrashReason::ALL.map(|(_, word)| word);
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!((CrashReason(0).name(), CrashReason(17).name()), ("none", "other"));
        assert_eq!(CrashReason(9).name(), "instruction not emulated");
    }

    #[test]
    fn the_history_has_the_same_words() {
        let words: Vec<_> = (0..=16).map(|number| CrashReason(number).name()).collect();
        assert_eq!(crate::log::history::words::CRASHES, words);
    }
}
