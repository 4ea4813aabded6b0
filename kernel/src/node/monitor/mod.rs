//! The operator's view of the node: commands, counters and notices of problems.

mod audience;
pub mod commands;
mod members;
mod moves;
pub mod notices;
pub mod stats;
pub mod stores;
