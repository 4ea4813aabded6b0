//! A back end for unit tests: a vCPU that executes a script of exits, in the time of the clock that
//! the test sets.
//!
//! ```text
//!   enter ──> event delivered ──> window open? timer due? ──> next step ──┬─> no exit: next step
//!                                                                         └─> exit: until advance_to
//! ```
//!
//! It obeys the invariants of [`super::face`] and checks them: it runs only while it is loaded, and
//! takes only events that its guest can take. It reports the next RIP, keeps no shadows, and blocks
//! no NMIs.

mod script;

use crate::time::Ns;
pub use script::{GuestBoot, GuestScript, GuestStep, ScriptRecord, ScriptedMemory};

use super::breakpoints::Breakpoints;
use super::contract::{
    BackendVcpu, ControlRegisters, FetchRegisters, MsrAccess, RawExit, RawReason, WindowRequest,
    forward_contract,
};
use super::exit::{
    AccessWidth, InjectedEvent, InjectionKind, IoAccess, IoDirection, PageAccess, VmExit,
};
use super::saved::{SavedEvent, SavedEvents};
use super::state::{CpuState, Gpr, RFLAGS_INTERRUPT, Regs};
use super::tag::TlbTag;
use crate::addr::{Gpa, Hpa};
use crate::arch::instr::{is_kicked, rdtsc};
use crate::arch::time::{self, test_clock};

/// Length of every instruction.
const LENGTH: u64 = 2;

/// A CPU that runs scripted vCPUs.
#[derive(Debug)]
pub struct ScriptedCpu;

/// A vCPU that executes a script.
pub struct ScriptedVcpu {
    script: GuestScript,
    memory: Box<dyn ScriptedMemory>,
    regs: Regs,
    state: Box<CpuState>,
    root: Option<Hpa>,
    class: u8,
    queued: Option<InjectedEvent>,
    interrupt_window: WindowRequest,
    nmi_window: WindowRequest,
    exit: VmExit,
    is_loaded: bool,
    /// Its state was set since the last entry.
    is_new: bool,
    tsc_offset: u64,
}

impl ScriptedVcpu {
    /// Makes a vCPU that executes `script` in `memory`.
    pub fn new(script: GuestScript, memory: Box<dyn ScriptedMemory>) -> Self {
        Self {
            script,
            memory,
            regs: Regs::default(),
            state: Box::default(),
            root: None,
            class: 0,
            queued: None,
            interrupt_window: WindowRequest::None,
            nmi_window: WindowRequest::None,
            exit: VmExit::Handled,
            is_loaded: false,
            is_new: false,
            tsc_offset: 0,
        }
    }

    /// Executes steps until one exits.
    fn execute(&mut self) -> VmExit {
        loop {
            if self.interrupt_window == WindowRequest::Open && self.can_take_interrupt() {
                return VmExit::InterruptWindow;
            }
            if self.nmi_window == WindowRequest::Open && self.can_take_nmi() {
                return VmExit::NmiWindow;
            }
            let is_due = |deadline| deadline <= rdtsc();
            if is_kicked() || test_clock::armed().is_some_and(is_due) {
                return VmExit::HostInterrupt;
            }
            let step = self.script.state().steps.front().copied();
            if let Err(exit) = self.step(step.unwrap_or(GuestStep::Work(Ns::MAX))) {
                return exit;
            }
            self.script.state().steps.pop_front();
        }
    }

    /// Executes a step; an exit is the error.
    fn step(&mut self, step: GuestStep) -> Result<(), VmExit> {
        let root = self.root.expect("a vCPU runs with memory");
        match step {
            GuestStep::Sti => self.regs.rflags |= RFLAGS_INTERRUPT,
            GuestStep::Cli => self.regs.rflags &= !RFLAGS_INTERRUPT,
            GuestStep::Jump(rip) => self.regs.rip = rip,
            GuestStep::LoadTable(limit) => self.state.idtr.limit = limit,
            GuestStep::Work(ns) => return self.work(ns),
            GuestStep::Read(gpa) => {
                let value = self.memory.read(root, gpa);
                let value = value.ok_or_else(|| self.fault(gpa, PageAccess::Read))?;
                self.script.state().record.values.push(value);
            }
            GuestStep::Write(gpa, value) => {
                let done = self.memory.write(root, gpa, value);
                done.ok_or_else(|| self.fault(gpa, PageAccess::Write))?;
            }
            GuestStep::Store(gpa, value) => {
                self.regs.rip = GuestScript::MOV;
                self.regs.set(Gpr::Rbx, gpa.as_u64());
                self.regs.set(Gpr::Rax, u64::from(value));
                return Err(self.fault(gpa, PageAccess::Write));
            }
            GuestStep::Out(port, value) => {
                self.regs.set(Gpr::Rax, u64::from(value));
                return Err(port_exit(port, AccessWidth::Byte, IoDirection::Out));
            }
            GuestStep::In(port, width) => return Err(port_exit(port, width, IoDirection::In)),
            GuestStep::Cpuid(leaf) => {
                self.regs.set(Gpr::Rax, u64::from(leaf));
                self.regs.set(Gpr::Rcx, 0);
                return Err(VmExit::Cpuid);
            }
            GuestStep::ReadMsr(number) => {
                self.regs.set(Gpr::Rcx, u64::from(number));
                return Err(VmExit::ReadMsr);
            }
            GuestStep::WriteMsr(number, value) => {
                self.regs.set(Gpr::Rcx, u64::from(number));
                self.regs.set_edx_eax(value);
                return Err(VmExit::WriteMsr);
            }
            GuestStep::Rdtsc => {
                let value = rdtsc().as_u64().wrapping_add(self.tsc_offset);
                self.script.state().record.values.push(value);
            }
            GuestStep::Halt => return Err(VmExit::Halt),
            GuestStep::Exit(exit) => return Err(exit),
        }
        Ok(())
    }

    /// Lets the guest work until it is done or the host's timer interrupts it.
    fn work(&mut self, ns: Ns) -> Result<(), VmExit> {
        let now = rdtsc();
        let until = test_clock::armed().unwrap_or(now);
        let now = time::ns_at(now);
        let left = time::ns_at(until).saturating_sub(now);
        test_clock::set(now + left.min(ns));
        if ns <= left {
            return Ok(());
        }
        if let Some(step) = self.script.state().steps.front_mut() {
            *step = GuestStep::Work(ns - left);
        }
        Err(VmExit::HostInterrupt)
    }

    fn fault(&self, gpa: Gpa, access: PageAccess) -> VmExit {
        self.script.state().record.faults += 1;
        VmExit::SecondLevelFault { gpa, access, during_walk: false, gva: None }
    }

    /// Delivers the queued event. A fault ends the step that has raised it, as if the guest's
    /// handler had skipped the instruction.
    fn deliver(&mut self) {
        let Some(event) = self.queued.take() else { return };
        let mut state = self.script.state();
        state.record.delivered.push(event);
        if event.kind == InjectionKind::Exception {
            state.steps.pop_front();
        }
    }
}

const fn port_exit(port: u16, width: AccessWidth, direction: IoDirection) -> VmExit {
    VmExit::Io(IoAccess { port, width, direction, string: false })
}

/// The methods of [`super::Vcpu`].
#[expect(missing_docs, reason = "super::Vcpu describes each method")]
impl ScriptedVcpu {
    pub fn set_memory(&mut self, root: Hpa, _: TlbTag) {
        self.root = Some(root);
    }
    pub fn offer_cr4(&mut self, _: u64) {}
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }
    pub fn load(&mut self, _: &ScriptedCpu) {
        assert!(!self.is_loaded, "a vCPU is loaded on one CPU at a time");
        self.is_loaded = true;
    }
    pub fn unload(&mut self) {
        assert!(self.is_loaded, "a vCPU is unloaded where it was loaded");
        self.is_loaded = false;
    }
    pub fn flush(&mut self) {}
    pub fn exit(&mut self) -> VmExit {
        match self.exit {
            VmExit::InterruptWindow => self.interrupt_window = WindowRequest::None,
            VmExit::NmiWindow => self.nmi_window = WindowRequest::None,
            _ => {}
        }
        self.exit
    }
    pub fn regs(&self) -> &Regs {
        &self.regs
    }
    pub fn set(&mut self, gpr: Gpr, value: u64) {
        self.regs.set(gpr, value);
    }
    pub fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }
    pub fn state(&self) -> CpuState {
        *self.state
    }
    pub fn set_state(&mut self, state: &CpuState) {
        *self.state = *state;
        self.queued = None;
        self.is_new = true;
    }
    pub fn control_registers(&self) -> ControlRegisters {
        let CpuState { cr0, cr3, cr4, efer, .. } = *self.state;
        ControlRegisters { cr0, cr3, cr4, efer }
    }
    pub fn may_break(&mut self) -> bool {
        false
    }
    pub fn breakpoints(&self) -> Option<Breakpoints> {
        None
    }
    pub fn raise_debug(&mut self, _: u64) {}
    pub fn write_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        self.state.efer = super::efer::write(self.state.efer, self.state.cr0, value)?;
        Ok(())
    }
    pub fn pat(&self) -> u64 {
        self.state.pat
    }
    pub fn set_pat(&mut self, value: u64) {
        self.state.pat = value;
    }
    pub fn set_cr2(&mut self, cr2: u64) {
        self.state.cr2 = cr2;
    }
    pub fn cr8(&self) -> u8 {
        self.class
    }
    pub fn set_cr8(&mut self, class: u8) {
        self.class = class;
    }
    pub fn next_rip(&self, _: VmExit) -> Option<u64> {
        Some(self.regs.rip.wrapping_add(LENGTH))
    }
    pub fn advance_to(&mut self, rip: u64) {
        self.regs.rip = rip;
        let mut state = self.script.state();
        let has_value = |step: &GuestStep| {
            matches!(step, GuestStep::In(..) | GuestStep::Cpuid(_) | GuestStep::ReadMsr(_))
        };
        if state.steps.pop_front().as_ref().is_some_and(has_value) {
            state.record.values.push(self.regs.get(Gpr::Rax));
        }
    }
    pub fn can_take_interrupt(&self) -> bool {
        self.regs.interrupts_enabled() && self.queued.is_none()
    }
    pub fn can_take_nmi(&self) -> bool {
        self.queued.is_none()
    }
    pub fn inject(&mut self, event: InjectedEvent) {
        match event.kind {
            InjectionKind::Interrupt => assert!(self.can_take_interrupt(), "IF is set"),
            InjectionKind::Nmi => assert!(self.can_take_nmi(), "one event at a time"),
            InjectionKind::Exception => {}
        }
        self.queued = Some(event);
    }
    pub fn event_pending(&self) -> bool {
        self.queued.is_some()
    }
    pub fn request_interrupt_window(&mut self, window: WindowRequest) {
        self.interrupt_window = window;
    }
    pub fn request_nmi_window(&mut self, window: WindowRequest) {
        self.nmi_window = window;
    }
    pub fn raw_exit(&self) -> RawExit {
        RawExit([("", 0); 6])
    }
    pub fn save_events(&self) -> SavedEvents {
        assert!(!self.is_loaded, "a vCPU is saved from memory");
        let word = |event: InjectedEvent| {
            (event.kind as u64) << 8
                | u64::from(event.vector)
                | u64::from(event.error_code.is_some()) << 16
        };
        let queued = self.queued.map(|event| SavedEvent {
            word: word(event),
            error_code: event.error_code.unwrap_or(0),
            length: 0,
        });
        SavedEvents { queued, task_priority: self.class, ..SavedEvents::default() }
    }
    pub fn restore_events(&mut self, saved: &SavedEvents) {
        assert!(!self.is_loaded, "a vCPU is restored in memory");
        let kinds = [InjectionKind::Interrupt, InjectionKind::Nmi, InjectionKind::Exception];
        self.class = saved.task_priority;
        self.queued = saved.queued.and_then(|event| {
            let kind = kinds.into_iter().find(|kind| *kind as u64 == event.word >> 8 & 0xff)?;
            let error_code = (event.word >> 16 & 1 != 0).then_some(event.error_code);
            Some(InjectedEvent { kind, vector: event.word as u8, error_code })
        });
        // A guest that is resumed does not begin anew: its program goes on.
        self.is_new = false;
        let mut script = self.script.state();
        script.record.resumes += 1;
        // A clone that begins again after its crash is as it was long before.
        script.steps.pop_front_if(|step| *step == GuestStep::Exit(VmExit::TripleFault));
    }
}

forward_contract!(ScriptedVcpu);

/// The reason of all exits that have no reason of their own.
const OTHER: RawReason = 0;
/// The reason of RDMSR and WRMSR.
const MSR: RawReason = 6;

impl BackendVcpu for ScriptedVcpu {
    const CPUID: RawReason = 1;
    const PORT: RawReason = 2;
    const HALT: RawReason = 3;
    const FAULT: RawReason = 4;
    const WINDOW: RawReason = 5;

    fn msr_access(&self, reason: RawReason) -> Option<MsrAccess> {
        let access = if self.exit == VmExit::ReadMsr { MsrAccess::Read } else { MsrAccess::Write };
        (reason == MSR).then_some(access)
    }

    fn enter(&mut self) -> RawReason {
        assert!(self.is_loaded, "a vCPU runs where it is loaded");
        if std::mem::take(&mut self.is_new) {
            let (regs, state) = (self.regs, *self.state);
            let boot = GuestBoot { regs, state, root: self.root.expect("memory is set") };
            let mut script = self.script.state();
            script.record.boots.push(boot);
            script.steps = script.programs.pop_front().unwrap_or_default().into();
        }
        self.script.state().record.entries += 1;
        self.deliver();
        self.exit = self.execute();
        match self.exit {
            VmExit::Cpuid => Self::CPUID,
            VmExit::Io(_) => Self::PORT,
            VmExit::Halt => Self::HALT,
            VmExit::SecondLevelFault { .. } => Self::FAULT,
            VmExit::InterruptWindow => Self::WINDOW,
            VmExit::ReadMsr | VmExit::WriteMsr => MSR,
            _ => OTHER,
        }
    }

    fn port_access(&self) -> Option<IoAccess> {
        match self.exit {
            VmExit::Io(io) => Some(io),
            _ => None,
        }
    }

    fn fault_address(&self) -> Gpa {
        match self.exit {
            VmExit::SecondLevelFault { gpa, .. } => gpa,
            _ => panic!("the last exit is no fault"),
        }
    }

    fn is_data_access(&self) -> bool {
        self.queued.is_none()
    }

    fn long_code(&self) -> Option<FetchRegisters> {
        None
    }

    fn take_up_window(&mut self) {
        self.interrupt_window = WindowRequest::None;
    }
}
