//! Partitions: the guests, their vCPUs and their devices.

pub mod acpi;
pub mod cpuid;
pub mod crash;
pub mod decision;
pub mod devices;
pub mod loaders;
pub mod msr;

#[cfg(test)]
mod fake;
