//! A CPU's loop: services, then the next vCPU of the run queue, else idle.

use super::Node;
use super::services::{self, IdleLimit};
use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, time};
use crate::partition::runner::{HostCpu, StepOutcome};
use crate::sched::queue::{IdleAnswer, VcpuTurn, VcpuWish};
use crate::time::Ns;
use crate::virt::face::EnabledCpu;

/// Longest turn while services have more work, so that they run in between.
const BUSY_TURN_NS: Ns = Ns::from_ms(1);
/// A vCPU is added to the queue with its runner, and leaves both in its last turn.
const HAS_RUNNER: &str = "a vCPU of the queue has a runner";

/// Runs vCPUs on this CPU until `ended` returns true.
pub fn run(node: &'static Node, cpu: CpuId, enabled: &EnabledCpu, ended: impl Fn() -> bool) {
    let on = HostCpu { cpu, enabled };
    node.host.words.leave(cpu);
    loop {
        node.host.words.quiesce(cpu);
        let rest = services::turn(node, cpu);
        if ended() {
            return;
        }
        if give_turn(node, &on, rest) {
            continue;
        }
        match rest {
            IdleLimit::None => {}
            IdleLimit::Short => idle(node, cpu, services::FLUSH_INTERVAL_NS),
            IdleLimit::Long => idle(node, cpu, services::CONSOLE_INTERVAL_NS),
        }
    }
}

/// Gives the next vCPU of the queue its turn, a short one if the services have more work. Returns
/// whether a vCPU was ready.
pub(super) fn give_turn(node: &'static Node, on: &HostCpu<'_>, rest: IdleLimit) -> bool {
    let now = time::now_ns();
    let next = node.host.run_queue.lock().next(on.cpu, now);
    let Some(turn) = next else { return false };
    let until = match rest {
        IdleLimit::None | IdleLimit::Short => turn.until.min(now + BUSY_TURN_NS),
        IdleLimit::Long => turn.until,
    };
    take(node, on, VcpuTurn { until, ..turn });
    true
}

/// Gives a vCPU its turn.
///
/// # Panics
/// If a vCPU of the queue has no runner (our bug).
fn take(node: &'static Node, on: &HostCpu<'_>, turn: VcpuTurn) {
    let host = node.host;
    if let Some(held) = turn.evict {
        node.registry.runner(held).as_mut().expect(HAS_RUNNER).move_out(on);
        let kicks = host.run_queue.lock().given_away(held);
        host.kick(kicks);
    }
    let mut slot = node.registry.runner(turn.vcpu);
    let runner = slot.as_mut().expect(HAS_RUNNER);
    let next = core::iter::repeat_with(|| runner.step(host, on, turn.until))
        .find(|next| !matches!(next, StepOutcome::Onward));
    let resident = runner.resident();
    drop(slot);
    let wish = match next {
        Some(StepOutcome::Gone) => return node.registry.vacate(host, turn.vcpu),
        Some(StepOutcome::Wait(on, until)) => VcpuWish::Wait { on, until },
        _ => VcpuWish::Again,
    };
    host.run_queue.lock().put_back(turn.vcpu, time::now_ns(), wish, resident);
}

/// Waits for an interrupt, at most `most_ns`, unless there is work by now.
fn idle(node: &'static Node, cpu: CpuId, most_ns: Ns) {
    let now = time::now_ns();
    let look = now + most_ns;
    let until = match node.host.run_queue.lock().idle(cpu, now) {
        IdleAnswer::HasWork => return,
        IdleAnswer::UntilKicked => look,
        IdleAnswer::Until(deadline) => deadline.min(look),
    };
    node.host.words.idle(cpu);
    interrupts::idle(Some(until));
    node.host.words.leave(cpu);
}
