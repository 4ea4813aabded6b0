//! Counters as events and as text.

use crate::arch::{heap, repeats, time};
use crate::console::event::{ConsoleEvent, PartitionStats, PoolStats};
use crate::console::report;
use crate::mm::object::MemoryObject;
use crate::node::Node;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::shared::SharedPartition;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// Returns the live memory of a partition.
pub fn memory_of(node: &Node, shared: &SharedPartition) -> Option<Arc<MemoryObject>> {
    node.host.objects.by_number(shared.object()?)
}

/// Returns the memory of a partition that has become a base, if it is loaded.
fn memory_of_base(node: &Node, shared: &SharedPartition) -> Option<Arc<MemoryObject>> {
    let is_base = shared.view() == LifecycleView::Sealed;
    let base = is_base.then(|| node.host.bases.get(shared.name())).flatten()?;
    Some(base.object.clone())
}

/// Calls `each` with the counters of every partition's incarnation.
pub fn partitions(node: &Node, id: Option<u64>, mut each: impl FnMut(&PartitionStats<'_>)) {
    for (_, shared) in node.partitions() {
        let object = memory_of(node, &shared).or_else(|| memory_of_base(node, &shared));
        let counts = object.as_ref().map(|object| object.counts()).unwrap_or_default();
        let flow =
            object.as_ref().map(|object| node.host.pager.flow(object.id())).unwrap_or_default();
        each(&PartitionStats {
            id,
            partition: shared.name(),
            incarnation: shared.incarnation(),
            state: shared.view().as_str(),
            logical: shared.config.memory_bytes / crate::addr::PAGE_SIZE,
            resident: u64::from(counts.resident + counts.going_out),
            paged: u64::from(counts.paged + counts.coming_in),
            zero: u64::from(counts.zero),
            untouched: u64::from(counts.untouched),
            shared: u64::from(counts.shared),
            page_ins: flow.page_ins,
            page_outs: flow.page_outs,
            exits: shared.exits.all(),
            exits_by: shared.exits.tally(),
            dumps_skipped: shared.dumps_skipped.load(Relaxed),
        });
    }
}

/// Returns the counters of the pool and of the pager.
pub fn pool(node: &Node, id: Option<u64>) -> PoolStats {
    let guest_pages: u64 =
        node.partitions().map(|(_, s)| s.config.memory_bytes / crate::addr::PAGE_SIZE).sum();
    let metadata_bytes = node.host.objects.metadata_bytes();
    let (pager, lock, heap) =
        (node.host.pager.counters(), node.host.pager.lock_use(), heap::usage());
    let timers = repeats::counts();
    PoolStats {
        id,
        pages: u64::from(node.host.frames.total()),
        free: u64::from(node.host.frames.free_count()),
        image: node.host.pager.image_frames(),
        metadata_bytes,
        guest_pages,
        metadata_per_page_milli: metadata_bytes * 1000 / guest_pages.max(1),
        page_ins: pager.page_ins,
        page_outs: pager.page_outs,
        read_around: pager.read_around,
        cleaned: pager.cleaned,
        bytes_read: pager.bytes_read,
        bytes_written: pager.bytes_written,
        clean_evictions: pager.clean_evictions,
        zero_evictions: pager.zero_evictions,
        rescues: pager.rescues,
        demand_zero: pager.demand_zero,
        zeros_shown: pager.zeros_shown,
        resident_faults: pager.resident_faults,
        waits: pager.frame_waits,
        lost: pager.lost_pages,
        lock_taken: lock.taken,
        lock_waits: lock.waits,
        lock_longest_ns: time::tsc_scale().ns(lock.longest_ticks).as_u64(),
        turns: lock.turns,
        turns_without_work: lock.turns_without_work,
        polls_left: pager.polls_left_to_others,
        timers_late: timers.late,
        timers_repeated: timers.repeated,
        objects: node.host.objects.count() as u64,
        tables: u64::from(node.host.tables.used_count()),
        tags: u64::from(node.host.tags.lock().used()),
        heap_size: heap.size,
        heap_used: heap.used,
        heap_peak: heap.peak,
    }
}

/// Reports all counters.
pub fn report_all(node: &Node, id: Option<u64>) {
    report(&ConsoleEvent::Pool(pool(node, id)));
    partitions(node, id, |stats| report(&ConsoleEvent::Stats(*stats)));
}
