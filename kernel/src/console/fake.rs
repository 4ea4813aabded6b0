//! Events that a simulated node has reported, and its guests' output, kept for its test.

use crate::console::event::ConsoleEvent;
use std::cell::RefCell;

std::thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static PRINTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps an event of this thread's node, as debug text.
pub fn note(event: &ConsoleEvent<'_>) {
    TOLD.with(|told| told.borrow_mut().push(format!("{event:?}")));
}

/// Takes the events reported since the last call.
pub fn take() -> Vec<String> {
    TOLD.with(|told| told.take())
}

/// Keeps bytes that were printed on the first line.
pub fn note_printed(bytes: &[u8]) {
    PRINTED.with(|printed| printed.borrow_mut().extend(bytes));
}

/// Takes the text printed since the last call.
pub fn take_printed() -> String {
    String::from_utf8_lossy(&PRINTED.with(|printed| printed.take())).into_owned()
}
