//! Pages enter memory: demand-zero and page-in.

use super::{Frame, Page, PriorMapping, TransitionError};
use crate::addr::Hfn;
use crate::mm::{
    crc::Crc32c,
    leaf::{LeafState, PageMapping, TransferIndex},
    table::LeafWord,
};

/// The reason for an installation. A page that the guest asked for starts as referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstallReason {
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
    /// [`TransitionError::State`]: the page is in another state by now, or shows the frame already.
    #[inline]
    pub fn show_zeros(&self, zeros: Hfn) -> Result<(), TransitionError> {
        let seen = self.slot.load();
        if !seen.reads_as_zeros() || seen.shown_zeros().is_some() {
            return Err(TransitionError::State(seen.leaf()));
        }
        self.replace(seen, self.slot.showing_zeros(zeros))
            .map_err(|now| TransitionError::State(now.leaf()))
    }

    /// Maps a frame that the caller has zeroed: Untouched, Zero -> Present; returns the
    /// guest's view of the page before.
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now: another thread was faster.
    pub fn install_zero(&self, frame: Frame) -> Result<PriorMapping, Frame> {
        let mapping = self.map(frame, Flags { accessed: true, has_block: false });
        let installed = self
            .transition(LeafWord::reads_as_zeros, self.slot.encode(LeafState::Present(mapping)));
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
        self.install(LeafState::Paged(crc), frame, Flags { accessed: true, has_block: true })
    }

    /// Untouched -> Paged: the block holds the page's content, with this checksum. For memory that
    /// goes on from its blocks, before any vCPU has it.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is in another state already.
    pub fn adopt_block(&self, crc: Crc32c) -> Result<(), TransitionError> {
        self.exchange(LeafState::Untouched, LeafState::Paged(crc))
    }

    /// Paged -> ComingIn; returns the checksum that the block must have. The transfer keeps it.
    ///
    /// # Errors
    /// [`TransitionError::State`]: the page is not paged. If it is coming in, the leaf names the
    /// transfer to join.
    #[inline(always)]
    pub fn begin_page_in(&self, transfer: TransferIndex) -> Result<Crc32c, TransitionError> {
        let LeafState::Paged(crc) = self.leaf() else {
            return Err(TransitionError::State(self.leaf()));
        };
        self.exchange(LeafState::Paged(crc), LeafState::ComingIn(transfer))?;
        Ok(crc)
    }

    /// ComingIn -> Present, has block: the frame holds the block's content, verified against `crc`.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug: only the transfer ends that state).
    #[inline(always)]
    pub fn finish_page_in(
        &self,
        transfer: TransferIndex,
        frame: Frame,
        crc: Crc32c,
        reason: InstallReason,
    ) {
        self.frames().set_checksum_of(&frame, crc);
        let flags = Flags { accessed: reason == InstallReason::Demand, has_block: true };
        let installed = self.install(LeafState::ComingIn(transfer), frame, flags);
        assert!(installed.is_ok(), "a page that comes in waits for its transfer");
    }

    /// ComingIn -> Paged: the read failed or was given up.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug).
    pub fn abort_page_in(&self, transfer: TransferIndex, crc: Crc32c) {
        let back = self.exchange(LeafState::ComingIn(transfer), LeafState::Paged(crc));
        assert!(back.is_ok(), "a page that comes in waits for its transfer");
    }

    #[inline(always)]
    fn install(&self, from: LeafState, frame: Frame, flags: Flags) -> Result<(), Frame> {
        let mapping = self.map(frame, flags);
        let installed = self.exchange(from, LeafState::Present(mapping));
        self.or_back(mapping, installed)
    }

    /// Makes the page the frame's owner, before the leaf names the frame.
    #[inline(always)]
    fn map(&self, frame: Frame, flags: Flags) -> PageMapping {
        let hfn = self.frames().map(frame, self.owner());
        PageMapping { hfn, accessed: flags.accessed, dirty: false, has_block: flags.has_block }
    }

    #[inline(always)]
    fn or_back<T>(
        &self,
        mapping: PageMapping,
        installed: Result<T, TransitionError>,
    ) -> Result<T, Frame> {
        installed.map_err(|_| self.frames().unmap(mapping.hfn, self.owner()))
    }
}

struct Flags {
    accessed: bool,
    has_block: bool,
}
