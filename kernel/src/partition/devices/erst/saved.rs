//! The error record store's state while its partition is suspended.

use super::store::ErstStore;
use super::{Erst, ErstOperation, Status};
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::partition::devices::panic_line::{restored_text, save_text};
use crate::partition::devices::saved::SavedDevice;
use crate::time::Ticks;

const OPERATIONS: [ErstOperation; 5] = [
    ErstOperation::None,
    ErstOperation::Write,
    ErstOperation::Read,
    ErstOperation::Clear,
    ErstOperation::DummyWrite,
];
const STATUS: [Status; 5] =
    [Status::Success, Status::NotEnoughSpace, Status::Failed, Status::StoreEmpty, Status::NotFound];

impl SavedDevice for Erst {
    const PART: StatePart = StatePart::Erst;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        let operation = OPERATIONS.iter().position(|known| *known == self.operation);
        out.u8(operation.unwrap_or(0) as u8);
        out.u8(self.status as u8);
        for register in [self.offset, self.id, self.next_id, self.cursor as u64] {
            out.u64(register);
        }
        out.bool(self.panic_recorded);
        save_text(self.panic_text, out);
        self.store.save(out);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        let operation = OPERATIONS.get(usize::from(from.u8()?));
        self.operation = *operation.ok_or(from.impossible())?;
        let status = from.u8()?;
        let status = STATUS.into_iter().find(|known| *known as u8 == status);
        self.status = status.ok_or(from.impossible())?;
        for register in [&mut self.offset, &mut self.id, &mut self.next_id] {
            *register = from.u64()?;
        }
        self.cursor = usize::try_from(from.u64()?).map_err(|_| from.impossible())?;
        from.check(self.cursor <= ErstStore::SLOTS)?;
        self.panic_recorded = from.bool()?;
        self.panic_text = restored_text(from)?;
        self.store.restore(from)
    }
}
