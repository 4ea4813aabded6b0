//! Partitions: the guests, their vCPUs and their devices.

pub mod acpi;
pub mod cpuid;
pub mod crash;
pub mod decision;
pub mod decode;
pub mod devices;
pub mod emulate;
pub mod ending;
#[cfg(target_os = "none")]
mod exits;
pub mod fetch;
pub mod loaders;
#[cfg(target_os = "none")]
pub mod machine;
pub mod msr;
#[cfg(target_os = "none")]
pub mod runner;
pub mod shared;
#[cfg(target_os = "none")]
pub mod skip;
pub mod walk;

#[cfg(test)]
mod fake;
