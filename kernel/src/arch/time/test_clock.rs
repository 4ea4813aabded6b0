//! A clock set by a test, for its own thread. While it is set, the counter counts its nanoseconds,
//! and the one-shot timer is a note of its deadline.

use crate::time::{Ns, Ticks};
use core::cell::Cell;

std::thread_local! {
    static NOW_NS: Cell<Option<Ns>> = const { Cell::new(None) };
    static ARMED: Cell<Option<Ticks>> = const { Cell::new(None) };
}

/// Time that a look at the counter takes: a loop that waits for a moment then ends.
const LOOK_NS: Ns = Ns::new(10);

/// Sets the time to `ns` since the start, until it is set again.
pub fn set(ns: Ns) {
    NOW_NS.set(Some(ns));
}

/// Advances the clock by a millisecond if it is set: a loop that waits for a time then ends.
pub fn pass() {
    NOW_NS.set(NOW_NS.get().map(|ns| ns + Ns::from_ms(1)));
}

/// Returns the deadline for which the timer is armed, a value of the counter.
pub fn armed() -> Option<Ticks> {
    ARMED.get()
}

/// Returns the time, if the clock is set.
pub(super) fn read() -> Option<Ns> {
    NOW_NS.get()
}

/// Returns the counter's value, if the clock is set; every look moves the clock on.
pub(in crate::arch) fn look() -> Option<Ticks> {
    NOW_NS.set(NOW_NS.get().map(|ns| ns + LOOK_NS));
    NOW_NS.get().map(|ns| Ticks::new(ns.as_u64()))
}

/// Arms the timer; returns whether the clock is set.
pub(super) fn arm_at(deadline: Ticks) -> bool {
    ARMED.set(Some(deadline));
    NOW_NS.get().is_some()
}
