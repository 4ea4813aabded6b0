//! The boot-code bytes of a disk with several spaces: whoever takes a space away from its dump takes the dump's header there, too.
//!
//! Only the host command puts one there (`tidepool dump select`), while no hypervisor has the disk.

use super::{SpaceId, Spaces};
use crate::block::gpt::BOOT_CODE_LEN;
use crate::block::request::SECTOR_SIZE;
use crate::block::{DiskError, Operation, SectorRange, Segment};
use crate::dump::selected::BootCode;

/// Where the boot-code bytes are.
const FIRST: SectorRange = SectorRange { first: 0, count: 1 };

impl Spaces {
    /// Takes the header of the dump in this space out of the boot-code bytes, if that is the selected one.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn deselect(&self, id: SpaceId) -> Result<(), DiskError> {
        let place = self.place(id);
        if place.number == 0 {
            return Ok(());
        }
        let buffer = self.take_buffer(id).await;
        let segments = [Segment { base: buffer.hpa(0), len: SECTOR_SIZE as u32 }];
        let mut result = self.io.run(self.disk(id), Operation::Read, FIRST, &segments).await;
        let mut code = [0; BOOT_CODE_LEN];
        code.iter_mut().enumerate().for_each(|(n, byte)| *byte = buffer.read(n));
        let is_selected = BootCode::of(&code).selects(place.area);
        if result.is_ok() && is_selected {
            (0..BOOT_CODE_LEN).for_each(|n| buffer.write(n, 0_u8));
            result = self.io.run(self.disk(id), Operation::Write, FIRST, &segments).await;
        }
        self.give_buffer(id, buffer);
        result?;
        if is_selected { self.io.flush(self.disk(id)).await } else { Ok(()) }
    }
}
