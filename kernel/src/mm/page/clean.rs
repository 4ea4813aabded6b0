//! Cleaning in place: the page stays mapped and gets a current block.

use super::{Cleaning, Page, SettledClean, TransitionError};
use crate::mm::{crc::Crc32c, table::LeafWord};

impl Page<'_> {
    /// Clears D (and *has block*) of a dirty page that stays mapped. The frame is read after the
    /// flush.
    ///
    /// # Errors
    /// [`TransitionError`] names the obstacle; [`TransitionError::Clean`]: there is nothing to do.
    pub fn begin_clean(&self) -> Result<Cleaning, TransitionError> {
        let hfn = self.claim()?;
        let cleaned = |old: LeafWord| {
            if old.is_dirty() { Ok(old.cleaned()) } else { Err(TransitionError::Clean) }
        };
        self.remap_claimed(hfn, cleaned)?;
        Ok(Cleaning::new(self.object, self.index, hfn))
    }

    /// Sets *has block* after the write, if D is still clear (and A, if the CPU keeps neither);
    /// returns whether it was.
    ///
    /// D clear means that the frame was not written since the flush passed. So `crc` and the block
    /// are of one content, which the frame still has.
    pub fn finish_clean(&self, cleaning: SettledClean, crc: Crc32c) -> bool {
        let hfn = cleaning.into_hfn(self.object, self.index);
        self.frames().set_checksum(hfn, crc);
        let with_block = |old: LeafWord| {
            if old.is_touched() { Err(TransitionError::Dirty) } else { Ok(old.with_block()) }
        };
        let done = self.remap(with_block).is_ok();
        if !done {
            // The page may only have been accessed; but a clean page without a block would be one
            // of zeros.
            let dirtied = self.remap(|old| Ok(old.dirtied()));
            assert!(dirtied.is_ok(), "a claimed page stays in its leaf");
        }
        self.frames().unclaim(hfn);
        done
    }

    /// Sets D again: the write failed or is not needed any more.
    pub fn abort_clean(&self, cleaning: SettledClean) {
        let hfn = cleaning.into_hfn(self.object, self.index);
        let dirtied = self.remap(|old| Ok(old.dirtied()));
        assert!(dirtied.is_ok(), "a claimed page stays in its leaf");
        self.frames().unclaim(hfn);
    }
}
