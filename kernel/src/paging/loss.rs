//! Why a page is lost.

use crate::block::DiskError;

/// Why a page cannot be made resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageLossError {
    /// The disk could not read its block.
    Io(DiskError),
    /// The block does not match the checksum of the written page.
    Checksum,
    /// The disk rejects the object's pages, and they occupy all of its share of frames.
    Unwritable(DiskError),
    /// No frame is free and none can be freed: every page of the pool is pinned, or dirty and
    /// unwritable.
    NoFrames,
}

impl core::fmt::Display for PageLossError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Checksum => f.write_str("its block holds something else than what was written"),
            Self::Unwritable(error) => {
                write!(f, "no frame is left in its share, and its pages cannot be written: {error}")
            }
            Self::NoFrames => f.write_str("no frame is free, and none can be freed"),
        }
    }
}
