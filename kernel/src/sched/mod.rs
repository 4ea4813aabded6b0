//! What a CPU does next: services, then the partitions that are its own, else idle.
//!
//! ```text
//!   loop ── services' turn ── step each partition ──┬─ anything to do ──> again
//!     ^                                             └─ nothing ──> idle until an interrupt or the earliest deadline
//!     └─────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Partition `n` runs on CPU `n` modulo their number; a vCPU that has its CPU for itself stays loaded there.

use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, time};
use crate::node::{Node, services};
use crate::partition::runner::{Host, Next, Runner};
use crate::virt::face::EnabledCpu;
use alloc::vec::Vec;

/// Runs `runners` on this CPU until `ended` answers how the machine stops.
pub fn run(node: &'static Node, cpu: CpuId, enabled: &EnabledCpu, mut runners: Vec<Runner>, ended: impl Fn() -> bool) {
    let host = Host { cpu, enabled, runners: runners.len() };
    node.words.leave(cpu);
    loop {
        node.words.quiesce(cpu);
        let mut busy = services::turn(node, cpu);
        let mut deadline = time::now_ns() + services::CONSOLE_INTERVAL_NS;
        for runner in &mut runners {
            let next = core::iter::repeat_with(|| runner.step(node, &host)).find(|next| *next != Next::Onward);
            match next.unwrap_or(Next::Again) {
                Next::Onward | Next::Again => busy = true,
                Next::Wait(Some(at)) => deadline = deadline.min(at),
                Next::Wait(None) => {}
            }
        }
        if ended() {
            return;
        }
        if !busy {
            node.words.idle(cpu);
            interrupts::idle(Some(deadline));
            node.words.leave(cpu);
        }
    }
}
