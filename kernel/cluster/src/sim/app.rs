//! What the nodes do under their leases: partitions run in spaces, move, are suspended, inherited
//! and started anew.

use super::world::{MS, SECOND, SimEvent, World};
use crate::decree::{Decree, Owner, QuietProof};
use crate::duty::is_heir;
use crate::id::Incarnation;
use crate::inherit::{
    OwnRequests, RecordState, SpaceRecord, may_go_on, may_inherit, may_recover, may_resume,
};
use crate::state::{MemberStatus, Thing, ThingRow};

pub(super) const SPACES: u128 = 5;
pub(super) const PARTITIONS: u128 = 2;
const BLOCKS: usize = 3;
const FREE: SpaceRecord = SpaceRecord { state: RecordState::Free, epoch: 0 };

/// A space on a shared disk.
pub(super) struct FakeSpace {
    record: SpaceRecord,
    blocks: [u64; BLOCKS],
    /// What lay in the blocks when the partition was suspended.
    sealed: [u64; BLOCKS],
}

impl FakeSpace {
    pub(super) fn all() -> Vec<Self> {
        let one = |_| Self { record: FREE, blocks: [0; BLOCKS], sealed: [0; BLOCKS] };
        (0..SPACES).map(one).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum DataPart {
    Record(RecordState),
    Block(usize, u64),
}

/// A write to a space.
#[derive(Clone, Copy, Debug)]
pub(super) struct DataWrite {
    pub(super) node: usize,
    life: u32,
    incarnation: Incarnation,
    slot: u16,
    space: u128,
    epoch: u64,
    part: DataPart,
    is_abandoned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RunPhase {
    /// The record ACTIVE is being written.
    Starting,
    Running,
    /// It has ended, and gives its space and its name back.
    Stopping,
    /// No write is submitted any more.
    Suspending,
    /// The record SUSPENDED is being written.
    Sealing,
    Suspended {
        ticks: u32,
    },
}

/// A partition on a node.
#[derive(Clone, Copy, Debug)]
struct SimRun {
    partition: u128,
    space: u128,
    epoch: u64,
    phase: RunPhase,
    /// What the blocks must hold; `None`: never written.
    memory: [Option<u64>; BLOCKS],
    flying: usize,
    /// A page has one write at a time.
    busy: [bool; BLOCKS],
}

#[derive(Default)]
pub(super) struct SimApp {
    runs: Vec<SimRun>,
    /// Writes that have not completed, abandoned ones not counted.
    pub(super) flying: usize,
    pub(super) is_tainted: bool,
    has_recovered: bool,
}

impl SimApp {
    /// Ends all partitions.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }
}

impl World {
    /// A node's periodic work.
    pub(super) fn app(&mut self, number: usize) {
        let life = self.nodes[number].life;
        let delay = 30 * MS + self.random.below(300 * MS);
        self.after(delay, SimEvent::App { node: number, life });
        let it = &self.nodes[number];
        let local = it.clock.local(self.now);
        let Some(node) = it.node.as_ref().filter(|node| node.may_submit(local)) else {
            return;
        };
        let slot = node.me().slot;
        let things: Vec<ThingRow> = node.state().things().to_vec();
        if !self.nodes[number].app.has_recovered {
            self.recover(number, slot, &things);
        }
        self.follow_the_log(number, slot, &things);
        self.exchange_mail(number);
        for index in 0..self.nodes[number].app.runs.len() {
            self.work(number, index);
        }
        if let Some(decree) = self.wish(number, slot, &things)
            && let Some(node) = &mut self.nodes[number].node
        {
            node.wish(decree);
        }
    }

    /// Puts records in order that an earlier start of this member has left: none, because every
    /// start is another member.
    fn recover(&mut self, number: usize, slot: u16, things: &[ThingRow]) {
        self.nodes[number].app.has_recovered = true;
        for row in things {
            let Thing::Space(space) = row.thing else { continue };
            let is_active = self.spaces[space as usize - 1].record.state == RecordState::Active;
            if is_active && may_recover(row, slot) {
                self.data_write(number, space, row.epoch, DataPart::Record(RecordState::Free));
            }
        }
    }

    /// Ends runs that the log has given away, and begins those that it has given to this member.
    fn follow_the_log(&mut self, number: usize, slot: u16, things: &[ThingRow]) {
        let row_of = |space| things.iter().find(|row| row.thing == Thing::Space(space));
        let mut restarted = Vec::new();
        self.nodes[number].app.runs.retain_mut(|run| {
            let Some(row) = row_of(run.space).filter(|row| row.owner == Owner::Slot(slot)) else {
                // Not yet in the log of this member, or given away.
                return row_of(run.space).is_none_or(|row| row.epoch < run.epoch);
            };
            let is_suspended = matches!(run.phase, RunPhase::Suspended { .. });
            if is_suspended && may_go_on(row, slot, run.epoch) {
                (run.epoch, run.phase) = (row.epoch, RunPhase::Starting);
                restarted.push((run.space, run.epoch));
            }
            row.epoch == run.epoch
        });
        for (space, epoch) in restarted {
            self.tally("taken back by decree");
            self.data_write(number, space, epoch, DataPart::Record(RecordState::Active));
        }
        for row in things {
            let Thing::Space(space) = row.thing else { continue };
            let runs = &self.nodes[number].app.runs;
            let is_mine = row.owner == Owner::Slot(slot) && row.bound != 0;
            if is_mine && runs.iter().all(|run| run.space != space) {
                self.begin(number, space, row);
            }
        }
    }

    fn begin(&mut self, number: usize, space: u128, row: &ThingRow) {
        let there = &self.spaces[space as usize - 1];
        let mut memory = [None; BLOCKS];
        let is_whole = may_resume(there.record, row);
        if is_whole {
            assert_eq!(there.blocks, there.sealed, "space {space} is not as it was suspended");
            memory = there.blocks.map(Some);
            self.tally("resumed from a space");
        } else {
            self.tally("started anew");
        }
        // A member that cannot run it says SUSPENDED in its own epoch, and gives it away.
        let refuses = is_whole && self.random.one_in(6);
        let (phase, state) = match refuses {
            true => (RunPhase::Sealing, RecordState::Suspended),
            false => (RunPhase::Starting, RecordState::Active),
        };
        if refuses {
            self.tally("refused and handed on");
        }
        let (partition, epoch) = (row.bound, row.epoch);
        let run =
            SimRun { partition, space, epoch, phase, memory, flying: 0, busy: [false; BLOCKS] };
        self.nodes[number].app.runs.push(run);
        self.data_write(number, space, epoch, DataPart::Record(state));
    }

    /// One step of a partition.
    fn work(&mut self, number: usize, index: usize) {
        let run = self.nodes[number].app.runs[index];
        let is_tainted = self.nodes[number].app.is_tainted;
        let requests = OwnRequests { in_flight: run.flying, is_tainted };
        match run.phase {
            RunPhase::Running => self.run_partition(number, index),
            RunPhase::Suspending if requests.are_quiet() || mutant!(EarlySuspended) => {
                self.nodes[number].app.runs[index].phase = RunPhase::Sealing;
                let memory = run.memory.map(|block| block.unwrap_or(0));
                let blocks = &mut self.spaces[run.space as usize - 1];
                blocks.sealed = std::array::from_fn(|n| {
                    if run.memory[n].is_some() { memory[n] } else { blocks.blocks[n] }
                });
                let part = DataPart::Record(RecordState::Suspended);
                self.data_write(number, run.space, run.epoch, part);
            }
            RunPhase::Sealing if mutant!(LateRecord) => {
                self.nodes[number].app.runs[index].phase = RunPhase::Suspended { ticks: 0 };
            }
            RunPhase::Suspended { ticks } => {
                let app = &mut self.nodes[number].app;
                app.runs[index].phase = RunPhase::Suspended { ticks: ticks + 1 };
                if mutant!(TakeBackByRecord) && ticks == 3 {
                    app.runs[index].phase = RunPhase::Starting;
                    let part = DataPart::Record(RecordState::Active);
                    self.data_write(number, run.space, run.epoch, part);
                }
                if mutant!(Gift) && ticks == 1 {
                    self.give_by_message(number, index);
                }
            }
            RunPhase::Starting | RunPhase::Stopping | RunPhase::Suspending | RunPhase::Sealing => {}
        }
    }

    fn give_by_message(&mut self, number: usize, index: usize) {
        let other = (number + 1) % self.nodes.len();
        if self.nodes[other].node.as_ref().is_none_or(|node| node.state().number() == 0) {
            return;
        }
        let run = self.nodes[number].app.runs.remove(index);
        let run = SimRun { phase: RunPhase::Starting, flying: 0, busy: [false; BLOCKS], ..run };
        self.nodes[other].app.runs.push(run);
        self.data_write(other, run.space, run.epoch, DataPart::Record(RecordState::Active));
    }

    fn run_partition(&mut self, number: usize, index: usize) {
        self.check_only_runner(number, index);
        let run = self.nodes[number].app.runs[index];
        let block = self.random.below(BLOCKS as u64) as usize;
        // An abandoned write may land on a later one: a lost page, by its checksum.
        let is_settled = run.flying == 0 && !self.nodes[number].app.is_tainted;
        if let Some(content) = run.memory[block].filter(|_| is_settled) {
            let there = self.spaces[run.space as usize - 1].blocks[block];
            assert_eq!(there, content, "a wrong page in space {}", run.space);
        }
        if self.random.one_in(10) {
            self.nodes[number].app.runs[index].phase = RunPhase::Suspending;
            return self.tally("suspend");
        }
        if self.random.one_in(25) {
            self.nodes[number].app.runs[index].phase = RunPhase::Stopping;
            return self.tally("stopped");
        }
        if run.busy[block] {
            return;
        }
        let content = self.random.next() | 1;
        let it = &mut self.nodes[number].app.runs[index];
        (it.memory[block], it.busy[block]) = (Some(content), true);
        self.data_write(number, run.space, run.epoch, DataPart::Block(block, content));
    }

    fn check_only_runner(&self, number: usize, index: usize) {
        let run = self.nodes[number].app.runs[index];
        for (other, it) in self.nodes.iter().enumerate().filter(|(other, _)| *other != number) {
            let local = it.clock.local(self.now);
            let has_lease = it.node.as_ref().is_some_and(|node| node.may_submit(local));
            let runs =
                |one: &SimRun| one.partition == run.partition && one.phase == RunPhase::Running;
            assert!(
                !has_lease || !it.app.runs.iter().any(runs),
                "partition {} runs on nodes {number} and {other}",
                run.partition
            );
        }
    }

    /// Returns what the node would like the log to say.
    fn wish(&mut self, number: usize, slot: u16, things: &[ThingRow]) -> Option<Decree> {
        if self.random.one_in(12) {
            return self.careless(number, things);
        }
        let me = Owner::Slot(slot);
        let runs = self.nodes[number].app.runs.clone();
        let is_tainted = self.nodes[number].app.is_tainted;
        let stopped = runs.iter().find(|run| {
            let requests = OwnRequests { in_flight: run.flying, is_tainted };
            run.phase == RunPhase::Stopping && requests.are_quiet()
        });
        if let Some(run) = stopped {
            return Some(Decree::Release { space: run.space, from: me });
        }
        let suspended = runs.iter().find_map(|run| match run.phase {
            RunPhase::Suspended { ticks } => Some((run, ticks)),
            _ => None,
        });
        if let Some((run, ticks)) = suspended {
            let ups = self.ups(number);
            let to = match run.epoch % 4 {
                _ if ticks > 12 => me,
                0 => Owner::Unowned,
                1 => me,
                _ => ups.into_iter().map(Owner::Slot).find(|one| *one != me).unwrap_or(me),
            };
            let (partition, space, sealed) = (run.partition, run.space, run.epoch);
            return Some(Decree::HandOver { partition, space, from: me, to, sealed });
        }
        if let Some(who) = self.quiet_slot(number) {
            return Some(Decree::Quiet { who, proof: QuietProof::Confirmed });
        }
        for partition in 1..=PARTITIONS {
            let decree = self.place(number, slot, partition, things);
            if decree.is_some() {
                return decree;
            }
        }
        None
    }

    fn ups(&self, number: usize) -> Vec<u16> {
        let Some(node) = &self.nodes[number].node else { return Vec::new() };
        let is_up = |status| status == MemberStatus::Up;
        let rows = node.state().members().iter().filter(|row| is_up(row.status));
        rows.map(|row| row.id.slot).collect()
    }

    /// Returns a fenced member that the operator knows to be off.
    fn quiet_slot(&mut self, number: usize) -> Option<u16> {
        let node = self.nodes[number].node.as_ref()?;
        let fenced = |status| matches!(status, MemberStatus::Fenced { .. });
        let row = node.state().members().iter().find(|row| fenced(row.status))?;
        if mutant!(QuietByAge) {
            return Some(row.id.slot);
        }
        let is_off =
            self.nodes.iter().all(|it| it.incarnation != row.id.incarnation || it.node.is_none());
        let flying = self.truth.flying.get(&row.id.incarnation).copied().unwrap_or(0);
        (is_off && flying == 0 && self.random.one_in(10)).then_some(row.id.slot)
    }

    /// Returns the decree that brings a partition nearer to running.
    fn place(
        &mut self,
        number: usize,
        slot: u16,
        partition: u128,
        things: &[ThingRow],
    ) -> Option<Decree> {
        let me = Owner::Slot(slot);
        let find = |thing| things.iter().find(|row| row.thing == thing);
        let owner = find(Thing::Partition(partition)).map_or(Owner::Unowned, |row| row.owner);
        let bound = |row: &&ThingRow| row.bound == partition && row.owner == owner;
        let space = things.iter().find(bound).and_then(|row| match row.thing {
            Thing::Space(space) => Some((space, *row)),
            Thing::Partition(_) => None,
        });
        let hand_over = |space: u128, sealed| {
            Some(Decree::HandOver { partition, space, from: owner, to: me, sealed })
        };
        match owner {
            Owner::Unowned => match space {
                Some((space, row)) => hand_over(space, row.before),
                None => Some(Decree::Own { partition, from: owner, to: me }),
            },
            Owner::Slot(other) if other == slot => {
                if space.is_some() {
                    return None;
                }
                if self.random.one_in(3) {
                    self.tally("name given back");
                    return Some(Decree::Own { partition, from: me, to: Owner::Unowned });
                }
                let is_free = |space: &u128| {
                    find(Thing::Space(*space))
                        .is_none_or(|row| row.owner == Owner::Unowned && row.bound == 0)
                };
                let free = (1..=SPACES).find(is_free);
                if free.is_none() {
                    self.tally("no free space");
                }
                Some(Decree::Take { partition, space: free?, by: slot })
            }
            Owner::Slot(other) => {
                let node = self.nodes[number].node.as_ref()?;
                if !is_heir(node.state(), other, slot) {
                    return None;
                }
                if let Some((space, row)) = space {
                    let record = self.spaces[space as usize - 1].record;
                    if may_inherit(record, &row) {
                        self.tally("may inherit");
                        let sealed = if mutant!(InPlace) { row.epoch } else { record.epoch };
                        return hand_over(space, sealed);
                    }
                    self.tally("quarantine");
                }
                Some(Decree::Own { partition, from: owner, to: me })
            }
        }
    }

    /// Checks nothing any more: the lease was checked; from here on the node may stand still.
    fn data_write(&mut self, number: usize, space: u128, epoch: u64, part: DataPart) {
        let it = &mut self.nodes[number];
        let Some(node) = &it.node else { return };
        let write = DataWrite {
            node: number,
            life: it.life,
            incarnation: it.incarnation,
            slot: node.me().slot,
            space,
            epoch,
            part,
            is_abandoned: false,
        };
        it.app.flying += 1;
        if let Some(run) = it.app.runs.iter_mut().find(|run| run.space == space) {
            run.flying += 1;
        }
        *self.truth.flying.entry(write.incarnation).or_default() += 1;
        let delay = self.random.below(2 * MS);
        self.trace(|| format!("checked {write:?}"));
        self.after(delay, SimEvent::DataSubmit(write));
    }

    pub(super) fn data_submit(&mut self, mut write: DataWrite) {
        if self.nodes[write.node].life != write.life {
            return self.landed(&write);
        }
        let is_record = matches!(write.part, DataPart::Record(_));
        let delay = match is_record && self.random.one_in(8) {
            true => self.random.below(10 * SECOND),
            false => self.latency(),
        };
        if delay > 3 * SECOND && self.random.one_in(4) {
            self.tally("request abandoned");
            self.nodes[write.node].app.is_tainted = true;
            write.is_abandoned = true;
            self.after(3 * SECOND, SimEvent::DataDone(write));
        }
        self.after(delay, SimEvent::DataLand(write));
    }

    fn landed(&mut self, write: &DataWrite) {
        if let Some(flying) = self.truth.flying.get_mut(&write.incarnation) {
            *flying -= 1;
        }
    }

    pub(super) fn data_land(&mut self, write: DataWrite) {
        self.trace(|| format!("lands {write:?}"));
        self.landed(&write);
        self.truth.lands(write.space, write.slot, write.epoch);
        if !self.truth.state.is_up(write.slot) {
            self.tally("late write in quarantine");
        }
        let space = &mut self.spaces[write.space as usize - 1];
        match write.part {
            DataPart::Record(state) => space.record = SpaceRecord { state, epoch: write.epoch },
            DataPart::Block(block, content) => space.blocks[block] = content,
        }
        if !write.is_abandoned {
            let delay = self.random.below(5 * MS);
            self.after(delay, SimEvent::DataDone(write));
        }
    }

    pub(super) fn data_done(&mut self, write: &DataWrite) {
        let it = &mut self.nodes[write.node];
        if it.life != write.life {
            return;
        }
        it.app.flying -= 1;
        let is_run = |run: &&mut SimRun| run.space == write.space;
        if let Some(run) = it.app.runs.iter_mut().find(is_run) {
            run.flying = run.flying.saturating_sub(1);
            if let DataPart::Block(block, _) = write.part {
                run.busy[block] = false;
            }
            match (run.phase, write.part) {
                // That is no completion.
                _ if write.is_abandoned && !mutant!(AbandonedRequest) => {}
                (RunPhase::Starting, DataPart::Record(RecordState::Active)) => {
                    run.phase = RunPhase::Running;
                }
                (RunPhase::Sealing, DataPart::Record(RecordState::Suspended)) => {
                    run.phase = RunPhase::Suspended { ticks: 0 };
                }
                _ => {}
            }
        }
        if it.app.flying == 0 {
            self.drive(write.node);
        }
    }
}
