//! Free chunks: those that no image of the directory has. So an addition that was cut off leaves
//! nothing behind, and there is no table of free chunks that could be wrong.

use super::entry::{ImageExtent, ImageExtents};
use super::error::{StoreError, StoreRefusedError};
use super::layout::StoreLayout;
use super::{StoreDirectory, error::StoreContentError};
use super::{StoreFault, StorePlace, StoreSide};
use alloc::vec::Vec;

/// Returns the runs of free chunks, in ascending order.
///
/// # Errors
/// [`StoreFault::OutOfMemory`].
pub fn free(
    directory: &StoreDirectory,
    layout: &StoreLayout,
) -> Result<Vec<ImageExtent>, StoreFault> {
    let taken = directory.images.iter().flat_map(|image| &image.extents);
    let count = taken.clone().count();
    let (mut sorted, mut runs) = (Vec::new(), Vec::new());
    sorted.try_reserve_exact(count).map_err(|_| StoreFault::OutOfMemory)?;
    runs.try_reserve_exact(count + 1).map_err(|_| StoreFault::OutOfMemory)?;
    sorted.extend(taken.copied());
    sorted.sort_unstable_by_key(|extent| extent.first);
    let mut from = layout.first_chunk();
    let end = ImageExtent { first: layout.end_chunk(), count: 0 };
    for extent in sorted.into_iter().chain([end]) {
        if extent.first > from {
            runs.push(ImageExtent { first: from, count: extent.first - from });
        }
        from = extent.first + extent.count;
    }
    Ok(runs)
}

/// Chooses free chunks for an image: the smallest run that holds all of it, else the largest runs.
///
/// # Errors
/// [`StoreRefusedError`] if they do not suffice.
pub fn choose<E>(
    directory: &StoreDirectory,
    layout: &StoreLayout,
    needs: u32,
) -> Result<ImageExtents, StoreError<E>> {
    let place = StorePlace::Directory(StoreSide::of(directory.sequence));
    let mut runs = free(directory, layout).map_err(|fault| StoreContentError { place, fault })?;
    let whole = runs.iter().filter(|run| run.count >= needs).min_by_key(|run| run.count);
    if let Some(run) = whole {
        return Ok([ImageExtent { first: run.first, count: needs }].into_iter().collect());
    }
    let total: u32 = runs.iter().map(|run| run.count).sum();
    if total < needs {
        return Err(StoreRefusedError::Full { needs, free: total }.into());
    }
    runs.sort_unstable_by_key(|run| core::cmp::Reverse(run.count));
    let (mut chosen, mut left) = (ImageExtents::new(), needs);
    for run in runs.iter().take(chosen.capacity()) {
        let count = run.count.min(left);
        if count > 0 {
            chosen.push(ImageExtent { first: run.first, count });
        }
        left -= count;
    }
    if left > 0 {
        return Err(StoreRefusedError::Scattered { needs, largest: needs - left }.into());
    }
    Ok(chosen)
}
