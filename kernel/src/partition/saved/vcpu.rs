//! A suspended vCPU: registers, events, extended state.
//!
//! Values that the hypervisor itself loads into the CPU are checked here, because a wrong one would
//! fault there. A wrong value of any other register fails the guest's next entry, which crashes
//! that partition alone.

use super::GuestActivity;
use crate::arch::fpu::GuestFpu;
use crate::dump::state_note::{StateError, StateNote, StatePart, StateReader, StateWriter};
use crate::partition::msr::pat_is_valid;
use crate::virt::saved::{SavedEvent, SavedEvents};
use crate::virt::state::DescriptorTable;
use crate::virt::{CpuState, Regs, SegmentRegister, Vcpu};

const VERSION: u16 = 1;
/// Most bytes of the extended state.
const MOST_EXTENDED: usize = 4096;
/// EFER's bits that a guest may have: SCE, LME, LMA, NXE.
const EFER_BITS: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;

/// A vCPU that was read from its note.
pub(super) struct SavedVcpu {
    regs: Regs,
    state: CpuState,
    events: SavedEvents,
    fpu: GuestFpu,
    activity: GuestActivity,
}

impl SavedVcpu {
    /// Appends the parts of a vCPU that is in memory.
    pub(super) fn save(
        note: &mut StateWriter,
        vcpu: &Vcpu,
        fpu: &GuestFpu,
        activity: GuestActivity,
    ) {
        let (regs, state, events) = (vcpu.saved_regs(), vcpu.state(), vcpu.save_events());
        note.part(StatePart::Registers, VERSION, |part| {
            regs.gpr.iter().for_each(|value| part.u64(*value));
            part.u64(regs.rip);
            part.u64(regs.rflags);
            save_state(part, &state);
            part.bool(activity == GuestActivity::Halts);
        });
        note.part(StatePart::Events, VERSION, |part| save_events(part, &events));
        note.part(StatePart::Extended, VERSION, |part| {
            part.u64(fpu.xcr0());
            part.counted(fpu.area());
        });
    }

    /// Reads the parts. The CPU offers these components of the extended state and bits of CR4.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn read(
        note: &StateNote<'_>,
        xcr0: u64,
        offered_cr4: u64,
    ) -> Result<Self, StateError> {
        let (regs, state, activity) = note.part(StatePart::Registers, VERSION, |part| {
            let mut regs = Regs::default();
            for value in &mut regs.gpr {
                *value = part.u64()?;
            }
            (regs.rip, regs.rflags) = (part.u64()?, part.u64()?);
            let state = read_state(part)?;
            part.check(is_loadable(&state, offered_cr4))?;
            let halts = part.bool()?;
            let activity = if halts { GuestActivity::Halts } else { GuestActivity::Runs };
            Ok((regs, state, activity))
        })?;
        let events = note.part(StatePart::Events, VERSION, read_events)?;
        let fpu = note.part(StatePart::Extended, VERSION, |part| {
            let (chosen, area) = (part.u64()?, part.counted(MOST_EXTENDED)?);
            GuestFpu::of_saved(chosen, area, xcr0).ok_or(part.impossible())
        })?;
        Ok(Self { regs, state, events, fpu, activity })
    }

    /// Puts the state into a vCPU that is in memory. Returns the extended state, and whether the
    /// guest halts.
    pub(super) fn put_into(self, vcpu: &mut Vcpu) -> (GuestFpu, GuestActivity) {
        *vcpu.regs_mut() = self.regs;
        vcpu.set_state(&self.state);
        vcpu.restore_events(&self.events);
        (self.fpu, self.activity)
    }
}

/// Returns whether the CPU loads these values: SDM 4 "Architectural MSRs", SDM 3B "Debug
/// Registers".
fn is_loadable(state: &CpuState, offered_cr4: u64) -> bool {
    const fn is_canonical(address: u64) -> bool {
        (address << 16) as i64 >> 16 == address as i64
    }
    let addresses = [state.lstar, state.cstar, state.kernel_gs_base];
    let narrow = [state.sfmask, state.dr6, state.dr7];
    addresses.into_iter().all(is_canonical)
        && narrow.into_iter().all(|value| value >> 32 == 0)
        && pat_is_valid(state.pat)
        && state.efer & !EFER_BITS == 0
        && state.cr4 & !offered_cr4 == 0
}

/// The segment registers in the order of the note.
fn segments(state: &mut CpuState) -> [&mut SegmentRegister; 8] {
    let CpuState { cs, ds, es, fs, gs, ss, ldtr, tr, .. } = state;
    [cs, ds, es, fs, gs, ss, ldtr, tr]
}

/// The registers of 64 bits in the order of the note.
fn words(state: &mut CpuState) -> [&mut u64; 18] {
    let CpuState { cr0, cr2, cr3, cr4, dr6, dr7, efer, star, lstar, cstar, sfmask, .. } = state;
    let CpuState { kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, pat, .. } = state;
    let CpuState { gdtr, idtr, .. } = state;
    [
        cr0,
        cr2,
        cr3,
        cr4,
        dr6,
        dr7,
        efer,
        star,
        lstar,
        cstar,
        sfmask,
        kernel_gs_base,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        pat,
        &mut gdtr.base,
        &mut idtr.base,
    ]
}

fn save_state(part: &mut StateWriter, state: &CpuState) {
    let mut state = *state;
    for SegmentRegister { selector, attributes, limit, base } in segments(&mut state) {
        part.u16(*selector);
        part.u32(*attributes);
        part.u32(*limit);
        part.u64(*base);
    }
    words(&mut state).into_iter().for_each(|word| part.u64(*word));
    for DescriptorTable { limit, .. } in [state.gdtr, state.idtr] {
        part.u16(limit);
    }
}

fn read_state(part: &mut StateReader<'_>) -> Result<CpuState, StateError> {
    let mut state = CpuState::default();
    for segment in segments(&mut state) {
        let (selector, attributes) = (part.u16()?, part.u32()?);
        *segment = SegmentRegister { selector, attributes, limit: part.u32()?, base: part.u64()? };
    }
    for word in words(&mut state) {
        *word = part.u64()?;
    }
    (state.gdtr.limit, state.idtr.limit) = (part.u16()?, part.u16()?);
    Ok(state)
}

fn save_events(part: &mut StateWriter, events: &SavedEvents) {
    part.bool(events.queued.is_some());
    let queued = events.queued.unwrap_or_default();
    part.u64(queued.word);
    part.u32(queued.error_code);
    part.u32(queued.length);
    part.bool(events.virtual_interrupt.is_some());
    part.u8(events.virtual_interrupt.unwrap_or(0));
    part.u8(events.shadow);
    part.bool(events.blocks_nmis);
    part.u64(events.pending_debug);
    part.u8(events.task_priority);
    let registers = events.debug_addresses.iter().chain(&events.directory_pointers);
    registers.for_each(|value| part.u64(*value));
}

fn read_events(part: &mut StateReader<'_>) -> Result<SavedEvents, StateError> {
    let is_queued = part.bool()?;
    let (word, error_code, length) = (part.u64()?, part.u32()?, part.u32()?);
    let queued = is_queued.then_some(SavedEvent { word, error_code, length });
    let (is_virtual, vector) = (part.bool()?, part.u8()?);
    let mut events = SavedEvents {
        queued,
        virtual_interrupt: is_virtual.then_some(vector),
        shadow: part.u8()?,
        blocks_nmis: part.bool()?,
        pending_debug: part.u64()?,
        task_priority: part.u8()?,
        ..SavedEvents::default()
    };
    part.check(events.shadow <= 3 && events.task_priority <= 15)?;
    for value in events.debug_addresses.iter_mut().chain(&mut events.directory_pointers) {
        *value = part.u64()?;
    }
    Ok(events)
}
