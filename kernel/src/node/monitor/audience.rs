//! Who gets the answer to a command, and how.

use crate::console::event::ConsoleEvent;
use crate::console::output::{self, print_text};
use crate::console::report;
use alloc::string::String;

/// Who receives the answer to a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The monitor's line.
    People,
    /// The sender of the JSON line with this id.
    Program(u64),
}

impl Audience {
    /// Returns the id of a program's command.
    pub(super) const fn program(self) -> Option<u64> {
        match self {
            Self::People => None,
            Self::Program(id) => Some(id),
        }
    }

    /// Returns whether a few more lines of an answer fit now.
    pub(super) fn has_room(self) -> bool {
        match self {
            // No test pumps the lines.
            _ if cfg!(test) => true,
            Self::People => output::guest_room() > 4096,
            Self::Program(_) => output::has_event_room(),
        }
    }
}

/// Answers a command: the error, or for a program that it was carried out.
pub(super) fn answer(audience: Audience, done: Result<(), String>) {
    match (audience, done) {
        (Audience::Program(id), done) => {
            let error = done.as_ref().err().map(String::as_str);
            report(&ConsoleEvent::Reply { id, ok: done.is_ok(), error });
        }
        (Audience::People, Err(error)) => print_text(format_args!("error: {error}\n")),
        (Audience::People, Ok(())) => {}
    }
}
