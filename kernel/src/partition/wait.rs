//! What a partition's runner waits for while its vCPU does not run.

use crate::mm::object::{MemoryObject, WaitTicket};
use alloc::sync::Arc;

/// What ends a runner's wait, besides time and requests.
#[derive(Debug)]
pub enum WaitFor {
    /// Nothing else.
    Own,
    /// Whatever the node gets done: a space, a drain, memory that is taken apart.
    Anything,
    /// A page or a frame.
    Page(Arc<MemoryObject>, WaitTicket),
}

impl WaitFor {
    /// Returns whether the wait is over, now that something has happened.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Anything => true,
            Self::Page(object, ticket) => object.ready(*ticket),
        }
    }
}
