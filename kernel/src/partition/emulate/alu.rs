//! Arithmetic with flags. SDM 1 "EFLAGS Register", "Status Flags".

use crate::partition::decode::{Alu, OperandExtension, Unary};
use crate::virt::AccessWidth;

pub(super) const CARRY: u64 = 1 << 0;
pub(super) const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
pub(super) const ZERO: u64 = 1 << 6;
pub(super) const SIGN: u64 = 1 << 7;
pub(super) const OVERFLOW: u64 = 1 << 11;
const STATUS: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// Returns `a op b` and the flags; CMP is SUB.
pub(super) fn binary(op: Alu, a: u64, b: u64, width: AccessWidth, rflags: u64) -> (u64, u64) {
    let carry_in = rflags & CARRY;
    let (result, carries) = match op {
        Alu::Add => add(a, b, 0, width),
        Alu::Adc => add(a, b, carry_in, width),
        Alu::Sub | Alu::Cmp => subtract(a, b, 0, width),
        Alu::Sbb => subtract(a, b, carry_in, width),
        Alu::And => (a & b, 0),
        Alu::Or => (a | b, 0),
        Alu::Xor => (a ^ b, 0),
    };
    (result, (rflags & !STATUS) | carries | shape(result, width))
}

/// Returns `op a` and the flags.
pub(super) fn unary(op: Unary, a: u64, width: AccessWidth, rflags: u64) -> (u64, u64) {
    let keep_carry = |(value, flags): (u64, u64)| (value, (flags & !CARRY) | (rflags & CARRY));
    match op {
        Unary::Not => (!a & width.mask(), rflags),
        Unary::Neg => binary(Alu::Sub, 0, a, width, rflags),
        Unary::Inc => keep_carry(binary(Alu::Add, a, 1, width, rflags)),
        Unary::Dec => keep_carry(binary(Alu::Sub, a, 1, width, rflags)),
    }
}

/// Returns `a * b`, both signed and of `width`, and the flags: carry and overflow are set if the
/// product did not fit.
pub(super) fn multiply(a: u64, b: u64, width: AccessWidth, rflags: u64) -> (u64, u64) {
    let (low, high) = product(a, b, OperandExtension::Sign, width);
    let fits = high == if low & sign_bit(width) != 0 { width.mask() } else { 0 };
    (low, rflags & !(CARRY | OVERFLOW) | flag(!fits, CARRY | OVERFLOW))
}

/// Returns both halves of `a * b`, and the flags: carry and overflow are set if the upper half is
/// significant.
pub(super) fn multiply_wide(
    a: u64,
    b: u64,
    extend: OperandExtension,
    width: AccessWidth,
    rflags: u64,
) -> ((u64, u64), u64) {
    let (low, high) = product(a, b, extend, width);
    let empty = if extend == OperandExtension::Sign && low & sign_bit(width) != 0 {
        width.mask()
    } else {
        0
    };
    ((low, high), rflags & !(CARRY | OVERFLOW) | flag(high != empty, CARRY | OVERFLOW))
}

fn product(a: u64, b: u64, extend: OperandExtension, width: AccessWidth) -> (u64, u64) {
    let bits = 8 * width.bytes() as u32;
    let wide = |value: u64| match extend {
        OperandExtension::Zero => i128::from(value & width.mask()),
        OperandExtension::Sign => i128::from(((value << (64 - bits)) as i64) >> (64 - bits)),
    };
    let product = wide(a).wrapping_mul(wide(b));
    (product as u64 & width.mask(), (product >> bits) as u64 & width.mask())
}

pub(super) fn sign_bit(width: AccessWidth) -> u64 {
    width.mask() ^ (width.mask() >> 1)
}

pub(super) fn flag(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

fn add(a: u64, b: u64, carry_in: u64, width: AccessWidth) -> (u64, u64) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry_in);
    let result = wide as u64 & width.mask();
    let flags = flag(wide > u128::from(width.mask()), CARRY)
        | flag((a ^ b ^ result) & 0x10 != 0, ADJUST)
        | flag((a ^ result) & (b ^ result) & sign_bit(width) != 0, OVERFLOW);
    (result, flags)
}

fn subtract(a: u64, b: u64, borrow_in: u64, width: AccessWidth) -> (u64, u64) {
    let result = a.wrapping_sub(b).wrapping_sub(borrow_in) & width.mask();
    let flags = flag(u128::from(a) < u128::from(b) + u128::from(borrow_in), CARRY)
        | flag((a ^ b ^ result) & 0x10 != 0, ADJUST)
        | flag((a ^ b) & (a ^ result) & sign_bit(width) != 0, OVERFLOW);
    (result, flags)
}

/// Returns the flags that depend on the result alone.
pub(super) fn shape(result: u64, width: AccessWidth) -> u64 {
    flag((result as u8).count_ones().is_multiple_of(2), PARITY)
        | flag(result == 0, ZERO)
        | flag(result & sign_bit(width) != 0, SIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_at_the_edges() {
        for (op, a, b, width, result, flags) in [
            (Alu::Add, 0xff, 1, AccessWidth::Byte, 0, CARRY | ADJUST | ZERO | PARITY),
            (Alu::Add, 0x7fff, 1, AccessWidth::Word, 0x8000, OVERFLOW | SIGN | ADJUST | PARITY),
            (Alu::Sub, 0, 1, AccessWidth::Dword, 0xffff_ffff, CARRY | SIGN | ADJUST | PARITY),
            (Alu::Sub, 1 << 63, 1, AccessWidth::Qword, u64::MAX >> 1, OVERFLOW | ADJUST | PARITY),
            (Alu::Cmp, 5, 5, AccessWidth::Byte, 0, ZERO | PARITY),
            (Alu::And, 0x80, 0xff, AccessWidth::Byte, 0x80, SIGN),
            (Alu::Xor, 3, 1, AccessWidth::Dword, 2, 0),
            (Alu::Add, u64::MAX, u64::MAX, AccessWidth::Qword, u64::MAX - 1, CARRY | SIGN | ADJUST),
        ] {
            assert_eq!(
                binary(op, a, b, width, STATUS & !CARRY | 2),
                (result, flags | 2),
                "{op:?} {a:#x} {b:#x}"
            );
        }
    }

    #[test]
    fn a_product_tells_whether_it_fits() {
        assert_eq!(multiply(5, u64::MAX, AccessWidth::Dword, 2), (0xffff_fffb, 2));
        assert_eq!(multiply(0x4000, 2, AccessWidth::Word, 2), (0x8000, 2 | CARRY | OVERFLOW));
        assert_eq!(
            multiply_wide(0xff, 2, OperandExtension::Zero, AccessWidth::Byte, 0),
            ((0xfe, 1), CARRY | OVERFLOW)
        );
        assert_eq!(
            multiply_wide(0xff, 2, OperandExtension::Sign, AccessWidth::Byte, CARRY),
            ((0xfe, 0xff), 0)
        );
        assert_eq!(
            multiply_wide(u64::MAX, u64::MAX, OperandExtension::Zero, AccessWidth::Qword, 0).0,
            (1, u64::MAX - 1)
        );
    }

    #[test]
    fn carry_goes_in_where_it_should_and_stays_where_it_should() {
        assert_eq!(binary(Alu::Adc, 1, 1, AccessWidth::Byte, CARRY).0, 3);
        assert_eq!(
            binary(Alu::Sbb, 0, u64::MAX, AccessWidth::Qword, CARRY),
            (0, CARRY | ZERO | PARITY | ADJUST)
        );
        assert_eq!(unary(Unary::Inc, 0xff, AccessWidth::Byte, 0), (0, ZERO | PARITY | ADJUST));
        assert_eq!(unary(Unary::Dec, 0, AccessWidth::Byte, CARRY).1 & CARRY, CARRY);
        assert_eq!(
            unary(Unary::Neg, 1, AccessWidth::Byte, 0),
            (0xff, CARRY | SIGN | ADJUST | PARITY)
        );
        assert_eq!(unary(Unary::Not, 0xf0, AccessWidth::Byte, 0x202), (0x0f, 0x202));
    }
}
