//! A node whose CPUs run no guests: the code between guest and disk, and a clock that advances by a
//! millisecond per turn.

use super::disk::{DumpExpectation, SimDisk};
use crate::addr::Hfn;
use crate::arch::percpu::CpuId;
use crate::arch::time::test_clock;
use crate::archive::BootArchive;
use crate::block::Disk;
use crate::block::any::{AnyDisk, FoundDisk};
use crate::block::dma::fake::region;
use crate::config::PartitionConfig;
use crate::console::fake as events;
use crate::host::bases::Bases;
use crate::host::reaper::Reaper;
use crate::host::{ConsoleChoice, Host};
use crate::members::LocalDevice;
use crate::members::{MemberIdentity, Members};
use crate::mm::fake::FakeRam;
use crate::mm::flush::QuiescentStates;
use crate::mm::frames::FrameTable;
use crate::mm::leaf::TableFormat;
use crate::mm::object::ObjectTable;
use crate::mm::phys::DirectMap;
use crate::mm::table::TableReserve;
use crate::node::monitor::notices;
use crate::node::moves::MoveDesk;
use crate::node::registry::Registry;
use crate::node::{Node, services};
use crate::paging::{Landmark, Pager, PagerEnv};
use crate::partition::shared::SharedPartition;
use crate::pool::SharesPolicy;
use crate::sched::queue::RunQueue;
use crate::space::Uuid;
use crate::storage::NodeDisk;
use crate::storage::spaces::{BEAT_BUFFER, BUFFER, PagingDevice, Spaces};
use crate::storage::stores::{ImageStores, STORE_BUFFER, StoreDevice};
use crate::sync::RankedLock;
use crate::task::Tasks;
use crate::task::io::AsyncIo;
use crate::time::Ns;
use crate::virt::Backend;
use crate::virt::tag::TlbTags;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::AtomicBool;
use core::task::{Context, Waker};
use std::sync::Arc;

/// Most partitions of a node.
pub(super) const SLOTS: usize = 4;
/// Step of the clock per turn.
const TURN_NS: Ns = Ns::from_ms(1);
/// How often a CPU polls in a turn.
const LOOKS: usize = 4;
/// A machine's time at its start: not zero, as on the real one.
const START_NS: Ns = Ns::from_secs(1);

/// The pool's memory: frames and tables.
pub(super) struct SimRam {
    frames: FakeRam,
    tables: FakeRam,
}

impl SimRam {
    pub(super) fn new(frames: u32) -> Self {
        Self {
            frames: FakeRam::new(Hfn::new(0x100), frames),
            tables: FakeRam::new(Hfn::new(0x10_0000), 256),
        }
    }

    pub(super) fn map(&self) -> DirectMap {
        self.frames.map()
    }
}

pub(super) struct SimMachine {
    pub node: &'static Node,
    pub disks: Vec<&'static SimDisk>,
    pub now_ns: Ns,
    /// All events that the node has reported.
    pub told: Vec<String>,
}

/// A disk of a test.
type TestDisk = dyn Disk + Send;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

impl SimMachine {
    /// Makes a node over these disks. It is never freed, like the real one.
    pub(super) fn new(ram: &SimRam, disks: Vec<&'static SimDisk>, uuid_seed: u64) -> Self {
        let archive = BootArchive::new(leak([0; 10240])).expect("an empty archive");
        Self::with(ram, disks, uuid_seed, archive, &[])
    }

    /// Makes a node without partitions over disks of any kind.
    pub(super) fn of_disks(ram: &SimRam, disks: Vec<&'static TestDisk>, uuid_seed: u64) -> Self {
        let archive = BootArchive::new(leak([0; 10240])).expect("an empty archive");
        Self::over(ram, disks, uuid_seed, archive, &[])
    }

    /// As [`Self::new`], with partitions and the archive that has their kernels.
    pub(super) fn with(
        ram: &SimRam,
        disks: Vec<&'static SimDisk>,
        uuid_seed: u64,
        archive: BootArchive,
        partitions: &[PartitionConfig],
    ) -> Self {
        let of = |disk: &'static SimDisk| -> &'static TestDisk { disk };
        let all = disks.iter().copied().map(of).collect();
        Self { disks, ..Self::over(ram, all, uuid_seed, archive, partitions) }
    }

    fn over(
        ram: &SimRam,
        disks: Vec<&'static TestDisk>,
        uuid_seed: u64,
        archive: BootArchive,
        partitions: &[PartitionConfig],
    ) -> Self {
        test_clock::set(START_NS);
        let _ = (events::take(), events::take_printed());
        let found = |disk: &&'static TestDisk| {
            leak(NodeDisk::new(FoundDisk { disk: leak(AnyDisk::Host(*disk)), base: None }))
        };
        let node_disks: Vec<&'static NodeDisk> = disks.iter().map(found).collect();
        let buffer = |bytes: usize| region(bytes / 4096);
        let devices = node_disks
            .iter()
            .map(|disk| PagingDevice::new(disk, buffer(BUFFER), buffer(BEAT_BUFFER)))
            .collect();
        let (io, tasks) = (leak(AsyncIo::new()), leak(Tasks::new()));
        let spaces = leak(Spaces::new(devices, io, tasks, Uuid::from_entropy(uuid_seed, 7)));
        let device = |(place, disk)| StoreDevice::new(place, disk, buffer(STORE_BUFFER));
        let stores = spaces.stores().map(device).collect();
        let stores = leak(ImageStores::new(stores, io, Uuid::from_entropy(uuid_seed, 7)));
        let memory = leak(ram.frames.map());
        let tables = FrameTable::new(&[ram.tables.region()]).expect("a region");
        let tables = Arc::new(TableReserve::new(tables, ram.tables.map()));
        let frames = Arc::new(FrameTable::new(&[ram.frames.region()]).expect("a region"));
        let words = leak(QuiescentStates::new(1));
        words.leave(CpuId::BOOT);
        let landmark = Landmark { first_word: u32::MAX, matches: |_| false };
        let env = PagerEnv {
            frames: leak(frames.clone()).as_ref(),
            memory,
            quiescent_states: words,
            zeros: ram.frames.zeros(),
            landmark,
        };
        let pager = Pager::new(env, node_disks, SharesPolicy::new());
        let host = leak(Host {
            backend: Backend::Svm,
            words,
            objects: ObjectTable::new(frames.clone(), tables.clone(), &TableFormat::NPT),
            frames,
            tables,
            memory,
            pager,
            spaces,
            stores,
            io,
            tasks,
            bases: Bases::new(),
            reaper: Reaper::new(),
            tags: RankedLock::new(TlbTags::new(8)),
            run_queue: RankedLock::new(RunQueue::with_room(SLOTS)),
            keys_to: ConsoleChoice::default(),
            archive,
            unix_ns_at_start: 0,
            ending: AtomicBool::new(false),
        });
        let registry = Registry::new(SLOTS);
        for config in partitions {
            let shared = Arc::new(SharedPartition::new(config.clone()));
            registry.claim(&shared).expect("a slot");
        }
        let name = format!("node-{}", uuid_seed % 256);
        let identity =
            MemberIdentity::new(Some(&name), Uuid::from_entropy(uuid_seed, 7), uuid_seed);
        let local = LocalDevice::open(spaces.locals(), io, |len| {
            Ok::<_, core::convert::Infallible>(region(len / 4096))
        });
        let Ok(local) = local;
        let members = Members::new(spaces.areas(), local, &identity, io, |len| {
            Ok::<_, core::convert::Infallible>(region(len / 4096))
        });
        let Ok(members) = members;
        members.iter().for_each(|members| spaces.join_log(members.log, members.disks));
        let is_inheriting = AtomicBool::new(false);
        let moves = MoveDesk::default();
        let node = leak(Node { host, members, local, is_inheriting, moves, registry });
        Self { node, disks: Vec::new(), now_ns: crate::arch::time::now_ns(), told: Vec::new() }
    }

    /// Advances the clock by a millisecond and runs a turn of everything.
    pub(super) fn turn(&mut self) {
        self.now_ns += TURN_NS;
        test_clock::set(self.now_ns);
        for _ in 0..LOOKS {
            services::background(self.node, CpuId::BOOT);
        }
        // Called directly: the static due time in `services` belongs to whichever simulated machine
        // ran before.
        notices::report_disks(self.node);
        self.listen();
    }

    /// Takes the events that the node has reported.
    pub(super) fn listen(&mut self) {
        for event in events::take() {
            self.mark(&event);
            self.told.push(event);
        }
    }

    /// Records in the log of a disk which dumps must be found there.
    fn mark(&self, event: &str) {
        if event.starts_with("DumpComplete")
            && let (Some(disk), Some(incarnation)) =
                (number(event, "disk: "), number(event, "incarnation: "))
        {
            let mark = DumpExpectation::Promised(text(event, "partition: "), incarnation);
            // Disks that nodes share keep no log.
            let Some(disk) = self.disks.get(disk as usize) else { return };
            let mut state = disk.state();
            if state.records {
                state.log.push(super::disk::DiskLogEntry::Mark(mark));
            }
        }
    }

    /// Records, before the release, that a dump may disappear.
    pub(super) fn note_release(&self, owner: &str, incarnation: u64) {
        for disk in &self.disks {
            let mut state = disk.state();
            if state.records {
                state.log.push(super::disk::DiskLogEntry::Mark(DumpExpectation::Released(
                    owner.into(),
                    incarnation,
                )));
            }
        }
    }

    /// Runs turns until `ready` returns a value.
    ///
    /// # Panics
    /// If that takes more than `limit_s` seconds of the machine's time.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        limit_s: u64,
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let end = self.now_ns + Ns::from_secs(limit_s);
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            assert!(self.now_ns < end, "{what}: not within {limit_s} s; told: {:#?}", self.told);
            self.turn();
        }
    }

    /// Runs turns until a future has ended.
    pub(super) fn block_on(&mut self, what: &str, limit_s: u64, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        self.until(what, limit_s, |_| future.as_mut().poll(&mut context).is_ready().then_some(()));
    }

    pub(super) fn has_told(&self, start: &str) -> bool {
        self.told.iter().any(|event| event.starts_with(start))
    }
}

/// Returns the number after a word in an event's debug text.
pub(super) fn number(event: &str, word: &str) -> Option<u64> {
    let rest = &event[event.find(word)? + word.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Returns the quoted text after a word in an event's debug text.
pub(super) fn text(event: &str, word: &str) -> String {
    event
        .find(word)
        .map(|at| &event[at + word.len()..])
        .and_then(|rest| rest.split('"').nth(1))
        .unwrap_or_default()
        .to_owned()
}
