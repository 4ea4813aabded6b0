//! Words of the local APIC, named as in the manual. Pure; the driver and the guest's APIC share
//! them.
//!
//! SDM 3A "Local Vector Table", "Interrupt Command Register (ICR)". A field that the manual
//! reserves has no name and keeps its value.

use bitfield_struct::bitfield;

/// Values of the field "delivery mode".
pub mod delivery {
    /// The word's vector.
    pub const FIXED: u8 = 0;
    /// As [`FIXED`], at one CPU of several.
    pub const LOWEST_PRIORITY: u8 = 1;
    /// The NMI.
    pub const NMI: u8 = 4;
    /// INIT.
    pub const INIT: u8 = 5;
    /// Start-up: the vector is the page of the first instruction.
    pub const STARTUP: u8 = 6;
}

/// Values of the timer's field "timer mode".
pub mod timer_mode {
    /// Counts down once.
    pub const ONE_SHOT: u8 = 0;
    /// Counts down again and again.
    pub const PERIODIC: u8 = 1;
    /// Expires when the TSC reaches a value.
    pub const TSC_DEADLINE: u8 = 2;
}

/// Values of the command's field "destination shorthand".
pub mod shorthand {
    /// The field "destination" counts.
    pub const NONE: u8 = 0;
    /// This CPU.
    pub const SELF: u8 = 1;
    /// All CPUs.
    pub const ALL: u8 = 2;
    /// All CPUs but this one.
    pub const ALL_BUT_SELF: u8 = 3;
}

/// An entry of the local vector table.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LocalVector {
    /// The interrupt vector.
    pub vector: u8,
    /// See [`delivery`].
    #[bits(3)]
    pub delivery_mode: u8,
    __: bool,
    /// "Delivery status": the interrupt is being sent.
    pub pending: bool,
    /// "Interrupt input pin polarity".
    pub active_low: bool,
    /// A level-triggered interrupt is being handled.
    pub remote_irr: bool,
    /// "Trigger mode": level, not edge.
    pub level: bool,
    /// No interrupt is sent.
    pub masked: bool,
    /// See [`timer_mode`].
    #[bits(2)]
    pub timer_mode: u8,
    #[bits(13)]
    __: u16,
}

/// The interrupt command register, in the layout of x2APIC.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InterruptCommand {
    /// The interrupt vector.
    pub vector: u8,
    /// See [`delivery`].
    #[bits(3)]
    pub delivery_mode: u8,
    /// "Destination mode": logical, not physical.
    pub logical: bool,
    /// "Delivery status": the command is being sent.
    pub pending: bool,
    __: bool,
    /// "Level": set in all commands of current CPUs.
    pub assert: bool,
    /// "Trigger mode": level, not edge.
    pub level: bool,
    #[bits(2)]
    __: u8,
    /// See [`shorthand`].
    #[bits(2)]
    pub shorthand: u8,
    #[bits(12)]
    __: u16,
    /// The destination. xAPIC has it in the upper 8 bits.
    pub destination: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::word_layout::assert_field;

    #[test]
    fn vector_table_entries_have_the_manuals_bits() {
        use LocalVector as Word;
        assert_field(0xffu32, u8::MAX, Word::with_vector, Word::vector);
        assert_field(0x700u32, 7, Word::with_delivery_mode, Word::delivery_mode);
        assert_field(0x1000u32, true, Word::with_pending, Word::pending);
        assert_field(0x2000u32, true, Word::with_active_low, Word::active_low);
        assert_field(0x4000u32, true, Word::with_remote_irr, Word::remote_irr);
        assert_field(0x8000u32, true, Word::with_level, Word::level);
        assert_field(0x1_0000u32, true, Word::with_masked, Word::masked);
        assert_field(0x6_0000u32, 3, Word::with_timer_mode, Word::timer_mode);
    }

    #[test]
    fn commands_have_the_manuals_bits() {
        use InterruptCommand as Word;
        assert_field(0xffu64, u8::MAX, Word::with_vector, Word::vector);
        assert_field(0x700u64, 7, Word::with_delivery_mode, Word::delivery_mode);
        assert_field(0x800u64, true, Word::with_logical, Word::logical);
        assert_field(0x1000u64, true, Word::with_pending, Word::pending);
        assert_field(0x4000u64, true, Word::with_assert, Word::assert);
        assert_field(0x8000u64, true, Word::with_level, Word::level);
        assert_field(0xc_0000u64, 3, Word::with_shorthand, Word::shorthand);
        assert_field(!0xffff_ffffu64, u32::MAX, Word::with_destination, Word::destination);
    }
}
