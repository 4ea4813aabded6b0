//! Pages enter memory: demand-zero and page-in.

use super::{Before, Frame, Page, Refused};
use crate::addr::Hfn;
use crate::mm::{
    crc::Crc32c,
    leaf::{Leaf, Mapping, TransferIndex},
    table::Seen,
};

/// The reason for an installation. A page that the guest asked for starts as referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A vCPU waits for the page.
    Demand,
    /// The page was read along with a neighbour.
    ReadAround,
}

impl Page<'_> {
    /// Shows the guest `zeros`, the shared frame, read-only: Untouched, Zero -> Untouched.
    ///
    /// No flush: the leaf permitted nothing before. A flush is due when a frame takes the zeros'
    /// place.
    ///
    /// # Errors
    /// [`Refused::State`]: the page is in another state by now, or shows the frame already.
    #[inline]
    pub fn show_zeros(&self, zeros: Hfn) -> Result<(), Refused> {
        let seen = self.slot.load();
        if !seen.reads_as_zeros() || seen.shown_zeros().is_some() {
            return Err(Refused::State(seen.leaf()));
        }
        self.replace(seen, self.slot.showing_zeros(zeros)).map_err(|now| Refused::State(now.leaf()))
    }

    /// Maps a frame that the caller has zeroed: Untouched, Zero -> Present; returns the
    /// guest's view of the page before.
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now: another thread was faster.
    pub fn install_zero(&self, frame: Frame) -> Result<Before, Frame> {
        let mapping = self.map(frame, Flags { accessed: true, has_block: false });
        let installed = self.transition(Seen::reads_as_zeros, self.slot.encode(Leaf::Present(mapping)));
        self.or_back(mapping, installed)
    }

    /// Maps a frame that holds the block's content, read and verified: Paged(crc) -> Present, has
    /// block.
    ///
    /// For a block that is available at once. A read that takes time goes through
    /// [`Page::begin_page_in`].
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now, or has another checksum.
    #[cfg(test)]
    pub fn install_page(&self, frame: Frame, crc: Crc32c) -> Result<(), Frame> {
        self.frames().set_checksum_of(&frame, crc);
        self.install(Leaf::Paged(crc), frame, Flags { accessed: true, has_block: true })
    }

    /// Paged -> ComingIn; returns the checksum that the block must have. The transfer keeps it.
    ///
    /// # Errors
    /// [`Refused::State`]: the page is not paged. If it is coming in, the leaf names the transfer
    /// to join.
    #[inline(always)]
    pub fn begin_page_in(&self, transfer: TransferIndex) -> Result<Crc32c, Refused> {
        let Leaf::Paged(crc) = self.leaf() else { return Err(Refused::State(self.leaf())) };
        self.exchange(Leaf::Paged(crc), Leaf::ComingIn(transfer))?;
        Ok(crc)
    }

    /// ComingIn -> Present, has block: the frame holds the block's content, verified against `crc`.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug: only the transfer ends that state).
    #[inline(always)]
    pub fn finish_page_in(&self, transfer: TransferIndex, frame: Frame, crc: Crc32c, reason: Reason) {
        self.frames().set_checksum_of(&frame, crc);
        let flags = Flags { accessed: reason == Reason::Demand, has_block: true };
        let installed = self.install(Leaf::ComingIn(transfer), frame, flags);
        assert!(installed.is_ok(), "a page that comes in waits for its transfer");
    }

    /// ComingIn -> Paged: the read failed or was given up.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug).
    pub fn abort_page_in(&self, transfer: TransferIndex, crc: Crc32c) {
        let back = self.exchange(Leaf::ComingIn(transfer), Leaf::Paged(crc));
        assert!(back.is_ok(), "a page that comes in waits for its transfer");
    }

    #[inline(always)]
    fn install(&self, from: Leaf, frame: Frame, flags: Flags) -> Result<(), Frame> {
        let mapping = self.map(frame, flags);
        let installed = self.exchange(from, Leaf::Present(mapping));
        self.or_back(mapping, installed)
    }

    /// Makes the page the frame's owner, before the leaf names the frame.
    #[inline(always)]
    fn map(&self, frame: Frame, flags: Flags) -> Mapping {
        let hfn = self.frames().map(frame, self.owner());
        Mapping { hfn, accessed: flags.accessed, dirty: false, has_block: flags.has_block }
    }

    #[inline(always)]
    fn or_back<T>(&self, mapping: Mapping, installed: Result<T, Refused>) -> Result<T, Frame> {
        installed.map_err(|_| self.frames().unmap(mapping.hfn, self.owner()))
    }
}

struct Flags {
    accessed: bool,
    has_block: bool,
}
