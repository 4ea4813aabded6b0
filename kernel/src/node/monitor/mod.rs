//! The operator's view of the node: commands, counters and notices of problems.

pub mod commands;
mod members;
pub mod notices;
pub mod stats;
