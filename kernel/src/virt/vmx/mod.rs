//! VMX with EPT: the first back end.
//!
//! Skeleton of the face; the back end proper follows.
#![allow(unused_variables, missing_docs)]

use super::exit::{Event, Exit};
use super::face::{Capabilities, ControlRegisters, Flush, Missing, RawExit, Window};
use super::frame::ControlFrame;
use super::state::{CpuState, Regs};
use super::tag::TlbTag;
use crate::addr::Hpa;

pub fn detect() -> Result<(), Missing> {
    Err(Missing("VT-x: this build has no back end for it yet"))
}

pub fn capabilities() -> Capabilities {
    unreachable!("detect refused")
}

#[derive(Debug)]
pub struct EnabledCpu {}

impl EnabledCpu {
    pub fn enable(frames: [ControlFrame; 2]) -> Result<Self, Missing> {
        detect().map(|()| Self {})
    }
}

pub struct Vcpu {
    frame: ControlFrame,
    regs: Regs,
}

impl Vcpu {
    pub fn new(frame: ControlFrame) -> Self {
        Self { frame, regs: Regs::default() }
    }
    pub fn set_memory(&mut self, root: Hpa, tag: TlbTag) {}
    pub fn load(&mut self, cpu: &EnabledCpu) {}
    pub fn unload(&mut self) {}
    pub fn run(&mut self, flush: Flush) -> Exit {
        Exit::EntryFailed { code: 0 }
    }
    pub fn regs(&self) -> &Regs {
        &self.regs
    }
    pub fn regs_mut(&mut self) -> &mut Regs {
        &mut self.regs
    }
    pub fn state(&self) -> CpuState {
        CpuState::default()
    }
    pub fn set_state(&mut self, state: &CpuState) {}
    pub fn control_registers(&self) -> ControlRegisters {
        ControlRegisters { cr0: 0, cr3: 0, cr4: 0, efer: 0 }
    }
    pub fn write_efer(&mut self, value: u64) -> Result<(), Event> {
        Err(Event::general_protection())
    }
    pub fn set_cr2(&mut self, cr2: u64) {}
    pub fn cr8(&self) -> u8 {
        0
    }
    pub fn set_cr8(&mut self, class: u8) {}
    pub fn next_rip(&self) -> Option<u64> {
        None
    }
    pub fn advance_to(&mut self, rip: u64) {
        self.regs.rip = rip;
    }
    pub fn can_take_interrupt(&self) -> bool {
        false
    }
    pub fn can_take_nmi(&self) -> bool {
        false
    }
    pub fn inject(&mut self, event: Event) {}
    pub fn event_pending(&self) -> bool {
        false
    }
    pub fn request_interrupt_window(&mut self, window: Window) {}
    pub fn request_nmi_window(&mut self, window: Window) {}
    pub fn raw_exit(&self) -> RawExit {
        RawExit([("none", 0); 6])
    }
    pub fn into_frame(self) -> ControlFrame {
        self.frame
    }
}
