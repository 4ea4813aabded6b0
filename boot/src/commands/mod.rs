//! What the command line offers, one module a command.

pub mod bench;
pub mod boot;
pub mod demo;
pub mod dump;
pub mod setup;
pub mod volume;
