//! A full cycle: start, activation, paging, crash, drain, seal, restart, release, end.

use super::Dice;
use super::disk::{FaultPlan, SimDisk};
use super::guest::{SimGuest, Truth};
use super::machine::{SimMachine, SimRam};
use crate::console::command::DumpChoice;
use crate::time::Ns;

/// Bytes of a disk: one space for the guest, and little more.
pub(super) const DISK_BYTES: usize = (1 << 20) + (512 << 10);
/// Frames of the pool: less than half of the pages of two guests.
const FRAMES: u32 = 80;
/// Turns between two actions of the operator.
const SPELL: u32 = 150;

/// State after a cycle.
pub(super) struct CycleResult {
    pub machine: SimMachine,
    pub truth: Truth,
    /// The guest that does not crash.
    pub neighbour: SimGuest,
    /// The guest that crashes.
    pub guest: SimGuest,
    /// Turns in which the neighbour ran.
    pub turns: u64,
    /// Steps of the neighbour in 1000 turns while both guests run and none crashes.
    pub pace: u64,
}

/// Runs a cycle over `disks` disks, with a log or a fault on the first.
pub(super) fn run(disks: u8, seed: u64, fault: Option<FaultPlan>, records: bool) -> CycleResult {
    let ram = SimRam::new(FRAMES);
    let disks: Vec<&'static SimDisk> = (0..disks)
        .map(|index| {
            let disk: &'static SimDisk =
                Box::leak(Box::new(SimDisk::new(index, DISK_BYTES, ram.map(), seed)));
            disk.state().records = records;
            disk
        })
        .collect();
    disks[0].state().fault = fault;
    let mut machine = SimMachine::new(&ram, disks, seed);
    let spaces = machine.node.host.spaces;
    machine.block_on("open", 60, spaces.open());
    spaces.resume();
    let guests = (SimGuest::new("p", 0, seed), SimGuest::new("q", 1, seed));
    let mut cycle = Cycle {
        machine,
        truth: Truth::new(),
        guest: guests.0,
        neighbour: guests.1,
        turns: 0,
        pace: 0,
        dice: Dice::new(seed),
    };
    cycle.script();
    let Cycle { machine, truth, guest, neighbour, turns, pace, .. } = cycle;
    CycleResult { machine, truth, neighbour, guest, turns, pace }
}

struct Cycle {
    machine: SimMachine,
    truth: Truth,
    guest: SimGuest,
    neighbour: SimGuest,
    turns: u64,
    pace: u64,
    dice: Dice,
}

impl Cycle {
    fn script(&mut self) {
        // The guest that crashes is on the first disk, the neighbour on another.
        self.wait("a first start", 30, |cycle| cycle.guest.start(&cycle.machine));
        self.wait("the neighbour's start", 30, |cycle| cycle.neighbour.start(&cycle.machine));
        // By then every page has been touched, and the pool is full.
        self.go_on(SPELL);
        let before = self.neighbour.steps;
        self.go_on(SPELL);
        self.pace = (self.neighbour.steps - before) * 1000 / u64::from(SPELL);
        for _ in 0..2 {
            self.crash_and_start_again();
            self.release();
        }
        self.end();
    }

    fn crash_and_start_again(&mut self) {
        if !self.guest.runs() {
            return self.go_on(SPELL);
        }
        let job = self.guest.crash(&self.machine, &mut self.truth);
        self.wait("the end of a drain", 120, |_| job.read().has_ended);
        // A guest that finds no space does not start; a bad disk may have taken the spaces away.
        for _ in 0..400 {
            if self.guest.start(&self.machine) {
                break;
            }
            self.turn();
        }
        self.go_on(SPELL);
    }

    fn release(&mut self) {
        (1..=self.guest.incarnation)
            .for_each(|incarnation| self.machine.note_release(self.guest.name, incarnation));
        // After a fault there may be no dump.
        let _ = self.machine.node.host.spaces.release_dumps(DumpChoice::All(self.guest.name));
        self.go_on(SPELL / 2);
    }

    fn end(&mut self) {
        self.machine.node.host.hurry_disks();
        self.guest.stop(&self.machine);
        self.neighbour.stop(&self.machine);
        let node = self.machine.node;
        self.machine.until("the end of all tasks", 60, |_| {
            (node.host.tasks.is_empty() && node.host.reaper.is_quiet()).then_some(())
        });
        self.machine.block_on("leaving", 60, node.host.spaces.give_up_claims());
        assert!(node.host.pager.are_zeros_intact(), "nothing writes to the shared frame of zeros");
    }

    /// Runs a turn of the machine, in which both guests do some steps.
    fn turn(&mut self) {
        self.turns += u64::from(self.neighbour.runs());
        for _ in 0..1 + self.dice.below(3) {
            let neighbour = self.neighbour.step(&self.machine);
            assert_eq!(
                neighbour,
                Ok(()),
                "the neighbour loses a page; told: {:#?}",
                self.machine.told
            );
            if self.guest.step(&self.machine).is_err() {
                let _ = self.guest.crash(&self.machine, &mut self.truth);
            }
        }
        self.machine.turn();
    }

    fn go_on(&mut self, turns: u32) {
        for _ in 0..turns {
            if !self.guest.runs() {
                self.guest.start(&self.machine);
            }
            self.turn();
        }
    }

    fn wait(&mut self, what: &str, limit_s: u64, mut ready: impl FnMut(&mut Self) -> bool) {
        let end = self.machine.now_ns + Ns::from_secs(limit_s);
        while !ready(self) {
            assert!(
                self.machine.now_ns < end,
                "{what}: not within {limit_s} s; told: {:#?}",
                self.machine.told
            );
            self.turn();
        }
    }
}
