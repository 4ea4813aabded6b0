//! Builds the node from the machine and the configuration. An error names the part that is missing
//! or too small.

// UNSAFETY: takes physical memory for disks' buffers and control blocks, and sees frames through
// the direct map.
#![expect(unsafe_code)]

use super::Node;
use super::moves::MoveDesk;
use super::registry::{Registry, VcpuSource};
use super::{capacity, define};
use crate::addr::{Hpa, PAGE_SIZE};
use crate::arch::heap::{self, HeapUse};
use crate::arch::percpu::CpuId;
use crate::arch::physmem::PhysicalMemory;
use crate::arch::vectors;
use crate::arch::{direct_map, instr, interrupts, percpu, quirks, time};
use crate::archive::BootArchive;
use crate::block::Disk;
use crate::block::discover::DiskDiscovery;
use crate::block::dma::DmaRegion;
use crate::block::virtio::DriverTimeouts;
use crate::config::{Config, EndAction};
use crate::dump::vmcoreinfo;
use crate::host::bases::Bases;
use crate::host::reaper::Reaper;
use crate::host::{ConsoleChoice, Host, NodePager};
use crate::members::{LocalDevice, MemberIdentity, Members};
use crate::mm::flush::QuiescentStates;
use crate::mm::frames::{FrameRegion, FrameStore, FrameTable};
use crate::mm::layout::RamLayout;
use crate::mm::leaf::TableFormat;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::mm::table::TableReserve;
use crate::mm::zeros;
use crate::paging::{Landmark, Pager, PagerEnv};
use crate::partition::shared::SharedPartition;
use crate::pool::SharesPolicy;
use crate::pool::needs::{FRAME_BYTES, dump_buffers, table_pages};
use crate::sched::queue::RunQueue;
use crate::space::Uuid;
use crate::storage::NodeDisk;
use crate::storage::spaces::{BEAT_BUFFER, BUFFER, PagingDevice, Spaces};
use crate::storage::stores::{ImageStores, STORE_BUFFER, StoreDevice};
use crate::sync::RankedLock;
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use crate::time::Ns;
use crate::virt::frame::ControlFrame;
use crate::virt::tag::TlbTags;
use crate::virt::{AccessedDirty, Backend};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::AtomicBool;

/// The host command refuses such a configuration.
const TOO_MANY: &str = "has more partitions than the hypervisor can run";

/// Why the node cannot be built.
pub struct NodeStartError {
    /// Key of the configuration, or the device.
    pub place: String,
    /// The problem, in words.
    pub message: String,
}

fn trouble(place: &str, message: String) -> NodeStartError {
    NodeStartError { place: place.into(), message }
}

/// Builds the node.
///
/// # Errors
/// [`NodeStartError`] names the part that is missing or too small.
pub fn node(
    memory: &mut PhysicalMemory,
    archive: BootArchive,
    config: &Config,
    backend: Backend,
) -> Result<&'static Node, NodeStartError> {
    let disks = disks(memory, config)?;
    let io: &'static AsyncIo = Box::leak(Box::default());
    let tasks: &'static Tasks = Box::leak(Box::default());
    let mut devices = Vec::new();
    for disk in &disks {
        devices.push(PagingDevice::new(
            disk,
            buffer(memory, BUFFER)?,
            buffer(memory, BEAT_BUFFER)?,
        ));
    }
    let node_uuid = name_of_start(&archive);
    let spaces: &'static Spaces = Box::leak(Box::new(Spaces::new(devices, io, tasks, node_uuid)));
    let stores = stores(memory, spaces, io, node_uuid)?;
    let entropy = instr::random().unwrap_or(0) ^ node_uuid.halves().1;
    let identity = MemberIdentity::new(config.node_name.as_deref(), node_uuid, entropy);
    let local = LocalDevice::open(spaces.locals(), io, |len| buffer(memory, len))?;
    let members = Members::new(spaces.areas(), local, &identity, io, |len| buffer(memory, len))?;
    members.iter().for_each(|members| spaces.join_log(members.log, members.disks));
    let map = direct_map();
    let tables = Arc::new(TableReserve::new(table_frames(memory, config, spaces)?, *map));
    let frames = Arc::new(pool(memory, config)?);
    let words: &'static QuiescentStates =
        Box::leak(Box::new(QuiescentStates::new(percpu::count())));
    let leaked: &'static Arc<FrameTable> = Box::leak(Box::new(frames.clone()));
    let landmark = Landmark {
        first_word: vmcoreinfo::FIRST_WORD,
        matches: |bytes| vmcoreinfo::text_len(bytes).is_some(),
    };
    let env = PagerEnv {
        frames: leaked,
        memory: map,
        quiescent_states: words,
        zeros: zeros::frame(),
        landmark,
    };
    let pager: NodePager = Pager::new(env, disks, SharesPolicy::new());
    let format: &'static TableFormat = match (backend, backend.capabilities().accessed_dirty) {
        (Backend::Vmx, AccessedDirty::Hardware) => &TableFormat::EPT,
        (Backend::Vmx, AccessedDirty::Absent) => &TableFormat::EPT_WITHOUT_AD,
        (Backend::Svm, _) => &TableFormat::NPT,
    };
    let registry = Registry::new(slots(config));
    for partition in &config.partitions {
        let shared = Arc::new(SharedPartition::new(partition.clone()));
        registry.claim(&shared).ok_or_else(|| trouble("configuration", TOO_MANY.into()))?;
    }
    let mut run_queue = RunQueue::with_room(registry.slots());
    if backend == Backend::Svm && percpu::count() > 1 && quirks::boot_cpu_loses_flags() {
        run_queue.reserve(CpuId::BOOT);
    }
    let host: &'static Host = Box::leak(Box::new(Host {
        backend,
        words,
        objects: ObjectTable::new(frames.clone(), tables.clone(), format),
        frames,
        tables,
        memory: map,
        pager,
        spaces,
        stores,
        io,
        tasks,
        bases: Bases::new(),
        reaper: Reaper::new(),
        tags: RankedLock::new(TlbTags::new(backend.capabilities().tags)),
        run_queue: RankedLock::new(run_queue),
        keys_to: ConsoleChoice::default(),
        archive,
        unix_ns_at_start: crate::arch::rtc::unix_ns().saturating_sub(time::now_ns().as_u64()),
        ending: AtomicBool::new(config.at_end == EndAction::PowerOff),
    }));
    let is_inheriting = AtomicBool::new(false);
    let moves = MoveDesk::default();
    Ok(Box::leak(Box::new(Node { host, members, local, is_inheriting, moves, registry })))
}

/// Makes a name that no other start has, even on a clone of the machine or with a clock that counts
/// instructions. The host command puts a unique word into the archive. A machine that starts again
/// from the same archive differs by the CPU's random numbers, or at least by the time.
fn name_of_start(archive: &BootArchive) -> Uuid {
    let word = archive.module(BootArchive::WORD).unwrap_or_default();
    let random = || instr::random().unwrap_or(0);
    Uuid::of_start(
        word,
        &[random(), random(), instr::rdtsc().as_u64(), crate::arch::rtc::unix_ns()],
    )
}

fn direct_map() -> &'static DirectMap {
    // SAFETY: the stub maps all of physical memory there for good; frames of the pool and of the
    // tables hold no Rust objects.
    Box::leak(Box::new(unsafe { DirectMap::new(direct_map::BASE) }))
}

fn disks(
    memory: &mut PhysicalMemory,
    config: &Config,
) -> Result<Vec<&'static NodeDisk>, NodeStartError> {
    // The last CPU takes the disks' interrupts, because guests run on the first CPUs.
    let apic_id = interrupts::apic_id(CpuId::new(percpu::count() - 1)) as u8;
    let limits =
        DriverTimeouts { request_ns: Ns::new(config.disk_timeout_ns), ..DriverTimeouts::default() };
    let mut discovery = DiskDiscovery::new(memory, vectors::DISK, apic_id).with_limits(limits);
    let mut refused = Vec::new();
    // SAFETY: the node is made once, and no other code drives disks.
    unsafe { discovery.virtio(time::now_ns, |at, why| refused.push(format!("PCI {at}: {why}"))) };
    for why in refused {
        crate::console::report(&crate::console::event::ConsoleEvent::Error {
            place: "paging device",
            message: &why,
        });
    }
    for (number, bytes) in config.memory_disks.iter().enumerate() {
        let refused =
            |why| trouble(&format!("memory disk {number}"), format!("{} MiB: {why}", bytes >> 20));
        discovery.memory_backed(*bytes).map_err(refused)?;
    }
    let disks = discovery.finish().into_iter();
    Ok(disks
        .map(|found| &*Box::leak(Box::new(NodeDisk::new(found))))
        .take(crate::block::MAX_DISKS)
        .collect())
}

fn buffer(memory: &mut PhysicalMemory, bytes: usize) -> Result<DmaRegion, NodeStartError> {
    let range = memory
        .take(bytes as u64)
        .ok_or_else(|| trouble("machine", "no memory for a disk's buffer".into()))?;
    // SAFETY: `take` gives memory away for good.
    Ok(unsafe { DmaRegion::of_taken(range) })
}

/// Makes the image stores that lie on the disks.
fn stores(
    memory: &mut PhysicalMemory,
    spaces: &Spaces,
    io: &'static AsyncIo,
    writer: Uuid,
) -> Result<&'static ImageStores, NodeStartError> {
    let mut devices = Vec::new();
    for (place, disk) in spaces.stores() {
        devices.push(StoreDevice::new(place, disk, buffer(memory, STORE_BUFFER)?));
    }
    Ok(Box::leak(Box::new(ImageStores::new(devices.into(), io, writer))))
}

/// Takes frames for second-level tables. They are enough for a fixed number of dump images; a
/// partition waits while there are more images than that.
fn table_frames(
    memory: &mut PhysicalMemory,
    config: &Config,
    spaces: &Spaces,
) -> Result<FrameTable, NodeStartError> {
    let partitions: Vec<u64> = config.partitions.iter().map(|p| p.memory_bytes).collect();
    let pages = table_pages(&partitions, &spaces.rooms(), config.spare);
    let there = memory.usable_left() >> 20;
    let none = || {
        let needed = (pages * PAGE_SIZE) >> 20;
        let message = format!(
            "{needed} MiB of second-level tables for these partitions are more than the {there} \
             MiB left"
        );
        trouble("machine", message)
    };
    frame_table(memory, pages).ok_or_else(none)
}

fn pool(memory: &mut PhysicalMemory, config: &Config) -> Result<FrameTable, NodeStartError> {
    let there = memory.usable_left() >> 20;
    let none = || {
        let (wanted, table) = (
            config.pool_bytes >> 20,
            (config.pool_bytes / PAGE_SIZE * FRAME_BYTES).div_ceil(1 << 20),
        );
        let message = format!(
            "{wanted} MiB and {table} MiB for their frame table are more than the {there} MiB \
             that this machine has left"
        );
        trouble("pool", message)
    };
    frame_table(memory, config.pool_bytes / PAGE_SIZE).ok_or_else(none)
}

/// Takes `frames` frames and the memory of their table; `None` if the machine has too little
/// memory.
///
/// Nothing is zeroed: a frame holds the firmware's leftovers until it is zeroed or filled for its
/// first owner.
fn frame_table(memory: &mut PhysicalMemory, frames: u64) -> Option<FrameTable> {
    let total = u32::try_from(frames).ok()?;
    let entries = memory.take_slice(total, |n| FrameStore::entry(n, total))?;
    let checksums = memory.take_slice(total, FrameStore::checksum)?;
    let pieces = memory.take_pieces::<{ FrameTable::MAX_REGIONS }>(frames * PAGE_SIZE)?;
    let regions: ArrayVec<FrameRegion, { FrameTable::MAX_REGIONS }> =
        pieces.iter().map(region).collect();
    FrameTable::within(FrameStore::new(entries, checksums), &regions).ok()
}

fn region(range: &core::ops::Range<Hpa>) -> FrameRegion {
    FrameRegion {
        first: range.start.number(),
        count: ((range.end.as_u64() - range.start.as_u64()) / PAGE_SIZE) as u32,
    }
}

/// Returns how many partitions there can be at the same time.
pub fn slots(config: &Config) -> usize {
    config.partitions.len() + config.spare.partitions as usize
}

/// Makes the runners of all partitions. The CPU that calls must have virtualisation enabled.
///
/// # Errors
/// [`NodeStartError`] if a partition cannot be made.
pub fn runners(node: &'static Node, source: &dyn VcpuSource) -> Result<(), NodeStartError> {
    for (id, shared) in node.partitions() {
        let layout = check(node, &shared)?;
        let missing =
            || trouble(&format!("partition {}", shared.name()), "no memory for its vCPU".into());
        let vcpu = source.make(&shared).ok_or_else(missing)?;
        let runner = define::runner(node.host, &shared, layout, vcpu);
        node.registry.install(node.host, id, runner);
    }
    Ok(())
}

/// Checks that a partition can run at all.
///
/// # Errors
/// [`NodeStartError`] names the key and the problem.
pub fn check(node: &Node, shared: &SharedPartition) -> Result<RamLayout, NodeStartError> {
    let name = shared.name();
    capacity::check(node.host, &shared.config)
        .map_err(|error| trouble(&error.place(name), format!("{error}")))
}

/// Checks that the heap has room for a dump in every space at the same time, so that no dump waits
/// or fails for lack of memory.
///
/// # Errors
/// [`NodeStartError`] says how full the heap is.
pub fn check_heap(node: &Node) -> Result<(), NodeStartError> {
    let needed = dump_buffers(node.host.spaces.count());
    if heap::has_room(needed) {
        return Ok(());
    }
    let (HeapUse { size, used, .. }, spaces) = (heap::usage(), node.host.spaces.count());
    let message = format!(
        "the hypervisor's heap of {} KiB, {} of it in use, has no room for {} KiB of buffers for \
         dumps in {spaces} spaces: give the machine more memory, or fewer partitions and spaces",
        size >> 10,
        used >> 10,
        needed >> 10
    );
    Err(trouble("machine", message))
}

/// Checks that all partitions can run at the same time, and reserves spaces for them.
///
/// # Errors
/// [`NodeStartError`] names the resource that is too small.
pub fn check_together(node: &Node) -> Result<(), NodeStartError> {
    let all: Vec<_> = node.partitions().map(|(_, shared)| shared).collect();
    let all: Vec<_> = all.iter().map(|p| (p.name(), p.config.memory_bytes)).collect();
    capacity::check_together(node.host, &all)
        .map_err(|error| trouble(&error.place(""), format!("{error}")))?;
    define::reserve(node);
    Ok(())
}

/// Takes a page for a control structure of the back end.
pub fn control_frame(memory: &mut PhysicalMemory) -> Option<ControlFrame> {
    let hpa = memory.take_page()?;
    // SAFETY: the page was taken for good, zeroed, and is in the direct map.
    Some(unsafe { ControlFrame::new(hpa, direct_map::hva(hpa)) })
}

/// Reports the disks.
pub fn report_disks(node: &Node) {
    for (index, disk) in node.host.pager.disks().iter().enumerate() {
        let info = disk.info();
        let end = info.serial.iter().position(|b| *b == 0).unwrap_or(info.serial.len());
        let serial = core::str::from_utf8(&info.serial[..end]).unwrap_or("?");
        let base = disk.base().map(Hpa::as_u64);
        crate::console::report(&crate::console::event::ConsoleEvent::Disk {
            index: index as u8,
            bytes: info.capacity * 512,
            base,
            serial,
        });
    }
}
