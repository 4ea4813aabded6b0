//! Events that a simulated node has reported, kept for its test.

use crate::console::event::ConsoleEvent;
use std::cell::RefCell;

std::thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an event of this thread's node, as debug text.
pub fn note(event: &ConsoleEvent<'_>) {
    TOLD.with(|told| told.borrow_mut().push(format!("{event:?}")));
}

/// Takes the events reported since the last call.
pub fn take() -> Vec<String> {
    TOLD.with(|told| told.take())
}
