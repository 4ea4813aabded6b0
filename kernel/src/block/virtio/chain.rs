//! The descriptors of one request: header, data, status (VIRTIO 1.2 §5.2.6 "Device Operation").

use super::plan::{DESCRIPTOR_SIZE, DescriptorUse, QueueLayout};
use crate::block::dma::DmaRegion;
use crate::block::{DiskOperation, DiskRequest};

/// Bytes of the name that GET_ID returns.
pub(super) const IDENTITY_LEN: usize = 20;

/// Descriptor flags (VIRTIO 1.2 §2.7.5 "The Virtqueue Descriptor Table").
mod flag {
    pub(super) const NEXT: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const INDIRECT: u16 = 4;
}

/// Request types (VIRTIO 1.2 §5.2.6 "Device Operation").
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// Writes the chain of `request` for slot `slot`. The request has been checked against the limits.
pub(super) fn of_request(
    region: &DmaRegion,
    plan: &QueueLayout,
    slot: u16,
    request: &DiskRequest<'_>,
) {
    write_header(region, plan.header(slot), kind_of(request.operation), header_sector(request));
    let mut chain = DescriptorChain::new(region, plan, slot);
    let data_flag = if request.operation == DiskOperation::Read { flag::WRITE } else { 0 };
    for segment in request.segments {
        chain.push(segment.base.as_u64(), segment.len, data_flag);
    }
    if matches!(request.operation, DiskOperation::Discard | DiskOperation::WriteZeroes) {
        write_range(region, plan.range(slot), request);
        chain.push(region.hpa(plan.range(slot)).as_u64(), DESCRIPTOR_SIZE as u32, 0);
    }
    chain.finish();
}

/// Writes the chain that asks for the device's name.
pub(super) fn of_identify(region: &DmaRegion, plan: &QueueLayout, slot: u16) {
    write_header(region, plan.header(slot), kind::GET_ID, 0);
    let mut chain = DescriptorChain::new(region, plan, slot);
    chain.push(region.hpa(plan.identity()).as_u64(), IDENTITY_LEN as u32, flag::WRITE);
    chain.finish();
}

fn kind_of(operation: DiskOperation) -> u32 {
    match operation {
        DiskOperation::Read => kind::IN,
        DiskOperation::Write => kind::OUT,
        DiskOperation::Flush => kind::FLUSH,
        DiskOperation::Discard => kind::DISCARD,
        DiskOperation::WriteZeroes => kind::WRITE_ZEROES,
    }
}

/// Returns the sector of the header: only reads and writes have one (VIRTIO 1.2 §5.2.6.1 "Driver
/// Requirements: Device Operation").
fn header_sector(request: &DiskRequest<'_>) -> u64 {
    match request.operation {
        DiskOperation::Read | DiskOperation::Write => request.sectors.first,
        _ => 0,
    }
}

/// Writes `virtio_blk_discard_write_zeroes`. Write-zeroes sets UNMAP, so that a sparse image stays
/// sparse; a discard has no flags (VIRTIO 1.2 §5.2.6.1).
fn write_range(region: &DmaRegion, at: usize, request: &DiskRequest<'_>) {
    const UNMAP: u32 = 1;
    region.write(at, request.sectors.first);
    region.write(at + 8, request.sectors.count as u32);
    region.write(at + 12, if request.operation == DiskOperation::WriteZeroes { UNMAP } else { 0 });
}

fn write_header(region: &DmaRegion, at: usize, kind: u32, sector: u64) {
    region.write(at, kind);
    region.write(at + 4, 0u32);
    region.write(at + 8, sector);
}

/// A slot's chain while it is built: header, data, status.
struct DescriptorChain<'a> {
    region: &'a DmaRegion,
    plan: &'a QueueLayout,
    slot: u16,
    len: u16,
}

impl<'a> DescriptorChain<'a> {
    fn new(region: &'a DmaRegion, plan: &'a QueueLayout, slot: u16) -> Self {
        let mut chain = Self { region, plan, slot, len: 0 };
        chain.push(region.hpa(plan.header(slot)).as_u64(), DESCRIPTOR_SIZE as u32, 0);
        chain
    }

    /// Adds a descriptor that is linked to the next one; [`DescriptorChain::finish`] adds the last,
    /// which has no link.
    fn push(&mut self, address: u64, len: u32, flags: u16) {
        self.put(address, len, flags | flag::NEXT);
    }

    fn put(&mut self, address: u64, len: u32, flags: u16) {
        let at = self.plan.chain(self.slot) + usize::from(self.len) * DESCRIPTOR_SIZE;
        // Links are indexes into the table that holds the chain.
        let first = match self.plan.descriptors {
            DescriptorUse::Direct { .. } => self.plan.head(self.slot),
            DescriptorUse::Indirect => 0,
        };
        self.len += 1;
        write_descriptor(self.region, at, address, len, flags, first + self.len);
    }

    fn finish(mut self) {
        let status = self.region.hpa(self.plan.status(self.slot)).as_u64();
        self.put(status, 1, flag::WRITE);
        if self.plan.descriptors == DescriptorUse::Indirect {
            let table = self.region.hpa(self.plan.chain(self.slot)).as_u64();
            let at = usize::from(self.plan.head(self.slot)) * DESCRIPTOR_SIZE;
            let bytes = u32::from(self.len) * DESCRIPTOR_SIZE as u32;
            write_descriptor(self.region, at, table, bytes, flag::INDIRECT, 0);
        }
    }
}

fn write_descriptor(region: &DmaRegion, at: usize, address: u64, len: u32, flags: u16, next: u16) {
    region.write(at, address);
    region.write(at + 8, len);
    region.write(at + 12, flags);
    region.write(at + 14, next);
}
