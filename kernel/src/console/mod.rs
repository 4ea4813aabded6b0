//! The two serial lines: people on the first, programs on the second.
//!
//! ```text
//!   partition's console ─┐                       ┌─ COM1: console or monitor (escape: Ctrl-])
//!   log                 ─┴─> rings ──> pump ─────┤
//!   events              ───> ring  ──> pump ─────┴─ COM2: JSON lines, commands back
//! ```
//!
//! With more than one partition, each line of a console has its partition's name before it
//! ([`tagged`]), and keys go to the partition chosen by the command `console`.
//!
//! Printing only fills a ring; the pump moves bytes when the line accepts them. Commands are parsed
//! here and carried out by the partition layer.

pub mod command;
pub mod command_error;
pub mod definition;
pub mod editor;
pub mod event;
#[cfg(test)]
pub mod fake;
pub mod held;
pub mod hex;
pub mod input;
pub mod json_text;
pub mod keys;
pub mod output;
pub mod ring;
pub mod tagged;
pub mod utc;

use crate::arch::time;
use event::ConsoleEvent;

/// Reports an event with the current time.
pub fn report(event: &ConsoleEvent<'_>) {
    #[cfg(test)]
    fake::note(event);
    output::report(event, time::now_ns());
}
