//! A disk of the node, of whatever kind, as one type for the pager.
//!
//! One call through a table a request, which carries many pages: not worth an enum of drivers.

use crate::addr::Hpa;
use crate::block::discover::Found;
use crate::block::{Completion, Disk, DiskInfo, Request, SubmitError};

/// A paging device.
pub struct NodeDisk {
    found: Found,
    info: DiskInfo,
}

impl NodeDisk {
    /// Wraps what start-up has found.
    pub fn new(found: Found) -> Self {
        Self { found, info: found.disk.info() }
    }

    /// Returns where the disk's first byte is, if it is memory-backed.
    pub const fn base(&self) -> Option<Hpa> {
        self.found.base
    }
}

impl Disk for NodeDisk {
    fn info(&self) -> DiskInfo {
        self.info
    }

    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError> {
        self.found.disk.submit(request)
    }

    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize {
        self.found.disk.poll(now_ns, out)
    }
}
