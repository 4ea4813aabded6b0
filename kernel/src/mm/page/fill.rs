//! Into memory: demand-zero and page-in.

use super::{Frame, Page, Refused};
use crate::mm::{
    crc::Crc32c,
    leaf::{Leaf, Mapping, TransferIndex},
};

/// Whether the guest asked for the page that is installed: it then starts as referenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A vCPU waits for it.
    Demand,
    /// It came along with a neighbour.
    ReadAround,
}

impl Page<'_> {
    /// Maps a frame that the caller has zeroed: Untouched, Zero, Loaned -> Present.
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now: somebody was faster.
    pub fn install_zero(&self, frame: Frame) -> Result<(), Frame> {
        let reads_as_zeros = |leaf| matches!(leaf, Leaf::Untouched | Leaf::Zero | Leaf::Loaned);
        self.install(frame, Flags { accessed: true, has_block: false }, reads_as_zeros)
    }

    /// Maps a frame that holds the block's content, read and verified: Paged(crc) -> Present, has block.
    ///
    /// For a block that is at hand at once; one that takes time goes by [`Page::begin_page_in`].
    ///
    /// # Errors
    /// The frame comes back if the page is in another state by now, or has another checksum.
    pub fn install_page(&self, frame: Frame, crc: Crc32c) -> Result<(), Frame> {
        self.frames().set_checksum(frame.hfn(), crc);
        self.install(frame, Flags { accessed: true, has_block: true }, |leaf| leaf == Leaf::Paged(crc))
    }

    /// Paged -> ComingIn; returns the checksum that the block must have. The transfer keeps it.
    ///
    /// # Errors
    /// [`Refused::State`]: the page is not paged; where it is coming in, the leaf names the transfer to join.
    pub fn begin_page_in(&self, transfer: TransferIndex) -> Result<Crc32c, Refused> {
        match self.transition(|leaf| matches!(leaf, Leaf::Paged(_)), Leaf::ComingIn(transfer))? {
            Leaf::Paged(crc) => Ok(crc),
            other => Err(Refused::State(other)),
        }
    }

    /// ComingIn -> Present, has block: the frame holds the block's content, verified against `crc`.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug: only the transfer ends that state).
    pub fn finish_page_in(&self, transfer: TransferIndex, frame: Frame, crc: Crc32c, reason: Reason) {
        self.frames().set_checksum(frame.hfn(), crc);
        let flags = Flags { accessed: reason == Reason::Demand, has_block: true };
        let installed = self.install(frame, flags, |leaf| leaf == Leaf::ComingIn(transfer));
        assert!(installed.is_ok(), "a page that comes in waits for its transfer");
    }

    /// ComingIn -> Paged: the read failed or was given up.
    ///
    /// # Panics
    /// If the page is not coming in by this transfer (our bug).
    pub fn abort_page_in(&self, transfer: TransferIndex, crc: Crc32c) {
        let back = self.transition(|leaf| leaf == Leaf::ComingIn(transfer), Leaf::Paged(crc));
        assert!(back.is_ok(), "a page that comes in waits for its transfer");
    }

    fn install(&self, frame: Frame, flags: Flags, from: impl Fn(Leaf) -> bool) -> Result<(), Frame> {
        let hfn = self.frames().map(frame, self.owner());
        let mapping = Mapping { hfn, accessed: flags.accessed, dirty: false, has_block: flags.has_block };
        match self.transition(from, Leaf::Present(mapping)) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.frames().unmap(hfn, self.owner())),
        }
    }
}

struct Flags {
    accessed: bool,
    has_block: bool,
}
