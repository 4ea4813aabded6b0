//! The operator's view of the node: commands, counters and notices of problems.

pub mod commands;
pub mod notices;
pub mod stats;
