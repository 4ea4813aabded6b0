//! A CPU's loop: services, then the next vCPU of the run queue, else idle.

use super::Node;
use super::services::{self, IdleLimit};
use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, time};
use crate::host::Host;
use crate::partition::runner::{HostCpu, Runner, StepOutcome};
use crate::sched::queue::{IdleAnswer, VcpuId, VcpuTurn, VcpuWish};
use crate::sync::{RankedGuard, RankedLock, rank};
use crate::time::Ns;
use crate::virt::face::EnabledCpu;
use alloc::vec::Vec;

/// Longest turn while services have more work, so that they run in between.
const BUSY_TURN_NS: Ns = Ns::from_ms(1);

/// All runners, by vCPU number. These locks are never contended: the queue gives a vCPU to one CPU.
pub struct Runners(Vec<RankedLock<Runner, { rank::PARTITION }>>);

impl Runners {
    /// Takes the runners in the order of their vCPU numbers.
    pub fn new(runners: impl IntoIterator<Item = Runner>) -> Self {
        Self(runners.into_iter().map(RankedLock::new).collect())
    }

    fn of(&self, vcpu: VcpuId) -> RankedGuard<'_, Runner, { rank::PARTITION }> {
        self.0[vcpu.index()].try_lock().expect("the run queue gives a vCPU to one CPU")
    }
}

/// Runs vCPUs on this CPU until `ended` returns true.
pub fn run(
    node: &'static Node,
    cpu: CpuId,
    enabled: &EnabledCpu,
    runners: &Runners,
    ended: impl Fn() -> bool,
) {
    let on = HostCpu { cpu, enabled };
    node.host.words.leave(cpu);
    loop {
        node.host.words.quiesce(cpu);
        let rest = services::turn(node, cpu);
        if ended() {
            return;
        }
        if give_turn(node.host, &on, runners, rest) {
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
pub(super) fn give_turn(
    host: &'static Host,
    on: &HostCpu<'_>,
    runners: &Runners,
    rest: IdleLimit,
) -> bool {
    let now = time::now_ns();
    let next = host.run_queue.lock().next(on.cpu, now);
    let Some(turn) = next else { return false };
    let until = match rest {
        IdleLimit::None | IdleLimit::Short => turn.until.min(now + BUSY_TURN_NS),
        IdleLimit::Long => turn.until,
    };
    take(host, on, runners, VcpuTurn { until, ..turn });
    true
}

/// Gives a vCPU its turn.
fn take(host: &'static Host, on: &HostCpu<'_>, runners: &Runners, turn: VcpuTurn) {
    if let Some(held) = turn.evict {
        runners.of(held).move_out(on);
        let kicks = host.run_queue.lock().given_away(held);
        host.kick(kicks);
    }
    let mut runner = runners.of(turn.vcpu);
    let next = core::iter::repeat_with(|| runner.step(host, on, turn.until))
        .find(|next| !matches!(next, StepOutcome::Onward));
    let resident = runner.resident();
    drop(runner);
    let wish = match next {
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
