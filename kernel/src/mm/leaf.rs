//! The second-level leaf: where a page is.
use super::crc::Crc32c;
use crate::addr::Hfn;

/// Index of a page-in in the pager's table of transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferIndex(pub u32);

/// What a present leaf says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The frame.
    pub hfn: Hfn,
    /// The A bit.
    pub accessed: bool,
    /// The D bit.
    pub dirty: bool,
    /// Block and checksum are current while `dirty` is clear.
    pub has_block: bool,
}

/// The state of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// Never touched: reads as zeros, has no frame.
    Untouched,
    /// Known to be zero, has no frame.
    Zero,
    /// Resident.
    Present(Mapping),
    /// Being written to its block; the frame is still owned.
    GoingOut(Hfn),
    /// Only in its block.
    Paged(Crc32c),
    /// Being read from its block.
    ComingIn(TransferIndex),
    /// Given back by the guest; reads as zeros.
    Loaned,
}

/// The bits in which the two table formats differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Bits of a present 4 KiB leaf beside address, A, D and software bits.
    pub leaf: u64,
    /// Bits of an entry that points to a table.
    pub table: u64,
    /// The A bit.
    pub accessed: u64,
    /// The D bit.
    pub dirty: u64,
}
