//! Partitions: the guests, their vCPUs and their devices.

pub mod acpi;
pub mod clones;
pub mod command_line;
pub mod cpuid;
pub mod decision;
pub mod decode;
mod device_memory;
pub mod devices;
mod duties;
pub mod emulate;
pub mod ending;
pub mod exit_counts;
mod exits;
pub mod fetch;
pub mod hang;
pub mod identity;
pub mod last_words;
pub mod lead;
pub mod lengths;
pub mod lifecycle;
pub mod loaders;
mod loading;
pub mod machine;
pub mod msr;
pub mod offer;
pub mod quick_exit;
pub mod restarts;
pub mod resume;
pub mod runner;
pub mod saved;
mod serving;
pub mod shadow;
pub mod shared;
pub mod shutdown;
pub mod skip;
pub mod stall;
pub mod view;
pub mod walk;

#[cfg(test)]
mod fake;
