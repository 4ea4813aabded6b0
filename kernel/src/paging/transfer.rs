//! The fixed table of page-ins.
//!
//! A transfer reads one run of neighbouring blocks: the demanded page, and paged neighbours inside
//! an aligned window of 16 pages. Page `n` of the window has place `n`; `first..end` are the places
//! in use.
//!
//! ```text
//!  vacant ──start──> Queued ──submit──> Reading ──completion──> vacant
//!                      ^                 │     └─ several pages ─> Verifying ──> vacant
//!                      │                 │ failed, first time            │
//!                      └──── narrow to the demanded page <───────────────┘
//! ```

use crate::addr::PageIndex;
use crate::mm::crc::Crc32c;
use crate::mm::frames::Frame;
use crate::mm::object::ObjectId;
use crate::mm::page::InstallReason;
use crate::mm::table::LeafTable;
use crate::time::Ns;
use crate::virt::PageAccess;
use alloc::boxed::Box;

/// Pages in a window.
pub(super) const WINDOW: u32 = 16;
/// Number of transfers: more than CPUs that can fault.
pub(super) const TRANSFERS: usize = 64;

/// A page that is being read.
#[derive(Debug)]
pub(super) struct IncomingPage {
    pub frame: Frame,
    pub crc: Crc32c,
}

/// State of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransferPhase {
    /// Free.
    Vacant,
    /// Not yet accepted by the disk.
    Queued,
    /// In flight.
    Reading,
    /// Completed; a CPU verifies it without the pager's lock.
    Verifying,
}

/// One page-in.
#[derive(Debug)]
pub(super) struct PageTransfer {
    pub phase: TransferPhase,
    pub object: ObjectId,
    /// The table that holds all leaves of the window.
    pub leaves: LeafTable,
    /// First page of the window.
    pub base: u32,
    /// Place of the demanded page.
    pub demand: u32,
    /// Kind of the access that faulted.
    pub access: PageAccess,
    /// Whether the guest has demanded that page, or it is read ahead of a walk.
    pub reason: InstallReason,
    /// First place in use.
    pub first: u32,
    /// One beyond the last place in use.
    pub end: u32,
    pub pages: [Option<IncomingPage>; WINDOW as usize],
    /// Time of the fault.
    pub since: Ns,
    /// Failed reads of the demanded page.
    pub failures: u8,
    /// Distinguishes completions of an earlier use of this number.
    pub life: u32,
}

impl PageTransfer {
    fn vacant() -> Self {
        Self {
            phase: TransferPhase::Vacant,
            object: ObjectId::NONE,
            leaves: LeafTable::NONE,
            base: 0,
            demand: 0,
            access: PageAccess::Read,
            reason: InstallReason::Demand,
            first: 0,
            end: 0,
            pages: [const { None }; WINDOW as usize],
            since: Ns::ZERO,
            failures: 0,
            life: 0,
        }
    }

    /// Returns the page at a place.
    pub(super) fn page(&self, place: u32) -> PageIndex {
        PageIndex(self.base + place)
    }
}

/// All transfers. Vacant ones hold no pages.
#[derive(Debug)]
pub(super) struct PageTransfers {
    all: Box<[PageTransfer]>,
    lives: u32,
    /// Number of transfers that are [`TransferPhase::Queued`].
    queued: u32,
    in_use: u32,
}

impl PageTransfers {
    pub(super) fn new() -> Self {
        Self {
            all: (0..TRANSFERS).map(|_| PageTransfer::vacant()).collect(),
            lives: 0,
            queued: 0,
            in_use: 0,
        }
    }

    /// Returns the number of transfers in use.
    pub(super) fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Returns the number of a vacant transfer.
    pub(super) fn vacant(&self) -> Option<u32> {
        self.all
            .iter()
            .position(|transfer| transfer.phase == TransferPhase::Vacant)
            .map(|n| n as u32)
    }

    /// Returns a vacant number for a transfer that no faulter waits for. Half of the numbers are
    /// kept for faults.
    pub(super) fn vacant_for_ahead(&self) -> Option<u32> {
        if self.in_use as usize >= TRANSFERS / 2 { None } else { self.vacant() }
    }

    /// Starts a transfer of one page at a vacant number. Built in place: unused places are not
    /// written.
    #[inline(always)]
    pub(super) fn start(
        &mut self,
        number: u32,
        (object, index, leaves): (ObjectId, PageIndex, LeafTable),
        access: PageAccess,
        coming: IncomingPage,
        since: Ns,
    ) -> &mut PageTransfer {
        self.lives = (self.lives + 1) & LIFE_MASK;
        self.in_use += 1;
        self.queued += 1;
        let transfer = &mut self.all[number as usize];
        let demand = index.0 % WINDOW;
        (transfer.phase, transfer.object, transfer.life) =
            (TransferPhase::Queued, object, self.lives);
        (transfer.base, transfer.demand, transfer.access) = (index.0 - demand, demand, access);
        (transfer.first, transfer.end, transfer.leaves) = (demand, demand + 1, leaves);
        (transfer.since, transfer.failures, transfer.reason) = (since, 0, InstallReason::Demand);
        transfer.pages[demand as usize] = Some(coming);
        transfer
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut PageTransfer> {
        self.all.get_mut(number as usize).filter(|transfer| transfer.phase != TransferPhase::Vacant)
    }

    /// Returns whether any transfer is queued for its disk.
    pub(super) fn any_queued(&self) -> bool {
        self.queued > 0
    }

    /// Notes that the disk has accepted a queued transfer, or rejected it for good.
    #[inline(always)]
    pub(super) fn leave_queue(&mut self, number: u32) -> &mut PageTransfer {
        self.queued -= 1;
        let transfer = &mut self.all[number as usize];
        assert!(transfer.phase == TransferPhase::Queued, "only a queued transfer leaves the queue");
        transfer.phase = TransferPhase::Reading;
        transfer
    }

    /// Queues a transfer for its disk again.
    pub(super) fn requeue(&mut self, number: u32) {
        self.queued += 1;
        self.all[number as usize].phase = TransferPhase::Queued;
    }

    /// Ends a transfer whose pages have all been dealt with.
    pub(super) fn finish(&mut self, number: u32) {
        let transfer = &mut self.all[number as usize];
        transfer.phase = TransferPhase::Vacant;
        debug_assert!(
            transfer.pages.iter().all(Option::is_none),
            "a transfer ends when its frames are elsewhere"
        );
        self.in_use -= 1;
    }

    pub(super) fn of(&self, object: ObjectId) -> impl Iterator<Item = &PageTransfer> {
        self.all.iter().filter(move |transfer| {
            transfer.phase != TransferPhase::Vacant && transfer.object == object
        })
    }

    /// Returns the first queued number at or after `from`.
    pub(super) fn next_queued(&self, from: u32) -> Option<u32> {
        let mut rest = self.all.iter().enumerate().skip(from as usize);
        rest.find(|(_, transfer)| transfer.phase == TransferPhase::Queued).map(|(n, _)| n as u32)
    }
}

/// A cookie has 28 bits for the life.
const LIFE_MASK: u32 = (1 << 28) - 1;
