//! The content of frames.
use super::crc::Crc32c;
use crate::addr::{Hfn, Hpa};

/// Access to the content of frames by number.
pub trait FrameMemory: Sync {
    /// Fills a frame with zeros.
    fn zero(&self, hfn: Hfn);
    /// Copies `bytes` into a frame from `offset` on.
    fn copy_in(&self, hfn: Hfn, offset: usize, bytes: &[u8]);
    /// Copies from a frame from `offset` on.
    fn copy_out(&self, hfn: Hfn, offset: usize, buf: &mut [u8]);
    /// Returns the CRC32C of the content.
    fn checksum(&self, hfn: Hfn) -> Crc32c;
    /// Returns whether every byte is zero.
    fn is_zero(&self, hfn: Hfn) -> bool;
    /// Returns where a device finds the frame.
    fn hpa(&self, hfn: Hfn) -> Hpa {
        hfn.base()
    }
}

/// Physical memory seen through a constant offset: the direct map, or a stand-in on the host.
#[derive(Clone, Copy, Debug)]
pub struct DirectMap {
    #[allow(dead_code)]
    offset: u64,
}
