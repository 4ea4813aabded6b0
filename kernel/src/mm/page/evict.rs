//! Pages leave memory: with a write, without one, and back again.

use super::{Frame, Page, Settled, TransitionError, UnmappedPage, WriteOut, WriteOutEnd};
use crate::addr::Hfn;
use crate::mm::{
    crc::Crc32c,
    leaf::{LeafState, PageMapping},
    table::LeafWord,
};

impl Page<'_> {
    /// Present, dirty -> GoingOut. The frame is written after the flush.
    ///
    /// # Errors
    /// [`TransitionError`] names the obstacle; [`TransitionError::Clean`] calls for
    /// [`Page::evict_clean`].
    #[inline(always)]
    pub fn begin_write_out(&self) -> Result<WriteOut, TransitionError> {
        let (seen, hfn) = self.present()?;
        if !seen.is_dirty() {
            return Err(TransitionError::Clean);
        }
        self.frames().claim(hfn, self.owner()).map_err(|_| TransitionError::Pinned)?;
        let out = self.slot.encode(LeafState::GoingOut(hfn));
        if self.replace(seen, out).is_err() {
            self.insist_on_write_out(hfn, out)?;
        }
        Ok(WriteOut::new(self.object, self.index, hfn))
    }

    /// The same for a leaf that changed between the read and the claim.
    #[cold]
    fn insist_on_write_out(&self, hfn: Hfn, out: LeafWord) -> Result<(), TransitionError> {
        let dirty =
            |old: LeafWord| if old.is_dirty() { Ok(out) } else { Err(TransitionError::Clean) };
        self.remap_claimed(hfn, dirty)
    }

    /// GoingOut -> Paged(crc): the block holds the settled frame's content, and `crc` is its
    /// checksum.
    #[inline(always)]
    pub fn finish_write_out(&self, out: Settled, crc: Crc32c) -> WriteOutEnd {
        self.end(out, LeafState::Paged(crc))
    }

    /// GoingOut -> Zero: the settled frame holds zeros only, nothing is written.
    pub fn evict_zero(&self, out: Settled) -> WriteOutEnd {
        self.end(out, LeafState::Zero)
    }

    /// GoingOut -> Present, dirty: the write failed or is not needed any more.
    pub fn abort_write_out(&self, out: Settled) {
        let hfn = out.into_hfn(self.object, self.index);
        // The exchange fails if the page was rescued before: then it is resident already.
        let _ = self.exchange(LeafState::GoingOut(hfn), rescued(hfn));
        self.frames().unclaim(hfn);
    }

    /// GoingOut -> Present, dirty: the guest needs the page. The writer learns of it when it
    /// finishes.
    ///
    /// Until then the frame stays claimed, because the disk still reads it: the page is neither
    /// pinned nor evicted again.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is not going out (any more).
    pub fn rescue(&self) -> Result<(), TransitionError> {
        let LeafState::GoingOut(hfn) = self.leaf() else {
            return Err(TransitionError::State(self.leaf()));
        };
        self.exchange(LeafState::GoingOut(hfn), rescued(hfn))
    }

    /// Present and clean -> Paged with its frame's checksum, or Zero if it has no block.
    ///
    /// # Errors
    /// [`TransitionError`] names the obstacle; [`TransitionError::Dirty`] calls for
    /// [`Page::begin_write_out`].
    #[inline(always)]
    pub fn evict_clean(&self) -> Result<UnmappedPage, TransitionError> {
        loop {
            let (seen, hfn) = self.present()?;
            if seen.is_dirty() {
                return Err(TransitionError::Dirty);
            }
            let frame =
                self.frames().take(hfn, self.owner()).map_err(|_| TransitionError::Pinned)?;
            let to = match seen.has_block() {
                true => LeafState::Paged(self.frames().checksum_of(&frame)),
                false => LeafState::Zero,
            };
            if self.replace(seen, self.slot.encode(to)).is_ok() {
                return Ok(UnmappedPage::new(self.object, frame));
            }
            self.frames().put_back(frame, self.owner());
        }
    }

    /// Any settled state -> Untouched, for an object that no CPU can reach any more; returns the
    /// frame of a resident page.
    pub(in crate::mm) fn forget(&self) -> Result<Option<Frame>, TransitionError> {
        match self.leaf() {
            LeafState::Present(_) => {
                let hfn = self.claim()?;
                self.remap_claimed(hfn, |_| Ok(self.slot.encode(LeafState::Untouched)))?;
                Ok(Some(self.frames().unmap(hfn, self.owner())))
            }
            LeafState::Shared(_) => {
                // The base evicts this frame only from mappers that are attached. Nothing runs on
                // this one any more.
                let _ = self.hide_base();
                Ok(None)
            }
            busy @ (LeafState::GoingOut(_) | LeafState::ComingIn(_)) => {
                Err(TransitionError::State(busy))
            }
            settled => {
                let is_settled = |seen: LeafWord| seen.leaf() == settled;
                self.transition(is_settled, self.slot.encode(LeafState::Untouched)).map(|_| None)
            }
        }
    }

    /// Changes a claimed page's leaf, or gives the claim back.
    #[inline]
    pub(super) fn remap_claimed(
        &self,
        hfn: Hfn,
        change: impl Fn(LeafWord) -> Result<LeafWord, TransitionError>,
    ) -> Result<(), TransitionError> {
        self.remap(change).map(|_| ()).inspect_err(|_| self.frames().unclaim(hfn))
    }

    #[inline(always)]
    fn end(&self, out: Settled, to: LeafState) -> WriteOutEnd {
        let hfn = out.into_hfn(self.object, self.index);
        match self.exchange(LeafState::GoingOut(hfn), to) {
            Ok(()) => WriteOutEnd::Out(self.frames().unmap(hfn, self.owner())),
            Err(_) => {
                self.frames().unclaim(hfn);
                WriteOutEnd::Rescued
            }
        }
    }
}

/// A page that came back before its write ended: only the frame is sure to have its content.
const fn rescued(hfn: Hfn) -> LeafState {
    LeafState::Present(PageMapping { hfn, accessed: true, dirty: true, has_block: false })
}
