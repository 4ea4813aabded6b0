//! The run queue: which vCPU a CPU takes next, and which CPU has to hear that there is one. Pure.
//!
//! ```text
//!                next(cpu)                  put_back: again
//!     Ready ───────────────> Running(cpu) ──────────────────> Ready
//!       ^                       │
//!       └── wake, poke, time ── Waiting <── put_back: wait
//! ```
//!
//! All CPUs share one queue; a vCPU is bound to none. Its registers stay in the CPU that ran it last until that CPU takes
//! another one (*resident*): as long as nobody competes, nothing is saved and loaded. Only the CPU that holds a vCPU can
//! take it, and [`RunQueue::next`] makes that CPU give it away before it takes another; so a vCPU that is ready is never
//! held by a CPU that runs something else.
//!
//! Who comes next: whoever has used least time. A vCPU that wakes up is put at most [`BONUS_NS`] behind those that run, so
//! that sleeping saves nothing up. One that is resident goes on until another is behind it by [`GRANULARITY_NS`]. A vCPU that
//! wakes while no CPU idles drives out whoever has used most, by the same measure.
//!
//! Invariants:
//! * No wake-up is lost: what happens while a vCPU runs is remembered and makes its next wait end at once.
//! * A ready vCPU that a CPU could take is told to an idle CPU, or all CPUs are awake and come by.

#[cfg(test)]
mod tests;

use crate::arch::percpu::{CpuId, MAX_CPUS};
use crate::mm::flush::Kicks;
use alloc::vec::Vec;

/// Longest turn while nobody else is ready.
pub const SLICE_NS: u64 = 10_000_000;
/// Longest turn while others are ready.
pub const SHARED_SLICE_NS: u64 = 4_000_000;
/// How much less time another must have used before it takes the place of one that could go on.
pub const GRANULARITY_NS: u64 = 1_000_000;
/// How far behind the others one may start that has slept.
pub const BONUS_NS: u64 = 10_000_000;
/// Shortest turn: a deadline that is nearer waits so long.
const LEAST_TURN_NS: u64 = 200_000;

/// A vCPU of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuId(u16);

impl VcpuId {
    /// Returns its number, counted from 0 in the order of [`RunQueue::add`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a CPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// Whose turn it is.
    pub vcpu: VcpuId,
    /// Resident here, and to be given away first: see [`RunQueue::given_away`].
    pub evict: Option<VcpuId>,
    /// When the turn ends.
    pub until: u64,
}

/// What a vCPU wants after its turn.
#[derive(Debug)]
pub enum Wish<W> {
    /// Another turn.
    Again,
    /// Nothing before `until`, unless `on` is over.
    Wait {
        /// What is waited for.
        on: W,
        /// A time that ends the wait too.
        until: Option<u64>,
    },
}

#[derive(Debug)]
enum State<W> {
    Ready,
    Running {
        cpu: CpuId,
        since: u64,
        /// Something happened meanwhile: do not wait before another look.
        poked: bool,
    },
    Waiting {
        on: W,
        until: Option<u64>,
    },
}

#[derive(Debug)]
struct Entry<W> {
    state: State<W>,
    /// Time used, put forward after a sleep.
    used_ns: u64,
    /// The CPU whose registers hold it.
    resident: Option<CpuId>,
}

impl<W> Entry<W> {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Returns whether only others can take it.
    fn is_held_from(&self, cpu: CpuId) -> bool {
        self.resident.is_some_and(|holder| holder != cpu)
    }

    /// Returns the time used up to `now`.
    fn used(&self, now: u64) -> u64 {
        match self.state {
            State::Running { since, .. } => self.used_ns + now.saturating_sub(since),
            _ => self.used_ns,
        }
    }
}

/// The queue. `W` is what a vCPU can wait for.
#[derive(Debug)]
pub struct RunQueue<W> {
    entries: Vec<Entry<W>>,
    /// CPUs that idle, or are just about to: one bit each.
    idle: u32,
    /// CPUs that take no vCPU: one bit each.
    reserved: u32,
    /// What the active ones have used at least.
    floor_ns: u64,
}

impl<W> RunQueue<W> {
    /// Makes an empty queue.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), idle: 0, reserved: 0, floor_ns: 0 }
    }

    /// Adds a vCPU, ready.
    pub fn add(&mut self) -> VcpuId {
        let id = VcpuId(u16::try_from(self.entries.len()).expect("fewer vCPUs than memory objects"));
        self.entries.push(Entry { state: State::Ready, used_ns: self.floor_ns, resident: None });
        id
    }

    /// Keeps a CPU for services: it never gets a vCPU, and nobody waits for it to take one. Before its first turn.
    pub fn reserve(&mut self, cpu: CpuId) {
        self.reserved |= bit(cpu);
    }

    /// Returns how many of the first `cpus` CPUs take vCPUs.
    pub const fn cpus_of(&self, cpus: u32) -> u32 {
        cpus - self.reserved.count_ones()
    }

    /// Returns how much time a vCPU has used, a sleeper's share included.
    pub fn used_ns(&self, vcpu: VcpuId) -> u64 {
        self.entries[vcpu.index()].used_ns
    }

    /// Returns the vCPU whose turn it is on `cpu`, which is awake and runs nothing.
    pub fn next(&mut self, cpu: CpuId, now: u64) -> Option<Turn> {
        self.idle &= !bit(cpu);
        self.wake_by_time(now);
        let index = self.choose(cpu)?;
        let evict = self.entries.iter().position(|e| e.resident == Some(cpu)).filter(|&held| held != index);
        self.entries[index].state = State::Running { cpu, since: now, poked: false };
        self.raise_floor(now);
        let until = self.turn_end(cpu, now);
        Some(Turn { vcpu: VcpuId(index as u16), evict: evict.map(|held| VcpuId(held as u16)), until })
    }

    /// Notes that the registers of a vCPU are in memory: any CPU can take it. Returns whom to kick.
    pub fn given_away(&mut self, vcpu: VcpuId) -> Kicks {
        let entry = &mut self.entries[vcpu.index()];
        entry.resident = None;
        if entry.is_ready() { self.kick_idle() } else { Kicks(0) }
    }

    /// Ends a turn; `resident` is the CPU that still holds the registers.
    ///
    /// # Panics
    /// If the vCPU has no turn (our bug).
    pub fn put_back(&mut self, vcpu: VcpuId, now: u64, wish: Wish<W>, resident: Option<CpuId>) {
        let entry = &mut self.entries[vcpu.index()];
        let State::Running { since, poked, .. } = entry.state else { panic!("only who has a turn ends it") };
        entry.used_ns += now.saturating_sub(since);
        entry.resident = resident;
        entry.state = match wish {
            Wish::Wait { on, until } if !poked => State::Waiting { on, until },
            _ => State::Ready,
        };
    }

    /// Marks `cpu` as idle and returns until when; `None` if there is something for it after all.
    pub fn idle(&mut self, cpu: CpuId, now: u64) -> Option<Option<u64>> {
        if self.is_reserved(cpu) {
            return Some(None);
        }
        self.wake_by_time(now);
        if self.choose(cpu).is_some() {
            return None;
        }
        self.idle |= bit(cpu);
        Some(self.earliest(cpu))
    }

    /// Ends the waits that are over; returns whom to kick. `now` is asked only where somebody wakes up.
    pub fn wake(&mut self, now: impl Fn() -> u64, is_over: impl Fn(&W) -> bool) -> Kicks {
        let mut kicks = Kicks(0);
        for index in 0..self.entries.len() {
            match &mut self.entries[index].state {
                State::Waiting { on, .. } if is_over(on) => kicks.0 |= self.make_ready(index, now()).0,
                State::Running { poked, .. } => *poked = true,
                State::Waiting { .. } | State::Ready => {}
            }
        }
        kicks
    }

    /// Makes a vCPU look at what was asked of it: ends its wait, or its stay in the guest. Returns whom to kick.
    pub fn poke(&mut self, index: usize, now: u64) -> Kicks {
        match self.entries.get_mut(index).map(|entry| &mut entry.state) {
            Some(State::Waiting { .. }) => self.make_ready(index, now),
            Some(State::Running { poked, cpu, .. }) => {
                *poked = true;
                Kicks(bit(*cpu))
            }
            Some(State::Ready) | None => Kicks(0),
        }
    }

    /// Returns which ready vCPU is next on `cpu`.
    fn choose(&self, cpu: CpuId) -> Option<usize> {
        if self.is_reserved(cpu) {
            return None;
        }
        let may = |entry: &Entry<W>| entry.is_ready() && !entry.is_held_from(cpu);
        let candidates = || self.entries.iter().enumerate().filter(|(_, entry)| may(entry));
        let (best, least) = candidates().map(|(index, entry)| (index, entry.used_ns)).min_by_key(|&(_, used)| used)?;
        let resident = candidates().find(|(_, entry)| entry.resident == Some(cpu));
        match resident {
            Some((index, entry)) if entry.used_ns <= least.saturating_add(GRANULARITY_NS) => Some(index),
            _ => Some(best),
        }
    }

    const fn is_reserved(&self, cpu: CpuId) -> bool {
        self.reserved & bit(cpu) != 0
    }

    fn turn_end(&self, cpu: CpuId, now: u64) -> u64 {
        let is_shared = self.entries.iter().any(|entry| entry.is_ready() && !entry.is_held_from(cpu));
        let end = now.saturating_add(if is_shared { SHARED_SLICE_NS } else { SLICE_NS });
        self.earliest(cpu).map_or(end, |deadline| deadline.max(now.saturating_add(LEAST_TURN_NS)).min(end))
    }

    /// Returns when the first wait ends by time that `cpu` could do something about.
    fn earliest(&self, cpu: CpuId) -> Option<u64> {
        let deadline = |entry: &Entry<W>| match entry.state {
            State::Waiting { until, .. } if !entry.is_held_from(cpu) => until,
            _ => None,
        };
        self.entries.iter().filter_map(deadline).min()
    }

    fn wake_by_time(&mut self, now: u64) {
        for index in 0..self.entries.len() {
            if matches!(self.entries[index].state, State::Waiting { until: Some(until), .. } if until <= now) {
                self.become_ready(index);
            }
        }
    }

    fn become_ready(&mut self, index: usize) {
        let start = self.floor_ns.saturating_sub(BONUS_NS);
        let entry = &mut self.entries[index];
        entry.used_ns = entry.used_ns.max(start);
        entry.state = State::Ready;
    }

    fn make_ready(&mut self, index: usize, now: u64) -> Kicks {
        self.become_ready(index);
        match self.entries[index].resident {
            // One that is awake comes by: it runs nothing else, or gives this one away.
            Some(holder) => self.kick_if_idle(holder),
            None if self.idle != 0 => self.kick_idle(),
            None => self.drive_out(index, now),
        }
    }

    fn kick_if_idle(&mut self, cpu: CpuId) -> Kicks {
        let kicks = Kicks(self.idle & bit(cpu));
        self.idle &= !kicks.0;
        kicks
    }

    fn kick_idle(&mut self) -> Kicks {
        let lowest = self.idle & self.idle.wrapping_neg();
        self.idle &= !lowest;
        Kicks(lowest)
    }

    /// Makes the CPU come back that runs who has used most, if that is well more than `index` has.
    fn drive_out(&self, index: usize, now: u64) -> Kicks {
        let least = self.entries[index].used_ns.saturating_add(GRANULARITY_NS);
        let runs = |entry: &Entry<W>| match entry.state {
            State::Running { cpu, .. } => Some((entry.used(now), cpu)),
            _ => None,
        };
        let most = self.entries.iter().filter_map(runs).max_by_key(|&(used, _)| used);
        Kicks(most.filter(|&(used, _)| used > least).map_or(0, |(_, cpu)| bit(cpu)))
    }

    fn raise_floor(&mut self, now: u64) {
        let active = self.entries.iter().filter(|entry| !matches!(entry.state, State::Waiting { .. }));
        if let Some(least) = active.map(|entry| entry.used(now)).min() {
            self.floor_ns = self.floor_ns.max(least);
        }
    }
}

impl<W> Default for RunQueue<W> {
    fn default() -> Self {
        Self::new()
    }
}

const fn bit(cpu: CpuId) -> u32 {
    1 << cpu.index()
}

const _: () = assert!(MAX_CPUS <= 32, "one bit a CPU");
