//! What the command line offers, one module a command.

pub mod bench;
pub mod boot;
pub mod demo;
pub mod doctor;
pub mod dump;
pub mod image;
pub mod readme;
pub mod setup;
pub mod volume;
