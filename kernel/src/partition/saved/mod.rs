//! A machine while its partition is suspended: written to the notes of the space, checked against
//! the machine on which it is to go on, and put back.
//!
//! ```text
//!   VirtualMachine ── save ──> notes ──> SavedMachine::read ── fits? ──> VirtualMachine::take_over
//!                                          │ damaged, other back end, missing features
//!                                          └──> ResumeError: nothing has changed
//! ```
//!
//! Everything that can be refused is refused by [`SavedMachine::read`], before the space's record
//! changes. Moments are kept as distances, because the next machine counts from another start.

mod promise;
#[cfg(test)]
mod tests;
mod vcpu;

use super::cpuid::{self, CpuidLeaf};
use super::devices::Platform;
use super::devices::clock::SavedClock;
use super::devices::state::ResumeMoment;
use super::lengths::InsnLengthCache;
use super::machine::VirtualMachine;
use super::msr::Msrs;
use crate::arch::fpu::GuestFpu;
use crate::arch::heap::HeapError;
use crate::config::GuestDevices;
use crate::dump::state_note::{StateError, StateNote, StateNoteKind, StateWriter};
use crate::members::letters::PROMISE_LEN;
use crate::mm::layout::RamLayout;
use crate::time::Ticks;
use crate::virt::Backend;
use alloc::vec::Vec;
use core::fmt;
use promise::{Promise, PromiseError};
use vcpu::SavedVcpu;

/// Whether the guest waits for an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestActivity {
    /// It executes instructions.
    Runs,
    /// It has executed HLT.
    Halts,
}

/// The machine on which a guest is to go on.
pub struct ResumeHost<'a> {
    /// Its back end.
    pub backend: Backend,
    /// Its CPUID.
    pub cpuid: &'a dyn Fn(u32, u32) -> CpuidLeaf,
    /// Components of the extended state that it offers.
    pub xcr0: u64,
    /// Devices on the bus of the partition, as it is defined.
    pub devices: GuestDevices,
    /// The moment.
    pub at: ResumeMoment,
}

/// Why a suspended partition cannot go on here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavedMachineError {
    /// Its notes are damaged, or newer than this program.
    State(StateError),
    /// This machine lacks something that the guest was promised.
    Promise(PromiseError),
}

impl fmt::Display for SavedMachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(error) => write!(f, "{error}"),
            Self::Promise(error) => write!(f, "{error}"),
        }
    }
}

impl From<StateError> for SavedMachineError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// A machine that was read from notes, and fits this one.
pub struct SavedMachine {
    vcpu: SavedVcpu,
    msrs: Msrs,
    platform: Platform,
    /// The moment at which the guest's clocks go on.
    pub now: Ticks,
}

impl VirtualMachine {
    /// Returns the notes of this machine at `now`; the vCPU and `fpu` are in memory.
    ///
    /// # Errors
    /// [`HeapError`]: no room for the notes.
    pub fn save(
        &self,
        backend: Backend,
        fpu: &GuestFpu,
        activity: GuestActivity,
        now: Ticks,
    ) -> Result<Vec<u8>, HeapError> {
        let mut out = StateWriter::default();
        out.note(StateNoteKind::Vcpu, 0, |note| {
            SavedVcpu::save(note, &self.vcpu, fpu, activity);
            self.msrs.save(note, now);
        });
        self.platform.save(&mut out, now);
        out.note(StateNoteKind::Promised, 0, |note| {
            Promise::of(backend, &cpuid::host, self.rate).save(note);
        });
        out.finish()
    }

    /// Takes a saved machine over: vCPU, devices and registers. The memory is set already. Returns
    /// the extended state, and whether the guest halts.
    pub fn take_over(&mut self, saved: SavedMachine) -> (GuestFpu, GuestActivity) {
        let SavedMachine { vcpu, msrs, platform, .. } = saved;
        (self.msrs, self.platform) = (msrs, platform);
        self.lengths = InsnLengthCache::new();
        self.vcpu.set_tsc_offset(self.msrs.tsc_offset());
        vcpu.put_into(&mut self.vcpu)
    }
}

impl SavedMachine {
    /// Reads the machine of a partition with this RAM from the notes of its space, and checks that
    /// it can go on at `host`.
    ///
    /// # Errors
    /// [`SavedMachineError`].
    pub fn read(
        notes: &[u8],
        layout: &RamLayout,
        host: &ResumeHost<'_>,
    ) -> Result<Self, SavedMachineError> {
        let only = |kind, what| StateNote::all(notes, kind).next().ok_or(StateError::Missing(what));
        let promised = StateNote::read(only(StateNoteKind::Promised, "promise")?)?;
        let promise = Promise::read(&promised)?;
        let devices = only(StateNoteKind::Devices, "device state")?;
        let (platform, clock) = Platform::restored(devices, layout, host.devices, host.at)?;
        let vcpus = StateNote::all(notes, StateNoteKind::Vcpu).count();
        if vcpus != 1 {
            return Err(StateError::Vcpus(vcpus as u32).into());
        }
        let note = StateNote::read(only(StateNoteKind::Vcpu, "vCPU")?)?;
        if note.number != 0 {
            return Err(StateError::Vcpus(note.number.saturating_add(1)).into());
        }
        let (vendor, bits) = (cpuid::Vendor::of(host.cpuid), cpuid::physical_bits(host.cpuid));
        let mut msrs = Msrs::new(vendor, bits);
        msrs.restore_from(&note, host.at.now)?;
        promise.check(host, uses_only(&msrs, clock)).map_err(SavedMachineError::Promise)?;
        let offered_cr4 = cpuid::offered_cr4(host.cpuid);
        let vcpu = SavedVcpu::read(&note, host.xcr0, offered_cr4)?;
        Ok(Self { vcpu, msrs, platform, now: host.at.now })
    }
}

impl ResumeHost<'_> {
    /// Returns what guests are promised here, for a message to another machine.
    pub fn promise(&self) -> [u8; PROMISE_LEN] {
        Promise::of(self.backend, self.cpuid, self.at.rate).to_bytes()
    }

    /// Checks that a guest of a machine with this promise can go on here, as far as its CPU is
    /// concerned. The frequency of its counter is checked when it goes on.
    ///
    /// # Errors
    /// [`SavedMachineError`].
    pub fn keeps(&self, promise: &[u8; PROMISE_LEN]) -> Result<(), SavedMachineError> {
        let promise = Promise::of_bytes(promise).ok_or(StateError::Missing("promise"))?;
        promise.check(self, None).map_err(SavedMachineError::Promise)
    }
}

/// Returns the frequency that this machine must have because the guest keeps time by its counter.
fn uses_only(msrs: &Msrs, clock: SavedClock) -> Option<SavedClock> {
    (!msrs.kvmclock().is_used()).then_some(clock)
}
