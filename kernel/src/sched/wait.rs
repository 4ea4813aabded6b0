//! The wait of a partition's runner while its vCPU does not run.

use crate::mm::object::{MemoryObject, WaitTicket};
use alloc::sync::Arc;

/// The event that ends a runner's wait, besides time and requests.
#[derive(Debug)]
pub enum WaitEvent {
    /// None.
    Own,
    /// Any progress of the node: a space, a drain, memory that is taken apart.
    Anything,
    /// A page or a frame.
    Page(Arc<MemoryObject>, WaitTicket),
}

impl WaitEvent {
    /// Returns whether the wait is over; to be called after an event.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Anything => true,
            Self::Page(object, ticket) => object.ready(*ticket),
        }
    }
}
