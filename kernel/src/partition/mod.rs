//! Partitions: the guests, their vCPUs and their devices.

pub mod cpuid;
pub mod crash;
pub mod decision;
pub mod devices;
pub mod msr;

#[cfg(test)]
mod fake;
