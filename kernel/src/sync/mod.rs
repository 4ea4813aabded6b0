//! Locks with ranks, and cells that are written once.
//!
//! A CPU takes locks in ascending [`rank`], so that two CPUs cannot deadlock; debug builds check
//! it. Host interrupts are off in the hypervisor and handlers take no lock, so a lock need not mask
//! them. No lock is held across I/O.

pub mod rank;
mod ranked;

pub use ranked::{RankedGuard, RankedLock};
pub use spin::Once;
