//! The thread of control of a partition: its life from one incarnation to the next.
//!
//! ```text
//!             space ready              loaded               crash
//!   waiting ──────────────> loading ────────> running ───────────────> crashed
//!      ^                                         │                       │ restart gate opens
//!      │                                         │ reset, power off      │
//!      │     old memory gone, space renewed      v                       │
//!      ├<──────────────────────────────────── retiring ──> stopped       │
//!      └<────────────────────────────────────────────────────────────────┘
//! ```
//!
//! With `restart = "immediate"` an incarnation does not wait for its space. It begins with memory
//! that cannot be paged out yet, and the memory gets its store when the space is ready. So no I/O
//! lies between a crash and the next incarnation's first instruction.
//!
//! A runner belongs to the CPU that gives it its turn. [`Runner::step`] does a bounded piece of
//! work and returns what the runner waits for. Other CPUs talk to it through [`Shared`]. The vCPU
//! and FPU state stay in the CPU until [`Runner::move_out`], and no other CPU takes a turn before.
//! The runner does no I/O itself: it requests spaces and dumps, and polls them. It gives a space
//! back only when the memory that was paged to it is gone.
//!
//! Modules: `start` (from nothing to a loaded kernel), `guest` (the guest runs), `life` (the
//! evaluation of its stays), `end` (crash, reset, stop).

mod end;
mod guest;
mod life;
mod start;

use super::ending::{Answer, Stage, answer};
use super::hang::HangWatch;
use super::last_words::LastWords;
use super::loaders::Loading;
use super::machine::Machine;
use super::restarts::RestartCounter;
use super::shared::{Request, Shared};
use super::stall::StallWatch;
use crate::arch::percpu::CpuId;
use crate::arch::{fpu, time};
use crate::console::tagged::Lines;
use crate::crash::dumps::JobStatus;
use crate::crash::gate::Gate;
use crate::crash::record::Reason;
use crate::host::Host;
use crate::host::reaper::Gone;
use crate::mm::layout::RamLayout;
use crate::mm::object::{MemoryObject, WaitTicket};
pub use crate::sched::wait::WaitFor;
use crate::storage::spaces::SpaceId;
use crate::virt::face::EnabledCpu;
use crate::virt::tag::TlbTag;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// Frames are kept this long for a partition that may run again.
const PROMISE_NS: u64 = 10_000_000_000;
/// Interval at which a runner polls work in the background.
const LOOK_NS: u64 = 1_000_000;

/// The result of a step.
#[derive(Debug)]
pub enum Next {
    /// Step again before any other runner has a turn: a restart does not wait for the work of
    /// others. At most a few times in a row.
    Onward,
    /// Step again soon.
    Again,
    /// Do not step before this time, unless the wait is over or a request comes.
    Wait(WaitFor, Option<u64>),
}

impl Next {
    /// Waits for work in the background. Some of it ends without a wake-up, so it is polled.
    fn look_again() -> Self {
        Self::Wait(WaitFor::Anything, Some(time::now_ns().saturating_add(LOOK_NS)))
    }
}

/// The reason why a running guest is parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parked {
    No,
    Page(WaitTicket),
    Halted,
    /// Its console has no room.
    Console,
}

/// The step that follows when the old memory is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Begin,
    Stop,
}

enum State {
    /// The next incarnation needs a paging space. `told`: this has been reported.
    NeedsSpace {
        told: bool,
    },
    /// The space is being made ready.
    Activating,
    /// The next incarnation needs second-level tables, which are being freed.
    NeedsTables,
    Loading(Box<Loading>),
    Running(Parked),
    /// The old memory is being taken apart.
    Retiring {
        gone: Gone,
        then: Then,
    },
    Crashed {
        gate: Gate,
        /// The reason for the stop if the gate stays closed.
        how: &'static str,
        job: Arc<JobStatus>,
        at_ns: u64,
        /// Frames that live memory had given up until the crash.
        given_before: u64,
    },
    Stopped,
}

/// A partition's thread of control.
pub struct Runner {
    /// The partition's number, and its account at the pool.
    index: usize,
    shared: Arc<Shared>,
    layout: RamLayout,
    machine: Machine,
    tag: TlbTag,
    object: Option<Arc<MemoryObject>>,
    space: Option<SpaceId>,
    incarnation: u64,
    state: State,
    /// The guest's reports of its panic.
    last_words: LastWords,
    /// The time of a halted guest is counted up to this moment.
    halted_ns: u64,
    /// Watches for a hang if a time-out is configured.
    hang: Option<HangWatch>,
    stall: StallWatch,
    restarts: RestartCounter,
    /// The last time at which the console took output of a partition that stops.
    taken_ns: u64,
    entered: bool,
    /// Frames of its last image are kept for it until this time.
    promise_ends: Option<u64>,
    needs_space: bool,
    backing: Backing,
    fpu: fpu::GuestFpu,
    /// If several consoles share the line: output that is not a whole line yet.
    lines: Option<Lines>,
    /// Whether the partition has the raw serial line, with its unfinished line shown there.
    has_shown_line: bool,
    residence: Residence,
}

/// Whether the memory has the store that it will get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Backing {
    /// It has its store, or there are no spaces.
    Settled,
    /// Its space is not ready yet.
    Awaited,
}

/// Whether the vCPU and its FPU state are on the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Residence {
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
    /// Makes the runner of a partition that starts as soon as it gets a space.
    pub fn new(index: usize, shared: Arc<Shared>, layout: RamLayout, machine: Machine, tag: TlbTag, needs_space: bool) -> Self {
        let state = State::NeedsSpace { told: false };
        let restarts = RestartCounter::new(shared.config.restart_limit);
        Self {
            index,
            shared,
            layout,
            machine,
            tag,
            object: None,
            space: None,
            incarnation: 0,
            state,
            last_words: LastWords::None,
            halted_ns: 0,
            hang: None,
            stall: StallWatch::new(),
            restarts,
            taken_ns: 0,
            entered: false,
            promise_ends: None,
            needs_space,
            backing: Backing::Settled,
            fpu: fpu::GuestFpu::new(),
            lines: None,
            has_shown_line: false,
            residence: Residence::Memory,
        }
    }

    /// Lets the partition's console share its serial line with others.
    pub fn share_console(&mut self) {
        self.lines = Some(Lines::new());
    }

    /// Does a bounded piece of work; the guest is left at `until` at the latest.
    pub fn step(&mut self, host: &'static Host, on: &HostCpu<'_>, until: u64) -> Next {
        if self.shared.is_asked()
            && let Some(next) = self.requests(host)
        {
            return next;
        }
        if self.backing == Backing::Awaited {
            self.look_for_store(host);
        }
        self.look_at_promise(host);
        match &self.state {
            State::NeedsSpace { .. } => self.find_space(host),
            State::Activating => self.activate(host),
            State::NeedsTables => self.begin(host),
            State::Loading(_) => self.load(host),
            State::Running(_) => self.run(host, on, until),
            // A space has one task at a time: the task begun for it must end first.
            State::Retiring { gone, then } if gone.is_gone() && self.backing == Backing::Settled => {
                let then = *then;
                self.retired(host, then)
            }
            State::Retiring { then: Then::Stop, .. } if host.ends_without_disks() => self.leave_behind(host),
            State::Retiring { .. } => Next::look_again(),
            State::Crashed { .. } => self.check_gate(host),
            State::Stopped => Next::Wait(WaitFor::Own, None),
        }
    }

    fn requests(&mut self, host: &'static Host) -> Option<Next> {
        let stage = self.stage();
        let is_taken = |request| answer(request, stage) != Answer::Later && self.shared.take(request);
        let stop = is_taken(Request::Stop);
        let crash = is_taken(Request::Crash);
        let give_up = is_taken(Request::GiveUp);
        if stop && answer(Request::Stop, stage) == Answer::Now {
            return Some(self.stop(host, "operator", 0));
        }
        if give_up && answer(Request::GiveUp, stage) == Answer::Now {
            return Some(self.crash(host, Reason::Unwritable(0)));
        }
        (crash && answer(Request::Crash, stage) == Answer::Now).then(|| self.crash(host, Reason::Operator))
    }

    fn stage(&self) -> Stage {
        match self.state {
            State::NeedsTables if self.backing == Backing::Awaited => Stage::Activating,
            State::NeedsSpace { .. } | State::NeedsTables | State::Crashed { .. } => Stage::Waiting,
            State::Activating => Stage::Activating,
            State::Loading(_) | State::Running(_) => Stage::Alive,
            State::Retiring { then: Then::Begin, .. } => Stage::Leaving,
            State::Retiring { then: Then::Stop, .. } | State::Stopped => Stage::Stopped,
        }
    }

    /// Releases frames that were kept for this partition and that it has not needed.
    fn look_at_promise(&mut self, host: &'static Host) {
        if self.promise_ends.is_some_and(|end| time::now_ns() >= end) {
            self.end_promise(host);
        }
    }

    fn end_promise(&mut self, host: &'static Host) {
        self.promise_ends = None;
        host.pager.end_promise(self.index);
    }
}
