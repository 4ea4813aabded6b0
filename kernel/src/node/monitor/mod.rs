//! The operator's view of the node: commands, counters and notices of problems.

mod audience;
pub mod commands;
pub mod notices;
pub mod stats;
pub mod stores;
