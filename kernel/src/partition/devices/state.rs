//! All devices of a suspended partition: written to a note, and made again from it.

use super::clock::{GuestClock, SavedClock, TscRate};
use super::lapic::ApicMode;
use super::saved::SavedDevice;
use super::{Platform, map};
use crate::addr::Gpa;
use crate::config::GuestDevices;
use crate::dump::state_note::{StateError, StateNote, StateNoteKind, StatePart, StateWriter};
use crate::mm::layout::RamLayout;
use crate::time::Ticks;

/// vCPUs of a partition.
const VCPUS: u32 = 1;

/// The moment at which a suspended guest goes on.
#[derive(Clone, Copy, Debug)]
pub struct ResumeMoment {
    /// The machine's time-stamp counter.
    pub now: Ticks,
    /// Its frequency.
    pub rate: TscRate,
    /// The time of day, nanoseconds since 1970.
    pub unix_ns: u64,
}

impl Platform {
    /// Appends the note of all devices. The number that it counts is that of vCPUs.
    pub fn save(&self, out: &mut StateWriter, now: Ticks) {
        out.note(StateNoteKind::Devices, VCPUS, |note| {
            self.clock.save(note, now);
            self.lapic.save_to(note, now);
            self.ioapic.save_to(note, now);
            self.uart.save_to(note, now);
            self.rtc.save_to(note, now);
            self.fw_cfg.save_to(note, now);
            self.power.save_to(note, now);
            self.pit.save_to(note, now);
            self.erst.save_to(note, now);
            self.test_port.save_to(note, now);
            self.generation.save_to(note, now);
            self.bus.iter().for_each(|bus| bus.save_to(note, now));
        });
    }

    /// Makes the devices of a partition with this RAM, and these devices on its bus, from their
    /// note. Also returns the clock that the guest had.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restored(
        descriptor: &[u8],
        layout: &RamLayout,
        devices: GuestDevices,
        at: ResumeMoment,
    ) -> Result<(Self, SavedClock), StateError> {
        let note = StateNote::read(descriptor)?;
        if note.number != VCPUS {
            return Err(StateError::Vcpus(note.number));
        }
        let saved = SavedClock::read(&note)?;
        let clock = GuestClock::resumed(saved, at.rate, at.now, at.unix_ns);
        let mut made = Self::new(clock, layout, ApicMode::XApic);
        made.lapic.restore_from(&note, at.now)?;
        made.ioapic.restore_from(&note, at.now)?;
        made.uart.restore_from(&note, at.now)?;
        made.rtc.restore_from(&note, at.now)?;
        made.fw_cfg.restore_from(&note, at.now)?;
        made.power.restore_from(&note, at.now)?;
        made.pit.restore_from(&note, at.now)?;
        made.erst.restore_from(&note, at.now)?;
        made.test_port.restore_from(&note, at.now)?;
        made.generation.restore_from(&note, at.now)?;
        made.restore_bus(&note, devices, at.now)?;
        // As the guest's own write of the register is checked.
        let base = made.lapic.base();
        let is_ram = layout.index_of(Gpa::new(base).number()).is_some();
        if is_ram || map::is_at_device(base) {
            return Err(StateError::Field("local APIC"));
        }
        Ok((made, saved))
    }

    /// Restores the bus: with the devices that the definition has now, no more and no fewer.
    fn restore_bus(
        &mut self,
        note: &StateNote<'_>,
        devices: GuestDevices,
        now: Ticks,
    ) -> Result<(), StateError> {
        self.plug(devices);
        match &mut self.bus {
            Some(bus) => bus.restore_from(note, now),
            None if note.has(StatePart::PciBus) => Err(StateError::Devices),
            None => Ok(()),
        }
    }
}
