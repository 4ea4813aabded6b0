//! A partition's crash: its record, the restart gate, and the task that writes its dump.

pub mod dumps;
pub mod gate;
mod note_search;
pub mod record;
pub mod suspend;
