//! Partitions: the guests, their vCPUs and their devices.

pub mod crash;
pub mod decision;
pub mod devices;

#[cfg(test)]
mod fake;
