//! The contract by which a device outlives its partition's suspension.
//!
//! Every device has a part of a note and implements [`SavedDevice`]; [`super::state`] lists them. A
//! new device does the same, with a part number of its own. A device whose part lacks is refused,
//! because a guest must not find another device than it left.
//!
//! Saved bytes come back from a disk. `restore` checks every value that the device relies on, and
//! never panics. A device is restored into a new one, which is dropped after an error.

use crate::dump::state_note::{StateError, StateNote, StatePart, StateReader, StateWriter};
use crate::time::Ticks;

/// A device whose state is kept while its partition is suspended.
pub trait SavedDevice {
    /// Its part of the note.
    const PART: StatePart;
    /// Version of the part's content; another one is refused.
    const VERSION: u16 = 1;

    /// Appends the state at `now`.
    fn save(&self, out: &mut StateWriter, now: Ticks);

    /// Takes the state over; the guest goes on at `now`.
    ///
    /// # Errors
    /// [`StateError`]; the device's state is then undefined.
    fn restore(&mut self, from: &mut StateReader<'_>, now: Ticks) -> Result<(), StateError>;

    /// Appends the device's part to the note.
    fn save_to(&self, note: &mut StateWriter, now: Ticks) {
        note.part(Self::PART, Self::VERSION, |part| self.save(part, now));
    }

    /// Restores the device from its part of the note.
    ///
    /// # Errors
    /// As [`Self::restore`].
    fn restore_from(&mut self, note: &StateNote<'_>, now: Ticks) -> Result<(), StateError> {
        note.part(Self::PART, Self::VERSION, |part| self.restore(part, now))
    }
}
