//! The attached objects, and the pager's state of each.

use super::PageStore;
use super::ahead_map::AheadMap;
use super::around::ReadAround;
use super::bad_pages::BadPages;
use super::batch::BATCH_PAGES;
use super::drain_state::DrainState;
use super::loss::PageLossError;
use super::use_estimate::UseEstimate;
use crate::addr::PageIndex;
use crate::block::{DiskError, DiskInfo};
use crate::mm::object::{MemoryObject, ObjectId, ObjectState, ObjectTable, WaitTicket};
use crate::pool::PoolTerms;
use crate::time::Ns;
use alloc::{boxed::Box, sync::Arc};
use arrayvec::ArrayVec;

/// Most lost pages remembered by number; one is enough to crash a partition.
const LOST_PAGES: usize = 8;
/// How long no dirty page is written after a write has failed.
const WRITE_BACKOFF_NS: Ns = Ns::from_ms(100);

/// Why an object was not attached or detached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// It is attached already.
    Twice,
    /// It is not attached.
    Unknown,
    /// The disk does not exist, or the space ends beyond it.
    NoSuchBlocks,
    /// The space has fewer blocks than the object has pages.
    TooSmall,
    /// Reads or writes of the object's pages are in flight.
    Busy,
}

/// An object's store, and the state and limits of its disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreState {
    pub store: PageStore,
    /// Most pages in a request.
    pub max_pages: usize,
    /// Most bytes in a segment.
    pub max_segment_len: u32,
    /// The disk is dead: no write or read succeeds any more.
    pub dead: bool,
    /// No writes before this time, because the last one failed.
    pub not_before: Ns,
}

/// Counts of one object's pages written to its blocks and read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageFlow {
    /// Pages read on demand.
    pub page_ins: u64,
    /// Pages written and then freed.
    pub page_outs: u64,
}

/// Why an object's pages cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GuardCause {
    /// The last write failed with this error.
    Failing(DiskError),
    /// The disk has been silent for some time: see [`super::guard`].
    Stuck,
    /// The object has no store yet; one is being prepared.
    Expected,
}

/// An attached object and the pager's state of it.
#[derive(Debug)]
pub(super) struct PagedObject {
    pub object: Arc<MemoryObject>,
    pub store: Option<StoreState>,
    /// Being detached: no new work is started.
    pub closing: bool,
    /// The partition's terms in the pool.
    pub terms: PoolTerms,
    /// Estimate of its use.
    pub usage: UseEstimate,
    /// Frames that are still to be credited to its account as its frames are freed.
    pub promise: u32,
    /// Next page that the clock hand visits.
    pub hand: u32,
    /// Next page that the cleaning hand visits.
    pub cleaning_hand: u32,
    /// Pages that the clock hand has passed since its last victim.
    pub fruitless: u32,
    pub drain: DrainState,
    /// Why its pages cannot be written now, if so.
    pub guard: Option<GuardCause>,
    /// Time since which it has been refused frames beyond its share.
    pub blocked_since: Option<Ns>,
    /// Pages read along with a neighbour and not yet known to be used.
    pub ahead: AheadMap,
    /// Access pattern learned from its faults, for reading along.
    pub around: ReadAround,
    /// Next word of read-along pages to sample.
    pub asking_hand: u32,
    lost: ArrayVec<(PageIndex, PageLossError), LOST_PAGES>,
    /// Pages whose blocks were found unreadable or wrong.
    pub bad: BadPages,
    /// Its page-ins and page-outs.
    pub flow: PageFlow,
    /// Pages still to be evicted on request of an operator or a test.
    pub asked: u32,
    /// Of a base: the last wake that its children were told of.
    pub told: Option<WaitTicket>,
    /// The last landmarks that were written out, oldest first.
    pub landmarks: ArrayVec<PageIndex, LANDMARKS>,
}

/// Most landmarks remembered per object.
pub const LANDMARKS: usize = 4;

impl PagedObject {
    fn new(object: Arc<MemoryObject>, store: Option<StoreState>) -> Self {
        let ahead = AheadMap::new(object.layout().pages());
        let around = ReadAround::new(object.layout().pages());
        let terms = PoolTerms { account: super::own_account(object.id()), minimum: 0 };
        Self {
            object,
            store,
            terms,
            usage: UseEstimate::default(),
            promise: 0,
            closing: false,
            hand: 0,
            cleaning_hand: 0,
            fruitless: 0,
            drain: DrainState::default(),
            guard: None,
            blocked_since: None,
            ahead,
            around,
            asking_hand: 0,
            lost: ArrayVec::new(),
            bad: BadPages::default(),
            flow: PageFlow::default(),
            asked: 0,
            told: None,
            landmarks: ArrayVec::new(),
        }
    }

    /// Remembers a landmark; the oldest makes room.
    pub(super) fn note_landmark(&mut self, index: PageIndex) {
        self.landmarks.retain(|known| *known != index);
        if self.landmarks.is_full() {
            self.landmarks.remove(0);
        }
        self.landmarks.push(index);
    }

    /// Returns the number of RAM pages.
    pub(super) fn pages(&self) -> u32 {
        self.object.layout().pages()
    }

    /// Returns whether this is a dump image.
    pub(super) fn is_image(&self) -> bool {
        self.object.state() == ObjectState::Image
    }

    /// Returns whether this is a base, which others map.
    pub(super) fn is_base(&self) -> bool {
        self.object.state() == ObjectState::Sealed
    }

    /// Returns the store if it can be written now.
    pub(super) fn writable(&self, now: Ns) -> Option<&StoreState> {
        self.store.as_ref().filter(|store| !store.dead && now >= store.not_before)
    }

    /// Suspends writes for a while after one has failed.
    pub(super) fn back_off(&mut self, now: Ns) {
        if let Some(store) = &mut self.store {
            store.not_before = now + WRITE_BACKOFF_NS;
        }
    }

    /// Permits writes again after failures.
    pub(super) fn revive(&mut self) {
        if let Some(store) = &mut self.store {
            (store.dead, store.not_before) = (false, Ns::ZERO);
        }
    }

    /// Returns how many pages a drain puts into one batch: as many whole requests as fit.
    pub(super) fn pages_in_batch(&self) -> usize {
        let request = self.store.map_or(1, |store| store.max_pages).min(BATCH_PAGES);
        BATCH_PAGES / request * request
    }

    /// Returns whether the disk is dead.
    pub(super) fn is_dead(&self) -> bool {
        self.store.is_some_and(|store| store.dead)
    }

    /// Notes that the disk takes requests again. Pages lost only to its death or a time-out may be
    /// read again.
    pub(super) fn come_back(&mut self) {
        self.revive();
        self.guard = None;
        self.lost.retain(|(_, loss)| {
            !matches!(loss, PageLossError::Io(DiskError::Dead | DiskError::TimedOut))
        });
    }

    /// Notes that the disk is dead. Returns whether that was unknown before.
    pub(super) fn note_dead(&mut self) -> bool {
        self.guard = Some(GuardCause::Failing(DiskError::Dead));
        self.store.as_mut().is_some_and(|store| !core::mem::replace(&mut store.dead, true))
    }

    /// Returns why the page cannot be read back, if it or its whole disk is known to be unreadable.
    pub(super) fn loss_of(&self, index: PageIndex) -> Option<PageLossError> {
        let known = self.lost.iter().find(|(lost, _)| *lost == index).map(|(_, loss)| *loss);
        known.or_else(|| self.is_dead().then_some(PageLossError::Io(DiskError::Dead)))
    }

    /// Remembers that the page cannot be read back. The oldest entry makes room.
    pub(super) fn note_loss(&mut self, index: PageIndex, loss: PageLossError) {
        if loss != PageLossError::NoFrames {
            self.bad.note(index);
        }
        if self.lost.is_full() {
            self.lost.remove(0);
        }
        self.lost.push((index, loss));
    }
}

/// All slots, by object number.
#[derive(Debug)]
pub(super) struct PagedObjects {
    /// Number of bases among them.
    pub bases: u32,
    all: Box<[Option<PagedObject>]>,
}

impl PagedObjects {
    pub(super) fn new() -> Self {
        Self { bases: 0, all: (0..ObjectTable::CAPACITY).map(|_| None).collect() }
    }

    pub(super) fn attach(
        &mut self,
        object: Arc<MemoryObject>,
        store: Option<PageStore>,
        disks: &[DiskInfo],
    ) -> Result<(), AttachError> {
        let store = match store {
            Some(store) => Some(check_store(store, object.layout().pages(), disks)?),
            None => None,
        };
        let place = &mut self.all[object.id().index()];
        if place.is_some() {
            return Err(AttachError::Twice);
        }
        let slot = PagedObject::new(object, store);
        self.bases += u32::from(slot.is_base());
        *place = Some(slot);
        Ok(())
    }

    pub(super) fn give_store(
        &mut self,
        id: ObjectId,
        store: PageStore,
        disks: &[DiskInfo],
    ) -> Result<(), AttachError> {
        let slot = self.get_mut(id).ok_or(AttachError::Unknown)?;
        let store = check_store(store, slot.pages(), disks)?;
        slot.store.get_or_insert(store);
        Ok(())
    }

    pub(super) fn get(&self, id: ObjectId) -> Option<&PagedObject> {
        self.all[id.index()].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ObjectId) -> Option<&mut PagedObject> {
        self.all[id.index()].as_mut()
    }

    /// Returns the slot of an object that has work in flight.
    pub(super) fn busy(&mut self, id: ObjectId) -> &mut PagedObject {
        self.get_mut(id).expect("an object with work under way stays attached")
    }

    pub(super) fn remove(&mut self, id: ObjectId) {
        let gone = self.all[id.index()].take();
        self.bases -= u32::from(gone.is_some_and(|slot| slot.is_base()));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PagedObject> {
        self.all.iter().flatten()
    }

    /// Returns the objects that inherit their pages from `base`.
    pub(super) fn mappers(&self, base: ObjectId) -> impl Iterator<Item = &MemoryObject> {
        let objects = self.iter().map(|slot| &*slot.object);
        objects.filter(move |object| object.base().is_some_and(|of| of.id() == base))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PagedObject> {
        self.all.iter_mut().flatten()
    }
}

fn check_store(
    store: PageStore,
    pages: u32,
    disks: &[DiskInfo],
) -> Result<StoreState, AttachError> {
    let info = disks.get(store.disk).ok_or(AttachError::NoSuchBlocks)?;
    if store.blocks.pages < pages {
        return Err(AttachError::TooSmall);
    }
    match store.blocks.end() {
        Some(end) if end <= info.capacity => {}
        _ => return Err(AttachError::NoSuchBlocks),
    }
    Ok(StoreState {
        store,
        max_pages: info.max_segments.max(1),
        max_segment_len: info.max_segment_len,
        dead: false,
        not_before: Ns::ZERO,
    })
}
