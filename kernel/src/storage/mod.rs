//! The paging devices and their spaces, while the machine runs.

pub mod cluster_disks;
pub mod describe;
pub mod disk;
pub mod log_desk;
pub mod spaces;
pub mod stores;

pub use disk::{DiskLease, NodeDisk};
