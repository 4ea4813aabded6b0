//! The flush protocol: it decides when a frame that was taken out of a table may be reused.
//!
//! A CPU can hold a translation in two places: in its TLB while it runs the guest, and in
//! hypervisor code between an exit and the next entry (a copy of guest bytes that has found its
//! frame). So a stay in the hypervisor is a *read section*; there is no lock around a copy. A CPU
//! whose word says that it is in the guest may read a resident page between two runs of that guest
//! ([`super::resident`]): to the protocol this is one more translation in its TLB.
//!
//! ```text
//!            leave                    enter(object)
//!   Idle ─────────────> Hypervisor ─────────────────> Guest(object)     each arrow moves the
//!    ^                   │  ^   │ ^                         │           CPU's sequence on
//!    └───────────────────┘  │   └─┘ quiesce                 │
//!            idle           └───────────────────────────────┘
//!                                       leave
//! ```
//!
//! Evicting: change leaves, then open a [`FlushTicket`]: bump the object's [`FlushGeneration`] and
//! read the words of the other CPUs. A CPU in guest mode with this object is kicked and waited for.
//! A CPU in the hypervisor is waited for. A CPU that idles or runs another object's guest holds no
//! translation. The ticket has passed when each CPU waited for has moved on.
//!
//! Entering: publish the word, then read the generation; if it has moved since this CPU last
//! flushed for the object, flush.
//!
//! Invariants:
//! * One side publishes a word and then reads the generation or a leaf; the other changes leaf and
//!   generation and then reads the words. Full fences separate the two steps on each side (Dekker),
//!   so at least one side sees the other's change. `model` proves it.
//! * A CPU's word is written by that CPU only.
//! * The thread that opens a ticket holds no translation of the object itself.
//! * Nothing here waits: a ticket is polled.
//!
//! The feature `mutant-no-flush` takes the protocol out (tests only): tickets pass at once, no CPU
//! is kicked, and no CPU flushes.

#[cfg(all(test, loom))]
mod model;
#[cfg(test)]
mod tests;
mod word;

use super::object_id::ObjectId;
use crate::arch::percpu::{CpuId, MAX_CPUS};
use core::sync::atomic::{AtomicU64, Ordering};
pub use word::AtomicWord;
use word::{CpuMode, ModeWord};

/// The protocol is compiled out.
const MUTANT: bool = cfg!(feature = "mutant-no-flush");

/// CPUs that must leave guest mode: one bit each, bit n is CPU n.
#[must_use = "a CPU that is not kicked may stay in the guest for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kicks(pub u32);

impl Kicks {
    /// Returns the CPUs to kick, one after the other.
    #[inline]
    pub fn cpus(self) -> impl Iterator<Item = CpuId> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let lowest = (left != 0).then(|| CpuId::new(left.trailing_zeros() as usize));
            left &= left.wrapping_sub(1);
            lowest
        })
    }
}

/// A flush that a CPU must do before it enters the guest (INVEPT of the object's table, a fresh
/// ASID).
#[must_use = "the guest must not run before the flush"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbFlush {
    /// The object whose translations are flushed.
    pub object: ObjectId,
}

/// Counts how often translations of an object were taken away. It never goes back, not even when an
/// object's number is used again.
#[derive(Debug)]
pub struct FlushGeneration<W = AtomicU64>(W);

impl<W: AtomicWord> FlushGeneration<W> {
    /// Starts at `first`, at least 1: no CPU has flushed for this generation yet.
    pub(super) fn starting_at(first: u64) -> Self {
        Self(W::new(first))
    }

    /// Returns the current generation.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Makes every CPU flush before it enters the guest again; returns the new generation.
    pub(super) fn bump(&self) -> u64 {
        self.0.add_one() + 1
    }
}

/// One word for each CPU: the CPU's mode and its sequence.
#[derive(Debug)]
pub struct QuiescentStates<W = AtomicU64> {
    cpus: [QuiescentState<W>; MAX_CPUS],
    online: usize,
}

/// A cache line for the CPU's word. `seen` is private to the CPU.
#[derive(Debug)]
#[repr(align(64))]
struct QuiescentState<W> {
    word: W,
    /// For each object, the generation for which this CPU last flushed.
    seen: [AtomicU64; ObjectId::COUNT],
}

impl QuiescentStates {
    /// Makes the words of `cpus` CPUs, all idle.
    ///
    /// # Panics
    /// If there are more than [`MAX_CPUS`] (our bug: start-up leaves the others off).
    pub fn new(cpus: usize) -> Self {
        Self::of(cpus)
    }
}

impl<W: AtomicWord> QuiescentStates<W> {
    /// Returns how many CPUs there are.
    pub const fn online(&self) -> usize {
        self.online
    }

    fn of(cpus: usize) -> Self {
        assert!(cpus <= MAX_CPUS, "start-up leaves CPUs beyond the limit off");
        let per_cpu = |_| QuiescentState {
            word: W::new(ModeWord::FIRST.0),
            seen: [const { AtomicU64::new(0) }; _],
        };
        Self { cpus: core::array::from_fn(per_cpu), online: cpus }
    }

    /// Publishes that `cpu` runs the guest of `object` from now on; returns the flush that must
    /// come first, if any.
    pub fn enter(
        &self,
        cpu: CpuId,
        object: ObjectId,
        generation: &FlushGeneration<W>,
    ) -> Option<TlbFlush> {
        self.publish(cpu, CpuMode::Guest(object));
        let current = generation.current();
        let seen = &self.per_cpu(cpu).seen[usize::from(object.as_u16())];
        if MUTANT || seen.load(Ordering::Relaxed) == current {
            return None;
        }
        seen.store(current, Ordering::Relaxed);
        Some(TlbFlush { object })
    }

    /// Publishes that `cpu` is in the hypervisor from now on: after an exit, and after idling.
    pub fn leave(&self, cpu: CpuId) {
        self.publish(cpu, CpuMode::Hypervisor);
    }

    /// Publishes that `cpu`, still in the hypervisor, holds no translation at this moment.
    ///
    /// For the head of a CPU's loop. A CPU that works off its queues neither enters nor idles, and
    /// would hold up every ticket.
    pub fn quiesce(&self, cpu: CpuId) {
        self.publish(cpu, CpuMode::Hypervisor);
    }

    /// Publishes that `cpu` idles: it holds no translation until it
    /// [leaves](QuiescentStates::leave) this state.
    pub fn idle(&self, cpu: CpuId) {
        self.publish(cpu, CpuMode::Idle);
    }

    /// Returns whether `cpu` is in guest mode. If it is, `cpu` sees all earlier writes of the
    /// caller after it has left.
    pub fn is_in_guest(&self, cpu: CpuId) -> bool {
        W::fence();
        matches!(self.load(cpu.index()).mode(), CpuMode::Guest(_))
    }

    /// Returns whether any CPU is in guest mode with `object`. If none is, a CPU that enters after
    /// this call sees all writes that the caller made before.
    pub fn is_any_in(&self, object: ObjectId) -> bool {
        W::fence();
        (0..self.online).any(|cpu| self.load(cpu).mode() == CpuMode::Guest(object))
    }

    /// Stores the CPU's next word. Release store plus full fence: this CPU's earlier writes are
    /// visible to every reader of the new word; its later reads stay behind the store.
    fn publish(&self, cpu: CpuId, mode: CpuMode) {
        let word = &self.per_cpu(cpu).word;
        let next = ModeWord(word.load(Ordering::Relaxed)).next(mode);
        word.store(next.0, Ordering::Release);
        W::fence();
    }

    fn per_cpu(&self, cpu: CpuId) -> &QuiescentState<W> {
        assert!(cpu.index() < self.online, "only CPUs that are there have words");
        &self.cpus[cpu.index()]
    }

    fn load(&self, cpu: usize) -> ModeWord {
        ModeWord(self.cpus[cpu].word.load(Ordering::Acquire))
    }
}

/// Open until every CPU that could hold a translation taken away before has passed.
#[must_use = "frames wait for this ticket"]
#[derive(Clone, Copy, Debug)]
pub struct FlushTicket {
    proof: FlushProof,
    waiting: u32,
    seen: [ModeWord; MAX_CPUS],
}

impl FlushTicket {
    /// Opens a ticket for all translations of an object taken away so far; also returns the CPUs to
    /// kick.
    ///
    /// `me` is the calling CPU. It holds no translation and is not waited for, but flushes at its
    /// next entry as every other CPU.
    pub(super) fn open<W: AtomicWord>(
        words: &QuiescentStates<W>,
        me: CpuId,
        object: ObjectId,
        generation: &FlushGeneration<W>,
    ) -> (Self, Kicks) {
        Self::open_with(words, me, object, generation, 0)
    }

    /// The same for translations of other objects, too: bit n of `also` is object n. Their
    /// generations have moved on already.
    #[inline]
    pub(super) fn open_with<W: AtomicWord>(
        words: &QuiescentStates<W>,
        me: CpuId,
        object: ObjectId,
        generation: &FlushGeneration<W>,
        also: u64,
    ) -> (Self, Kicks) {
        let generation = generation.bump();
        W::fence();
        let mut ticket = Self {
            proof: FlushProof { object, generation },
            waiting: 0,
            seen: [ModeWord::FIRST; MAX_CPUS],
        };
        let mut kicks = Kicks::default();
        if MUTANT {
            return (ticket, kicks);
        }
        for cpu in (0..words.online).filter(|&cpu| cpu != me.index()) {
            let word = words.load(cpu);
            let bit = 1 << cpu;
            match word.mode() {
                CpuMode::Guest(running)
                    if running == object || also >> running.index() & 1 != 0 =>
                {
                    kicks.0 |= bit;
                    ticket.waiting |= bit;
                }
                CpuMode::Hypervisor => ticket.waiting |= bit,
                CpuMode::Idle | CpuMode::Guest(_) => {}
            }
            ticket.seen[cpu] = word;
        }
        (ticket, kicks)
    }

    /// Returns the CPUs that it still waits for: bit n is CPU n.
    pub const fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Looks again; `Some` once every CPU has passed.
    pub fn poll<W: AtomicWord>(&mut self, words: &QuiescentStates<W>) -> Option<FlushProof> {
        for cpu in 0..words.online {
            let bit = 1 << cpu;
            if self.waiting & bit != 0 && words.load(cpu) != self.seen[cpu] {
                self.waiting &= !bit;
            }
        }
        (self.waiting == 0).then_some(self.proof)
    }
}

/// Proof that a ticket has passed.
#[derive(Clone, Copy, Debug)]
pub struct FlushProof {
    object: ObjectId,
    generation: u64,
}

impl FlushProof {
    /// Checks that this proof covers a translation of `object` that was gone when the generation
    /// was `at_generation`.
    ///
    /// The generation was read after the leaf had changed. So a ticket with a later generation was
    /// opened after the change.
    ///
    /// # Panics
    /// If it is not: a frame would be used while a CPU can still reach it (our bug).
    pub(super) fn covers(&self, object: ObjectId, at_generation: u64) {
        assert!(self.object == object, "a ticket covers the translations of its own object");
        assert!(
            self.generation > at_generation,
            "a ticket covers translations taken away before it was opened"
        );
    }
}
