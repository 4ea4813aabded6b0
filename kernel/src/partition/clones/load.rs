//! Loads a base: reads and checks the notes, the bitmap and the checksums of a suspended or sealed
//! space, and makes the object whose pages the children share.

use crate::addr::PageIndex;
use crate::arch::heap;
use crate::block::DiskError;
use crate::dump::window::BitmapWindow;
use crate::host::Host;
use crate::host::bases::Base;
use crate::mm::crc::{Crc32c, crc32c_on};
use crate::mm::layout::RamLayout;
use crate::mm::object::MemoryObject;
use crate::partition::resume::{ResumeError, read_notes};
use crate::pool::PoolTerms;
use crate::space::record::SpaceContents;
use crate::space::{OwnPages, SpaceBase, SuspensionSeal};
use crate::storage::spaces::{BUFFER, SpaceId};
use crate::task::yield_now;
use alloc::sync::Arc;

/// Loads the base in a space, for children with this RAM. Its frames belong to the account of
/// `terms`.
///
/// # Errors
/// [`ResumeError`]: the state does not fit, is damaged, or there is no memory for it.
pub async fn load(
    host: &'static Host,
    space: SpaceId,
    layout: &RamLayout,
    terms: PoolTerms,
) -> Result<Base, ResumeError> {
    let record = host.spaces.record(space).ok_or(ResumeError::Gone)?;
    let whole = record.state.is_whole_machine();
    let (Some(contents), Some(seal), Some(owner), Some(crash), true) =
        (record.contents, record.seal, record.owner, record.crash, whole)
    else {
        return Err(ResumeError::Gone);
    };
    if !contents.ranges.iter().copied().eq(layout.ranges()) {
        let bytes = |pages: u32| u64::from(pages) * crate::addr::PAGE_SIZE;
        let (then, now) = (contents.layout.pages(), layout.pages());
        return Err(ResumeError::Memory(bytes(then), bytes(now)));
    }
    let sealed = (record.drain.notes_len, seal.notes);
    let notes = read_notes(host, space, &contents.layout, sealed).await?;
    let object = host.objects.create(*layout).map_err(|_| ResumeError::NoTables)?;
    let made = async {
        adopt_all(host, space, &object, (&contents, seal)).await?;
        object.become_base();
        let store = host.spaces.store(space).ok_or(ResumeError::Gone)?;
        let attached = host.pager.attach_on(object.clone(), Some(store), terms);
        attached.map_err(|_| ResumeError::Disk(DiskError::Unsupported))
    };
    if let Err(error) = made.await {
        let _ = host.reaper.reap(object);
        return Err(error);
    }
    let sealed = SpaceBase { dump: crash.name, generation: owner.epoch, own: OwnPages::Open };
    Ok(Base { name: owner.name, sealed, space, object, notes })
}

/// Makes every page of the object what bitmap and checksums say.
async fn adopt_all(
    host: &'static Host,
    space: SpaceId,
    object: &Arc<MemoryObject>,
    (contents, seal): (&SpaceContents, SuspensionSeal),
) -> Result<(), ResumeError> {
    let layout = contents.layout;
    let mut window = BitmapWindow::new(&layout)?;
    let mut checksums = heap::zeroed(BUFFER / 512 * 512)?;
    let (mut bits, mut sums) = (Crc32c::default(), Crc32c::default());
    for piece in BitmapWindow::pieces(0..layout.pages(), layout.pages()) {
        window.open(piece.clone());
        let start = window.extent(&layout).start;
        host.spaces.read(space, start, window.bytes_mut()).await?;
        bits = crc32c_on(bits, window.bytes());
        let step = checksums.len() / 4;
        for first in piece.clone().step_by(step) {
            let pages = first..piece.end.min(first + step as u32);
            let extent = layout.checksums_of(pages.clone());
            let bytes = &mut checksums[..(pages.len() * 4).next_multiple_of(512)];
            host.spaces.read(space, extent.start, bytes).await?;
            let used = &bytes[..pages.len() * 4];
            sums = crc32c_on(sums, used);
            for (index, sum) in pages.map(PageIndex).zip(used.as_chunks::<4>().0) {
                if window.has_block(index) {
                    let page = object.page(index).map_err(|_| ResumeError::NoTables)?;
                    // The object is new, so each of its pages is untouched.
                    let _ = page.adopt_block(Crc32c(u32::from_le_bytes(*sum)));
                }
            }
            yield_now().await;
        }
    }
    match (bits == seal.bitmap, sums == seal.checksums) {
        (true, true) => Ok(()),
        (false, _) => Err(ResumeError::Damaged("bitmap")),
        (_, false) => Err(ResumeError::Damaged("checksums")),
    }
}
