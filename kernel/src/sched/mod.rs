//! What a CPU does next: services, then the partitions that are its own, else idle.
//!
//! ```text
//!   loop ── services' turn ── step each partition ──┬─ anything to do ──> again
//!     ^                                             └─ nothing ──> idle until an interrupt or the earliest deadline
//!     └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One vCPU a CPU so far: partition `n` runs on CPU `n` modulo their number and stays loaded there.

use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, time};
use crate::node::{Node, services};
use crate::partition::runner::{Next, Runner};
use alloc::vec::Vec;

/// Runs `runners` on this CPU until `ended` answers how the machine stops.
pub fn run(node: &'static Node, cpu: CpuId, mut runners: Vec<Runner>, mut ended: impl FnMut(&[Runner]) -> bool) {
    node.words.leave(cpu);
    loop {
        node.words.quiesce(cpu);
        let mut busy = services::turn(node, cpu);
        let mut deadline = time::now_ns() + services::CONSOLE_INTERVAL_NS;
        for runner in &mut runners {
            match runner.step(node, cpu) {
                Next::Again => busy = true,
                Next::Wait(Some(at)) => deadline = deadline.min(at),
                Next::Wait(None) => {}
            }
        }
        if ended(&runners) {
            return;
        }
        if !busy {
            node.words.idle(cpu);
            interrupts::idle(Some(deadline));
            node.words.leave(cpu);
        }
    }
}
