//! The run queue: chooses the vCPU that a CPU runs next, and the CPU to kick when a vCPU becomes
//! ready. Pure.
//!
//! ```text
//!                next(cpu)                  put_back: again
//!     Ready ───────────────> Running(cpu) ──────────────────> Ready
//!     ^  ^                      │    │
//!     │  └── wake, poke, time ── Waiting <── put_back: wait
//!     │                              │ remove
//!     └── insert ── Absent <─────────┘
//! ```
//!
//! A vCPU that does not exist any more is *absent*: nothing wakes it, and another vCPU may get its
//! number.
//!
//! All CPUs share one queue; no vCPU is bound to a CPU. A vCPU's registers stay in the CPU that ran
//! it last until that CPU takes another one (the vCPU is *resident*): without competition no state
//! is saved and loaded. Only the CPU that holds a vCPU can take it, and [`RunQueue::next`] makes
//! that CPU give it away before it takes another. So a ready vCPU is never held by a CPU that runs
//! another one.
//!
//! The vCPU that has used the least time is next. A vCPU that wakes up is placed at most
//! [`BONUS_NS`] behind those that run, so that sleeping saves no time up. A resident vCPU continues
//! until another is behind it by [`GRANULARITY_NS`]. A vCPU that wakes up while no CPU idles
//! preempts the vCPU that has used most, by the same measure.
//!
//! Invariants:
//! * No wake-up is lost: an event during a vCPU's turn is remembered, and ends its next wait at
//!   once.
//! * A ready vCPU that a CPU could take is announced to an idle CPU, or all CPUs are awake and look
//!   at the queue again.

#[cfg(test)]
mod tests;

use crate::arch::percpu::{CpuId, MAX_CPUS};
use crate::mm::flush::Kicks;
use crate::partition_id::PartitionId;
use crate::time::Ns;
use alloc::vec::Vec;

/// Longest turn while no other vCPU is ready.
pub const SLICE_NS: Ns = Ns::from_ms(10);
/// Longest turn while others are ready.
pub const SHARED_SLICE_NS: Ns = Ns::from_ms(4);
/// How much less time another vCPU must have used before it replaces a vCPU that could continue.
pub const GRANULARITY_NS: Ns = Ns::from_ms(1);
/// How far behind the others a vCPU may start after a sleep.
pub const BONUS_NS: Ns = Ns::from_ms(10);
/// Shortest turn; a nearer deadline waits until its end.
const LEAST_TURN_NS: Ns = Ns::from_us(200);

/// How long a CPU may idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleAnswer {
    /// A vCPU is ready for it: it may not idle.
    HasWork,
    /// Until another CPU kicks it.
    UntilKicked,
    /// Until this time, or until another CPU kicks it.
    Until(Ns),
}

/// A vCPU of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuId(u16);

impl VcpuId {
    /// Returns the only vCPU of a partition.
    pub const fn of(partition: PartitionId) -> Self {
        Self(partition.as_u16())
    }

    /// Returns its number, counted from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A turn for a CPU to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuTurn {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// A vCPU that is resident here and has to be given away first: see [`RunQueue::given_away`].
    pub evict: Option<VcpuId>,
    /// End of the turn.
    pub until: Ns,
}

/// A vCPU's wish after its turn.
#[derive(Debug)]
pub enum VcpuWish<W> {
    /// Another turn.
    Again,
    /// No turn before `until`, unless `on` is over.
    Wait {
        /// The awaited event.
        on: W,
        /// A time that ends the wait as well.
        until: Option<Ns>,
    },
}

#[derive(Debug)]
enum RunState<W> {
    /// No vCPU has this number.
    Absent,
    Ready,
    Running {
        cpu: CpuId,
        since: Ns,
        /// An event has come meanwhile: do not wait before the vCPU has looked.
        poked: bool,
    },
    Waiting {
        on: W,
        until: Option<Ns>,
    },
}

#[derive(Debug)]
struct QueueEntry<W> {
    state: RunState<W>,
    /// Time used, advanced after a sleep.
    used_ns: Ns,
    /// The CPU that holds its registers.
    resident: Option<CpuId>,
}

impl<W> QueueEntry<W> {
    const fn absent() -> Self {
        Self { state: RunState::Absent, used_ns: Ns::ZERO, resident: None }
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, RunState::Ready)
    }

    /// Returns whether another CPU holds it, so that `cpu` cannot take it.
    fn is_held_from(&self, cpu: CpuId) -> bool {
        self.resident.is_some_and(|holder| holder != cpu)
    }

    /// Returns the time used up to `now`.
    fn used(&self, now: Ns) -> Ns {
        match self.state {
            RunState::Running { since, .. } => self.used_ns + now.saturating_sub(since),
            _ => self.used_ns,
        }
    }
}

/// The queue. `W` is the type of events that a vCPU can wait for.
#[derive(Debug)]
pub struct RunQueue<W> {
    entries: Vec<QueueEntry<W>>,
    /// CPUs that idle, or are about to: one bit each.
    idle: u32,
    /// CPUs that take no vCPU: one bit each.
    reserved: u32,
    /// Least time that any active vCPU has used.
    floor_ns: Ns,
}

impl<W> RunQueue<W> {
    /// Makes an empty queue.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), idle: 0, reserved: 0, floor_ns: Ns::ZERO }
    }

    /// Makes an empty queue that takes vCPUs with numbers below `count` without allocating.
    pub fn with_room(count: usize) -> Self {
        Self { entries: Vec::with_capacity(count), ..Self::new() }
    }

    /// Adds a vCPU, ready. Returns the CPU to kick.
    ///
    /// # Panics
    /// If the number belongs to another vCPU (our bug).
    pub fn insert(&mut self, vcpu: VcpuId) -> Kicks {
        let index = vcpu.index();
        while self.entries.len() <= index {
            self.entries.push(QueueEntry::absent());
        }
        let entry = &mut self.entries[index];
        assert!(matches!(entry.state, RunState::Absent), "a vCPU has a number of its own");
        *entry = QueueEntry { state: RunState::Ready, used_ns: self.floor_ns, resident: None };
        self.kick_idle()
    }

    /// Removes a vCPU at the end of its last turn; its registers have left the CPU.
    ///
    /// # Panics
    /// If it has no turn (our bug).
    pub fn remove(&mut self, vcpu: VcpuId) {
        let entry = &mut self.entries[vcpu.index()];
        assert!(matches!(entry.state, RunState::Running { .. }), "a vCPU leaves in its own turn");
        *entry = QueueEntry::absent();
        // The loops over all entries stay as short as the vCPUs allow.
        while self.entries.pop_if(|last| matches!(last.state, RunState::Absent)).is_some() {}
    }

    /// Reserves a CPU for services: it never gets a vCPU, and is never kicked to take one. Must be
    /// called before the CPU's first turn.
    pub fn reserve(&mut self, cpu: CpuId) {
        self.reserved |= bit(cpu);
    }

    /// Returns how many of the first `cpus` CPUs take vCPUs.
    pub const fn cpus_of(&self, cpus: u32) -> u32 {
        cpus - self.reserved.count_ones()
    }

    /// Starts the next turn on `cpu`, which is awake and runs no vCPU; `None` if no vCPU is ready
    /// for it.
    pub fn next(&mut self, cpu: CpuId, now: Ns) -> Option<VcpuTurn> {
        self.idle &= !bit(cpu);
        self.wake_by_time(now);
        let index = self.choose(cpu)?;
        let evict =
            self.entries.iter().position(|e| e.resident == Some(cpu)).filter(|&held| held != index);
        self.entries[index].state = RunState::Running { cpu, since: now, poked: false };
        self.raise_floor(now);
        let until = self.turn_end(cpu, now);
        Some(VcpuTurn {
            vcpu: VcpuId(index as u16),
            evict: evict.map(|held| VcpuId(held as u16)),
            until,
        })
    }

    /// Notes that the registers of a vCPU are in memory, so that any CPU can take it. Returns the
    /// CPU to kick.
    pub fn given_away(&mut self, vcpu: VcpuId) -> Kicks {
        let entry = &mut self.entries[vcpu.index()];
        entry.resident = None;
        if entry.is_ready() { self.kick_idle() } else { Kicks(0) }
    }

    /// Ends a turn; `resident` is the CPU that still holds the registers.
    ///
    /// # Panics
    /// If the vCPU has no turn (our bug).
    pub fn put_back(&mut self, vcpu: VcpuId, now: Ns, wish: VcpuWish<W>, resident: Option<CpuId>) {
        let entry = &mut self.entries[vcpu.index()];
        let RunState::Running { since, poked, .. } = entry.state else {
            panic!("only who has a turn ends it")
        };
        entry.used_ns += now.saturating_sub(since);
        entry.resident = resident;
        entry.state = match wish {
            VcpuWish::Wait { on, until } if !poked => RunState::Waiting { on, until },
            _ => RunState::Ready,
        };
    }

    /// Marks `cpu` as idle, unless a vCPU is ready for it after all.
    pub fn idle(&mut self, cpu: CpuId, now: Ns) -> IdleAnswer {
        if self.is_reserved(cpu) {
            return IdleAnswer::UntilKicked;
        }
        self.wake_by_time(now);
        if self.choose(cpu).is_some() {
            return IdleAnswer::HasWork;
        }
        self.idle |= bit(cpu);
        self.earliest(cpu).map_or(IdleAnswer::UntilKicked, IdleAnswer::Until)
    }

    /// Ends the waits that are over; returns the CPUs to kick. `now` is called only if a vCPU wakes
    /// up.
    pub fn wake(&mut self, now: impl Fn() -> Ns, is_over: impl Fn(&W) -> bool) -> Kicks {
        let mut kicks = Kicks(0);
        for index in 0..self.entries.len() {
            match &mut self.entries[index].state {
                RunState::Waiting { on, .. } if is_over(on) => {
                    kicks.0 |= self.make_ready(index, now()).0
                }
                RunState::Running { poked, .. } => *poked = true,
                RunState::Waiting { .. } | RunState::Ready | RunState::Absent => {}
            }
        }
        kicks
    }

    /// Makes a vCPU look at a request: ends its wait, or its stay in the guest. Returns the CPU to
    /// kick.
    pub fn poke(&mut self, vcpu: VcpuId, now: Ns) -> Kicks {
        let index = vcpu.index();
        match self.entries.get_mut(index).map(|entry| &mut entry.state) {
            Some(RunState::Waiting { .. }) => self.make_ready(index, now),
            Some(RunState::Running { poked, cpu, .. }) => {
                *poked = true;
                Kicks(bit(*cpu))
            }
            Some(RunState::Ready | RunState::Absent) | None => Kicks(0),
        }
    }

    /// Returns the ready vCPU that is next on `cpu`.
    fn choose(&self, cpu: CpuId) -> Option<usize> {
        if self.is_reserved(cpu) {
            return None;
        }
        let may = |entry: &QueueEntry<W>| entry.is_ready() && !entry.is_held_from(cpu);
        let candidates = || self.entries.iter().enumerate().filter(|(_, entry)| may(entry));
        let (best, least) = candidates()
            .map(|(index, entry)| (index, entry.used_ns))
            .min_by_key(|&(_, used)| used)?;
        let resident = candidates().find(|(_, entry)| entry.resident == Some(cpu));
        match resident {
            Some((index, entry)) if entry.used_ns <= least.saturating_add(GRANULARITY_NS) => {
                Some(index)
            }
            _ => Some(best),
        }
    }

    const fn is_reserved(&self, cpu: CpuId) -> bool {
        self.reserved & bit(cpu) != 0
    }

    fn turn_end(&self, cpu: CpuId, now: Ns) -> Ns {
        let is_shared =
            self.entries.iter().any(|entry| entry.is_ready() && !entry.is_held_from(cpu));
        let end = now.saturating_add(if is_shared { SHARED_SLICE_NS } else { SLICE_NS });
        self.earliest(cpu)
            .map_or(end, |deadline| deadline.max(now.saturating_add(LEAST_TURN_NS)).min(end))
    }

    /// Returns the earliest deadline of a wait whose vCPU `cpu` could take.
    fn earliest(&self, cpu: CpuId) -> Option<Ns> {
        let deadline = |entry: &QueueEntry<W>| match entry.state {
            RunState::Waiting { until, .. } if !entry.is_held_from(cpu) => until,
            _ => None,
        };
        self.entries.iter().filter_map(deadline).min()
    }

    fn wake_by_time(&mut self, now: Ns) {
        for index in 0..self.entries.len() {
            if matches!(
                self.entries[index].state,
                RunState::Waiting { until: Some(until), .. } if until <= now
            ) {
                self.become_ready(index);
            }
        }
    }

    fn become_ready(&mut self, index: usize) {
        let start = self.floor_ns.saturating_sub(BONUS_NS);
        let entry = &mut self.entries[index];
        entry.used_ns = entry.used_ns.max(start);
        entry.state = RunState::Ready;
    }

    fn make_ready(&mut self, index: usize, now: Ns) -> Kicks {
        self.become_ready(index);
        match self.entries[index].resident {
            // A holder that is awake looks at the queue: it runs no other vCPU, or gives this one
            // away.
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

    /// Preempts the running vCPU that has used most, if it has used well more than `index`. Returns
    /// the CPU to kick.
    fn drive_out(&self, index: usize, now: Ns) -> Kicks {
        let least = self.entries[index].used_ns.saturating_add(GRANULARITY_NS);
        let runs = |entry: &QueueEntry<W>| match entry.state {
            RunState::Running { cpu, .. } => Some((entry.used(now), cpu)),
            _ => None,
        };
        let most = self.entries.iter().filter_map(runs).max_by_key(|&(used, _)| used);
        Kicks(most.filter(|&(used, _)| used > least).map_or(0, |(_, cpu)| bit(cpu)))
    }

    fn raise_floor(&mut self, now: Ns) {
        let is_active =
            |state: &RunState<W>| matches!(state, RunState::Ready | RunState::Running { .. });
        let active = self.entries.iter().filter(|entry| is_active(&entry.state));
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
