//! The kinds of disk a node has, behind one type: the pager's loops call no `dyn`.

use crate::block::{Completion, Disk, DiskInfo, Request, SubmitError};

/// A paging device.
pub enum NodeDisk {
    /// In a region of the machine's memory.
    #[cfg(target_os = "none")]
    Memory(crate::block::memory::MemoryDisk<crate::block::dma::DirectMemory>),
}
