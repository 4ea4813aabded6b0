//! Bits: tests, shifts, rotations, searches, conditions. Pure. SDM 1 "Status Flags".

use super::alu::{CARRY, OVERFLOW, PARITY, SIGN, ZERO, flag, shape, sign_bit};
use crate::partition::decode::{BitOp, BitScan, ConditionCode, ShiftOperation};
use crate::virt::AccessWidth;

/// Returns `value` after the operation on its bit `bit` (modulo the width), and the flags.
pub(super) fn bit(op: BitOp, value: u64, bit: u64, width: AccessWidth, rflags: u64) -> (u64, u64) {
    let mask = 1 << (bit % bits(width));
    let new = match op {
        BitOp::Test => value,
        BitOp::Set => value | mask,
        BitOp::Reset => value & !mask,
        BitOp::Complement => value ^ mask,
    };
    (new, rflags & !CARRY | flag(value & mask != 0, CARRY))
}

const fn bits(width: AccessWidth) -> u64 {
    8 * width.bytes() as u64
}

/// Returns `value` shifted or rotated by `count`, and the flags. Overflow is defined for a count of
/// 1 only; for others it is computed from the last step.
pub(super) fn shift(
    op: ShiftOperation,
    value: u64,
    count: u8,
    width: AccessWidth,
    rflags: u64,
) -> (u64, u64) {
    let count = u64::from(count) & if width == AccessWidth::Qword { 63 } else { 31 };
    if count == 0 {
        return (value, rflags);
    }
    let step = |(value, rflags): (u64, u64)| one_step(op, value, width, rflags);
    let (new, flags) = (0..count).fold((value, rflags), |state, _| step(state));
    let flags = match op {
        ShiftOperation::Left | ShiftOperation::Right | ShiftOperation::ArithmeticRight => {
            flags & !(PARITY | ZERO | SIGN) | shape(new, width)
        }
        _ => flags,
    };
    (new, flags)
}

/// Moves all bits by one place, and sets carry and overflow.
fn one_step(op: ShiftOperation, value: u64, width: AccessWidth, rflags: u64) -> (u64, u64) {
    let top = sign_bit(width);
    let (carry_in, high, low) = (rflags & CARRY != 0, value & top != 0, value & 1 != 0);
    let fill_low = |bit: bool| (value << 1 | u64::from(bit)) & width.mask();
    let fill_high = |bit: bool| value >> 1 | if bit { top } else { 0 };
    let (new, carry) = match op {
        ShiftOperation::RotateLeft => (fill_low(high), high),
        ShiftOperation::RotateCarryLeft => (fill_low(carry_in), high),
        ShiftOperation::Left => (fill_low(false), high),
        ShiftOperation::RotateRight => (fill_high(low), low),
        ShiftOperation::RotateCarryRight => (fill_high(carry_in), low),
        ShiftOperation::Right => (fill_high(false), low),
        ShiftOperation::ArithmeticRight => (fill_high(high), low),
    };
    let overflow = (new ^ value) & top != 0;
    (new, rflags & !(CARRY | OVERFLOW) | flag(carry, CARRY) | flag(overflow, OVERFLOW))
}

/// Returns the result of a search of `value`, or `old` if it finds nothing, and the flags.
pub(super) fn scan(scan: BitScan, value: u64, old: u64, rflags: u64) -> (u64, u64) {
    let found = match scan {
        BitScan::Count => u64::from(value.count_ones()),
        _ if value == 0 => old,
        BitScan::Forward => u64::from(value.trailing_zeros()),
        BitScan::Reverse => u64::from(63 - value.leading_zeros()),
    };
    let cleared = match scan {
        BitScan::Count => CARRY | PARITY | SIGN | OVERFLOW | ZERO | 1 << 4,
        BitScan::Forward | BitScan::Reverse => ZERO,
    };
    (found, rflags & !cleared | flag(value == 0, ZERO))
}

/// Tells whether a condition holds.
pub(super) const fn holds(condition: ConditionCode, rflags: u64) -> bool {
    let less = (rflags & SIGN != 0) != (rflags & OVERFLOW != 0);
    let base = match condition.0 >> 1 {
        0 => rflags & OVERFLOW != 0,
        1 => rflags & CARRY != 0,
        2 => rflags & ZERO != 0,
        3 => rflags & (CARRY | ZERO) != 0,
        4 => rflags & SIGN != 0,
        5 => rflags & PARITY != 0,
        6 => less,
        _ => less || rflags & ZERO != 0,
    };
    base != (condition.0 & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_goes_to_carry_and_changes() {
        let run = |op, number| bit(op, 0b100, number, AccessWidth::Word, 2);
        assert_eq!(
            [run(BitOp::Test, 2), run(BitOp::Test, 18), run(BitOp::Test, 1)],
            [(4, 3), (4, 3), (4, 2)]
        );
        assert_eq!(
            [run(BitOp::Set, 0), run(BitOp::Reset, 2), run(BitOp::Complement, 2)],
            [(5, 2), (0, 3), (0, 3)]
        );
    }

    #[test]
    fn shifts_and_rotations_at_the_edges() {
        let flags = CARRY | OVERFLOW | SIGN | ZERO | PARITY;
        for (op, value, count, width, result, wanted) in [
            (ShiftOperation::Left, 0x80, 1, AccessWidth::Byte, 0, CARRY | OVERFLOW | ZERO | PARITY),
            (
                ShiftOperation::Left,
                1,
                31,
                AccessWidth::Dword,
                0x8000_0000,
                OVERFLOW | SIGN | PARITY,
            ),
            (
                ShiftOperation::Right,
                0x8001,
                1,
                AccessWidth::Word,
                0x4000,
                CARRY | OVERFLOW | PARITY,
            ),
            (ShiftOperation::ArithmeticRight, 0x80, 7, AccessWidth::Byte, 0xff, SIGN | PARITY),
            (ShiftOperation::RotateLeft, 0x81, 1, AccessWidth::Byte, 0x03, CARRY | OVERFLOW),
            (ShiftOperation::RotateRight, 1, 1, AccessWidth::Qword, 1 << 63, CARRY | OVERFLOW),
            (ShiftOperation::RotateCarryLeft, 0, 1, AccessWidth::Byte, 0, 0),
            (ShiftOperation::RotateCarryRight, 1, 1, AccessWidth::Byte, 0, CARRY),
        ] {
            let (new, rflags) = shift(op, value, count, width, 0);
            assert_eq!((new, rflags & flags), (result, wanted), "{op:?} {value:#x}");
        }
        assert_eq!(
            shift(ShiftOperation::RotateCarryLeft, 0x80, 2, AccessWidth::Byte, CARRY),
            (3, 0),
            "the carry goes round"
        );
        assert_eq!(
            shift(ShiftOperation::Left, 0x55, 32, AccessWidth::Dword, 0xff),
            (0x55, 0xff),
            "a count of 0 changes no flag"
        );
    }

    #[test]
    fn a_search_finds_the_lowest_or_the_highest() {
        assert_eq!(scan(BitScan::Forward, 0x50, 9, CARRY), (4, CARRY));
        assert_eq!(scan(BitScan::Reverse, 0x50, 9, 0), (6, 0));
        assert_eq!(scan(BitScan::Forward, 0, 9, 0), (9, ZERO));
        assert_eq!(scan(BitScan::Count, 0xff, 9, CARRY | ZERO), (8, 0));
    }

    #[test]
    fn a_condition_and_its_opposite_never_agree() {
        for rflags in (0..0x1000).map(|bits| bits | 2) {
            for pair in 0..8 {
                assert_ne!(
                    holds(ConditionCode(pair * 2), rflags),
                    holds(ConditionCode(pair * 2 + 1), rflags)
                );
            }
        }
        assert!(
            holds(ConditionCode(4), ZERO)
                && holds(ConditionCode(12), SIGN)
                && !holds(ConditionCode(12), SIGN | OVERFLOW)
        );
        assert!(
            holds(ConditionCode(6), CARRY)
                && holds(ConditionCode(14), ZERO)
                && holds(ConditionCode(15), 0)
        );
    }
}
