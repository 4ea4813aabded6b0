//! Looking through the definition slots.

use super::device::StoreRead;
use super::directory::zeros;
use super::error::{StoreContentError, StoreError, StoreFault, StorePlace};
use super::layout::{BLOCK, SLOTS_AT_ONCE, StoreLayout, StoreSide};
use super::slot::{DefinitionSlot, StoredDefinition};
use super::superblock::StoreSuperblock;
use alloc::vec::Vec;

/// Bytes of the slots that are read at once.
const READ_LEN: usize = 2 * BLOCK * SLOTS_AT_ONCE as usize;

/// Gives each slot to `look`, in order, until that returns a value.
///
/// # Errors
/// The disk's error.
pub async fn each<D: StoreRead, T>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    mut look: impl FnMut(DefinitionSlot) -> Option<T>,
) -> Result<Option<T>, StoreError<D::Error>> {
    let mut bytes = zeros(READ_LEN).map_err(no_memory)?;
    for first in (0..superblock.layout.slots()).step_by(SLOTS_AT_ONCE as usize) {
        let block = StoreLayout::slot(first, StoreSide::A);
        disk.read(block, &mut bytes).await.map_err(StoreError::Disk)?;
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        for (number, [a, b]) in (first..).zip(blocks.as_chunks::<2>().0) {
            let slot = DefinitionSlot::decode(number, [a, b], superblock.store);
            let found = look(slot);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

fn no_memory(fault: StoreFault) -> StoreContentError {
    StoreContentError { place: StorePlace::Slot(0, StoreSide::A), fault }
}

/// Reads one slot.
///
/// # Errors
/// The disk's error.
pub async fn slot<D: StoreRead>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    number: u32,
) -> Result<DefinitionSlot, StoreError<D::Error>> {
    let mut bytes = zeros(2 * BLOCK).map_err(no_memory)?;
    let block = StoreLayout::slot(number, StoreSide::A);
    disk.read(block, &mut bytes).await.map_err(StoreError::Disk)?;
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let [a, b] = blocks else { return Err(no_memory(StoreFault::Impossible("size")).into()) };
    Ok(DefinitionSlot::decode(number, [a, b], superblock.store))
}

/// Returns the numbers of the slots that are not free, in order.
///
/// # Errors
/// The disk's error, or [`StoreFault::OutOfMemory`].
pub async fn in_use<D: StoreRead>(
    disk: &mut D,
    superblock: &StoreSuperblock,
) -> Result<Vec<u32>, StoreError<D::Error>> {
    let mut numbers = Vec::new();
    let most = superblock.layout.slots() as usize;
    numbers.try_reserve_exact(most).map_err(|_| no_memory(StoreFault::OutOfMemory))?;
    each(disk, superblock, |slot| {
        if !slot.is_free() {
            numbers.push(slot.number);
        }
        None::<()>
    })
    .await?;
    Ok(numbers)
}

/// Finds the definition of a partition.
///
/// # Errors
/// The disk's error.
pub async fn definition<D: StoreRead>(
    disk: &mut D,
    superblock: &StoreSuperblock,
    name: &str,
) -> Result<Option<StoredDefinition>, StoreError<D::Error>> {
    each(disk, superblock, |slot| {
        slot.definition().filter(|definition| definition.name.as_str() == name).cloned()
    })
    .await
}
