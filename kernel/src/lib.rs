//! Tidepool, a bare-metal type-1 micro-hypervisor for x86_64.
//!
//! Partitions share a pool of memory that is smaller than the sum of their logical memory. Pages
//! that do not fit are paged to virtio-blk disks. A partition that crashes leaves its memory there
//! as its dump, and runs again meanwhile. For an overview see `docs/architecture.md`; calls go
//! downward only:
//!
//! ```text
//! node ──> partition ──> crash, host ──> storage, task ──> paging, pool ──> block, mm ──> virt ──> arch
//! ```
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

extern crate alloc;

pub mod addr;
pub mod arch;
pub mod archive;
pub mod block;
pub mod config;
pub mod console;
pub mod crash;
pub mod dump;
pub mod host;
pub mod images;
#[cfg(target_os = "none")]
pub mod init;
pub mod log;
pub mod members;
pub mod mm;
pub mod node;
pub mod paging;
pub mod partition;
pub mod partition_id;
pub mod pci;
pub mod pool;
pub mod sched;
pub mod size;
pub mod space;
pub mod storage;
pub mod sync;
pub mod task;
pub mod time;
pub mod virt;
