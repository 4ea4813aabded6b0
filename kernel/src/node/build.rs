//! Builds the node from the machine and the configuration. An error names the part that is missing
//! or too small.

// UNSAFETY: takes physical memory for disks' buffers and control blocks, and sees frames through
// the direct map.
#![expect(unsafe_code)]

use super::Node;
use super::cpu::Runners;
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
use crate::host::reaper::Reaper;
use crate::host::{ConsoleChoice, Host, NodePager};
use crate::mm::flush::QuiescentStates;
use crate::mm::frames::{FrameRegion, FrameStore, FrameTable};
use crate::mm::layout::RamLayout;
use crate::mm::leaf::TableFormat;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::mm::table::TableReserve;
use crate::mm::zeros;
use crate::paging::{Landmark, Pager, PagerEnv};
use crate::partition::cpuid;
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::machine::VirtualMachine;
use crate::partition::runner::Runner;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use crate::pool::needs::{FRAME_BYTES, dump_buffers, table_pages};
use crate::pool::{SharesPolicy, terms};
use crate::sched::queue::RunQueue;
use crate::space::Uuid;
use crate::space::reserve::{SpaceNeed, own_spaces};
use crate::storage::NodeDisk;
use crate::storage::spaces::{BEAT_BUFFER, BUFFER, PagingDevice, SpaceTenant, Spaces};
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
    let partitions = config
        .partitions
        .iter()
        .zip(0..)
        .map(|(p, number)| Arc::new(SharedPartition::new(PartitionId::new(number), p.clone())))
        .collect();
    let mut run_queue = RunQueue::new();
    config.partitions.iter().for_each(|_| {
        run_queue.add();
    });
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
        io,
        tasks,
        reaper: Reaper::new(),
        tags: RankedLock::new(TlbTags::new(backend.capabilities().tags)),
        run_queue: RankedLock::new(run_queue),
        keys_to: ConsoleChoice::default(),
        archive,
        unix_ns_at_start: crate::arch::rtc::unix_ns().saturating_sub(time::now_ns().as_u64()),
        ending: AtomicBool::new(config.at_end == EndAction::PowerOff),
    }));
    Ok(Box::leak(Box::new(Node { host, partitions })))
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

/// Takes frames for second-level tables. They are enough for a fixed number of dump images; a
/// partition waits while there are more images than that.
fn table_frames(
    memory: &mut PhysicalMemory,
    config: &Config,
    spaces: &Spaces,
) -> Result<FrameTable, NodeStartError> {
    let partitions: Vec<u64> = config.partitions.iter().map(|p| p.memory_bytes).collect();
    let pages = table_pages(&partitions, &spaces.rooms());
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

/// Makes the runners of all partitions. The CPU that calls must have virtualisation enabled.
///
/// # Errors
/// [`NodeStartError`] if a partition cannot be made.
pub fn runners(
    node: &'static Node,
    frames: &mut Vec<ControlFrame>,
) -> Result<Runners, NodeStartError> {
    let runners = node
        .partitions()
        .map(|(_, shared)| runner(node, frames, shared))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Runners::new(runners))
}

/// Checks that a partition can run at all.
///
/// # Errors
/// [`NodeStartError`] names the key and the problem.
pub fn check(node: &Node, shared: &SharedPartition) -> Result<RamLayout, NodeStartError> {
    let place = format!("partition {}", shared.name());
    let bytes = shared.config.memory_bytes;
    let layout =
        RamLayout::new(bytes).ok_or_else(|| trouble(&place, format!("memory of {bytes} bytes")))?;
    let bits = cpuid::physical_bits(&cpuid::host);
    if layout.ranges().any(|ram| (ram.first.as_u64() + ram.count) > (1 << bits) / PAGE_SIZE) {
        return Err(trouble(
            &place,
            format!(
                "memory of {} MiB ends beyond the {bits} address bits of this CPU",
                bytes >> 20
            ),
        ));
    }
    let largest = node.host.spaces.largest();
    let needs_space = node.host.spaces.has_devices();
    if needs_space && layout.pages() > largest {
        let (memory, largest) = (bytes >> 20, (u64::from(largest) * PAGE_SIZE) >> 20);
        return Err(trouble(
            &place,
            format!(
                "memory of {memory} MiB is larger than every paging space (largest: {largest} MiB)"
            ),
        ));
    }
    if !needs_space && u64::from(layout.pages()) > u64::from(node.host.frames.total()) {
        return Err(trouble(
            &place,
            "memory is larger than the pool, and there is no paging device".into(),
        ));
    }
    Ok(layout)
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

/// Checks that all partitions can run at the same time.
///
/// # Errors
/// [`NodeStartError`] names the resource that is too small.
pub fn check_together(node: &Node) -> Result<(), NodeStartError> {
    let partitions = node.partitions.len();
    let least = terms::least_pool(partitions as u32, node.host.pager.watermarks().high);
    if node.host.frames.total() < least {
        let (pool, least) = (node.host.frames.total() / 256, least.div_ceil(256));
        return Err(trouble(
            "pool",
            format!(
                "{pool} MiB are too few for {partitions} partitions: they need at least {least} \
                 MiB"
            ),
        ));
    }
    if !node.host.spaces.has_devices() {
        return Ok(());
    }
    // Largest first: if each memory fits the space at the same position of the list, they all fit
    // together.
    let mut wanted: Vec<_> =
        node.partitions.iter().map(|p| (p.config.memory_bytes, p.name())).collect();
    wanted.sort_unstable_by_key(|&(bytes, _)| core::cmp::Reverse(bytes));
    let mut spaces = node.host.spaces.sizes();
    spaces.sort_unstable_by_key(|&pages| core::cmp::Reverse(pages));
    if spaces.len() < partitions {
        let message = format!(
            "{partitions} partitions, but only {} paging spaces that can be used: each needs one",
            spaces.len()
        );
        return Err(trouble("paging devices", message));
    }
    let fits =
        |((bytes, _), pages): &(&(u64, &str), &u32)| *bytes <= u64::from(**pages) * PAGE_SIZE;
    reserve(node);
    match wanted.iter().zip(&spaces).find(|pair| !fits(pair)) {
        Some(((bytes, name), _)) => {
            let message = format!(
                "memory of {} MiB: the spaces that are large enough are needed by others",
                bytes >> 20
            );
            Err(trouble(&format!("partition {name}"), message))
        }
        None => Ok(()),
    }
}

/// Reserves a space for each partition's next incarnation, if there are enough spaces.
fn reserve(node: &Node) {
    let tenant = |shared: &Arc<SharedPartition>| {
        let (config, pages) = (&shared.config, shared.config.memory_bytes / PAGE_SIZE);
        let need = SpaceNeed {
            pages: u32::try_from(pages).unwrap_or(u32::MAX),
            count: own_spaces(config),
        };
        SpaceTenant::new(shared.name(), need)
    };
    if !node.host.spaces.reserve(node.partitions.iter().map(tenant).collect()) {
        log::warn!(
            "too few paging spaces to keep one for each partition's next incarnation: a crashed \
             partition may wait"
        );
    }
}

fn runner(
    node: &'static Node,
    frames: &mut Vec<ControlFrame>,
    shared: &Arc<SharedPartition>,
) -> Result<Runner, NodeStartError> {
    let layout = check(node, shared)?;
    let place = format!("partition {}", shared.name());
    let needs_space = node.host.spaces.has_devices();
    let frame = frames.pop().ok_or_else(|| trouble(&place, "no memory for its vCPU".into()))?;
    let rate = TscRate::new(time::tsc_hz());
    let clock = GuestClock { rate, start: instr::rdtsc(), unix_ns_at_start: node.host.unix_ns() };
    let mut vcpu = node.host.backend.new_vcpu(frame);
    vcpu.offer_cr4(cpuid::offered_cr4(&cpuid::host));
    let machine = VirtualMachine::new(vcpu, &layout, clock, &cpuid::host);
    let tag = node.host.tags.lock().allocate();
    let mut runner = Runner::new(shared.clone(), layout, machine, tag, needs_space);
    if node.partitions.len() > 1 {
        runner.share_console();
    }
    Ok(runner)
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
