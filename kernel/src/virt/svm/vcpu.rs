//! The vCPU: a VMCB, and the registers that it does not hold.
//!
//! Further parts are in [`super::events`], and in [`super::system`] for control and debug
//! registers.
//!
//! Invariants: `regs` is current while the guest does not run; EVENTINJ is the only queue of
//! events.

// UNSAFETY: accesses the VMCB by its address and runs the guest.
#![expect(unsafe_code)]

use super::decode::{self, code};
use super::event_state::{EntryPreparation, EntryVerdict, EventState};
use super::host::{self, SvmCpu};
use super::system_registers::SystemRegisters;
use super::vmcb::{INTERRUPT_SHADOW, TlbControl, V_TPR, Vmcb};
use super::{controls, efer, entry, event, guest, permission};
use crate::addr::{Gpa, Hpa, Hva};
use crate::arch::direct_map::image_hpa;
use crate::arch::quirks;
use crate::virt::breakpoints::DebugUse;
use crate::virt::contract::{
    BackendVcpu, ControlRegisters, FetchRegisters, MsrAccess, RawExit, RawReason, forward_contract,
};
use crate::virt::debug::DebugAddresses;
use crate::virt::exit::{InjectedEvent, IoAccess, SystemMove, VmExit};
use crate::virt::frame::ControlFrame;
use crate::virt::state::{CpuState, Gpr, RFLAGS_RESUME, RFLAGS_TRAP, Regs};
use crate::virt::tag::{TagSharing, TlbTag};

/// A vCPU on SVM.
pub struct SvmVcpu {
    pub(super) regs: Regs,
    frame: ControlFrame,
    /// The host's VMCB of the CPU on which the vCPU is loaded.
    pub(super) host: Option<Hpa>,
    /// The host's VMCB of the CPU on which it was last loaded.
    last_host: Option<Hpa>,
    /// The host's VMCB for an entry: `host`, while the vCPU is loaded.
    entry_host: Hpa,
    pub(super) debug_addresses: DebugAddresses,
    sharing: TagSharing,
    how_to_flush: TlbControl,
    pub(super) events: EventState,
    pub(super) system: SystemRegisters,
}

impl SvmVcpu {
    /// Makes a vCPU whose VMCB is `frame`.
    pub fn new(frame: ControlFrame) -> Self {
        let hazards = quirks::guest_hazards();
        let mut vcpu = Self {
            regs: Regs::default(),
            entry_host: frame.hpa(),
            frame,
            host: None,
            last_host: None,
            debug_addresses: DebugAddresses::default(),
            sharing: TagSharing::Shared,
            how_to_flush: if host::flushes_by_asid() {
                TlbControl::ThisAsid
            } else {
                TlbControl::All
            },
            events: EventState::new(hazards),
            system: SystemRegisters::new(hazards),
        };
        let io_map = image_hpa(Hva::new(&raw const permission::IO_MAP as u64));
        let msr_map = image_hpa(Hva::new(&raw const permission::MSR_MAP as u64));
        controls::set_up(&mut vcpu.vmcb_mut().control, io_map, msr_map, hazards);
        vcpu
    }

    #[inline(always)]
    pub(super) fn vmcb(&self) -> &Vmcb {
        // SAFETY: the frame is ours, a page, initialised (zeroed at first); the CPU writes it only
        // inside `entry::run`.
        unsafe { &*(self.frame.hva().as_u64() as *const Vmcb) }
    }

    #[inline(always)]
    pub(super) fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above, and `&mut self` makes the reference the only one.
        unsafe { &mut *(self.frame.hva().as_u64() as *mut Vmcb) }
    }

    /// See [`crate::virt::Vcpu::into_frame`].
    pub fn into_frame(self) -> ControlFrame {
        assert!(self.host.is_none(), "a loaded vCPU is not taken apart");
        self.frame
    }

    /// See [`crate::virt::Vcpu::set_memory`].
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {
        self.sharing = tag.sharing();
        // The next CPU that loads the vCPU then treats it as moved, and flushes.
        self.last_host = None;
        self.flush();
        let control = &mut self.vmcb_mut().control;
        control.nested_cr3 = root.as_u64();
        control.asid = u32::from(tag.number());
    }

    /// See [`crate::virt::Vcpu::flush`].
    pub fn flush(&mut self) {
        self.vmcb_mut().control.tlb_control = self.how_to_flush as u32;
    }

    /// See [`crate::virt::Vcpu::load`].
    pub fn load(&mut self, cpu: &SvmCpu) {
        assert!(self.host.is_none(), "a vCPU is loaded on one CPU at a time");
        let host = cpu.note_host_state();
        if self.last_host != Some(host) || self.sharing == TagSharing::Shared {
            self.flush();
        }
        self.host = Some(host);
        self.entry_host = host;
        self.last_host = Some(host);
        self.debug_addresses.load();
    }

    /// See [`crate::virt::Vcpu::unload`].
    pub fn unload(&mut self) {
        assert!(self.host.take().is_some(), "a vCPU is unloaded where it was loaded");
        self.events.preparation = EntryPreparation::Due;
        self.debug_addresses = DebugAddresses::read();
    }

    /// Switches to the guest and back.
    #[inline(always)]
    fn switch(&mut self) {
        let Regs { gpr, rip, rflags } = self.regs;
        let save = &mut self.vmcb_mut().save;
        save.rax = gpr[Gpr::Rax as usize];
        save.rsp = gpr[Gpr::Rsp as usize];
        save.rip = rip;
        save.rflags = rflags;
        // SAFETY: 1. `load` got proof that SVM is on and runs on this CPU, and `prepare_entry` has
        // checked that it was called since `unload`; the caller has interrupts off. 2.
        // `set_memory`'s caller vouches for the table. 3. `load` filled the host's page. 4.
        // References to the VMCB live only within single statements.
        unsafe { entry::run(&mut self.regs, self.frame.hpa(), self.entry_host) };
    }

    /// Saves the state that the exit left.
    #[inline(always)]
    fn take_over(&mut self) -> RawReason {
        let Vmcb { control, save } = self.vmcb_mut();
        let (rax, rsp, rip, rflags) = (save.rax, save.rsp, save.rip, save.rflags);
        control.tlb_control = TlbControl::Nothing as u32;
        let code = control.exit_code;
        if event::holds_event(control.exit_interrupt_info) {
            self.take_up_interrupted_delivery();
        }
        self.regs.set(Gpr::Rax, rax);
        self.regs.set(Gpr::Rsp, rsp);
        self.regs.rip = rip;
        self.regs.rflags = rflags;
        code
    }

    /// See [`crate::virt::Vcpu::exit`].
    #[inline(never)]
    pub fn exit(&mut self) -> VmExit {
        if self.steps_over_iret()
            && let Some(exit) = self.after_stepped_iret()
        {
            return exit;
        }
        let control = &self.vmcb().control;
        let raw = decode::VmcbExit {
            code: control.exit_code,
            info_1: control.exit_info_1,
            info_2: control.exit_info_2,
            interrupted: control.exit_interrupt_info,
        };
        match decode::decode(raw) {
            VmExit::Handled => self.settle(),
            VmExit::InterruptWindow => self.window_opened(),
            VmExit::System(SystemMove::ToDr7(_)) if self.system.has_hardware_breakpoints() => {
                // The guest repeats the MOV, which the CPU carries out.
                self.watch_dr7(DebugUse::Repeated);
                VmExit::Handled
            }
            exit => exit,
        }
    }

    /// See [`crate::virt::Vcpu::regs`].
    #[inline(always)]
    pub fn regs(&self) -> &Regs {
        &self.regs
    }

    /// See [`crate::virt::Vcpu::set`].
    #[inline(always)]
    pub fn set(&mut self, gpr: Gpr, value: u64) {
        self.regs.set(gpr, value);
    }

    /// See [`crate::virt::Vcpu::regs_mut`].
    pub fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }

    /// See [`crate::virt::Vcpu::state`].
    pub fn state(&self) -> CpuState {
        let state = guest::load(&self.vmcb().save);
        CpuState { dr7: self.system.guest_dr7(state.dr7), ..state }
    }

    /// See [`crate::virt::Vcpu::set_state`].
    pub fn set_state(&mut self, state: &CpuState) {
        let dr7 = self.system.take_dr7(state.dr7);
        self.watch_dr7(self.system.debug_use);
        guest::store(&mut self.vmcb_mut().save, &CpuState { dr7, ..*state });
        self.forget_events();
    }

    /// See [`crate::virt::Vcpu::control_registers`].
    #[inline(always)]
    pub fn control_registers(&self) -> ControlRegisters {
        let save = &self.vmcb().save;
        ControlRegisters {
            cr0: save.cr0,
            cr3: save.cr3,
            cr4: save.cr4,
            efer: efer::to_guest(save.efer),
        }
    }

    /// See [`crate::virt::Vcpu::write_efer`].
    ///
    /// # Errors
    /// The exception for the guest.
    pub fn write_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        let save = &mut self.vmcb_mut().save;
        save.efer = efer::to_hardware(crate::virt::efer::write(
            efer::to_guest(save.efer),
            save.cr0,
            value,
        )?);
        Ok(())
    }

    /// See [`crate::virt::Vcpu::pat`].
    pub fn pat(&self) -> u64 {
        self.vmcb().save.pat
    }

    /// See [`crate::virt::Vcpu::set_pat`].
    pub fn set_pat(&mut self, value: u64) {
        self.vmcb_mut().save.pat = value;
    }

    /// See [`crate::virt::Vcpu::set_cr2`].
    pub fn set_cr2(&mut self, cr2: u64) {
        self.vmcb_mut().save.cr2 = cr2;
    }

    /// See [`crate::virt::Vcpu::cr8`].
    #[inline]
    pub fn cr8(&self) -> u8 {
        (self.vmcb().control.interrupt_control & V_TPR) as u8
    }

    /// See [`crate::virt::Vcpu::set_cr8`].
    #[inline]
    pub fn set_cr8(&mut self, class: u8) {
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control =
            (control.interrupt_control & !V_TPR) | (u64::from(class) & V_TPR);
    }

    /// See [`crate::virt::Vcpu::next_rip`].
    #[inline(always)]
    pub fn next_rip(&self, exit: VmExit) -> Option<u64> {
        let control = &self.vmcb().control;
        match (exit, control.next_rip) {
            (VmExit::Io(_), _) => Some(control.exit_info_2),
            (_, 0) => None,
            (_, rip) => Some(rip),
        }
    }

    /// See [`crate::virt::Vcpu::advance_to`].
    #[inline(always)]
    pub fn advance_to(&mut self, rip: u64) {
        self.regs.rip = rip;
        if self.regs.rflags & (RFLAGS_RESUME | RFLAGS_TRAP) != 0 {
            self.end_instruction();
        }
        self.vmcb_mut().control.interrupt_state &= !INTERRUPT_SHADOW;
    }

    /// See [`crate::virt::Vcpu::raw_exit`].
    pub fn raw_exit(&self) -> RawExit {
        let control = &self.vmcb().control;
        RawExit([
            ("EXITCODE", control.exit_code),
            ("EXITINFO1", control.exit_info_1),
            ("EXITINFO2", control.exit_info_2),
            ("EXITINTINFO", control.exit_interrupt_info),
            ("EVENTINJ", control.event_injection),
            ("INTERRUPT_STATE", control.interrupt_state),
        ])
    }
}

forward_contract!(SvmVcpu);

impl BackendVcpu for SvmVcpu {
    const CPUID: RawReason = code::CPUID;
    const PORT: RawReason = code::IOIO;
    const HALT: RawReason = code::HLT;
    const FAULT: RawReason = code::NPF;
    const WINDOW: RawReason = code::VINTR;

    /// # Panics
    /// If it is not loaded.
    #[inline(always)]
    fn enter(&mut self) -> RawReason {
        if self.events.preparation == EntryPreparation::Due
            && self.prepare_entry() == EntryVerdict::PutOff
        {
            return code::SHADOWED_WINDOW;
        }
        self.switch();
        self.take_over()
    }

    #[inline(always)]
    fn msr_access(&self, reason: RawReason) -> Option<MsrAccess> {
        let access =
            if self.vmcb().control.exit_info_1 == 0 { MsrAccess::Read } else { MsrAccess::Write };
        (reason == code::MSR).then_some(access)
    }

    #[inline(always)]
    fn port_access(&self) -> Option<IoAccess> {
        decode::io_access(self.vmcb().control.exit_info_1)
    }

    #[inline(always)]
    fn fault_address(&self) -> Gpa {
        Gpa::new(self.vmcb().control.exit_info_2)
    }

    #[inline(always)]
    fn is_data_access(&self) -> bool {
        decode::is_data_access(self.vmcb().control.exit_info_1)
            && !self.event_pending()
            && !self.steps_over_iret()
    }

    #[inline(always)]
    fn long_code(&self) -> Option<FetchRegisters> {
        let save = &self.vmcb().save;
        guest::runs_long_code(save).then_some(FetchRegisters {
            cr3: save.cr3,
            cr4: save.cr4,
            cpl: save.cpl,
        })
    }

    fn take_up_window(&mut self) {
        if self.steps_over_iret() {
            self.after_stepped_iret();
        }
        self.window_opened();
    }
}
