//! Stand-ins for privileged instructions that unit tests reach: an operating system does not let
//! its programs execute them.
//!
//! XCR0 is a number of each thread, which is a CPU with one source of interrupts: kicks from
//! itself. The extended state itself stays as it is: the tests belong to
//! the compiler, which uses these registers.

use core::cell::Cell;

std::thread_local! {
    static XCR0: Cell<u64> = const { Cell::new(1) };
    static IS_KICKED: Cell<bool> = const { Cell::new(false) };
}

/// Makes an interrupt pending, as a kick from this CPU does.
pub fn raise_kick() {
    IS_KICKED.set(true);
}

/// Returns whether an interrupt is pending.
pub fn is_kicked() -> bool {
    IS_KICKED.get()
}

/// Stands in for the instructions: the pending interrupt is taken.
///
/// # Safety
/// As there.
pub unsafe fn interrupt_window() {
    IS_KICKED.set(false);
}

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
