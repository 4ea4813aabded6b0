//! The thread of control of a partition: its life from one incarnation to the next.
//!
//! ```text
//!             space ready              loaded               crash
//!   waiting ──────────────> loading ────────> running ───────────────> crashed
//!      ^                                         │ reset                 │ restart gate opens
//!      ├──────── old memory gone <───────────────┤                       │
//!      └─────────────────────────────────────────┼───────────────────────┘
//!                                                └ power off ──> stopped
//! ```
//!
//! A runner belongs to the CPU it was given; [`Runner::step`] does a bounded piece of work and says what it waits for. Others
//! talk to it through [`Shared`]. It does no I/O itself: spaces and dumps are asked for and looked at.

use super::acpi::Tables;
use super::crash::{CrashRecord, Reason};
use super::devices::clock::{Clock, Tsc};
use super::devices::{Effect, PanicKind};
use super::loaders::{self, ImageSource, Loading, Progress};
use super::machine::{Machine, Stop};
use super::msr::Msrs;
use super::shared::{Phase, Request, Shared};
use crate::addr::PageIndex;
use crate::arch::percpu::CpuId;
use crate::arch::{fpu, instr, time};
use crate::config::DumpPolicy;
use crate::console::event::Event;
use crate::dump::gate::Gate;
use crate::mm::guest::GuestAccess;
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::layout::RamLayout;
use crate::mm::object::{MemoryObject, WaitTicket};
use crate::node::dumps::{self, JobStatus};
use crate::node::graves::Gone;
use crate::node::spaces::SpaceId;
use crate::node::{Node, report};
use crate::virt::face::EnabledCpu;
use crate::virt::tag::TlbTag;
use alloc::format;
use alloc::sync::Arc;

/// Longest stay in the guest before services get a look.
const SLICE_NS: u64 = 10_000_000;
/// Bytes that a loader copies between two looks at everything else.
const LOAD_BUDGET: usize = 256 << 10;
/// How long a guest that said it panicked may go on, to store its log.
const LAST_WORDS_NS: u64 = 100_000_000;

/// What a runner wants next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// To be stepped again soon.
    Again,
    /// Nothing before this time, unless something is completed or asked.
    Wait(Option<u64>),
}

/// What a running guest waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parked {
    No,
    Page(WaitTicket),
    Halted,
}

enum State {
    /// The next incarnation needs a paging space; said so once.
    NeedsSpace {
        told: bool,
    },
    /// The space is being made ready.
    Activating,
    Loading(Loading),
    Running(Parked),
    /// The old memory is being taken apart; then the same space is used again.
    Retiring(Gone),
    Crashed {
        gate: Gate,
        job: Arc<JobStatus>,
        at_ns: u64,
    },
    Stopped,
}

/// A partition's thread of control.
pub struct Runner {
    shared: Arc<Shared>,
    layout: RamLayout,
    machine: Machine,
    tag: TlbTag,
    object: Option<Arc<MemoryObject>>,
    space: Option<SpaceId>,
    incarnation: u64,
    state: State,
    /// The guest has said that it panicked; it crashes for good at this time, or when its log is stored.
    last_words: Option<u64>,
    entered: bool,
    needs_space: bool,
    fpu: fpu::GuestFpu,
    residence: Residence,
}

/// Whether the vCPU and its FPU state are on the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Residence {
    Memory,
    Cpu,
}

/// The CPU that a runner is stepped on.
pub struct Host<'a> {
    /// Its number.
    pub cpu: CpuId,
    /// Its virtualisation.
    pub enabled: &'a EnabledCpu,
    /// How many runners it has.
    pub runners: usize,
}

impl Runner {
    /// Makes the runner of a partition that starts as soon as there is a space for it.
    pub fn new(shared: Arc<Shared>, layout: RamLayout, machine: Machine, tag: TlbTag, needs_space: bool) -> Self {
        let state = State::NeedsSpace { told: false };
        Self {
            shared,
            layout,
            machine,
            tag,
            object: None,
            space: None,
            incarnation: 0,
            state,
            last_words: None,
            entered: false,
            needs_space,
            fpu: fpu::GuestFpu::new(),
            residence: Residence::Memory,
        }
    }

    /// Returns whether the partition will not run again.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Does a bounded piece of work.
    pub fn step(&mut self, node: &'static Node, host: &Host<'_>) -> Next {
        match &mut self.state {
            State::NeedsSpace { .. } => self.find_space(node),
            State::Activating => self.activate(node),
            State::Loading(_) => self.load(node),
            State::Running(_) => self.run(node, host),
            State::Retiring(gone) if gone.is_gone() => self.begin(node),
            State::Retiring(_) => Next::Wait(None),
            State::Crashed { .. } => self.check_gate(node),
            State::Stopped => Next::Wait(None),
        }
    }

    fn find_space(&mut self, node: &'static Node) -> Next {
        if !self.needs_space {
            return self.begin(node);
        }
        match node.spaces.acquire(self.shared.name(), &self.layout, self.incarnation + 1) {
            Some(space) => {
                self.space = Some(space);
                self.state = State::Activating;
                Next::Again
            }
            None => {
                if let State::NeedsSpace { told: told @ false } = &mut self.state {
                    *told = true;
                    report(&Event::Waiting { partition: self.shared.name(), what: "a free paging space" });
                }
                self.shared.publish_phase(Phase::Waiting);
                Next::Wait(None)
            }
        }
    }

    fn activate(&mut self, node: &'static Node) -> Next {
        let Some(space) = self.space else { return self.stop("no space", 0) };
        match node.spaces.is_ready(space) {
            None => Next::Wait(None),
            Some(Ok(())) => self.begin(node),
            Some(Err(_)) => {
                self.space = None;
                self.state = State::NeedsSpace { told: false };
                Next::Again
            }
        }
    }

    /// Begins an incarnation: empty memory, devices after reset, a plan to load the kernel.
    fn begin(&mut self, node: &'static Node) -> Next {
        self.incarnation += 1;
        report(&Event::Start { partition: self.shared.name(), incarnation: self.incarnation });
        let object = match node.objects.create(self.layout) {
            Ok(object) => object,
            Err(_) => return self.fail("no memory for another second-level table"),
        };
        let store = self.space.and_then(|space| node.spaces.store(space));
        if node.pager.attach(object.clone(), store).is_err() {
            return self.fail("the paging space does not fit the partition");
        }
        let plan = match self.plan(node) {
            Ok(plan) => plan,
            Err(error) => {
                self.object = Some(object);
                return self.fail(&format!("{error}"));
            }
        };
        node.tags.lock().release(self.tag);
        self.tag = node.tags.lock().allocate();
        self.machine.vcpu.set_memory(object.root().base(), self.tag);
        let clock = Clock { rate: self.machine.rate, start: Tsc(instr::rdtsc()), unix_ns_at_start: node.unix_ns() };
        self.machine.platform.restart(clock, plan.apic);
        self.machine.msrs = Msrs::new();
        self.shared.publish_incarnation(self.incarnation, object.id().as_u16());
        self.shared.publish_phase(Phase::Loading);
        self.object = Some(object);
        self.last_words = None;
        self.entered = false;
        self.state = State::Loading(Loading::new(plan, &self.shared.config.kernel));
        Next::Again
    }

    fn plan(&self, node: &'static Node) -> Result<loaders::LoadPlan, loaders::LoadError> {
        let cmdline = format!("{} tidepool.incarnation={}", self.shared.config.cmdline, self.incarnation);
        let acpi = Tables::new();
        let request = loaders::Request {
            kernel: &self.shared.config.kernel,
            cmdline: cmdline.trim_start(),
            layout: &self.layout,
            acpi: &acpi,
        };
        loaders::plan(&node.archive as &dyn ImageSource, &request)
    }

    fn load(&mut self, node: &'static Node) -> Next {
        let (State::Loading(loading), Some(object)) = (&mut self.state, &self.object) else { return Next::Again };
        let ticket = object.wait_ticket();
        let memory = GuestBytes { object: &**object, memory: node.memory, faulter: &node.pager };
        match loading.step(&node.archive, &memory, LOAD_BUDGET) {
            Ok(Progress::More) => Next::Again,
            Ok(Progress::Done) => {
                *self.machine.vcpu.regs_mut() = loading.plan().regs;
                self.machine.vcpu.set_state(&loading.plan().state);
                self.fpu = fpu::GuestFpu::new();
                if self.residence == Residence::Cpu {
                    self.fpu.load();
                }
                self.state = State::Running(Parked::No);
                self.shared.publish_phase(Phase::Running);
                Next::Again
            }
            Err(GuestAccess::NotResident(_)) => {
                if object.ready(ticket) {
                    Next::Again
                } else {
                    Next::Wait(None)
                }
            }
            Err(GuestAccess::Lost(gpa)) => self.crash(node, Reason::PageLost(gpa.as_u64())),
            Err(GuestAccess::NotRam(gpa)) => self.fail(&format!("the loader wants to write at {gpa:?}, where no RAM is")),
        }
    }

    fn run(&mut self, node: &'static Node, host: &Host<'_>) -> Next {
        if let Some(next) = self.requests(node) {
            return next;
        }
        let now = time::now_ns();
        if self.last_words.is_some_and(|deadline| now >= deadline) {
            return self.crash(node, Reason::Panic);
        }
        let (State::Running(parked), Some(object)) = (&self.state, &self.object) else { return Next::Again };
        match *parked {
            Parked::Page(ticket) if !object.ready(ticket) => return Next::Wait(self.last_words),
            Parked::Halted => {
                let typed = self.shared.take_typed();
                self.machine.platform.console_input(&typed);
                if !self.machine.is_awake(Tsc(instr::rdtsc())) {
                    let timer = self.machine.platform.next_deadline().map(|deadline| time::ns_at(deadline.0));
                    return Next::Wait([timer, self.last_words].into_iter().flatten().min());
                }
            }
            _ => {}
        }
        if !self.entered {
            self.entered = true;
            let (partition, incarnation) = (self.shared.name(), self.incarnation);
            report(&Event::Entered { partition, incarnation, tsc: instr::rdtsc() });
        }
        let object = object.clone();
        let slice_end = Tsc(time::tsc_at(now + SLICE_NS));
        self.move_in(host);
        let stop = self.machine.run(node, host.cpu, &object, &self.shared, slice_end);
        self.move_out(host);
        self.drain_console(node);
        self.stopped(node, stop)
    }

    /// Makes vCPU and FPU state resident on the CPU, where they stay unless others need it too.
    fn move_in(&mut self, host: &Host<'_>) {
        if self.residence == Residence::Memory {
            self.machine.vcpu.load(host.enabled);
            self.fpu.load();
            self.residence = Residence::Cpu;
        }
    }

    fn move_out(&mut self, host: &Host<'_>) {
        if host.runners > 1 {
            self.fpu.save();
            self.machine.vcpu.unload();
            self.residence = Residence::Memory;
        }
    }

    /// Deals with what ended the guest's stay.
    fn stopped(&mut self, node: &'static Node, stop: Stop) -> Next {
        self.state = State::Running(Parked::No);
        match stop {
            Stop::Slice | Stop::Asked => {}
            Stop::Page(ticket) => self.state = State::Running(Parked::Page(ticket)),
            Stop::Halted if self.machine.can_wake() => self.state = State::Running(Parked::Halted),
            Stop::Halted => return self.stop("halted for good", 0),
            Stop::Crash(reason) => return self.crash(node, reason),
            Stop::Device(effect) => return self.device(node, effect),
        }
        Next::Again
    }

    fn device(&mut self, node: &'static Node, effect: Effect) -> Next {
        let (partition, incarnation) = (self.shared.name(), self.incarnation);
        match effect {
            Effect::None | Effect::Console | Effect::TestLine => Next::Again,
            Effect::Panicked(PanicKind::Panicked) => {
                self.last_words.get_or_insert(time::now_ns() + LAST_WORDS_NS);
                Next::Again
            }
            // Its own crash kernel takes over; or it goes down in order.
            Effect::Panicked(_) => Next::Again,
            Effect::PanicRecorded => {
                let reason = if self.last_words.is_some() { Reason::Panic } else { Reason::PanicRecord };
                self.crash(node, reason)
            }
            Effect::TestPassed => {
                report(&Event::Guest { partition, incarnation, kind: "pass", text: "" });
                Next::Again
            }
            Effect::TestFailed(code) => {
                report(&Event::Guest { partition, incarnation, kind: "fail", text: &format!("{code:#x}") });
                Next::Again
            }
            Effect::ExitCode(code) => self.stop("debug exit", u64::from(code)),
            Effect::PowerOff => self.stop("power off", 0),
            Effect::Reset => {
                report(&Event::Stopped { partition, incarnation, how: "reset", code: 0 });
                self.retire(node)
            }
        }
    }

    fn requests(&mut self, node: &'static Node) -> Option<Next> {
        if !self.shared.is_asked() {
            return None;
        }
        if self.shared.take(Request::Stop) {
            return Some(self.stop("operator", 0));
        }
        self.shared.take(Request::Crash).then(|| self.crash(node, Reason::Operator))
    }

    /// The partition crashes: its memory becomes a dump image at once, and the drain and the restart gate begin.
    fn crash(&mut self, node: &'static Node, reason: Reason) -> Next {
        let at_ns = time::now_ns();
        let tsc = instr::rdtsc();
        let Some(object) = self.object.take() else { return self.stop("crashed without memory", 0) };
        let counts = object.counts();
        let regs = *self.machine.vcpu.regs();
        self.shared.publish_phase(Phase::Crashed);
        let (partition, incarnation) = (self.shared.name(), self.incarnation);
        report(&Event::Crash {
            partition,
            incarnation,
            reason: reason.as_str(),
            detail: reason.detail(),
            rip: regs.rip,
            resident: u64::from(counts.resident + counts.going_out),
            paged: u64::from(counts.paged + counts.coming_in),
            zero: u64::from(counts.zero + counts.untouched + counts.loaned),
            tsc,
        });
        self.drain_console(node);
        let gate = Gate::new(self.shared.config.restart, self.shared.config.memory_bytes, self.shared.config.boot_memory_bytes);
        match (self.shared.config.dump, self.space) {
            (DumpPolicy::Aided, Some(space)) => {
                let record = CrashRecord { reason, incarnation, at_ns, regs, state: self.machine.vcpu.state() };
                let job = dumps::begin(node, self.shared.name(), record, object, space, self.note_page());
                self.space = None;
                self.state = State::Crashed { gate, job, at_ns };
                self.check_gate(node)
            }
            _ => {
                self.object = Some(object);
                self.retire(node)
            }
        }
    }

    /// Returns the page in which the guest says its VMCOREINFO note is.
    fn note_page(&self) -> Option<PageIndex> {
        let note = self.machine.platform.vmcoreinfo()?;
        self.layout.index_of(note.gpa.number())
    }

    fn check_gate(&mut self, node: &'static Node) -> Next {
        let State::Crashed { gate, job, at_ns } = &self.state else { return Next::Again };
        let (freed, remaining, ended) = job.read();
        let Some(opened) = gate.check(freed, ended) else { return Next::Wait(None) };
        report(&Event::Restart {
            partition: self.shared.name(),
            incarnation: self.incarnation + 1,
            gate: opened.as_str(),
            drain_remaining: remaining,
            freed_from_image: freed,
            boot_memory: gate.boot_pages(),
            since_crash_ns: time::now_ns() - at_ns,
        });
        self.state = State::NeedsSpace { told: false };
        self.find_space(node)
    }

    /// Takes the memory apart and starts the next incarnation on the same space.
    fn retire(&mut self, node: &'static Node) -> Next {
        let Some(object) = self.object.take() else { return self.begin(node) };
        self.state = State::Retiring(node.graves.bury(object));
        Next::Again
    }

    fn fail(&mut self, message: &str) -> Next {
        report(&Event::Error { place: self.shared.name(), message });
        self.stop("cannot start", 0)
    }

    fn stop(&mut self, how: &str, code: u64) -> Next {
        report(&Event::Stopped { partition: self.shared.name(), incarnation: self.incarnation, how, code });
        self.state = State::Stopped;
        self.shared.publish_phase(Phase::Stopped);
        Next::Again
    }

    /// Gives what was taken back when the partition has stopped.
    pub fn clean_up(&mut self, node: &'static Node) {
        if !self.is_stopped() {
            return;
        }
        if let Some(object) = self.object.take() {
            let _ = node.graves.bury(object);
            if let Some(space) = self.space.take() {
                node.spaces.release(space);
            }
        }
    }

    /// Prints what the guest has written to its console, and reports a test kernel's lines.
    fn drain_console(&mut self, _node: &'static Node) {
        let mut bytes = [0; 256];
        loop {
            let len = self.machine.platform.console_output().take(&mut bytes);
            if len == 0 {
                break;
            }
            crate::console::output::print(&bytes[..len]);
        }
        while let Some(line) = self.machine.platform.test_port().take_line() {
            let (partition, incarnation) = (self.shared.name(), self.incarnation);
            report(&Event::Guest { partition, incarnation, kind: "log", text: &line });
        }
    }
}
