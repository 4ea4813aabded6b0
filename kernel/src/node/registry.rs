//! The partitions of the node, which come and go while it runs.
//!
//! ```text
//!   slot:  empty ── define ──> runner stopped ── start ──> runs ── stop, crash ──> stopped
//!            ^                    │                                                   │
//!            └── runner gone <────┴────────────── undefine ───────────────────────────┘
//! ```
//!
//! The slots are made at the start: one for each partition of the configuration, and spare ones. A
//! slot's number is the [`PartitionId`], the number of the vCPU in the run queue, and that of the
//! account at the pool.
//!
//! A runner leaves in a turn of its own, after its memory and its space are gone. The run queue
//! gives that turn to the CPU that holds the vCPU's registers, so no other CPU has to be asked for
//! them. The slot is empty after the runner's tag, promises and control frame are released and its
//! vCPU is out of the run queue; only then the name and the number can be used again.

use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::log::history;
use crate::mm::object_id::ObjectId;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::runner::Runner;
use crate::partition::shared::{PartitionRequest, SharedPartition};
use crate::partition_id::PartitionId;
use crate::sched::queue::VcpuId;
use crate::sync::{Once, RankedGuard, RankedLock, rank};
use crate::virt::face::Vcpu;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// A slot's runner. These locks are never contended: the queue gives a vCPU to one CPU.
type RunnerLock = RankedLock<Option<Box<Runner>>, { rank::PARTITION }>;

/// A place for a partition.
struct Slot {
    shared: RankedLock<Option<Arc<SharedPartition>>, { rank::REGISTRY }>,
    runner: RunnerLock,
}

/// Where vCPUs come from.
pub trait VcpuSource: Sync {
    /// Makes a vCPU for a partition; `None` if no control frame is left. The calling CPU runs
    /// guests.
    fn make(&self, shared: &Arc<SharedPartition>) -> Option<Vcpu>;

    /// Takes back the vCPU of a partition that is gone.
    fn take_back(&self, vcpu: Vcpu);
}

/// All partitions, by number.
pub struct Registry {
    slots: Box<[Slot]>,
    /// Set when this CPU and all others can run guests.
    source: Once<&'static dyn VcpuSource>,
    /// Several partitions have shared the serial line.
    shares_line: AtomicBool,
    /// The operator ends the machine.
    is_ending: AtomicBool,
}

impl Registry {
    /// Makes empty slots: at most as many as there are memory objects.
    pub fn new(slots: usize) -> Self {
        let empty = || Slot { shared: RankedLock::default(), runner: RankedLock::default() };
        Self {
            slots: (0..slots.min(ObjectId::COUNT)).map(|_| empty()).collect(),
            source: Once::new(),
            shares_line: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        }
    }

    /// Returns the number of slots.
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns a partition by its id; `None` if there is none.
    pub fn partition(&self, id: PartitionId) -> Option<Arc<SharedPartition>> {
        self.slots.get(id.index())?.shared.lock().clone()
    }

    /// Returns all partitions, in the order of their numbers.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, Arc<SharedPartition>)> {
        let ids = (0..self.slots.len() as u16).map(PartitionId::new);
        ids.filter_map(|id| Some((id, self.partition(id)?)))
    }

    /// Returns whether several partitions share the serial line, or have shared it.
    pub fn shares_line(&self) -> bool {
        self.shares_line.load(Ordering::Relaxed)
    }

    /// Refuses to define and to start partitions from now on.
    pub fn close(&self) {
        self.is_ending.store(true, Ordering::Release);
        for (_, shared) in self.partitions() {
            shared.take(PartitionRequest::Start);
            shared.take(PartitionRequest::Resume);
        }
    }

    /// Returns whether no partition runs, and none is about to.
    pub fn is_at_rest(&self) -> bool {
        let rests = |shared: &SharedPartition| {
            matches!(
                shared.view(),
                LifecycleView::Stopped | LifecycleView::Suspended | LifecycleView::Sealed
            ) && !shared.is_asked_to(PartitionRequest::Start)
                && !shared.is_asked_to(PartitionRequest::Resume)
        };
        self.partitions().all(|(_, shared)| rests(&shared))
    }

    /// Puts a partition into the lowest empty slot.
    pub fn claim(&self, shared: &Arc<SharedPartition>) -> Option<PartitionId> {
        let (id, _) = (0..).map(PartitionId::new).zip(&self.slots).find(|(id, slot)| {
            let mut place = slot.shared.lock();
            let is_empty = place.is_none();
            if is_empty {
                shared.set_id(*id);
                history::begin_partition(*id);
                *place = Some(shared.clone());
            }
            is_empty
        })?;
        if self.partitions().nth(1).is_some() && !self.shares_line.swap(true, Ordering::Relaxed) {
            for (_, shared) in self.partitions() {
                shared.ask(PartitionRequest::ShareLine);
            }
        }
        Some(id)
    }

    /// Gives a partition its runner, and the runner its first turn.
    pub fn install(&self, host: &Host, id: PartitionId, mut runner: Box<Runner>) {
        if self.shares_line() {
            runner.share_console();
        }
        let slot = &self.slots[id.index()];
        let before = slot.runner.try_lock().expect("an empty slot has no turn").replace(runner);
        assert!(before.is_none(), "an empty slot has no runner");
        let kicks = host.run_queue.lock().insert(VcpuId::of(id));
        host.kick(kicks);
    }

    /// Lets partitions be defined from now on, with vCPUs of `source`.
    pub fn open(&self, source: &'static dyn VcpuSource) {
        self.source.call_once(|| source);
    }

    /// Returns the source of vCPUs once partitions can be defined.
    pub fn source(&self) -> Option<&'static dyn VcpuSource> {
        self.source.get().copied()
    }

    /// Returns whether the operator ends the machine.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Returns the runner of a vCPU that has its turn.
    pub fn runner(
        &self,
        vcpu: VcpuId,
    ) -> RankedGuard<'_, Option<Box<Runner>>, { rank::PARTITION }> {
        let runner = self.slots[vcpu.index()].runner.try_lock();
        runner.expect("the run queue gives a vCPU to one CPU")
    }

    /// Empties the slot of a vCPU that has had its last turn.
    #[cold]
    pub fn vacate(&self, host: &'static Host, vcpu: VcpuId) {
        let slot = &self.slots[vcpu.index()];
        let runner = self.runner(vcpu).take();
        let vcpu_of_runner = runner.map(|runner| runner.into_vcpu(host));
        if let (Some(source), Some(vcpu)) = (self.source.get(), vcpu_of_runner) {
            source.take_back(vcpu);
        }
        host.run_queue.lock().remove(vcpu);
        let name = slot.shared.lock().clone();
        if let Some(shared) = &name {
            host.spaces.forget_tenant(shared.name());
        }
        *slot.shared.lock() = None;
        if let Some(shared) = &name {
            report(&ConsoleEvent::Undefined { partition: shared.name() });
        }
        // Another partition may wait for a space that was kept for this one.
        host.wake();
    }
}
