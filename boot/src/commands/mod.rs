//! The commands of the command line, one module each.

pub mod bench;
pub mod boot;
pub mod cluster;
pub mod demo;
pub mod doctor;
pub mod dump;
pub mod image;
pub mod readme;
pub mod setup;
pub mod store;
pub mod volume;
