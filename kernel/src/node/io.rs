//! Disk I/O for tasks: a request is awaited.
//!
//! Completions come by way of the pager, which polls every disk, into the mailbox of class `Dump`; [`AsyncIo::deliver`] puts each
//! into the slot that its cookie names. The buffers of a request live in the task that awaits it, and a task runs to its end,
//! so they are in place until the completion.

use super::NodePager;
use super::task::{until, yield_now};
use crate::block::{Disk, DiskError, Operation, Request, SectorRange, Segment, SubmitError};
use crate::paging::cookie::{Class, MAILBOX_DEPTH, Tag};
use crate::sync::{Ranked, rank};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Free,
    Pending,
    Done(Result<(), DiskError>),
}

/// Requests of tasks in flight.
pub struct AsyncIo {
    slots: Ranked<[Slot; MAILBOX_DEPTH], { rank::SPACE }>,
}

impl AsyncIo {
    /// Nothing in flight.
    pub const fn new() -> Self {
        Self { slots: Ranked::new([Slot::Free; MAILBOX_DEPTH]) }
    }

    /// Hands completions to those who await them.
    pub fn deliver(&self, pager: &NodePager) {
        while let Some(completion) = pager.take_completion(Class::Dump) {
            if let Some(tag) = Tag::of(completion.cookie)
                && let Some(slot) = self.slots.lock().get_mut(tag.slot as usize)
            {
                *slot = Slot::Done(completion.result);
            }
        }
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// The disk's, after its own retries and time-outs.
    pub async fn run(
        &self,
        disk: &impl Disk,
        operation: Operation,
        sectors: SectorRange,
        segments: &[Segment],
    ) -> Result<(), DiskError> {
        let slot = until(|| self.take_slot()).await;
        let cookie = Tag { class: Class::Dump, detail: 0, slot: slot as u32 }.cookie();
        let request = Request { operation, sectors, segments, cookie };
        let submitted = until(|| match disk.submit(&request) {
            Err(SubmitError::Full) => None,
            result => Some(result),
        })
        .await;
        if submitted.is_err() {
            self.slots.lock()[slot] = Slot::Free;
            return Err(DiskError::Dead);
        }
        // A disk without interrupts has answered already: nobody would look before the guest's turn is over.
        yield_now().await;
        until(|| self.take_result(slot)).await
    }

    /// Makes everything that was completed before durable.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn flush(&self, disk: &impl Disk) -> Result<(), DiskError> {
        self.run(disk, Operation::Flush, SectorRange { first: 0, count: 0 }, &[]).await
    }

    fn take_slot(&self) -> Option<usize> {
        let mut slots = self.slots.lock();
        let free = slots.iter().position(|slot| *slot == Slot::Free)?;
        slots[free] = Slot::Pending;
        Some(free)
    }

    fn take_result(&self, slot: usize) -> Option<Result<(), DiskError>> {
        let mut slots = self.slots.lock();
        let Slot::Done(result) = slots[slot] else { return None };
        slots[slot] = Slot::Free;
        Some(result)
    }
}

impl Default for AsyncIo {
    fn default() -> Self {
        Self::new()
    }
}
