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
//! * [`wait`]: what a vCPU may wait for.
//!
//! A vCPU is not bound to a CPU. The run queue's lock
//! ([`rank::RUN_QUEUE`](crate::sync::rank::RUN_QUEUE)) is held only while the queue is read or
//! changed. A runner (`partition::runner`) is used only by the CPU that has its turn; the queue
//! ensures that.

pub mod queue;
pub mod wait;
