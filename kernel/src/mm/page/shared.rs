//! Pages of a child that were inherited from its base ([`crate::mm::base`]).
//!
//! ```text
//!               show_base                begin_copy              finish_copy
//!   Untouched ────────────> Shared(hfn) ───────────> ComingIn ──────────────> Present, dirty
//!    │  ^ └──────────────────── begin_copy ─────────────^
//!    │  └── hide_base ───────┘ │
//! ```
//!
//! In a child, an untouched page that does not show the shared zeros is inherited. A page whose
//! content in the base is zero shows those, and is a zero from then on.

use super::{Frame, Page, TransitionError};
use crate::addr::Hfn;
use crate::mm::crc::Crc32c;
use crate::mm::leaf::{LeafState, PageMapping, TransferIndex};
use core::sync::atomic::{Ordering, fence};

/// The number of no transfer: a page gets a copy of its own. At most one copy of a page is made at
/// a time, so the page names it.
const COPY: TransferIndex = TransferIndex(u32::MAX);

impl Page<'_> {
    /// Returns whether the page's content is the base's.
    pub fn is_inherited(&self) -> bool {
        let seen = self.slot.load();
        self.object.base().is_some()
            && (seen.is_shared()
                || seen.leaf() == LeafState::Untouched && seen.shown_zeros().is_none())
    }

    /// Marks a base's resident page as used; returns its frame. No CPU walks to a base's leaf, so
    /// its A bit is the pager's own.
    pub fn note_use(&self) -> Option<Hfn> {
        loop {
            let seen = self.slot.load();
            let hfn = seen.frame()?;
            if self.replace(seen, seen.accessed()).is_ok() {
                return Some(hfn);
            }
        }
    }

    /// Returns whether the page reads as zeros, and that is not the base's doing.
    pub fn is_zero_of_its_own(&self) -> bool {
        self.slot.load().reads_as_zeros() && !self.is_inherited()
    }

    /// Returns whether the guest sees the shared frame of zeros.
    pub fn shows_zeros(&self) -> bool {
        self.slot.load().shown_zeros().is_some()
    }

    /// Shows the guest `hfn`, the frame of the base's page, read-only: Untouched -> Shared. Returns
    /// whether the frame is still that of the base's page: the caller, which has read it there,
    /// may not know that it has left meanwhile.
    ///
    /// The base takes the frame out of its own leaf first, and then looks at its mappers. Here the
    /// order is the other way round. So one of the two sees what the other has done, and no leaf
    /// shows a frame that is gone.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is in another state by now.
    pub fn show_base(&self, hfn: Hfn, of_base: Page<'_>) -> Result<bool, TransitionError> {
        let seen = self.slot.load();
        if seen.leaf() != LeafState::Untouched || seen.shown_zeros().is_some() {
            return Err(TransitionError::State(seen.leaf()));
        }
        self.replace(seen, self.slot.encode(LeafState::Shared(hfn)))
            .map_err(|now| TransitionError::State(now.leaf()))?;
        self.object.counters().shown();
        fence(Ordering::SeqCst);
        if of_base.slot.load().frame() == Some(hfn) {
            return Ok(true);
        }
        let _ = self.hide_base();
        Ok(false)
    }

    /// Shared -> Untouched: the base's frame is on its way out. Returns whether it was shown. The
    /// frame is used again only after a flush of this object, too.
    pub fn hide_base(&self) -> bool {
        fence(Ordering::SeqCst);
        loop {
            let seen = self.slot.load();
            if !seen.is_shared() {
                return false;
            }
            if self.replace(seen, self.slot.encode(LeafState::Untouched)).is_ok() {
                self.object.counters().hidden();
                return true;
            }
        }
    }

    /// Inherited -> ComingIn: the page gets a frame of its own, once a flush of this object has
    /// passed. Until then a CPU may read the base's frame through an old translation.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is in another state by now.
    pub fn begin_copy(&self) -> Result<(), TransitionError> {
        loop {
            let seen = self.slot.load();
            if !self.is_inherited() {
                return Err(TransitionError::State(seen.leaf()));
            }
            if self.replace(seen, self.slot.encode(LeafState::ComingIn(COPY))).is_ok() {
                if seen.is_shared() {
                    self.object.counters().hidden();
                }
                return Ok(());
            }
        }
    }

    /// ComingIn -> Present, dirty: `frame` holds the base's content, and the flush has passed.
    ///
    /// # Panics
    /// If no copy was begun (our bug).
    pub fn finish_copy(&self, frame: Frame) {
        let hfn = self.frames().map(frame, self.owner());
        let own = PageMapping { hfn, accessed: true, dirty: true, has_block: false };
        let installed = self.exchange(LeafState::ComingIn(COPY), LeafState::Present(own));
        assert!(installed.is_ok(), "a page whose copy was begun waits for it");
    }

    /// ComingIn -> Untouched: no copy is made now.
    ///
    /// # Panics
    /// If no copy was begun (our bug).
    pub fn abort_copy(&self) {
        let back = self.exchange(LeafState::ComingIn(COPY), LeafState::Untouched);
        assert!(back.is_ok(), "a page whose copy was begun waits for it");
    }

    /// Zero -> Paged: the page is a zero of the child's own where the base has something else, and
    /// its block holds zeros by now. For an image, on which no vCPU runs.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is no zero of its own.
    pub fn adopt_zeros(&self, crc: Crc32c) -> Result<(), TransitionError> {
        if self.is_inherited() {
            return Err(TransitionError::State(self.leaf()));
        }
        let seen = self.slot.load();
        if !seen.reads_as_zeros() {
            return Err(TransitionError::State(seen.leaf()));
        }
        self.replace(seen, self.slot.encode(LeafState::Paged(crc)))
            .map_err(|now| TransitionError::State(now.leaf()))
    }
}
