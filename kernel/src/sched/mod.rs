//! Which vCPU runs where and when.
//!
//! ```text
//!   each CPU:  loop ── services' turn ── next of the run queue ──┬─ some ──> a turn of it ──┐
//!                ^                                               ├─ none, but work ─────────┤
//!                │                                               └─ none ──> idle ──────────┤
//!                └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * [`queue`]: who is next, without a machine;
//! * [`task`]: work that waits for disks, without a machine;
//! * `cpu`: what a CPU does with the answer.
//!
//! A vCPU is bound to no CPU. The run queue's lock ([`rank::RUN_QUEUE`](crate::sync::rank::RUN_QUEUE)) is held for a look only; a
//! runner (`partition::runner`) is reached by the CPU whose turn it has, which the queue sees to.

#[cfg(target_os = "none")]
mod cpu;
pub mod queue;
pub mod task;

#[cfg(target_os = "none")]
pub use cpu::{Runners, run};
