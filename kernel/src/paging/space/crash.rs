//! The crash that a space keeps: why, when, in words, with which registers, and the name of its dump.

use arrayvec::{ArrayString, ArrayVec};

use super::raw::{REGISTERS_LEN, TEXT_LEN};
use super::uuid::Uuid;

/// Why the owner crashed. Unknown numbers stay what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashReason(pub u32);

impl CrashReason {
    /// No reason was recorded.
    pub const NONE: Self = Self(0);
    /// A triple fault.
    pub const TRIPLE_FAULT: Self = Self(1);
    /// The guest said so by pvpanic.
    pub const PVPANIC: Self = Self(2);
    /// The guest stored a panic's log by ERST.
    pub const ERST: Self = Self(3);
    /// An operator's command.
    pub const OPERATOR: Self = Self(4);
    /// A page could not be read back.
    pub const LOST_PAGE: Self = Self(5);
    /// The processor refused to enter the guest.
    pub const ENTRY_FAILED: Self = Self(6);
    /// A watchdog.
    pub const WATCHDOG: Self = Self(7);
    /// The CPU left the guest for a reason that the hypervisor does not handle.
    pub const UNKNOWN_EXIT: Self = Self(8);
    /// An instruction at a device that the hypervisor does not emulate.
    pub const NOT_EMULATED: Self = Self(9);
    /// Instructions were fetched from where no memory is.
    pub const EXECUTED_NOTHING: Self = Self(10);
    /// Page tables or a stack lie where no memory is.
    pub const NO_MEMORY: Self = Self(11);
    /// The paging device took no pages.
    pub const UNWRITABLE: Self = Self(12);
    /// The guest switches tasks by the hardware.
    pub const TASK_SWITCH: Self = Self(13);
    /// The host's CPU has reported an error of the machine.
    pub const MACHINE_CHECK: Self = Self(14);

    /// Every reason that has a number, with its word for people and events.
    pub const ALL: [(Self, &'static str); 14] = [
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
    ];

    /// Returns the word for people and events.
    pub fn name(self) -> &'static str {
        let known = Self::ALL.into_iter().find(|(reason, _)| *reason == self);
        known.map_or(if self == Self::NONE { "none" } else { "other" }, |(_, name)| name)
    }
}

/// A crash in words: the guest's own if it said any, else the reason's. At most 128 bytes.
pub type CrashText = ArrayString<TEXT_LEN>;

/// The crash that a dump is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crash {
    /// The dump's name, which no other dump ever has; of an [`super::RecordFormat::Original`] record it is
    /// computed from what such a record says.
    pub name: Uuid,
    /// Why.
    pub reason: CrashReason,
    /// A number that belongs to the reason: a code or a guest address.
    pub detail: u64,
    /// When: nanoseconds since 1970.
    pub time_ns: u64,
    /// In words.
    pub text: CrashText,
    /// The vCPU at the crash, as the notes `CORE` and `QEMU` of an ELF core.
    pub registers: ArrayVec<u8, REGISTERS_LEN>,
}

/// Why a dump is not whole. Unknown numbers stay what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartialCause(pub u32);

impl PartialCause {
    /// It is whole, or no cause was recorded.
    pub const NONE: Self = Self(0);
    /// The machine stopped before the drain had ended.
    pub const CUT_OFF: Self = Self(1);
    /// The disk refused a write for good.
    pub const WRITE_FAILED: Self = Self(2);
    /// Blocks are unreadable or not what their checksums say.
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
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        let mut words = CrashReason::ALL.map(|(_, word)| word);
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!((CrashReason(0).name(), CrashReason(15).name()), ("none", "other"));
        assert_eq!(CrashReason(9).name(), "instruction not emulated");
    }
}
