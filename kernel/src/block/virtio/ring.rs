//! The two rings of a split virtqueue (VIRTIO 1.2 §2.7.6 "The Virtqueue Available Ring", §2.7.8
//! "The Virtqueue Used Ring").
//!
//! ```text
//!   available   0 flags  2 index  4 ring[n]: u16 head               driver writes
//!   used        0 flags  2 index  4 ring[n]: u32 id, u32 length     device writes
//! ```
//!
//! Both indexes wrap at 16 bits. The driver relies on its own copies; the device's index is only
//! compared with them.

use core::sync::atomic::{Ordering, fence};

use super::plan::QueueLayout;
use crate::block::dma::DmaRegion;

/// The device asks for no notifications.
const NO_NOTIFY: u16 = 1;

/// An element of the used ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UsedElement {
    /// Head of the chain. Unchecked.
    pub id: u32,
    /// Bytes that the device wrote. Unchecked.
    pub len: u32,
}

/// The used index is beyond the chains made available.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UsedIndexError;

/// The driver's indexes of the rings.
#[derive(Debug, Default)]
pub(super) struct RingIndexes {
    available: u16,
    used: u16,
}

impl RingIndexes {
    /// Makes chain `head` available to the device.
    pub(super) fn offer(&mut self, region: &DmaRegion, plan: &QueueLayout, head: u16) {
        let slot = usize::from(self.available % plan.queue_size);
        region.write(plan.available() + 4 + slot * 2, head);
        self.available = self.available.wrapping_add(1);
        // The device must see the chain and the ring entry before the index that announces them.
        fence(Ordering::SeqCst);
        region.write(plan.available() + 2, self.available);
        // The index must be visible before `wants_notification` reads the device's flags. Otherwise
        // the driver might skip the notification while the device stops looking, and the request
        // would hang.
        fence(Ordering::SeqCst);
    }

    /// Returns whether the device must be notified of the chains offered.
    pub(super) fn wants_notification(&self, region: &DmaRegion, plan: &QueueLayout) -> bool {
        region.read::<u16>(plan.used()) & NO_NOTIFY == 0
    }

    /// Takes the next used element.
    ///
    /// # Errors
    /// [`UsedIndexError`] if the device claims more than it was offered.
    pub(super) fn take(
        &mut self,
        region: &DmaRegion,
        plan: &QueueLayout,
    ) -> Result<Option<UsedElement>, UsedIndexError> {
        let index = region.read::<u16>(plan.used() + 2);
        // The elements must be read after the index that announces them.
        fence(Ordering::SeqCst);
        let (ready, outstanding) =
            (index.wrapping_sub(self.used), self.available.wrapping_sub(self.used));
        if ready > outstanding {
            return Err(UsedIndexError);
        }
        if ready == 0 {
            return Ok(None);
        }
        let element = plan.used() + 4 + usize::from(self.used % plan.queue_size) * 8;
        self.used = self.used.wrapping_add(1);
        Ok(Some(UsedElement { id: region.read(element), len: region.read(element + 4) }))
    }

    /// Resets both sides of the rings, after a reset of the device.
    pub(super) fn clear(&mut self, region: &DmaRegion, plan: &QueueLayout) {
        *self = Self::default();
        for at in [plan.available(), plan.used()] {
            region.write(at, 0u16);
            region.write(at + 2, 0u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::REGION_BYTES;
    use super::*;
    use crate::block::dma::fake;

    fn rings() -> (RingIndexes, DmaRegion, QueueLayout) {
        (
            RingIndexes::default(),
            fake::region(REGION_BYTES / 4096),
            QueueLayout::new(4, 1, false).unwrap(),
        )
    }

    #[test]
    fn indexes_wrap_through_16_bits() {
        let (_, region, plan) = rings();
        // Miri would take a minute for all values; a thousand around the wrap have the same shapes.
        let first = if cfg!(miri) { 65_000_u32 } else { 0 };
        let mut ring = RingIndexes { available: first as u16, used: first as u16 };
        region.write(plan.used() + 2, first as u16);
        for n in first..if cfg!(miri) { 66_000 } else { 70_000 } {
            ring.offer(&region, &plan, (n % 4) as u16);
            assert_eq!(ring.take(&region, &plan), Ok(None));
            region.write(plan.used() + 4 + (n as usize % 4) * 8, n);
            region.write(plan.used() + 2, (n + 1) as u16);
            assert_eq!(ring.take(&region, &plan).unwrap().map(|u| u.id), Some(n));
        }
    }

    #[test]
    fn a_used_index_ahead_of_the_available_one_is_found() {
        let (mut ring, region, plan) = rings();
        ring.offer(&region, &plan, 0);
        region.write(plan.used() + 2, 2u16);
        assert_eq!(ring.take(&region, &plan), Err(UsedIndexError));
        region.write(plan.used() + 2, u16::MAX);
        assert_eq!(
            ring.take(&region, &plan),
            Err(UsedIndexError),
            "backwards is a jump ahead, too"
        );
    }

    #[test]
    fn a_busy_device_is_not_notified() {
        let (ring, region, plan) = rings();
        assert!(ring.wants_notification(&region, &plan));
        region.write(plan.used(), NO_NOTIFY);
        assert!(!ring.wants_notification(&region, &plan));
    }
}
