//! Late writes: a node stalls while it writes the parts around the blocks, another node takes its
//! space over, and then the write lands at some point of the other node's cycle.

use super::cycle::{self, DISK_BYTES};
use super::disk::{DiskLogEntry, SimDisk};
use super::guest::{PAGES, SimGuest, Truth};
use super::machine::{SimMachine, SimRam};
use super::power_cuts::{Medium, PowerCutFate};
use super::{Dice, image, is_long, seed};
use crate::console::command::DumpChoice;
use crate::space::{SpaceLayout, SpaceState};
use crate::time::Ns;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Waker};
use std::collections::BTreeMap;

/// Disks of the recorded cycle.
const DISKS: u8 = 3;
/// Step of the clock while the test only waits.
const WAIT_NS: Ns = Ns::from_ms(20);
/// Number of such steps within which a late write is found: a look per second, and some time for
/// the look itself.
const LOOK_TURNS: u32 = 75;
/// Steps of a guest between start and crash. A guest without steps leaves zeros, and a dump whose
/// bitmap has no sector to write.
const STEPS: [u32; 2] = [200, 0];

/// State of the next owner when the write lands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    /// It has claimed and opened the space.
    Opened,
    /// Its partition runs.
    Active,
    /// The record says DRAINING.
    Draining,
    /// The dump is sealed.
    Sealed,
}

const MOMENTS: [Moment; 4] = [Moment::Opened, Moment::Active, Moment::Draining, Moment::Sealed];

/// A write in flight while its node is stalled.
struct LateWrite {
    /// The disk without it.
    image: Vec<u8>,
    at: usize,
    data: Vec<u8>,
}

fn layout() -> SpaceLayout {
    SpaceLayout::for_pages(DISK_BYTES as u64, PAGES).expect("it fits")
}

/// Returns the logged writes below the blocks, each with the disk's content before it.
fn late_writes(log: &[DiskLogEntry]) -> Vec<LateWrite> {
    let data_start = layout().blocks().start as usize;
    let (mut medium, mut dice, mut found) = (Medium::new(), Dice::new(1), Vec::new());
    for entry in log {
        if let DiskLogEntry::Write { at, data, .. } = entry
            && *at < data_start
        {
            let len = data.len().min(data_start - at);
            found.push(LateWrite {
                image: medium.image(PowerCutFate::All, &mut dice),
                at: *at,
                data: data[..len].to_vec(),
            });
        }
        medium.apply(entry);
    }
    found
}

/// The node that takes the space over, and its guest.
struct Successor<'a> {
    machine: SimMachine,
    guest: SimGuest,
    truth: Truth,
    late: &'a LateWrite,
    moment: Moment,
    steps: u32,
}

impl Successor<'_> {
    fn content(&self) -> Vec<u8> {
        self.machine.disks[0].state().content.clone()
    }

    /// Lets the write land if this is its moment. Some time later no trace of the write may be
    /// left.
    fn pass(&mut self, moment: Moment) {
        if moment == self.moment {
            self.machine.disks[0].state().content[self.late.at..][..self.late.data.len()]
                .copy_from_slice(&self.late.data);
        }
    }

    fn turns(&mut self, turns: u32) {
        for _ in 0..turns {
            self.machine.now_ns += WAIT_NS;
            self.machine.turn();
        }
    }

    fn run(&mut self, truth_before: &Truth) -> Result<(), String> {
        let spaces = self.machine.node.host.spaces;
        let mut open = pin!(spaces.open());
        let mut context = Context::from_waker(Waker::noop());
        let end_ns = self.machine.now_ns + Ns::from_secs(60);
        while open.as_mut().poll(&mut context).is_pending() {
            assert!(
                self.machine.now_ns < end_ns,
                "a start that does not end; told: {:#?}",
                self.machine.told
            );
            self.turns(1);
        }
        spaces.resume();
        self.pass(Moment::Opened);
        self.turns(LOOK_TURNS);
        self.check("after the start", truth_before)?;
        for owner in ["p", "q"] {
            let _ = spaces.release_dumps(DumpChoice::All(owner));
        }
        let (machine, guest) = (&mut self.machine, &mut self.guest);
        machine.until("a start", 60, |machine| guest.start(machine).then_some(()));
        self.pass(Moment::Active);
        for _ in 0..self.steps {
            self.guest.step(&self.machine).map_err(|loss| format!("a page is lost: {loss:?}"))?;
            self.machine.turn();
        }
        self.turns(LOOK_TURNS);
        self.check("while the partition runs", truth_before)?;
        self.drain()?;
        self.turns(LOOK_TURNS);
        let truth = core::mem::take(&mut self.truth);
        self.check("after the seal", &truth)
    }

    fn drain(&mut self) -> Result<(), String> {
        let job = self.guest.crash(&self.machine, &mut self.truth);
        let disk = self.machine.disks[0];
        let state = || image::record(&disk.state().content).map(|record| record.state);
        self.machine
            .until("DRAINING", 60, |_| (state() == Some(SpaceState::Draining)).then_some(()));
        self.check("while it drains", &self.truth)?;
        self.pass(Moment::Draining);
        self.machine.until("the seal", 60, |_| job.read().has_ended.then_some(()));
        self.check("at the seal", &self.truth)?;
        self.pass(Moment::Sealed);
        (state() == Some(SpaceState::Complete))
            .then_some(())
            .ok_or_else(|| format!("sealed as {:?}", state()))
    }

    /// Checks that the disk's claims are right, and that a space without a dump has no header.
    fn check(&self, when: &str, truth: &Truth) -> Result<(), String> {
        let content = self.content();
        let what = |wrong: String| format!("{when}: {wrong}; told: {:#?}", self.machine.told);
        image::check(&content, truth).map_err(what)?;
        let Some(record) = image::record(&content) else {
            return Err(what(format!("{:?}", image::class(&content))));
        };
        let is_blank = content[..4096].iter().all(|byte| *byte == 0);
        match record.state {
            SpaceState::Free | SpaceState::Active if !is_blank => {
                Err(what(format!("{:?} with a header", record.state)))
            }
            _ => Ok(()),
        }
    }

    fn has_repaired(&self) -> bool {
        self.machine.told.iter().any(|event| event.contains("late write of an earlier owner"))
    }
}

/// Lets a write land at a moment; returns whether it was found and overwritten.
fn land(
    late: &LateWrite,
    (moment, steps): (Moment, u32),
    seed: u64,
    truth_before: &Truth,
) -> Result<bool, String> {
    let ram = SimRam::new(80);
    let disk: &'static SimDisk = Box::leak(Box::new(SimDisk::new(0, DISK_BYTES, ram.map(), seed)));
    disk.state().content = late.image.clone();
    let machine = SimMachine::new(&ram, vec![disk], seed + 77);
    let guest = SimGuest::new("p", 0, seed + 1);
    let mut successor = Successor { machine, guest, truth: Truth::new(), late, moment, steps };
    successor.run(truth_before).map(|()| successor.has_repaired())
}

#[test]
fn nothing_that_surrounds_the_blocks_is_lost_to_a_late_write_of_an_earlier_owner() {
    let seed = seed();
    let before = cycle::run(DISKS, seed, None, true);
    let logs = before.machine.disks.iter().map(|disk| core::mem::take(&mut disk.state().log));
    let all: Vec<_> = logs.flat_map(|log| late_writes(&log)).collect();
    let mut repaired = BTreeMap::<Moment, u32>::new();
    let ways: Vec<_> =
        MOMENTS.into_iter().flat_map(|moment| STEPS.map(|steps| (moment, steps))).collect();
    let bitmap = layout().bitmap().start as usize;
    let first_bits = all.iter().position(|late| late.at == bitmap).expect("a dump has a bitmap");
    for (n, late) in all.iter().enumerate() {
        let chosen = match n {
            // Old bits matter most: they could make a dump contain a wrong page.
            _ if is_long() || n == first_bits => &ways[..],
            _ if n % 2 == 0 => &ways[n / 2 % ways.len()..][..1],
            _ => &[],
        };
        for &(moment, steps) in chosen {
            let found = land(late, (moment, steps), seed + n as u64, &before.truth).unwrap_or_else(
                |wrong| {
                    let (all, bytes, at) = (all.len(), late.data.len(), late.at);
                    panic!(
                        "write {n} of {all} ({bytes} bytes at {at}) lands at {moment:?} after \
                         {steps} steps: {wrong}"
                    )
                },
            );
            *repaired.entry(moment).or_default() += u32::from(found);
        }
    }
    println!("{} writes, found and written over: {repaired:?}", all.len());
    assert!(repaired.values().sum::<u32>() > 0, "no late write changed anything");
}
