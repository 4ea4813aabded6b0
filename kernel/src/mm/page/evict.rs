//! Pages leave memory: with a write, without one, and back again.

use super::{Ended, Frame, Page, Refused, Settled, Unmapped, WriteOut};
use crate::addr::Hfn;
use crate::mm::{
    crc::Crc32c,
    leaf::{Leaf, Mapping},
    table::Seen,
};

impl Page<'_> {
    /// Present, dirty -> GoingOut. The frame is written after the flush.
    ///
    /// # Errors
    /// [`Refused`] names the obstacle; [`Refused::Clean`] calls for [`Page::evict_clean`].
    #[inline(always)]
    pub fn begin_write_out(&self) -> Result<WriteOut, Refused> {
        let (seen, hfn) = self.present()?;
        if !seen.is_dirty() {
            return Err(Refused::Clean);
        }
        self.frames().claim(hfn, self.owner()).map_err(|_| Refused::Pinned)?;
        let out = self.slot.encode(Leaf::GoingOut(hfn));
        if self.replace(seen, out).is_err() {
            self.insist_on_write_out(hfn, out)?;
        }
        Ok(WriteOut::new(self.object, self.index, hfn))
    }

    /// The same for a leaf that changed between the read and the claim.
    #[cold]
    fn insist_on_write_out(&self, hfn: Hfn, out: Seen) -> Result<(), Refused> {
        let dirty = |old: Seen| if old.is_dirty() { Ok(out) } else { Err(Refused::Clean) };
        self.remap_claimed(hfn, dirty)
    }

    /// GoingOut -> Paged(crc): the block holds the settled frame's content, and `crc` is its
    /// checksum.
    #[inline(always)]
    pub fn finish_write_out(&self, out: Settled, crc: Crc32c) -> Ended {
        self.end(out, Leaf::Paged(crc))
    }

    /// GoingOut -> Zero: the settled frame holds zeros only, nothing is written.
    pub fn evict_zero(&self, out: Settled) -> Ended {
        self.end(out, Leaf::Zero)
    }

    /// GoingOut -> Present, dirty: the write failed or is not needed any more.
    pub fn abort_write_out(&self, out: Settled) {
        let hfn = out.into_hfn(self.object, self.index);
        // The exchange fails if the page was rescued before: then it is resident already.
        let _ = self.exchange(Leaf::GoingOut(hfn), rescued(hfn));
        self.frames().unclaim(hfn);
    }

    /// GoingOut -> Present, dirty: the guest needs the page. The writer learns of it when it
    /// finishes.
    ///
    /// Until then the frame stays claimed, because the disk still reads it: the page is neither
    /// pinned nor evicted again.
    ///
    /// # Errors
    /// [`Refused::State`]: the page is not going out (any more).
    pub fn rescue(&self) -> Result<(), Refused> {
        let Leaf::GoingOut(hfn) = self.leaf() else { return Err(Refused::State(self.leaf())) };
        self.exchange(Leaf::GoingOut(hfn), rescued(hfn))
    }

    /// Present and clean -> Paged with its frame's checksum, or Zero if it has no block.
    ///
    /// # Errors
    /// [`Refused`] names the obstacle; [`Refused::Dirty`] calls for [`Page::begin_write_out`].
    #[inline(always)]
    pub fn evict_clean(&self) -> Result<Unmapped, Refused> {
        loop {
            let (seen, hfn) = self.present()?;
            if seen.is_dirty() {
                return Err(Refused::Dirty);
            }
            let frame = self.frames().take(hfn, self.owner()).map_err(|_| Refused::Pinned)?;
            let to = match seen.has_block() {
                true => Leaf::Paged(self.frames().checksum_of(&frame)),
                false => Leaf::Zero,
            };
            if self.replace(seen, self.slot.encode(to)).is_ok() {
                return Ok(Unmapped::new(self.object, frame));
            }
            self.frames().put_back(frame, self.owner());
        }
    }

    /// Any settled state -> Untouched, for an object that no CPU can reach any more; returns the
    /// frame of a resident page.
    pub(in crate::mm) fn forget(&self) -> Result<Option<Frame>, Refused> {
        match self.leaf() {
            Leaf::Present(_) => {
                let hfn = self.claim()?;
                self.remap_claimed(hfn, |_| Ok(self.slot.encode(Leaf::Untouched)))?;
                Ok(Some(self.frames().unmap(hfn, self.owner())))
            }
            busy @ (Leaf::GoingOut(_) | Leaf::ComingIn(_)) => Err(Refused::State(busy)),
            settled => {
                let is_settled = |seen: Seen| seen.leaf() == settled;
                self.transition(is_settled, self.slot.encode(Leaf::Untouched)).map(|_| None)
            }
        }
    }

    /// Changes a claimed page's leaf, or gives the claim back.
    #[inline]
    pub(super) fn remap_claimed(&self, hfn: Hfn, change: impl Fn(Seen) -> Result<Seen, Refused>) -> Result<(), Refused> {
        self.remap(change).map(|_| ()).inspect_err(|_| self.frames().unclaim(hfn))
    }

    #[inline(always)]
    fn end(&self, out: Settled, to: Leaf) -> Ended {
        let hfn = out.into_hfn(self.object, self.index);
        match self.exchange(Leaf::GoingOut(hfn), to) {
            Ok(()) => Ended::Out(self.frames().unmap(hfn, self.owner())),
            Err(_) => {
                self.frames().unclaim(hfn);
                Ended::Rescued
            }
        }
    }
}

/// A page that came back before its write ended: only the frame is sure to have its content.
const fn rescued(hfn: Hfn) -> Leaf {
    Leaf::Present(Mapping { hfn, accessed: true, dirty: true, has_block: false })
}
