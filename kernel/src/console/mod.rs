//! The two serial lines: people on the first, programs on the second.
//!
//! ```text
//!   partition's console ─┐                       ┌─ COM1: console or monitor (escape: Ctrl-])
//!   log                 ─┴─> rings ──> pump ─────┤
//!   events              ───> ring  ──> pump ─────┴─ COM2: JSON lines, commands back
//! ```
//!
//! With more than one partition each line of a console stands behind its partition's name ([`tagged`]), and keys go to the
//! one that the command `console` has chosen.
//!
//! Whoever prints only fills a ring; the pump moves bytes when the line takes them. Commands are parsed here and
//! carried out by the partition layer.

pub mod command;
pub mod editor;
pub mod event;
pub mod held;
pub mod hex;
pub mod input;
pub mod keys;
pub mod output;
pub mod ring;
pub mod size;
pub mod tagged;
pub mod utc;
