//! Verifies transfers of several blocks without the pager's lock, because checksums are most of the
//! cost of a page-in.
//!
//! ```text
//!   with the lock      Reading ─> Verifying, frames copied ──────────> right ones installed, faulters woken
//!   without it                                └─ checksums ─┘
//! ```
//!
//! A transfer in verification belongs to the CPU that verifies it: its frames stay in the transfer
//! and its leaves stay *coming in*. A single page is verified under the lock, because two more
//! holds of the lock would cost more than they save. On a machine of one CPU all pages are.

use super::Pager;
use super::transfer::WINDOW;
use super::work::AT_A_TIME;
use crate::addr::Hfn;
use crate::block::Disk;
use crate::mm::crc::Crc32c;
use crate::mm::phys::FrameMemory;
use crate::pool::ReclaimPolicy;
use crate::time::Ns;
use arrayvec::ArrayVec;

/// Numbers of completed transfers that one CPU has to verify.
pub(super) type ArrivedTransfers = ArrayVec<u32, { 4 * AT_A_TIME }>;

/// Frames of a transfer's places from the first one, with their expected checksums.
type Frames = ArrayVec<(Hfn, Crc32c), { WINDOW as usize }>;

impl<M: FrameMemory, D: Disk, P: ReclaimPolicy> Pager<'_, M, D, P> {
    /// Verifies and installs the pages of `arrived`. The caller must not hold the pager's lock.
    #[inline(never)]
    pub(super) fn verify_all(&self, arrived: &ArrivedTransfers, now: Ns) {
        for &number in arrived {
            let (first, frames) = self.frames_of(number);
            let right = self.right_frames(&frames) << first;
            self.finish_verified(&mut self.locked(), number, right, now);
        }
    }

    fn frames_of(&self, number: u32) -> (u32, Frames) {
        let mut state = self.locked();
        let transfer = state.transfers.get(number).expect("a transfer that is verified is in use");
        let coming =
            transfer.pages[transfer.first as usize..transfer.end as usize].iter().flatten();
        (transfer.first, coming.map(|coming| (coming.frame.hfn(), coming.crc)).collect())
    }

    /// Returns whether a frame matches its checksum.
    #[inline(always)]
    pub(super) fn is_right(&self, hfn: Hfn, crc: Crc32c) -> bool {
        cfg!(feature = "without-checksums") || self.env.memory.checksum(hfn) == crc
    }

    /// Returns a bit for each frame that matches its checksum.
    fn right_frames(&self, frames: &Frames) -> u32 {
        let (mut right, mut bit) = (0, 1_u32);
        for &(hfn, crc) in frames {
            if self.is_right(hfn, crc) {
                right |= bit;
            }
            bit = bit.wrapping_shl(1);
        }
        right
    }
}
