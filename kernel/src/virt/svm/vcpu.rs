//! The vCPU: a VMCB, the registers beside it, and what SVM leaves to software.
//!
//! Left to software are: NMI blocking (the IRET intercept tells its end), the repetition of an event whose
//! delivery an exit interrupted, and the exceptions that are intercepted only to bound them (#DB, #AC).
//! QEMU's TCG up to 7.2 forgets an interrupt shadow at VMRUN; an interrupt window that opens at the very
//! instruction that is in the shadow is therefore taken back once, else STI; HLT would lose a wake-up.
//!
//! Interrupts are delivered by window and EVENTINJ. V_IRQ only opens the window: it is never delivered,
//! because an interrupted delivery of it is reported differently by TCG and by real CPUs.
//!
//! Invariants: `regs` is current while the guest does not run; EVENTINJ is the only queue of events.

// UNSAFETY: reaches the VMCB by its address and runs the guest.
#![allow(unsafe_code)]

use super::decode::{self, code};
use super::host::{self, EnabledCpu};
use super::vmcb::{INTERRUPT_SHADOW, TlbControl, V_IRQ, V_TPR, Vmcb};
use super::{controls, efer, entry, event, guest, permission};
use crate::addr::{Hpa, Hva};
use crate::arch::direct_map::image_hpa;
use crate::virt::debug::DebugAddresses;
use crate::virt::exit::{Event, EventKind, Exit};
use crate::virt::face::{ControlRegisters, Flush, RawExit, Window};
use crate::virt::frame::ControlFrame;
use crate::virt::state::{CpuState, Gpr, Regs};
use crate::virt::tag::{Sharing, TlbTag};

const RFLAGS_RESUME: u64 = 1 << 16;

/// A vCPU on SVM.
pub struct Vcpu {
    regs: Regs,
    frame: ControlFrame,
    /// The host's VMCB of the CPU on which the vCPU is loaded.
    host: Option<Hpa>,
    /// The same of the CPU on which it was loaded last.
    last_host: Option<Hpa>,
    debug_addresses: DebugAddresses,
    sharing: Sharing,
    flush: TlbControl,
    interrupt_window: Window,
    nmi_window: Window,
    nmi: NmiBlocking,
    shadow_at_entry: ShadowAtEntry,
}

/// What the CPU does with an interrupt shadow that the VMCB has at VMRUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ShadowAtEntry {
    /// As the manual says; assumed until seen otherwise.
    Honoured,
    Forgotten,
}

/// Whether the guest is handling an NMI, during which the next one waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NmiBlocking {
    Off,
    /// Ends with the IRET, which exits. The NMI that waits is then delivered before that IRET, not after: a nesting of
    /// one that a kernel must bear anyhow, since a fault's IRET in an NMI handler unblocks NMIs early too.
    UntilIret,
}

impl Vcpu {
    /// Makes a vCPU whose VMCB is `frame`.
    pub fn new(frame: ControlFrame) -> Self {
        let mut vcpu = Self {
            regs: Regs::default(),
            frame,
            host: None,
            last_host: None,
            debug_addresses: DebugAddresses::default(),
            sharing: Sharing::Shared,
            flush: if host::flushes_by_asid() { TlbControl::ThisAsid } else { TlbControl::All },
            interrupt_window: Window::None,
            nmi_window: Window::None,
            nmi: NmiBlocking::Off,
            shadow_at_entry: ShadowAtEntry::Honoured,
        };
        let io_map = image_hpa(Hva::new(&raw const permission::IO_MAP as u64));
        let msr_map = image_hpa(Hva::new(&raw const permission::MSR_MAP as u64));
        controls::set_up(&mut vcpu.vmcb_mut().control, io_map, msr_map);
        vcpu
    }

    fn vmcb(&self) -> &Vmcb {
        // SAFETY: the frame is ours, a page, initialised (zeroed at first); the CPU writes it only inside `entry::run`.
        unsafe { &*(self.frame.hva().as_u64() as *const Vmcb) }
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as above, and `&mut self` makes the reference the only one.
        unsafe { &mut *(self.frame.hva().as_u64() as *mut Vmcb) }
    }

    /// See [`crate::virt::Vcpu::set_memory`].
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {
        self.sharing = tag.sharing();
        // Whichever CPU loads it next takes it for a stranger and flushes.
        self.last_host = None;
        self.request_flush();
        let control = &mut self.vmcb_mut().control;
        control.nested_cr3 = root.as_u64();
        control.asid = u32::from(tag.number());
    }

    fn request_flush(&mut self) {
        self.vmcb_mut().control.tlb_control = self.flush as u32;
    }

    /// See [`crate::virt::Vcpu::load`].
    pub fn load(&mut self, cpu: &EnabledCpu) {
        assert!(self.host.is_none(), "a vCPU is loaded on one CPU at a time");
        let host = cpu.note_host_state();
        if self.last_host != Some(host) || self.sharing == Sharing::Shared {
            self.request_flush();
        }
        self.host = Some(host);
        self.last_host = Some(host);
        self.debug_addresses.load();
    }

    /// See [`crate::virt::Vcpu::unload`].
    pub fn unload(&mut self) {
        assert!(self.host.take().is_some(), "a vCPU is unloaded where it was loaded");
        self.debug_addresses = DebugAddresses::read();
    }

    /// See [`crate::virt::Vcpu::run`].
    ///
    /// # Panics
    /// If it is not loaded.
    pub fn run(&mut self, flush: Flush) -> Exit {
        let host = self.host.expect("a vCPU is loaded before it runs");
        if flush == Flush::This {
            self.request_flush();
        }
        if self.interrupt_window == Window::Open {
            return self.run_to_window(host);
        }
        self.enter(host);
        self.leave()
    }

    /// Runs with the window asked for. Apart from [`Self::run`], which is kept short.
    #[cold]
    fn run_to_window(&mut self, host: Hpa) -> Exit {
        let shadowed = self.open_window();
        let entered_at = self.regs.rip;
        self.enter(host);
        match self.leave() {
            Exit::InterruptWindow if shadowed && self.regs.rip == entered_at => self.restore_shadow(),
            exit => exit,
        }
    }

    /// Raises the virtual interrupt that opens the window, unless that must wait; returns whether the guest is in a shadow.
    fn open_window(&mut self) -> bool {
        let shadowed = self.in_shadow();
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control |= V_IRQ;
        if shadowed && self.shadow_at_entry == ShadowAtEntry::Forgotten {
            // The guest executes the shadowed instruction first; the window is asked for again after the next exit.
            self.vmcb_mut().control.interrupt_control &= !V_IRQ;
        }
        shadowed
    }

    /// Puts back the shadow that the CPU has forgotten, and knows it from now on.
    fn restore_shadow(&mut self) -> Exit {
        self.shadow_at_entry = ShadowAtEntry::Forgotten;
        self.vmcb_mut().control.interrupt_state |= INTERRUPT_SHADOW;
        Exit::Handled
    }

    /// Switches to the guest and back.
    #[inline(always)]
    fn enter(&mut self, host: Hpa) {
        let Regs { gpr, rip, rflags } = self.regs;
        let save = &mut self.vmcb_mut().save;
        save.rax = gpr[Gpr::Rax as usize];
        save.rsp = gpr[Gpr::Rsp as usize];
        save.rip = rip;
        save.rflags = rflags;
        // SAFETY: 1. `load` got proof that SVM is on and runs on this CPU; the caller has interrupts off. 2. `set_memory`'s
        // caller vouches for the table. 3. `load` filled the host's page. 4. References to the VMCB live in statements only.
        unsafe { entry::run(&mut self.regs, self.frame.hpa(), host) };
    }

    /// Takes over what the exit left, and names it.
    #[inline(always)]
    fn leave(&mut self) -> Exit {
        let Vmcb { control, save } = self.vmcb_mut();
        let (rax, rsp, rip, rflags) = (save.rax, save.rsp, save.rip, save.rflags);
        control.tlb_control = TlbControl::Nothing as u32;
        if control.exit_interrupt_info & event::VALID != 0 {
            control.event_injection = event::reinjection(control.exit_interrupt_info);
        }
        let raw = decode::RawExit { code: control.exit_code, info_1: control.exit_info_1, info_2: control.exit_info_2 };
        self.regs.set(Gpr::Rax, rax);
        self.regs.set(Gpr::Rsp, rsp);
        self.regs.rip = rip;
        self.regs.rflags = rflags;
        match decode::decode(raw) {
            Exit::Handled => self.settle(),
            exit => exit,
        }
    }

    /// Deals with an exit that is the back end's own.
    #[cold]
    fn settle(&mut self) -> Exit {
        let control = &mut self.vmcb_mut().control;
        match control.exit_code {
            code::IRET => return self.end_nmi(),
            // An interrupted delivery goes first; if it raises the exception again, that exits again.
            _ if control.event_injection & event::VALID != 0 => {}
            code::EXCP_DB => control.event_injection = event::encode(Event::debug()),
            _ => control.event_injection = event::encode(Event::alignment_check()),
        }
        Exit::Handled
    }

    fn end_nmi(&mut self) -> Exit {
        self.nmi = NmiBlocking::Off;
        self.vmcb_mut().control.intercept_events &= !controls::INTERCEPT_IRET;
        if self.nmi_window == Window::Open { Exit::NmiWindow } else { Exit::Handled }
    }

    /// See [`crate::virt::Vcpu::regs`].
    pub fn regs(&self) -> &Regs {
        &self.regs
    }

    /// See [`crate::virt::Vcpu::regs_mut`].
    pub fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }

    /// See [`crate::virt::Vcpu::state`].
    pub fn state(&self) -> CpuState {
        guest::load(&self.vmcb().save)
    }

    /// See [`crate::virt::Vcpu::set_state`].
    pub fn set_state(&mut self, state: &CpuState) {
        guest::store(&mut self.vmcb_mut().save, state);
    }

    /// See [`crate::virt::Vcpu::control_registers`].
    pub fn control_registers(&self) -> ControlRegisters {
        let save = &self.vmcb().save;
        ControlRegisters { cr0: save.cr0, cr3: save.cr3, cr4: save.cr4, efer: efer::to_guest(save.efer) }
    }

    /// See [`crate::virt::Vcpu::write_efer`].
    ///
    /// # Errors
    /// The exception for the guest.
    pub fn write_efer(&mut self, value: u64) -> Result<(), Event> {
        let save = &mut self.vmcb_mut().save;
        save.efer = efer::to_hardware(efer::write(efer::to_guest(save.efer), save.cr0, value)?);
        Ok(())
    }

    /// See [`crate::virt::Vcpu::set_cr2`].
    pub fn set_cr2(&mut self, cr2: u64) {
        self.vmcb_mut().save.cr2 = cr2;
    }

    /// See [`crate::virt::Vcpu::cr8`].
    pub fn cr8(&self) -> u8 {
        (self.vmcb().control.interrupt_control & V_TPR) as u8
    }

    /// See [`crate::virt::Vcpu::set_cr8`].
    pub fn set_cr8(&mut self, class: u8) {
        let control = &mut self.vmcb_mut().control;
        control.interrupt_control = (control.interrupt_control & !V_TPR) | (u64::from(class) & V_TPR);
    }

    /// See [`crate::virt::Vcpu::next_rip`].
    pub fn next_rip(&self) -> Option<u64> {
        let control = &self.vmcb().control;
        match (control.exit_code, control.next_rip) {
            (code::IOIO, _) => Some(control.exit_info_2),
            (_, 0) => None,
            (_, rip) => Some(rip),
        }
    }

    /// See [`crate::virt::Vcpu::advance_to`].
    pub fn advance_to(&mut self, rip: u64) {
        self.regs.rip = rip;
        self.regs.rflags &= !RFLAGS_RESUME;
        self.vmcb_mut().control.interrupt_state &= !INTERRUPT_SHADOW;
    }

    fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_state & INTERRUPT_SHADOW != 0
    }

    /// See [`crate::virt::Vcpu::can_take_interrupt`].
    pub fn can_take_interrupt(&self) -> bool {
        self.regs.interrupts_enabled() && !self.in_shadow() && !self.event_pending()
    }

    /// See [`crate::virt::Vcpu::can_take_nmi`].
    pub fn can_take_nmi(&self) -> bool {
        self.nmi == NmiBlocking::Off && !self.in_shadow() && !self.event_pending()
    }

    /// See [`crate::virt::Vcpu::inject`].
    pub fn inject(&mut self, event: Event) {
        assert!(event.kind == EventKind::Exception || !self.event_pending(), "an interrupt is injected when it can be taken");
        if event.kind == EventKind::Nmi {
            self.nmi = NmiBlocking::UntilIret;
            self.vmcb_mut().control.intercept_events |= controls::INTERCEPT_IRET;
        }
        self.vmcb_mut().control.event_injection = event::encode(event);
    }

    /// See [`crate::virt::Vcpu::event_pending`].
    pub fn event_pending(&self) -> bool {
        self.vmcb().control.event_injection & event::VALID != 0
    }

    /// See [`crate::virt::Vcpu::request_interrupt_window`].
    pub fn request_interrupt_window(&mut self, window: Window) {
        self.interrupt_window = window;
        self.vmcb_mut().control.interrupt_control &= !V_IRQ;
    }

    /// See [`crate::virt::Vcpu::request_nmi_window`].
    pub fn request_nmi_window(&mut self, window: Window) {
        self.nmi_window = window;
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

    /// See [`crate::virt::Vcpu::into_frame`].
    pub fn into_frame(self) -> ControlFrame {
        assert!(self.host.is_none(), "a vCPU is unloaded before it goes");
        self.frame
    }
}
