//! Power cuts: the log of a full cycle, replayed up to a point, with any part of the unflushed
//! writes.

use super::cycle::{self, DISK_BYTES};
use super::disk::{DiskLogEntry, DumpExpectation, SimDisk};
use super::guest::Truth;
use super::machine::{SimMachine, SimRam};
use super::{Dice, image, is_long, seed};
use crate::arch::percpu::CpuId;
use crate::arch::time::test_clock;
use crate::block::any::{AnyDisk, FoundDisk};
use crate::block::dma::fake::region;
use crate::space::{DeviceContent, SpaceState, Uuid};
use crate::storage::NodeDisk;
use crate::storage::spaces::{BEAT_BUFFER, BUFFER, PagingDevice, Spaces};
use crate::time::Ns;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};
use std::collections::{BTreeMap, HashMap};

/// Disks of the recorded cycle: one for each guest, and one for the next incarnation.
const DISKS: u8 = 3;
/// Step of the clock while a start opens a disk: the claims of the node that lost its power are
/// watched for seconds.
const TURN_NS: Ns = Ns::from_ms(20);

/// The medium of one disk, replayed from the log up to some point.
pub(super) struct Medium {
    base: Vec<u8>,
    /// Writes that no flush has covered: offset, data, and whether they were answered.
    pending: BTreeMap<u64, (usize, Vec<u8>, bool)>,
    /// Flushes in flight, and the writes that each covers.
    flushes: HashMap<u64, Vec<u64>>,
    /// A dump that was announced as complete and not released.
    promised: Option<(String, u64)>,
}

/// Which of the pending writes are on the medium after the power cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PowerCutFate {
    None,
    All,
    /// Some writes, each whole.
    Some,
    /// Some sectors of each write.
    Torn,
    /// Only the last write.
    Last,
    /// All writes but the last.
    ButLast,
}

impl PowerCutFate {
    const RANDOM: [Self; 4] = [Self::Some, Self::Torn, Self::Last, Self::ButLast];
}

impl Medium {
    pub(super) fn new() -> Self {
        Self::of(vec![0; DISK_BYTES])
    }

    /// Makes the medium with this content.
    pub(super) fn of(base: Vec<u8>) -> Self {
        Self { base, pending: BTreeMap::new(), flushes: HashMap::new(), promised: None }
    }

    pub(super) fn apply(&mut self, entry: &DiskLogEntry) {
        match entry {
            DiskLogEntry::Write { id, at, data } => {
                self.pending.insert(*id, (*at, data.clone(), false));
            }
            DiskLogEntry::Written(id) => {
                if let Some((_, _, answered)) = self.pending.get_mut(id) {
                    *answered = true;
                }
            }
            DiskLogEntry::FlushBegins(id) => {
                let answered = self.pending.iter().filter(|(_, (_, _, answered))| *answered);
                self.flushes.insert(*id, answered.map(|(id, _)| *id).collect());
            }
            DiskLogEntry::FlushEnds(id) => {
                for id in self.flushes.remove(id).unwrap_or_default() {
                    if let Some((at, data, _)) = self.pending.remove(&id) {
                        self.base[at..][..data.len()].copy_from_slice(&data);
                    }
                }
            }
            DiskLogEntry::Mark(DumpExpectation::Promised(owner, incarnation)) => {
                self.promised = Some((owner.clone(), *incarnation))
            }
            DiskLogEntry::Mark(DumpExpectation::Released(owner, incarnation)) => {
                self.promised.take_if(|promised| *promised == (owner.clone(), *incarnation));
            }
        }
    }

    pub(super) fn image(&self, fate: PowerCutFate, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.base.clone();
        let last = self.pending.keys().next_back().copied();
        for (id, (at, data, _)) in &self.pending {
            let is_last = Some(*id) == last;
            let whole = match fate {
                PowerCutFate::None | PowerCutFate::Torn => false,
                PowerCutFate::All => true,
                PowerCutFate::Some => dice.one_in(2),
                PowerCutFate::Last => is_last,
                PowerCutFate::ButLast => !is_last,
            };
            for (n, sector) in data.chunks(512).enumerate() {
                if whole || fate == PowerCutFate::Torn && dice.one_in(2) {
                    image[at + n * 512..][..sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }
}

/// A machine that starts with the same disk again and again.
struct RestartBed {
    machine: SimMachine,
    /// The disk of the present start. The machine's pager polls the same disk as its own.
    node_disk: Option<&'static NodeDisk>,
    starts: u64,
}

impl RestartBed {
    fn new() -> Self {
        let ram = SimRam::new(16);
        let disk: &'static SimDisk = Box::leak(Box::new(SimDisk::new(0, DISK_BYTES, ram.map(), 5)));
        Self { machine: SimMachine::new(&ram, vec![disk], 99), node_disk: None, starts: 0 }
    }

    /// Lets a node start with this disk; returns the disk's content after that.
    fn start(&mut self, image: Vec<u8>) -> Vec<u8> {
        let disk = self.machine.disks[0];
        disk.state().content = image;
        self.starts += 1;
        let leaked: &'static AnyDisk = Box::leak(Box::new(AnyDisk::Host(disk)));
        let node_disk: &'static NodeDisk =
            Box::leak(Box::new(NodeDisk::new(FoundDisk { disk: leaked, base: None })));
        self.node_disk = Some(node_disk);
        let device =
            PagingDevice::new(node_disk, region(BUFFER / 4096), region(BEAT_BUFFER / 4096));
        let node = self.machine.node;
        let uuid = Uuid::from_entropy(self.starts, 3);
        let spaces: &'static Spaces =
            Box::leak(Box::new(Spaces::new(vec![device], node.host.io, node.host.tasks, uuid)));
        self.block_on(async {
            spaces.open().await;
            spaces.resume();
        });
        self.block_on(core::future::poll_fn(|_| match node.host.tasks.is_empty() {
            true => core::task::Poll::Ready(()),
            false => core::task::Poll::Pending,
        }));
        disk.state().content.clone()
    }

    fn block_on(&mut self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..100_000 {
            if future.as_mut().poll(&mut context).is_ready() {
                return;
            }
            self.machine.now_ns += TURN_NS;
            test_clock::set(self.machine.now_ns);
            let node = self.machine.node;
            let _ = node.host.pager.poll(CpuId::BOOT, self.machine.now_ns);
            if let Some(disk) = self.node_disk {
                disk.take_writes_for_answered(self.machine.now_ns);
            }
            node.host.io.deliver(|| node.host.pager.take_completion());
            node.host.tasks.poll();
        }
        panic!("a start that does not end; told: {:#?}", crate::console::fake::take());
    }
}

/// Counters of the results.
#[derive(Default, Debug)]
struct Tally {
    cuts: u64,
    dumps: u64,
    blocks: u64,
    promised: u64,
    by_state: BTreeMap<String, u64>,
}

/// Cuts the power at a point with a fate, and checks the disk's claims before and after the next
/// start.
fn cut(
    medium: &Medium,
    fate: PowerCutFate,
    truth: &Truth,
    recovery: &mut RestartBed,
    dice: &mut Dice,
    tally: &mut Tally,
) -> Result<(), String> {
    let before = medium.image(fate, dice);
    tally.blocks += u64::from(
        image::check(&before, truth).map_err(|wrong| format!("before the start: {wrong}"))?,
    );
    let held =
        image::record(&before).filter(image::has_dump).and_then(|record| image::owner(&record));
    *tally.by_state.entry(state_of(&before)).or_default() += 1;
    let after = recovery.start(before);
    tally.cuts += 1;
    tally.blocks += u64::from(
        image::check(&after, truth).map_err(|wrong| format!("after the start: {wrong}"))?,
    );
    let record = image::record(&after);
    let dump = record.as_ref().filter(|record| image::has_dump(record));
    if let Some(held) = held {
        tally.dumps += 1;
        if dump.and_then(image::owner) != Some(held.clone()) {
            return Err(format!("the dump of {held:?} is lost: {}", state_of(&after)));
        }
    }
    if let Some(promised) = &medium.promised {
        tally.promised += 1;
        let kept =
            dump.filter(|record| record.state == SpaceState::Complete).and_then(image::owner);
        if kept.as_ref() != Some(promised) {
            return Err(format!("the promised dump of {promised:?} is lost: {}", state_of(&after)));
        }
    }
    match image::class(&after) {
        DeviceContent::Space(_) => Ok(()),
        // Before the first record is durable the disk holds no data that could be lost.
        _ if image::record(&medium.base).is_none() => Ok(()),
        other => Err(format!("no space after the start: {other:?}")),
    }
}

fn state_of(image: &[u8]) -> String {
    match image::class(image) {
        DeviceContent::Space(record) => format!("{:?}", record.state),
        DeviceContent::Blank => "blank".into(),
        other => format!("{other:?}"),
    }
}

/// Replays a log: every `stride`-th point with none and with all of the pending writes, and
/// `random` points with other fates.
fn replay(
    log: &[DiskLogEntry],
    truth: &Truth,
    stride: usize,
    random: usize,
    dice: &mut Dice,
    tally: &mut Tally,
) {
    let mut recovery = RestartBed::new();
    let mut medium = Medium::new();
    let mut chosen: Vec<usize> =
        (0..random).map(|_| dice.below(log.len() as u32) as usize).collect();
    chosen.sort_unstable();
    let mut next = chosen.into_iter().peekable();
    for (at, entry) in log.iter().enumerate() {
        medium.apply(entry);
        let mut fates = Vec::new();
        if at % stride == 0 || matches!(entry, DiskLogEntry::Mark(_)) {
            fates.extend([PowerCutFate::None, PowerCutFate::All]);
        }
        while next.next_if_eq(&at).is_some() {
            fates.push(PowerCutFate::RANDOM[dice.below(4) as usize]);
        }
        for fate in fates {
            if let Err(wrong) = cut(&medium, fate, truth, &mut recovery, dice, tally) {
                panic!("power cut behind entry {at} of {}, {fate:?}: {wrong}", log.len());
            }
        }
    }
}

#[test]
fn no_power_cut_makes_a_wrong_claim_or_loses_a_promised_dump() {
    let seed = seed();
    let result = cycle::run(DISKS, seed, None, true);
    assert!(
        result.machine.has_told("DumpComplete"),
        "a cycle without a dump: {:#?}",
        result.machine.told
    );
    let logs: Vec<_> =
        result.machine.disks.iter().map(|disk| core::mem::take(&mut disk.state().log)).collect();
    let (stride, random) = if is_long() { (1, 2000) } else { (61, 30) };
    let (mut dice, mut tally) = (Dice::new(seed + 1), Tally::default());
    for log in &logs {
        println!("{} entries", log.len());
        let share = random * log.len() / logs.iter().map(Vec::len).sum::<usize>().max(1) + 1;
        replay(log, &result.truth, stride, share, &mut dice, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.dumps > 0 && tally.promised > 0 && tally.blocks > 0, "{tally:?}");
}

#[test]
fn a_dump_that_claims_what_is_not_there_is_noticed() {
    let result = cycle::run(DISKS, 3, None, true);
    let (disk, mut image) = result
        .machine
        .disks
        .iter()
        .find_map(|disk| {
            let mut medium = Medium::new();
            let log = &disk.state().log;
            let promised = log.iter().position(|entry| {
                matches!(entry, DiskLogEntry::Mark(DumpExpectation::Promised(..)))
            })?;
            log[..=promised].iter().for_each(|entry| medium.apply(entry));
            Some((disk, medium.image(PowerCutFate::All, &mut Dice::new(1))))
        })
        .expect("a complete dump");
    assert!(image::check(&image, &result.truth).expect("all is right") > 0);
    let record = image::record(&image).expect("a record");
    let blocks = record.contents.expect("contents").layout.blocks();
    image[blocks.start as usize..blocks.end() as usize].fill(0x5a);
    assert!(image::check(&image, &result.truth).is_err(), "disk {}", disk.state().content.len());
}
