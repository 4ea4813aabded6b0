//! A virtual CPU on VMX: its life cycle and its run.
//!
//! ```text
//!            load: VMPTRLD, host state if the CPU has changed, MSRs, debug registers, CR2
//!  unloaded ────────────────────────────────────────────────────────────> loaded ──┐ run: flush? event? registers?
//!           <────────────────────────────────────────────────────────────    ^     │      switch, decode
//!            unload: all that saved to `live`, VMCLEAR                       └─────┘
//! ```
//!
//! Submodules: `events` (injection), `exits` (exits handled by the back end), `registers` (state
//! for handlers).
//!
//! Invariants: `context.regs` is current while the guest does not run; `live` is current while the
//! vCPU is not loaded.
// UNSAFETY: enters the guest, and relies on its VMCS being current, which `residency` tracks.
#![expect(unsafe_code)]

mod debugging;
mod events;
mod exits;
mod registers;
mod saved;

use super::capability::VmxProperties;
use super::control::{CpuTag, VmxCpu};
use super::control_register::cr4;
use super::controls::PrimaryControls;
use super::decode::{ExitReason, is_data_access, plain, port_access, reason};
use super::entry::{LaunchState, REFUSED, SwitchContext, switch};
use super::event::{EntryEvent, InterruptionInfo};
use super::field::{control, guest, info};
use super::flush::{self, Eptp};
use super::guest_state::{self, in_64_bit_mode};
use super::msrs::GuestMsrs;
use super::nmi::NmiRecord;
use super::setup;
use super::vmcs::{CurrentVmcs, Vmcs};
use crate::addr::{Gpa, Hpa};
use crate::arch::instr::vmx::{read_cr2, read_dr6, write_cr2, write_dr6};
use crate::virt::breakpoints::DebugUse;
use crate::virt::contract::{BackendVcpu, FetchRegisters, MsrAccess, RawReason, forward_contract};
use crate::virt::debug::DebugAddresses;
use crate::virt::exit::{IoAccess, VmExit};
use crate::virt::frame::ControlFrame;
use crate::virt::state::Gpr;
use crate::virt::tag::{TagSharing, TlbTag};

/// Whether the vCPU is loaded on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Residency {
    Unloaded,
    Loaded,
}

/// Whether this CPU may cache stale translations of the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cached {
    /// No stale translation is cached.
    Current,
    /// Stale translations may be cached: from the time on another CPU, or from another vCPU.
    Unknown,
}

/// Whether RSP, RIP and RFLAGS in `context` may differ from the VMCS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pointers {
    Same,
    /// Only RIP: an instruction was stepped over.
    Stepped,
    Changed,
}

/// The second-level table and the tag.
#[derive(Clone, Copy, Debug)]
struct VcpuTranslation {
    eptp: Eptp,
    tag: TlbTag,
}

/// State that is in the CPU while the vCPU is loaded; otherwise it is kept here.
#[derive(Clone, Copy, Debug)]
struct Live {
    msrs: GuestMsrs,
    breakpoints: DebugAddresses,
    dr6: u64,
    cr2: u64,
}

impl Live {
    const DR6_RESET: u64 = 0xffff_0ff0;

    fn new() -> Self {
        Self {
            msrs: GuestMsrs::new(),
            breakpoints: DebugAddresses::default(),
            dr6: Self::DR6_RESET,
            cr2: 0,
        }
    }

    /// Reads the state from this CPU.
    fn save(&mut self) {
        self.msrs.save();
        self.breakpoints = DebugAddresses::read();
        self.dr6 = read_dr6();
        self.cr2 = read_cr2();
    }

    /// Writes the state to this CPU.
    fn restore(&self) {
        self.msrs.restore();
        self.breakpoints.load();
        write_dr6(self.dr6);
        write_cr2(self.cr2);
    }
}

/// A virtual CPU.
#[derive(Debug)]
pub struct VmxVcpu {
    context: SwitchContext,
    residency: Residency,
    /// `Current` only while the vCPU is loaded, so that a single check covers both.
    cached: Cached,
    /// The value of `cached` at the last unload.
    kept: Cached,
    pointers: Pointers,
    /// Event for the next entry: injected, or interrupted in its delivery by the last exit.
    queued: Option<EntryEvent>,
    nmi: NmiRecord,
    memory: Option<VcpuTranslation>,
    vmcs: Vmcs,
    settings: &'static VmxProperties,
    /// The primary controls in the VMCS, which change with the requested windows.
    primary: PrimaryControls,
    /// While this is unused, MOV to and from debug registers exits.
    debug_use: DebugUse,
    /// Bits of CR4 that CPUID announces.
    offered_cr4: u64,
    /// CR8.
    task_priority: u8,
    live: Live,
    last_cpu: Option<CpuTag>,
}

impl VmxVcpu {
    /// Makes a vCPU in `frame`; the calling CPU is enabled. It runs after `set_memory` and
    /// `set_state`.
    pub fn new(frame: ControlFrame) -> Self {
        let settings = super::settings();
        let vmcs = Vmcs::new(frame, settings);
        vmcs.with_current(|vmcs| {
            setup::write_controls(vmcs, settings);
            setup::write_guest_constants(vmcs, settings);
        });
        Self {
            context: SwitchContext::default(),
            residency: Residency::Unloaded,
            cached: Cached::Unknown,
            kept: Cached::Unknown,
            pointers: Pointers::Changed,
            queued: None,
            nmi: NmiRecord::Idle,
            memory: None,
            vmcs,
            settings,
            primary: PrimaryControls::from_bits_retain(settings.primary),
            debug_use: DebugUse::Unused,
            offered_cr4: crate::virt::cr4::KNOWN,
            task_priority: 0,
            live: Live::new(),
            last_cpu: None,
        }
    }

    /// See [`crate::virt::Vcpu::into_frame`].
    pub fn into_frame(self) -> ControlFrame {
        assert!(self.residency == Residency::Unloaded, "a loaded vCPU is not taken apart");
        self.vmcs.into_frame()
    }

    /// Points the vCPU to a second-level table.
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {
        let eptp = Eptp::new(root, self.settings.accessed_dirty);
        self.with_vmcs(|vmcs| {
            vmcs.write(control::EPT_POINTER, eptp.as_u64());
            vmcs.write(control::VPID, tag.number());
        });
        self.memory = Some(VcpuTranslation { eptp, tag });
        (self.cached, self.kept) = (Cached::Unknown, Cached::Unknown);
    }

    /// See [`crate::virt::Vcpu::offer_cr4`].
    pub fn offer_cr4(&mut self, bits: u64) {
        self.offered_cr4 = bits;
        self.with_vmcs(|vmcs| vmcs.write(control::CR4_MASK, !(bits & cr4::GUEST_OWNED)));
    }

    /// See [`crate::virt::Vcpu::set_tsc_offset`].
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.with_vmcs(|vmcs| vmcs.write(control::TSC_OFFSET, offset));
    }

    /// Makes the vCPU resident on the calling CPU.
    ///
    /// # Panics
    /// If it is loaded already, or has no memory.
    pub fn load(&mut self, cpu: &VmxCpu) {
        assert!(self.residency == Residency::Unloaded, "a vCPU is loaded on one CPU");
        let memory = self.memory.expect("a vCPU has memory before it is loaded");
        self.vmcs.make_current();
        self.residency = Residency::Loaded;
        let is_elsewhere = self.last_cpu != Some(cpu.id());
        self.cached = if is_elsewhere || memory.tag.sharing() == TagSharing::Shared {
            Cached::Unknown
        } else {
            self.kept
        };
        if is_elsewhere {
            cpu.host().write(&mut self.current());
            self.last_cpu = Some(cpu.id());
        }
        self.live.restore();
    }

    /// Ends the residency.
    ///
    /// # Panics
    /// If it is not loaded.
    pub fn unload(&mut self) {
        assert!(self.residency == Residency::Loaded, "only a loaded vCPU is unloaded");
        self.live.save();
        self.look_at_nmi();
        self.vmcs.clear();
        self.context.launch = LaunchState::Clear;
        self.residency = Residency::Unloaded;
        self.kept = core::mem::replace(&mut self.cached, Cached::Unknown);
    }

    /// See [`crate::virt::Vcpu::exit`].
    #[inline(never)]
    pub fn exit(&mut self) -> VmExit {
        if self.reason().is_ept_violation() {
            return self.second_level_fault();
        }
        match plain(self.reason()) {
            Some(exit) => exit,
            None if self.context.reason == REFUSED => self.refused(),
            None => self.look_closer(),
        }
    }

    /// Flushes the guest's cached translations on this CPU, on which the vCPU is loaded.
    #[cold]
    pub fn flush(&mut self) {
        flush::table(self.memory.expect("a loaded vCPU has memory").eptp);
    }

    /// Flushes all of the vCPU's stale translations before the first entry after a load.
    ///
    /// # Panics
    /// If the vCPU is not loaded: its translations are then not current.
    #[cold]
    fn flush_all(&mut self) {
        assert!(self.residency == Residency::Loaded, "a vCPU is loaded before it runs");
        let memory = self.memory.expect("a loaded vCPU has memory");
        flush::table(memory.eptp);
        flush::tag(memory.tag);
        self.cached = Cached::Current;
    }

    #[inline(always)]
    fn write_pointers(&mut self) {
        if self.pointers == Pointers::Same {
            return;
        }
        let regs = self.context.regs;
        let mut vmcs = self.current();
        vmcs.write(guest::RIP, regs.rip);
        if self.pointers == Pointers::Changed {
            vmcs.write(guest::RSP, regs.get(Gpr::Rsp));
            vmcs.write(guest::RFLAGS, regs.rflags);
        }
        self.pointers = Pointers::Same;
    }

    /// Handles a refused VMLAUNCH or VMRESUME (SDM 3C "VM-Instruction Error Numbers"). The cause is
    /// in the controls or the host state, so it is a bug of ours. Only this partition has to end
    /// for it. The numbers are below every reason of a failed entry.
    #[cold]
    fn refused(&self) -> VmExit {
        VmExit::EntryFailed { code: u64::from(self.current().info(info::INSTRUCTION_ERROR)) }
    }

    fn reason(&self) -> ExitReason {
        // The field has 32 bits, the switch stores 64: the upper half is zero except after a
        // refusal.
        ExitReason::from_raw(self.context.reason as u32)
    }

    /// Returns access to the VMCS of a loaded vCPU.
    #[inline(always)]
    fn current(&self) -> CurrentVmcs<'_> {
        debug_assert!(self.residency == Residency::Loaded, "only a loaded vCPU's VMCS is current");
        // SAFETY: `load` made it current on this CPU, and the CPU on which a vCPU is loaded owns
        // it.
        unsafe { self.vmcs.current() }
    }

    /// Gives access to the VMCS, whether the vCPU is loaded or not.
    fn with_vmcs<R>(&self, access: impl FnOnce(&mut CurrentVmcs<'_>) -> R) -> R {
        match self.residency {
            Residency::Loaded => access(&mut self.current()),
            Residency::Unloaded => self.vmcs.with_current(access),
        }
    }
}

forward_contract!(VmxVcpu);

impl BackendVcpu for VmxVcpu {
    const CPUID: RawReason = reason::CPUID as RawReason;
    const PORT: RawReason = reason::IO_INSTRUCTION as RawReason;
    const HALT: RawReason = reason::HLT as RawReason;
    const FAULT: RawReason = reason::EPT_VIOLATION as RawReason;
    const WINDOW: RawReason = reason::INTERRUPT_WINDOW as RawReason;

    /// # Panics
    /// If the vCPU is not loaded.
    #[inline(always)]
    fn enter(&mut self) -> RawReason {
        if self.cached != Cached::Current {
            self.flush_all();
        }
        if self.queued.is_some() {
            self.write_queued_event();
        }
        self.write_pointers();
        // SAFETY: 1. `new` and `load` wrote controls and host state; the launch state is reset when
        // the VMCS is cleared. 2. The context was made with the VMCS. 3. The owner of the table
        // ensures it, as `set_memory` asks.
        unsafe { switch(&mut self.context) };
        self.context.reason
    }

    #[inline(always)]
    fn msr_access(&self, reason: RawReason) -> Option<MsrAccess> {
        const READ: RawReason = reason::RDMSR as RawReason;
        const WRITE: RawReason = reason::WRMSR as RawReason;
        match reason {
            READ => Some(MsrAccess::Read),
            WRITE => Some(MsrAccess::Write),
            _ => None,
        }
    }

    #[inline(always)]
    fn port_access(&self) -> Option<IoAccess> {
        Some(port_access(self.current().info(info::QUALIFICATION)))
    }

    #[inline(always)]
    fn fault_address(&self) -> Gpa {
        Gpa::new(self.current().info(info::GUEST_PHYSICAL))
    }

    #[inline(always)]
    fn is_data_access(&self) -> bool {
        let vmcs = self.current();
        let in_delivery = InterruptionInfo::from_bits(vmcs.info(info::IDT_VECTORING)).is_valid();
        !in_delivery && is_data_access(vmcs.info(info::QUALIFICATION))
    }

    #[inline(always)]
    fn long_code(&self) -> Option<FetchRegisters> {
        let vmcs = self.current();
        in_64_bit_mode(&vmcs).then(|| guest_state::long_code(&vmcs))
    }

    #[inline(always)]
    fn take_up_window(&mut self) {}
}
