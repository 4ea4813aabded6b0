//! The thread of control of a partition: its life from one incarnation to the next.
//!
//! ```text
//!             space ready              loaded               crash
//!   waiting ──────────────> loading ────────> running ───────────────> crashed
//!      ^                                         │                       │ restart gate opens
//!      │                                         │ reset, power off      │
//!      │     old memory gone, space renewed      v                       │
//!      ├<──────────────────────────────────── retiring ──> stopped       │
//!      ├<────────────────────────────────────────────────────────────────┘
//!      └<── start ── stopped ── leave ──> gone
//! ```
//!
//! With `restart = "immediate"` an incarnation does not wait for its space. It begins with memory
//! that cannot be paged out yet, and the memory gets its store when the space is ready. So no I/O
//! lies between a crash and the next incarnation's first instruction.
//!
//! A runner belongs to the CPU that gives it its turn. [`Runner::step`] does a bounded piece of
//! work and returns what the runner waits for. Other CPUs talk to it through [`SharedPartition`].
//! The vCPU and FPU state stay in the CPU until [`Runner::move_out`], and no other CPU takes a turn
//! before. The runner does no I/O itself: it requests spaces and dumps, and polls them. It gives a
//! space back only when the memory that was paged to it is gone.
//!
//! Modules: `start` (from nothing to a loaded kernel), `guest` (the guest runs), `bus` (devices on
//! the PCI bus), `life` (the evaluation of its stays), `lease` (a cluster's disk), `end` (crash,
//! reset, stop), `stop` (an end in order), `suspend`.

mod bus;
mod cloned;
mod end;
mod guest;
mod lease;
mod life;
mod start;
mod stop;
mod suspend;

use super::duties::RunnerDuties;
use super::ending::{RequestTiming, answer};
use super::hang::HangWatch;
use super::last_words::PanicGrace;
use super::lifecycle::{AfterTeardown, BackingState, Lifecycle, LifecycleView, ParkReason};
use super::machine::VirtualMachine;
use super::restarts::RestartCounter;
use super::shared::{PartitionRequest, SharedPartition};
use super::stall::StallWatch;
use crate::arch::percpu::CpuId;
use crate::arch::{fpu, time};
use crate::console::output;
use crate::console::tagged::LineSplitter;
use crate::crash::record::CrashCause;
use crate::crash::suspend::precopy::PrecopyProgress;
use crate::host::Host;
use crate::log::history::{self, HistoryKind};
use crate::mm::layout::RamLayout;
use crate::mm::object::MemoryObject;
use crate::partition_id::PartitionId;
use crate::pool::AccountId;
pub use crate::sched::wait::WaitEvent;
use crate::storage::spaces::SpaceId;
use crate::time::Ns;
use crate::virt::face::{EnabledCpu, Vcpu};
use crate::virt::tag::TlbTag;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Frames are kept this long for a partition that may run again.
const PROMISE_NS: Ns = Ns::from_secs(10);
/// Interval at which a runner polls work in the background.
const LOOK_NS: Ns = Ns::from_ms(1);

/// The result of a step.
#[derive(Debug)]
pub enum StepOutcome {
    /// Step again before any other runner has a turn: a restart does not wait for the work of
    /// others. At most a few times in a row.
    Onward,
    /// Step again soon.
    Again,
    /// Do not step before this time, unless the wait is over or a request comes.
    Wait(WaitEvent, Option<Ns>),
    /// Its definition is gone, and its registers are in memory: do not step again.
    Gone,
}

impl StepOutcome {
    /// Waits for work in the background. Some of it ends without a wake-up, so it is polled.
    fn look_again() -> Self {
        Self::Wait(WaitEvent::Anything, Some(time::now_ns().saturating_add(LOOK_NS)))
    }
}

/// A partition's thread of control.
pub struct Runner {
    id: PartitionId,
    shared: Arc<SharedPartition>,
    layout: RamLayout,
    machine: VirtualMachine,
    tag: TlbTag,
    object: Option<Arc<MemoryObject>>,
    space: Option<SpaceId>,
    incarnation: u64,
    state: Lifecycle,
    /// The guest's reports of its panic.
    last_words: PanicGrace,
    /// The time of a halted guest is counted up to this moment.
    halted_ns: Ns,
    /// Watches for a hang if a time-out is configured.
    hang: Option<HangWatch>,
    stall: StallWatch,
    restarts: RestartCounter,
    /// The last time at which the console took output of a partition that stops.
    taken_ns: Ns,
    entered: bool,
    duties: RunnerDuties,
    /// Its dirty pages are being written, because it is about to be suspended.
    precopy: Option<Arc<PrecopyProgress>>,
    /// It was suspended, and its clock's page does not say so yet.
    was_away: bool,
    /// The generation ID of a clone that its guest does not know yet.
    doubled: Option<[u8; 16]>,
    needs_space: bool,
    backing: BackingState,
    fpu: fpu::GuestFpu,
    /// If several consoles share the line: output that is not a whole line yet.
    lines: Option<LineSplitter>,
    /// Whether the partition has the raw serial line, with its unfinished line shown there.
    has_shown_line: bool,
    residence: VcpuResidence,
}

/// Whether the vCPU and its FPU state are on the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum VcpuResidence {
    Memory,
    Cpu(CpuId),
}

/// The CPU that a runner is stepped on.
pub struct HostCpu<'a> {
    /// Its number.
    pub cpu: CpuId,
    /// Its virtualisation.
    pub enabled: &'a EnabledCpu,
}

impl Runner {
    /// Makes the runner of a partition. It starts as soon as it gets a space, unless it is defined
    /// as stopped.
    pub fn new(
        shared: Arc<SharedPartition>,
        layout: RamLayout,
        machine: VirtualMachine,
        tag: TlbTag,
        needs_space: bool,
    ) -> Self {
        let state = match shared.view() {
            LifecycleView::Stopped => Lifecycle::Stopped,
            _ => Lifecycle::NeedsSpace { told: false },
        };
        let restarts = RestartCounter::new(shared.config.restart_limit);
        Self {
            id: shared.id(),
            shared,
            layout,
            machine,
            tag,
            object: None,
            space: None,
            incarnation: 0,
            state,
            last_words: PanicGrace::None,
            halted_ns: Ns::ZERO,
            hang: None,
            stall: StallWatch::new(),
            restarts,
            taken_ns: Ns::ZERO,
            entered: false,
            duties: RunnerDuties::default(),
            precopy: None,
            was_away: false,
            doubled: None,
            needs_space,
            backing: BackingState::Settled,
            fpu: fpu::GuestFpu::new(),
            lines: None,
            has_shown_line: false,
            residence: VcpuResidence::Memory,
        }
    }

    /// Lets the partition's console share its serial line with others.
    pub fn share_console(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Takes the runner apart after [`StepOutcome::Gone`]: releases its tag and its promised
    /// frames, and returns its vCPU.
    pub fn into_vcpu(mut self: Box<Self>, host: &'static Host) -> Vcpu {
        self.end_promise(host);
        host.tags.lock().release(self.tag);
        self.machine.vcpu
    }

    /// Does a bounded piece of work; the guest is left at `until` at the latest.
    pub fn step(&mut self, host: &'static Host, on: &HostCpu<'_>, until: Ns) -> StepOutcome {
        if self.shared.is_asked()
            && let Some(next) = self.requests(host, on)
        {
            return next;
        }
        if self.backing == BackingState::Awaited {
            self.look_for_store(host);
        }
        if self.duties.next().is_some_and(|at| time::now_ns() >= at)
            && let Some(next) = self.carry_out_duty(host, on)
        {
            return next;
        }
        match &self.state {
            Lifecycle::NeedsSpace { .. } => self.find_space(host),
            Lifecycle::Activating => self.activate(host),
            Lifecycle::NeedsTables(_) => self.begin(host),
            Lifecycle::Loading(_) => self.load(host),
            Lifecycle::Running(_) => self.run(host, on, until),
            // A space has one task at a time: the task begun for it must end first.
            Lifecycle::Retiring { gone, then }
                if gone.is_done() && self.backing == BackingState::Settled =>
            {
                let then = *then;
                self.retired(host, then)
            }
            Lifecycle::Retiring { then: AfterTeardown::Stop, .. } if host.ends_without_disks() => {
                self.leave_behind(host)
            }
            Lifecycle::Retiring { .. } => StepOutcome::look_again(),
            Lifecycle::Crashed { .. } => self.check_gate(host),
            Lifecycle::Suspending { job, parked } => {
                let (job, parked) = (job.clone(), *parked);
                self.look_at_suspension(host, &job, parked)
            }
            Lifecycle::Suspended { .. } | Lifecycle::Sealed { .. } => self.wait_suspended(host),
            Lifecycle::Cloning => self.begin_clone(host, on),
            Lifecycle::Resuming(job) => {
                let job = job.clone();
                self.look_at_resume(host, on, &job)
            }
            Lifecycle::Stopped => StepOutcome::Wait(WaitEvent::Own, None),
        }
    }

    fn requests(&mut self, host: &'static Host, on: &HostCpu<'_>) -> Option<StepOutcome> {
        let view = self.state.view();
        if self.shared.take(PartitionRequest::ShareLine) && self.lines.is_none() {
            // Its unfinished line has no name before it.
            output::print(b"\r\n");
            self.share_console();
        }
        if self.shared.take(PartitionRequest::BusNews) {
            self.machine.platform.deliver_bus();
        }
        let shared = self.shared.clone();
        let is_taken =
            |request| answer(request, view) != RequestTiming::Later && shared.take(request);
        let leave = is_taken(PartitionRequest::Leave);
        if leave && answer(PartitionRequest::Leave, view) == RequestTiming::Now {
            self.move_out(on);
            self.give_suspension_back(host);
            return Some(StepOutcome::Gone);
        }
        if is_taken(PartitionRequest::Suspend)
            && answer(PartitionRequest::Suspend, view) == RequestTiming::Now
        {
            self.suspend(host, on);
            return None;
        }
        if is_taken(PartitionRequest::Resume)
            && answer(PartitionRequest::Resume, view) == RequestTiming::Now
        {
            self.resume(host);
            return None;
        }
        if self.shared.is_asked_to(PartitionRequest::Start) {
            if answer(PartitionRequest::Start, view) == RequestTiming::Now {
                // The operator begins anew, so earlier crashes do not count.
                self.restarts = RestartCounter::new(self.shared.config.restart_limit);
                host.spaces.resume_reserve(self.shared.name());
                self.set_state(Lifecycle::NeedsSpace { told: false });
            }
            // Last: a partition that is asked to start is not at rest.
            is_taken(PartitionRequest::Start);
        }
        let stop = is_taken(PartitionRequest::Stop);
        let shut_down = is_taken(PartitionRequest::ShutDown);
        let crash = is_taken(PartitionRequest::Crash);
        let give_up = is_taken(PartitionRequest::GiveUp);
        for (taken, request) in [
            (stop, PartitionRequest::Stop),
            (shut_down, PartitionRequest::ShutDown),
            (crash, PartitionRequest::Crash),
            (give_up, PartitionRequest::GiveUp),
        ] {
            if taken {
                self.record(HistoryKind::RequestTaken, request as u32, 0);
            }
        }
        if stop && matches!(view, LifecycleView::Suspended | LifecycleView::Sealed) {
            // At the end of the machine a suspended partition stays what it is.
            if !host.ending.load(Ordering::Acquire) {
                self.give_suspension_back(host);
            }
            return None;
        }
        if stop && answer(PartitionRequest::Stop, view) == RequestTiming::Now {
            return Some(self.stop(host, "operator", 0));
        }
        // Before a crash, which a guest that was asked to end does not survive.
        if shut_down
            && answer(PartitionRequest::ShutDown, view) == RequestTiming::Now
            && let Some(next) = self.shut_down(host)
        {
            return Some(next);
        }
        if give_up && answer(PartitionRequest::GiveUp, view) == RequestTiming::Now {
            return Some(self.crash(host, CrashCause::Unwritable(0)));
        }
        (crash && answer(PartitionRequest::Crash, view) == RequestTiming::Now)
            .then(|| self.crash(host, CrashCause::Operator))
    }

    /// Notes why the running guest is parked. Its view stays.
    fn park(&mut self, reason: ParkReason) {
        self.state = Lifecycle::Running(reason);
    }

    /// Changes the state, and publishes its view.
    fn set_state(&mut self, state: Lifecycle) {
        let view = state.view();
        if view != LifecycleView::Running {
            self.end_precopy();
        }
        self.state = state;
        self.shared.publish(view);
    }

    /// Records an event of the incarnation, with one more number.
    #[inline(never)]
    fn record(&self, kind: HistoryKind, code: u32, number: u64) {
        history::record_partition(self.id, kind, code, [self.incarnation, number]);
    }

    fn end_promise(&mut self, host: &'static Host) {
        self.duties.set_promise(None);
        host.pager.end_promise(AccountId::of(self.id));
    }
}
