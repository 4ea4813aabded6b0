//! What all partitions share: memory, disks, spaces, tasks and the run queue. It is made once, at
//! start.
//!
//! ```text
//!   Host ── words, frames, objects      owner of each page, CPUs that may still access it
//!        ── pager ──> disks             pages that do not fit into memory
//!        ── tasks ──> spaces, dumps     data that outlives an incarnation
//!        ── reaper                      memory that is being freed
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`. The host knows
//! no partition: it has only their numbers.

pub mod bases;
pub mod prefetch;
pub mod reaper;
pub mod regions;

use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, percpu, time};
use crate::archive::BootArchive;
use crate::block::Disk;
use crate::mm::flush::{Kicks, QuiescentStates};
use crate::mm::frames::FrameTable;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::mm::table::TableReserve;
use crate::paging::{Pager, PollOutcome};
use crate::partition_id::PartitionId;
use crate::pool::SharesPolicy;
use crate::sched::queue::{RunQueue, VcpuId};
use crate::sched::wait::WaitEvent;
use crate::storage::NodeDisk;
use crate::storage::spaces::Spaces;
use crate::storage::stores::ImageStores;
use crate::sync::{RankedLock, rank};
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use crate::time::Ns;
use crate::virt::Backend;
use crate::virt::tag::TlbTags;
use alloc::sync::Arc;
use bases::Bases;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use reaper::Reaper;

/// How long a disk may take to answer when the machine ends: about the time of a cache flush on a
/// slow disk.
const LAST_ANSWER_NS: Ns = Ns::from_secs(5);

/// The pager of a node.
pub type NodePager = Pager<'static, DirectMap, NodeDisk, SharesPolicy>;

/// The part of a running hypervisor that its partitions share.
pub struct Host {
    /// The back end of the virtualisation.
    pub backend: Backend,
    /// The published state of each CPU.
    pub words: &'static QuiescentStates,
    /// The pool.
    pub frames: Arc<FrameTable>,
    /// Pages for second-level tables.
    pub tables: Arc<TableReserve>,
    /// Access to the contents of frames.
    pub memory: &'static DirectMap,
    /// All memory objects.
    pub objects: ObjectTable,
    /// Answers faults and reclaims frames.
    pub pager: NodePager,
    /// Paging spaces.
    pub spaces: &'static Spaces,
    /// Image stores.
    pub stores: &'static ImageStores,
    /// I/O of tasks.
    pub io: &'static AsyncIo,
    /// Work that waits for disks.
    pub tasks: &'static Tasks,
    /// Bases in memory.
    pub bases: Bases,
    /// Objects that are being taken apart.
    pub reaper: Reaper,
    /// Tags of cached translations.
    pub tags: RankedLock<TlbTags, { rank::FRAMES }>,
    /// The run queue of all CPUs.
    pub run_queue: RankedLock<RunQueue<WaitEvent>, { rank::RUN_QUEUE }>,
    /// The partition that keys go to.
    pub keys_to: ConsoleChoice,
    /// The boot archive.
    pub archive: BootArchive,
    /// Time of day at the start: nanoseconds since 1970.
    pub unix_ns_at_start: u64,
    /// The machine stops when nothing runs any more.
    pub ending: AtomicBool,
}

impl Host {
    /// Returns the time of day: nanoseconds since 1970.
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns_at(time::now_ns())
    }

    /// Returns the time of day at `now_ns` since the start.
    pub const fn unix_ns_at(&self, now_ns: Ns) -> u64 {
        self.unix_ns_at_start.saturating_add(now_ns.as_u64())
    }

    /// Kicks and wakes the CPUs that the pager's work concerns.
    pub fn act_on(&self, work: PollOutcome) {
        self.kick(work.kicks);
        if work.woke_waiters {
            self.wake();
        }
    }

    /// Wakes the vCPUs whose wait is over, and the CPUs that may have to run them. Called after
    /// each event that may end a wait.
    pub fn wake(&self) {
        let kicks = self.run_queue.lock().wake(time::now_ns, WaitEvent::is_over);
        self.kick(kicks);
        self.wake_others();
    }

    /// Has another CPU reclaim frames when free frames are few; if every other CPU runs a guest,
    /// this CPU does it.
    #[cold]
    #[inline(never)]
    pub fn relieve(&self, me: CpuId, now: Ns) {
        match percpu::others().find(|&cpu| !self.words.is_in_guest(cpu)) {
            Some(other) => interrupts::kick(other),
            None => self.act_on(self.pager.poll(me, now)),
        }
    }

    /// Makes a partition look at its requests.
    pub fn poke(&self, partition: PartitionId) {
        let kicks = self.run_queue.lock().poke(VcpuId::of(partition), time::now_ns());
        self.kick(kicks);
    }

    /// Makes the other CPUs look again if they may be waiting: for a disk's answer, or for work on
    /// a task.
    ///
    /// A CPU in guest mode waits for nothing and is left alone: it stays in the guest until its
    /// slice ends, and an exit would cost more than it gains. Before that CPU idles it looks at
    /// everything, and sees all that was done before this call.
    #[inline]
    pub fn wake_others(&self) {
        percpu::others().filter(|&cpu| !self.words.is_in_guest(cpu)).for_each(interrupts::kick);
    }

    /// Makes CPUs leave guest mode. Most work concerns none.
    #[inline]
    pub fn kick(&self, kicks: Kicks) {
        if kicks != Kicks(0) {
            kick_all(kicks);
        }
    }

    /// Shortens the wait for disks that do not answer: the machine ends.
    pub fn hurry_disks(&self) {
        self.pager.disks().iter().for_each(|disk| disk.hurry(LAST_ANSWER_NS));
    }

    /// Returns whether the machine ends, and the only memory left is held by disks that do not
    /// answer.
    pub fn ends_without_disks(&self) -> bool {
        self.ending.load(Ordering::Acquire) && self.reaper.is_quiet()
    }
}

/// The partition that keys of the machine's console go to; the first one at the start.
#[derive(Debug, Default)]
pub struct ConsoleChoice(AtomicU16);

impl ConsoleChoice {
    /// Returns the partition.
    pub fn get(&self) -> PartitionId {
        PartitionId::new(self.0.load(Ordering::Relaxed))
    }

    /// Directs keys to `partition` from now on.
    pub fn set(&self, partition: PartitionId) {
        self.0.store(partition.as_u16(), Ordering::Relaxed);
    }
}

#[cold]
fn kick_all(kicks: Kicks) {
    kicks.cpus().for_each(interrupts::kick);
}
