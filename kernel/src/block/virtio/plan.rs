//! Layout of the driver's region: rings, descriptors, headers and status bytes.
//!
//! ```text
//!   0        descriptor table    16 bytes x queue size
//!   4 KiB    available ring
//!   8 KiB    used ring
//!  12 KiB    request headers     16 bytes per slot
//!            ranges              16 bytes per slot  (discard, write-zeroes)
//!            status              1 byte per slot
//!            identity            32 bytes
//!  20 KiB    indirect tables     2 KiB per slot     (if the device offers them)
//! ```
//!
//! With indirect tables a slot uses one descriptor of the ring, so 64 requests of up to 126
//! segments fit in flight. Without them, the descriptor table is divided into equal strides.

/// Most descriptors in the ring.
pub(super) const MAX_QUEUE: u16 = 256;
/// Most requests in flight; each slot has a bit of a `u64`.
pub(super) const MAX_SLOTS: u16 = 64;
/// Descriptors of an indirect table.
const TABLE_DESCRIPTORS: u16 = 128;
/// Descriptors of a slot without indirect tables.
const DIRECT_STRIDE: u16 = 16;
/// Descriptors other than data: header and status.
const OVERHEAD: u16 = 2;
/// Bytes of a descriptor, a request header and a range.
pub(super) const DESCRIPTOR_SIZE: usize = 16;

const AVAILABLE: usize = 0x1000;
const USED: usize = 0x2000;
const HEADERS: usize = 0x3000;
const RANGES: usize = HEADERS + MAX_SLOTS as usize * DESCRIPTOR_SIZE;
const STATUS: usize = RANGES + MAX_SLOTS as usize * DESCRIPTOR_SIZE;
const IDENTITY: usize = STATUS + MAX_SLOTS as usize;
const TABLES: usize = 0x5000;
const TABLE_BYTES: usize = TABLE_DESCRIPTORS as usize * DESCRIPTOR_SIZE;

/// Bytes that the driver of one disk needs, physically contiguous.
pub const REGION_BYTES: usize = TABLES + MAX_SLOTS as usize * TABLE_BYTES;

const _: () = {
    assert!(MAX_QUEUE as usize * DESCRIPTOR_SIZE <= AVAILABLE);
    assert!(6 + MAX_QUEUE as usize * 2 <= USED - AVAILABLE);
    assert!(6 + MAX_QUEUE as usize * 8 <= HEADERS - USED);
    assert!(IDENTITY + 32 <= TABLES);
    assert!(REGION_BYTES.is_multiple_of(4096));
};

/// How slots use descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DescriptorUse {
    /// Slot `s` owns descriptors `s * stride ..`.
    Direct {
        /// Descriptors of each slot.
        stride: u16,
    },
    /// Slot `s` owns descriptor `s`, which points to its table.
    Indirect,
}

/// The layout for one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct QueueLayout {
    /// Descriptors in the ring, a power of two.
    pub queue_size: u16,
    /// Most requests in flight.
    pub slots: u16,
    /// Most segments in a request.
    pub max_segments: u16,
    /// How slots use descriptors.
    pub descriptors: DescriptorUse,
}

impl QueueLayout {
    /// Makes the layout for a queue of at most `most` descriptors; `None` if there is no room for
    /// one request.
    pub(super) fn new(most: u32, device_segments: u32, indirect: bool) -> Option<Self> {
        let most = most.min(u32::from(MAX_QUEUE)) as u16;
        if most <= OVERHEAD {
            return None;
        }
        let queue_size = 1 << most.ilog2();
        let (descriptors, per_slot) = if indirect {
            // A table is not longer than the queue (VIRTIO 1.2 §2.7.5.3.1).
            (DescriptorUse::Indirect, TABLE_DESCRIPTORS.min(queue_size))
        } else {
            let stride = DIRECT_STRIDE.min(queue_size);
            (DescriptorUse::Direct { stride }, stride)
        };
        let slots = match descriptors {
            DescriptorUse::Indirect => queue_size.min(MAX_SLOTS),
            DescriptorUse::Direct { stride } => (queue_size / stride).min(MAX_SLOTS),
        };
        let max_segments = u32::from(per_slot.checked_sub(OVERHEAD)?).min(device_segments) as u16;
        (max_segments > 0).then_some(Self { queue_size, slots, max_segments, descriptors })
    }

    /// Returns the head descriptor of slot `slot`'s chain.
    pub(super) const fn head(&self, slot: u16) -> u16 {
        match self.descriptors {
            DescriptorUse::Direct { stride } => slot * stride,
            DescriptorUse::Indirect => slot,
        }
    }

    /// Returns the slot whose chain starts at `id`; `None` if there is no such slot.
    pub(super) const fn slot_of(&self, id: u32) -> Option<u16> {
        let slot = match self.descriptors {
            DescriptorUse::Direct { stride } if id.is_multiple_of(stride as u32) => {
                id / stride as u32
            }
            DescriptorUse::Direct { .. } => return None,
            DescriptorUse::Indirect => id,
        };
        if slot < self.slots as u32 { Some(slot as u16) } else { None }
    }

    /// Returns the offset of a slot's chain: in the descriptor table or in its own table.
    pub(super) const fn chain(&self, slot: u16) -> usize {
        match self.descriptors {
            DescriptorUse::Direct { .. } => self.head(slot) as usize * DESCRIPTOR_SIZE,
            DescriptorUse::Indirect => TABLES + slot as usize * TABLE_BYTES,
        }
    }

    /// Returns the offset of the available ring.
    pub(super) const fn available(&self) -> usize {
        AVAILABLE
    }

    /// Returns the offset of the used ring.
    pub(super) const fn used(&self) -> usize {
        USED
    }

    /// Returns the offset of a slot's request header.
    pub(super) const fn header(&self, slot: u16) -> usize {
        HEADERS + slot as usize * DESCRIPTOR_SIZE
    }

    /// Returns the offset of a slot's range.
    pub(super) const fn range(&self, slot: u16) -> usize {
        RANGES + slot as usize * DESCRIPTOR_SIZE
    }

    /// Returns the offset of a slot's status.
    pub(super) const fn status(&self, slot: u16) -> usize {
        STATUS + slot as usize
    }

    /// Returns the offset of the device's name.
    pub(super) const fn identity(&self) -> usize {
        IDENTITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_device_gets_64_requests_of_126_segments() {
        let plan = QueueLayout::new(256, 254, true).unwrap();
        assert_eq!((plan.queue_size, plan.slots, plan.max_segments), (256, 64, 126));
        assert_eq!(plan.chain(63) + TABLE_BYTES, REGION_BYTES);
    }

    #[test]
    fn without_indirect_tables_the_ring_is_cut_into_strides() {
        let plan = QueueLayout::new(1024, 254, false).unwrap();
        assert_eq!((plan.queue_size, plan.slots, plan.max_segments), (256, 16, 14));
        assert_eq!((plan.head(15), plan.chain(15)), (240, 3840));
    }

    #[test]
    fn small_queues_still_work_and_too_small_ones_do_not() {
        assert_eq!(QueueLayout::new(2, 254, true), None);
        assert_eq!(QueueLayout::new(0, 254, false), None);
        assert_eq!(QueueLayout::new(3, 254, true), None, "rounded down to two descriptors");
        let four = QueueLayout::new(7, 1, false).unwrap();
        assert_eq!((four.queue_size, four.slots, four.max_segments), (4, 1, 1));
    }

    #[test]
    fn only_heads_name_slots() {
        for plan in
            [QueueLayout::new(256, 254, true).unwrap(), QueueLayout::new(256, 254, false).unwrap()]
        {
            for slot in 0..plan.slots {
                assert_eq!(plan.slot_of(u32::from(plan.head(slot))), Some(slot));
            }
            for wrong in [u32::from(plan.head(plan.slots)), 257, 65536, u32::MAX] {
                assert_eq!(plan.slot_of(wrong), None, "{wrong}");
            }
        }
        assert_eq!(QueueLayout::new(256, 254, false).unwrap().slot_of(17), None);
    }
}
