//! The two serial lines: people on the first, programs on the second.
//!
//! ```text
//!   partition's console ─┐                       ┌─ COM1: console or monitor (escape: Ctrl-])
//!   log                 ─┴─> rings ──> pump ─────┤
//!   events              ───> ring  ──> pump ─────┴─ COM2: JSON lines, commands back
//! ```
//!
//! Whoever prints only fills a ring; the pump moves bytes when the line takes them. Commands are parsed here and
//! carried out by the partition layer.

pub mod command;
pub mod event;
pub mod input;
pub mod output;
pub mod ring;
