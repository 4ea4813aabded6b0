//! A disk of the node, of whatever kind, as one type for the pager.
//!
//! One call through a table a request, which carries many pages: not worth an enum of drivers.

use crate::addr::Hpa;
use crate::block::discover::Found;
use crate::block::{Completion, Disk, DiskInfo, Request, SubmitError};
use core::sync::atomic::{AtomicBool, Ordering};

/// A paging device.
pub struct NodeDisk {
    found: Found,
    info: DiskInfo,
    /// Another node has taken it.
    is_given_up: AtomicBool,
}

impl NodeDisk {
    /// Wraps what start-up has found.
    pub fn new(found: Found) -> Self {
        Self { found, info: found.disk.info(), is_given_up: AtomicBool::new(false) }
    }

    /// Lets nothing through any more: another node has taken the disk.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
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
        if self.is_given_up.load(Ordering::Acquire) {
            // Nothing of the node's is read from it either: whoever has it now may have written anything.
            return Err(SubmitError::Failed);
        }
        self.found.disk.submit(request)
    }

    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize {
        self.found.disk.poll(now_ns, out)
    }

    fn is_dead(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire) || self.found.disk.is_dead()
    }
}
