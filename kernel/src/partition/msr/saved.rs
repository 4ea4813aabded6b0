//! The MSRs of a suspended partition.

use super::tsc::TscShift;
use super::{MISC_ENABLE_FIXED, Msrs};
use crate::dump::state_note::{StateError, StateNote, StatePart, StateReader, StateWriter};
use crate::time::Ticks;

const VERSION: u16 = 1;

impl Msrs {
    /// Appends the registers at `now` to the vCPU's note.
    pub fn save(&self, note: &mut StateWriter, now: Ticks) {
        note.part(StatePart::Msrs, VERSION, |part| {
            self.mtrrs.save(part);
            self.kvmclock.save(part);
            part.u64(self.misc_enable);
            part.u64(self.tsc.guest(now));
            part.u64(self.tsc.adjust());
            part.u64(self.deadline);
        });
    }

    /// Takes saved registers over: the guest's counter goes on from its value at `now`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn restore_from(&mut self, note: &StateNote<'_>, now: Ticks) -> Result<(), StateError> {
        note.part(StatePart::Msrs, VERSION, |part| self.restore(part, now))
    }

    fn restore(&mut self, part: &mut StateReader<'_>, now: Ticks) -> Result<(), StateError> {
        self.mtrrs.restore(part)?;
        self.kvmclock.restore(part)?;
        self.misc_enable = part.u64()? | MISC_ENABLE_FIXED;
        self.tsc = TscShift::resumed(part.u64()?, part.u64()?, now);
        self.deadline = part.u64()?;
        Ok(())
    }

    /// Returns the offset that the vCPU adds to the machine's counter.
    pub const fn tsc_offset(&self) -> u64 {
        self.tsc.offset()
    }

    /// Returns the moment `now` by both counters.
    pub const fn moment(&self, now: Ticks) -> super::tsc::ClockMoment {
        self.tsc.moment(now)
    }
}
