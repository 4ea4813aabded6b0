//! A page of a memory object and its life: every transition of its leaf, by name.
//!
//! ```text
//!                       install_zero
//!  Untouched ─┐      ┌──────────────────────────────────────────────────────────────┐
//!  Zero ──────┴──────┘        rescue, abort_write_out                               v
//!    ^  ^                  ┌─────────────────────────────────────────────────── Present <──┐
//!    │  │                  │   begin_write_out                                   │  │      │
//!    │  │                  v <──────────────────────────── dirty ────────────────┘  │      │
//!    │  └─ evict_zero ─ GoingOut                                                    │      │
//!    │                     │ finish_write_out                                       │      │
//!    │                     v           evict_clean                                  │      │
//!    │                   Paged <────────────────────────── clean, has block ────────┤      │
//!    │  abort_page_in  ^   │  begin_page_in               finish_page_in            │      │
//!    │                 └── ComingIn ────────────────────────────────────────────────┼──────┘
//!    └──────────────────────────── evict_clean ─────────── clean, no block ─────────┘
//!
//!  in place:  Present, dirty ──begin_clean──> Present ──finish_clean──> Present, has block
//! ```
//!
//! A present leaf means: D set: only the frame has the content. D clear and *has block*: the block
//! and the frame's checksum are current. D clear and no block, unclaimed: the page was not written
//! since it was installed as zeros, so it still is zeros.
//!
//! Every transition is one compare-exchange of the leaf, A and D included, so no bit that the
//! hardware sets meanwhile is lost. A page leaves memory in three steps, whose order the token
//! types enforce: the leaf changes (a token that waits), the flush passes (`settle` and `reclaim`
//! demand the proof), the frame is written or used again.
//!
//! Invariants:
//! * The thread that moves a page out or cleans it holds its frame's *claim* from `begin` to
//!   `finish`. So a page has at most one write in flight, also after a rescue, and a pinned page
//!   does not move.
//! * [`Page::begin_clean`] clears *has block* together with D: a page whose block is being
//!   overwritten has none.
//! * The counts of the object change here and nowhere else.

mod clean;
mod evict;
mod fill;
mod group;
#[cfg(test)]
mod hardware;
mod shared;
#[cfg(test)]
mod tests;
mod token;

use super::{
    flush::FlushProof,
    frames::{Frame, FrameOwner, FramePin, FrameTable},
    leaf::{LeafState, PageMapping},
    object::MemoryObject,
    table::{LeafRef, LeafWord},
};
use crate::addr::{Hfn, PageIndex};
use crate::virt::PageAccess;
use core::sync::atomic::AtomicU64;
pub use fill::InstallReason;
pub use group::{PageGroup, SettledPage};
#[cfg(test)]
pub use hardware::Translation;
pub use token::{Cleaning, Settled, SettledClean, UnmappedPage, WriteOut, WriteOutEnd};

/// Why a transition was not made; the leaf is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransitionError {
    /// The page is in another state by now.
    State(LeafState),
    /// The page is pinned, or a write of it is in flight.
    Pinned,
    /// The page is dirty: write it out instead.
    Dirty,
    /// The page is clean: evict it without a write.
    Clean,
}

/// The clock's finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageAge {
    /// Touched since the last look.
    Referenced,
    /// Not touched.
    Idle,
    /// Not resident.
    Absent,
}

/// The guest's view of a page before the page got a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PriorMapping {
    /// Nothing: each access faulted.
    Absent,
    /// The shared frame of zeros.
    SharedZeros,
}

/// A page with its leaf.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    object: &'a MemoryObject,
    slot: LeafRef<&'a AtomicU64>,
    index: PageIndex,
}

impl<'a> Page<'a> {
    #[inline]
    pub(super) const fn new(
        object: &'a MemoryObject,
        slot: LeafRef<&'a AtomicU64>,
        index: PageIndex,
    ) -> Self {
        Self { object, slot, index }
    }

    /// Returns the page's index.
    pub const fn index(&self) -> PageIndex {
        self.index
    }

    /// Returns the page's state.
    #[inline]
    pub fn leaf(&self) -> LeafState {
        self.slot.load().leaf()
    }

    /// Returns the mapping of a page that has a frame, its own or the base's: for the clock, to
    /// which both are resident. A frame of the base cannot be claimed for this page.
    #[inline]
    pub fn mapping(&self) -> Option<PageMapping> {
        self.slot.load().mapping()
    }

    /// Returns whether the page shows the base's frame.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.slot.load().is_shared()
    }

    /// Reads and clears A.
    ///
    /// Does no flush and needs none of its own. A CPU that has the translation in its TLB sets A
    /// again only after it has lost that translation, so a page in constant use can look idle until
    /// the next flush of its object. It is then rescued, or paged in again as referenced. Victims
    /// are taken in batches with one flush each, so under pressure this lasts a batch at most. If
    /// the CPU keeps no A bit, the page loses its permissions with A, and the same holds: a
    /// translation loaded before goes on without a fault.
    #[inline]
    pub fn age(&self) -> PageAge {
        match self.slot.take_accessed() {
            Some(true) => PageAge::Referenced,
            Some(false) => PageAge::Idle,
            None => PageAge::Absent,
        }
    }

    /// Marks a resident page as accessed, for a write also as dirty, and returns its frame. The
    /// caller copies the bytes after that. A read of a page that shows the shared zeros returns
    /// that frame.
    ///
    /// The frame stays this page's until the calling CPU enters a guest or idles
    /// ([`super::flush`]).
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is not resident, and shows no zeros that could be read.
    #[inline]
    pub fn touch(&self, access: PageAccess) -> Result<Hfn, TransitionError> {
        self.remap(|old| match access {
            PageAccess::Write if old.is_shared() => Err(TransitionError::State(old.leaf())),
            PageAccess::Write => Ok(old.accessed().dirtied()),
            PageAccess::Read | PageAccess::Execute => Ok(old.accessed()),
        })
        .or_else(|refused| match access {
            PageAccess::Read => self.slot.load().shown_zeros().ok_or(refused),
            PageAccess::Write | PageAccess::Execute => Err(refused),
        })
    }

    /// Lets the guest into a resident page. If the CPU keeps no A and D, this notes the access, and
    /// so makes the leaf permit it.
    ///
    /// No flush: nothing is taken away, and the fault has dropped the CPU's own translation (SDM 3C
    /// "Operations that Invalidate Cached Mappings"). A stale translation in another CPU costs that
    /// CPU a fault, which ends here too.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is not resident.
    #[inline]
    pub fn admit(&self, access: PageAccess) -> Result<(), TransitionError> {
        if self.slot.is_kept_by_cpu() {
            return Ok(());
        }
        self.touch(access).map(|_| ())
    }

    /// Pins a resident page for a device or for I/O: it stays in its frame until
    /// [`Page::unpin`].
    ///
    /// A caller that lets a device write the frame [touches](Page::touch) the page for writing
    /// before and after.
    ///
    /// # Errors
    /// [`TransitionError::State`]: not resident. [`TransitionError::Pinned`]: it is going out or
    /// being cleaned; wait for the end of that.
    pub fn pin(&self) -> Result<FramePin, TransitionError> {
        let (seen, hfn) = self.present()?;
        if seen.is_shared() {
            return Err(TransitionError::State(seen.leaf()));
        }
        self.frames().pin(hfn, self.owner()).map_err(|_| TransitionError::Pinned)
    }

    /// Gives back a pin of [`Page::pin`] that is known by its page: the pin has kept the page in
    /// its frame.
    ///
    /// # Panics
    /// If the page is not resident or not pinned (our bug).
    pub fn unpin(&self) {
        let (_, hfn) = self.present().expect("a pinned page stays in its leaf");
        self.frames().unpin_frame(hfn);
    }

    #[inline]
    fn frames(&self) -> &'a FrameTable {
        self.object.frames()
    }

    const fn owner(&self) -> FrameOwner {
        FrameOwner { object: self.object.id(), index: self.index }
    }

    #[inline]
    fn present(&self) -> Result<(LeafWord, Hfn), TransitionError> {
        let seen = self.slot.load();
        match seen.frame() {
            Some(hfn) => Ok((seen, hfn)),
            None => Err(TransitionError::State(seen.leaf())),
        }
    }

    /// Takes the claim of a resident page's frame. From then on only A, D and the claim's holder
    /// change the leaf.
    #[inline(always)]
    fn claim(&self) -> Result<Hfn, TransitionError> {
        let (_, hfn) = self.present()?;
        self.frames().claim(hfn, self.owner()).map_err(|_| TransitionError::Pinned)?;
        Ok(hfn)
    }

    /// Changes a resident page's leaf, with as many attempts as it takes unless `change` refuses;
    /// returns the frame.
    #[inline]
    fn remap(
        &self,
        change: impl Fn(LeafWord) -> Result<LeafWord, TransitionError>,
    ) -> Result<Hfn, TransitionError> {
        loop {
            let (seen, hfn) = self.present()?;
            let new = change(seen)?;
            if new == seen || self.replace(seen, new).is_ok() {
                return Ok(hfn);
            }
        }
    }

    /// Changes a page from one exact state in which its leaf is absent.
    #[inline(always)]
    fn exchange(&self, from: LeafState, to: LeafState) -> Result<(), TransitionError> {
        let (from, to) = (self.slot.encode(from), self.slot.encode(to));
        self.replace(from, to).map_err(|now| TransitionError::State(now.leaf()))
    }

    /// Changes a page from any state that `from` accepts. If the page showed the shared frame of
    /// zeros, every CPU that may have seen that frame flushes.
    #[inline]
    fn transition(
        &self,
        from: impl Fn(LeafWord) -> bool,
        to: LeafWord,
    ) -> Result<PriorMapping, TransitionError> {
        loop {
            let seen = self.slot.load();
            if !from(seen) {
                return Err(TransitionError::State(seen.leaf()));
            }
            if self.replace(seen, to).is_err() {
                continue;
            }
            if seen.shown_zeros().is_none() {
                return Ok(PriorMapping::Absent);
            }
            self.object.forget_zeros();
            return Ok(PriorMapping::SharedZeros);
        }
    }

    /// The one place that changes a leaf; the counts change with it.
    #[inline]
    fn replace(&self, seen: LeafWord, to: LeafWord) -> Result<(), LeafWord> {
        self.slot.replace(seen, to)?;
        self.object.counters().moved(seen, to);
        Ok(())
    }
}
