//! Scheduling: which vCPU runs on which CPU, and when.
//!
//! ```text
//!   each CPU:  loop ── services' turn ── next of the run queue ──┬─ some ──> a turn of it ──┐
//!                ^                                               ├─ none, but work ─────────┤
//!                │                                               └─ none ──> idle ──────────┤
//!                └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * [`queue`]: the choice of the next vCPU, pure;
//! * [`task`]: work that waits for disks, pure;
//! * `cpu`: each CPU's loop.
//!
//! A vCPU is not bound to a CPU. The run queue's lock
//! ([`rank::RUN_QUEUE`](crate::sync::rank::RUN_QUEUE)) is held only while the queue is read or
//! changed. A runner (`partition::runner`) is used only by the CPU that has its turn; the queue
//! ensures that.

#[cfg(target_os = "none")]
mod cpu;
pub mod queue;
pub mod task;

#[cfg(target_os = "none")]
pub use cpu::{Runners, run};
