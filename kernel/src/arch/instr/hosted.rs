//! Stand-ins for privileged instructions that unit tests reach: an operating system does not let
//! its programs execute them.
//!
//! XCR0 is a number of each thread. The extended state itself stays as it is: the tests belong to
//! the compiler, which uses these registers.

use core::cell::Cell;

std::thread_local! {
    static XCR0: Cell<u64> = const { Cell::new(1) };
}

/// Stands in for the instruction: nothing interrupts a test.
///
/// # Safety
/// As there.
pub unsafe fn interrupt_window() {}

/// Stands in for [`super::state::xgetbv`].
///
/// # Safety
/// As there.
pub unsafe fn xgetbv(register: u32) -> u64 {
    assert_eq!(register, 0, "XCR0 is the only such register");
    XCR0.get()
}

/// Stands in for [`super::state::xsetbv`].
///
/// # Safety
/// As there.
pub unsafe fn xsetbv(register: u32, value: u64) {
    assert_eq!(register, 0, "XCR0 is the only such register");
    XCR0.set(value);
}

/// Stands in for [`super::state::xsave`]: the area keeps what it has.
///
/// # Safety
/// As there.
pub unsafe fn xsave(_: *mut u8) {}

/// Stands in for [`super::state::xrstor`]: the registers keep what they have.
///
/// # Safety
/// As there.
pub unsafe fn xrstor(_: *const u8) {}
