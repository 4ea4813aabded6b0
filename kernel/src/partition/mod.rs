//! Partitions: the guests, their vCPUs and their devices.

pub mod acpi;
pub mod cpuid;
pub mod crash;
pub mod decision;
pub mod decode;
pub mod devices;
pub mod emulate;
pub mod fetch;
pub mod loaders;
pub mod msr;
pub mod walk;

#[cfg(test)]
mod fake;
