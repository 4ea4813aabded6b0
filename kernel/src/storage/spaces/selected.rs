//! The boot-code bytes of a disk with several spaces. When a dump loses its space, the copy of its
//! header in these bytes is removed too.
//!
//! Only the host command writes a header there (`tidepool dump select`), while no hypervisor has
//! the disk.

use super::retry::patiently;
use super::{SpaceId, Spaces};
use crate::block::gpt::BOOT_CODE_LEN;
use crate::block::patience::SpaceAccess;
use crate::block::{DiskError, DiskOperation, QueueLane, SectorRange};
use crate::dump::selected::BootCode;

/// Location of the boot-code bytes.
const FIRST: SectorRange = SectorRange { first: 0, count: 1 };

impl Spaces {
    /// Removes the header of the dump in this space from the boot-code bytes, if that dump is
    /// selected.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn deselect(&self, id: SpaceId) -> Result<(), DiskError> {
        patiently!(self, id, SpaceAccess::Deselect, self.deselect_once(id).await)
    }

    /// Returns whether the dump in this space is the selected one of its disk.
    ///
    /// # Errors
    /// The disk's, after some tries.
    pub(super) async fn is_selected(&self, id: SpaceId) -> Result<bool, DiskError> {
        patiently!(self, id, SpaceAccess::Selection, self.is_selected_once(id).await)
    }

    async fn is_selected_once(&self, id: SpaceId) -> Result<bool, DiskError> {
        let place = self.place(id);
        if place.number == 0 {
            return Ok(false);
        }
        let buffer = self.take_buffer(id, QueueLane::Common).await?;
        let (result, buffer) = self
            .io
            .transfer(self.disk(id), QueueLane::Common, DiskOperation::Read, FIRST, buffer)
            .await;
        let mut code = [0; BOOT_CODE_LEN];
        if let Some(buffer) = &buffer {
            buffer.window().copy_out(0, &mut code);
        }
        self.give_buffer(id, QueueLane::Common, buffer);
        result.map(|()| BootCode::of(&code).selects(place.area))
    }

    async fn deselect_once(&self, id: SpaceId) -> Result<(), DiskError> {
        let place = self.place(id);
        if place.number == 0 {
            return Ok(());
        }
        let buffer = self.take_buffer(id, QueueLane::Common).await?;
        let (result, buffer) = self
            .io
            .transfer(self.disk(id), QueueLane::Common, DiskOperation::Read, FIRST, buffer)
            .await;
        let buffer = match (result, buffer) {
            (Ok(()), Some(buffer)) => buffer,
            (result, buffer) => {
                self.give_buffer(id, QueueLane::Common, buffer);
                return result;
            }
        };
        let mut code = [0; BOOT_CODE_LEN];
        buffer.window().copy_out(0, &mut code);
        if !BootCode::of(&code).selects(place.area) {
            self.give_buffer(id, QueueLane::Common, Some(buffer));
            return Ok(());
        }
        (0..BOOT_CODE_LEN).for_each(|n| buffer.write(n, 0_u8));
        let (result, buffer) = self
            .io
            .transfer(self.disk(id), QueueLane::Common, DiskOperation::Write, FIRST, buffer)
            .await;
        self.give_buffer(id, QueueLane::Common, buffer);
        result?;
        self.io.flush(self.disk(id)).await
    }
}
