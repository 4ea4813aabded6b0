//! A small machine for the tests of pages and objects: two CPUs, a few frames, one object.

use super::{
    fake::FakeRam,
    flush::{FlushProof, QuiescentStates},
    frames::{FrameRegion, FrameTable},
    layout::RamLayout,
    leaf::TableFormat,
    object::{MemoryObject, ObjectTable},
    phys::DirectMap,
    table::TableReserve,
};
use crate::addr::{Hfn, PAGE_SIZE};
use crate::arch::percpu::CpuId;
use alloc::sync::Arc;

/// The CPU that runs the test.
pub(super) const ME: CpuId = CpuId::BOOT;

pub(super) struct MemoryBed {
    pub map: DirectMap,
    pub words: QuiescentStates,
    pub frames: Arc<FrameTable>,
    pub tables: Arc<TableReserve>,
    pub objects: ObjectTable,
    pub object: Arc<MemoryObject>,
}

impl MemoryBed {
    pub(super) const PAGES: u32 = 64;
    pub(super) const FRAMES: u32 = 16;
    pub(super) const TABLES: u32 = 24;

    pub(super) fn new() -> Self {
        Self::with(&TableFormat::EPT)
    }

    pub(super) fn with(format: &'static TableFormat) -> Self {
        let ram = FakeRam::new(Hfn::new(0x100), Self::FRAMES + Self::TABLES);
        let pool = FrameRegion { first: Hfn::new(0x100), count: Self::FRAMES };
        let tables =
            FrameRegion { first: Hfn::new(0x100 + u64::from(Self::FRAMES)), count: Self::TABLES };
        let frames = Arc::new(FrameTable::new(&[pool]).unwrap());
        let tables = Arc::new(TableReserve::new(FrameTable::new(&[tables]).unwrap(), ram.map()));
        let objects = ObjectTable::new(frames.clone(), tables.clone(), format);
        let object = objects.create(Self::layout()).unwrap();
        Self { map: ram.map(), words: QuiescentStates::new(2), frames, tables, objects, object }
    }

    pub(super) fn layout() -> RamLayout {
        RamLayout::new(u64::from(Self::PAGES) * PAGE_SIZE).unwrap()
    }

    /// Returns the proof of a ticket opened now, which passes at once because the other CPU idles.
    pub(super) fn passed(&self) -> FlushProof {
        let (mut ticket, _kicks) = self.object.flush(&self.words, ME);
        ticket.poll(&self.words).unwrap()
    }
}
