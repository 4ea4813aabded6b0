//! The running hypervisor as a whole: what everything above `paging` stands on, made once at start.
//!
//! ```text
//!   Node ── words, frames, objects      who owns which page, and who may still see it
//!        ── pager ──> disks             what does not fit
//!        ── tasks ──> spaces, dumps     what outlives an incarnation
//!        ── graves                      what is given back
//!        ── partitions                  what others may know of them
//! ```
//!
//! Everything here lives as long as the machine runs, so references are `'static`.

pub mod bench;
#[cfg(target_os = "none")]
pub mod build;
pub mod commands;
pub mod describe;
pub mod disk;
pub mod dumps;
pub mod graves;
pub mod io;
pub mod measure;
pub mod note_search;
pub mod notices;
pub mod services;
pub mod spaces;
#[cfg(target_os = "none")]
pub mod start;
pub mod stats;
#[cfg(test)]
mod tests;

use crate::arch::percpu::CpuId;
use crate::arch::{interrupts, percpu, time};
use crate::archive::BootArchive;
use crate::block::Disk;
use crate::console::event::Event;
use crate::console::output;
use crate::mm::flush::{CpuWords, Kicks};
use crate::mm::frames::FrameTable;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::mm::table::TableReserve;
use crate::paging::{Pager, Work};
use crate::partition::shared::{Phase, Shared};
use crate::partition::wait::WaitFor;
use crate::pool::Shares;
use crate::sched::queue::RunQueue;
pub use crate::sched::task;
use crate::sync::{Ranked, rank};
use crate::virt::Backend;
use crate::virt::tag::Tags;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub use disk::NodeDisk;
use graves::Graves;
use io::AsyncIo;
use spaces::Spaces;
use task::Tasks;

/// How long a disk may take for an answer when the machine ends: about what a slow one needs for a flush of its cache.
const LAST_ANSWER_NS: u64 = 5_000_000_000;

/// The pager of a node.
pub type NodePager = Pager<'static, DirectMap, NodeDisk, Shares>;

/// A running hypervisor.
pub struct Node {
    /// Which virtualisation it uses.
    pub backend: Backend,
    /// Where its CPUs are.
    pub words: &'static CpuWords,
    /// The pool.
    pub frames: Arc<FrameTable>,
    /// Pages for second-level tables.
    pub tables: Arc<TableReserve>,
    /// How frames are reached.
    pub memory: &'static DirectMap,
    /// All memory objects.
    pub objects: ObjectTable,
    /// Who answers faults and takes frames back.
    pub pager: NodePager,
    /// Paging spaces.
    pub spaces: &'static Spaces,
    /// I/O of tasks.
    pub io: &'static AsyncIo,
    /// Work that waits for disks.
    pub tasks: &'static Tasks,
    /// Objects that are taken apart.
    pub graves: Graves,
    /// Tags of cached translations.
    pub tags: Ranked<Tags, { rank::FRAMES }>,
    /// Whose turn it is.
    pub run_queue: Ranked<RunQueue<WaitFor>, { rank::RUN_QUEUE }>,
    /// The partitions, in the order of the configuration; the run queue has the same.
    pub partitions: Vec<Arc<Shared>>,
    /// Number of the partition that keys go to.
    pub console: AtomicUsize,
    /// What the machine was started with.
    pub archive: BootArchive,
    /// Time of day at the start: nanoseconds since 1970.
    pub unix_ns_at_start: u64,
    /// The machine stops when nothing runs any more.
    pub ending: AtomicBool,
}

impl Node {
    /// Returns the time of day: nanoseconds since 1970.
    pub fn unix_ns(&self) -> u64 {
        self.unix_ns_at(time::now_ns())
    }

    /// Returns the time of day at `now_ns` since the start.
    pub const fn unix_ns_at(&self, now_ns: u64) -> u64 {
        self.unix_ns_at_start.saturating_add(now_ns)
    }

    /// Does what the pager's work asks of the CPUs.
    pub fn act_on(&self, work: Work) {
        self.kick(work.kicks);
        if work.woke {
            self.wake();
        }
    }

    /// Something has happened that may be waited for: wakes the vCPUs that it concerns, and the CPUs that may have to go on with it.
    pub fn wake(&self) {
        let kicks = self.run_queue.lock().wake(time::now_ns, WaitFor::is_over);
        self.kick(kicks);
        self.wake_others();
    }

    /// Free frames are few: has another CPU take some back that does not run a guest, or does it here.
    #[cold]
    #[inline(never)]
    pub fn relieve(&self, me: CpuId, now: u64) {
        match percpu::others().find(|&cpu| !self.words.is_in_guest(cpu)) {
            Some(other) => interrupts::kick(other),
            None => self.act_on(self.pager.poll(me, now)),
        }
    }

    /// Makes partition number `index` look at what was asked of it.
    pub fn poke(&self, index: usize) {
        let kicks = self.run_queue.lock().poke(index, time::now_ns());
        self.kick(kicks);
    }

    /// Makes the other CPUs that may wait for something look again: for an answer from a disk, for a task to go on with.
    ///
    /// One in guest mode waits for nothing and is left alone: it stays there until its slice ends, and an exit would cost more than it
    /// finds. Before it idles it looks at everything, and sees what was done before this call.
    #[inline]
    pub fn wake_others(&self) {
        percpu::others().filter(|&cpu| !self.words.is_in_guest(cpu)).for_each(interrupts::kick);
    }

    /// Makes CPUs leave guest mode.
    pub fn kick(&self, kicks: Kicks) {
        kicks.cpus().for_each(interrupts::kick);
    }

    /// The machine ends: a disk that does not answer is not waited for as long as usual.
    pub fn hurry_disks(&self) {
        self.pager.disks().iter().for_each(|disk| disk.hurry(LAST_ANSWER_NS));
    }

    /// Returns whether nothing runs and nothing is under way any more, and the machine is to stop then.
    pub fn has_ended(&self) -> bool {
        let stopped = |shared: &Arc<Shared>| shared.phase() == Phase::Stopped;
        self.ending.load(Ordering::Acquire)
            && self.partitions.iter().all(stopped)
            && self.tasks.is_empty()
            && self.graves.is_quiet()
    }

    /// Returns whether the machine ends, and of all memory only that is left which disks that do not answer still have.
    pub fn ends_without_disks(&self) -> bool {
        self.ending.load(Ordering::Acquire) && self.graves.is_quiet()
    }

    /// Returns the partition with that name.
    pub fn partition(&self, name: &str) -> Option<&Arc<Shared>> {
        self.partitions.iter().find(|shared| shared.name() == name)
    }
}

/// Reports an event, now.
pub fn report(event: &Event<'_>) {
    #[cfg(test)]
    tests::events::note(event);
    output::report(event, time::now_ns());
}
