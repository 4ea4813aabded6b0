//! The flush protocol: when a frame that was taken out of a table may be used for something else.
//!
//! A CPU can hold a translation in two places: in its TLB while it runs the guest, and in the hypervisor's own hands
//! between an exit and the next entry (a copy of guest bytes that has found its frame). A stay in the
//! hypervisor is therefore a *read section*; there is no lock around a copy. A CPU whose word says that it is in the guest may read
//! a resident page between two runs of that guest ([`super::resident`]): to the protocol this is one more translation in its TLB.
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
//! Evicting: change leaves, then open a [`Ticket`]: bump the object's [`Generation`] and look at the words of the other CPUs.
//! One in guest mode with this object must be kicked and waited for; one in the hypervisor is waited for; one that idles or runs
//! another object's guest holds nothing. The ticket has passed when each that was waited for has moved on.
//! Entering: publish the word, then read the generation; if it moved since this CPU last flushed for the object, flush.
//!
//! Invariants:
//! * Publishing a word and reading the generation or a leaf on one side, changing leaf and generation and reading words on the other, are
//!   separated by full fences (Dekker): one of the two sees the other. `model` proves it.
//! * A CPU's word is written by that CPU only.
//! * The thread that opens a ticket holds no translation of the object itself.
//! * Nobody waits here: a ticket is polled.
//!
//! The feature `mutant-no-flush` takes the protocol out (tests only): tickets pass at once, nobody is kicked, nobody flushes.

#[cfg(all(test, loom))]
mod model;
#[cfg(test)]
mod tests;
mod word;

use super::object::{ObjectId, ObjectTable};
use crate::arch::percpu::{CpuId, MAX_CPUS};
use core::sync::atomic::{AtomicU64, Ordering};
pub use word::Word;
use word::{CpuWord, Mode};

/// The protocol is compiled out.
const MUTANT: bool = cfg!(feature = "mutant-no-flush");

/// CPUs that must leave guest mode: one bit each, bit n is CPU n.
#[must_use = "a CPU that is not kicked may stay in the guest for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kicks(pub u32);

impl Kicks {
    /// Goes over the CPUs to kick.
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

/// What a CPU must flush before it goes on into the guest (INVEPT of the object's table, a fresh ASID).
#[must_use = "the guest must not run before the flush"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// Whose translations.
    pub object: ObjectId,
}

/// How often translations of an object were taken away. Never goes back, also not when an object's number is used again.
#[derive(Debug)]
pub struct Generation<W = AtomicU64>(W);

impl<W: Word> Generation<W> {
    /// Starts at `first`, at least 1: no CPU has flushed for that one yet.
    pub(super) fn starting_at(first: u64) -> Self {
        Self(W::new(first))
    }

    /// Returns the current one.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Makes every CPU flush before it enters the guest again; returns the new generation.
    pub(super) fn bump(&self) -> u64 {
        self.0.add_one() + 1
    }
}

/// One word a CPU, that says where the CPU is.
#[derive(Debug)]
pub struct CpuWords<W = AtomicU64> {
    cpus: [PerCpu<W>; MAX_CPUS],
    online: usize,
}

/// A cache line of its own for the word; `seen` is private to the CPU.
#[derive(Debug)]
#[repr(align(64))]
struct PerCpu<W> {
    word: W,
    /// The generation of each object for which this CPU has flushed last.
    seen: [AtomicU64; ObjectTable::CAPACITY],
}

impl CpuWords {
    /// Makes the words of `cpus` CPUs, all idle.
    ///
    /// # Panics
    /// If that are more than [`MAX_CPUS`] (our bug: start-up leaves the others off).
    pub fn new(cpus: usize) -> Self {
        Self::of(cpus)
    }
}

impl<W: Word> CpuWords<W> {
    /// Returns how many CPUs there are.
    pub const fn online(&self) -> usize {
        self.online
    }

    fn of(cpus: usize) -> Self {
        assert!(cpus <= MAX_CPUS, "start-up leaves CPUs beyond the limit off");
        let per_cpu = |_| PerCpu { word: W::new(CpuWord::FIRST.0), seen: [const { AtomicU64::new(0) }; _] };
        Self { cpus: core::array::from_fn(per_cpu), online: cpus }
    }

    /// Publishes that `cpu` runs the guest of `object` from now on; says whether it must flush first.
    pub fn enter(&self, cpu: CpuId, object: ObjectId, generation: &Generation<W>) -> Option<Flush> {
        self.publish(cpu, Mode::Guest(object));
        let current = generation.current();
        let seen = &self.per_cpu(cpu).seen[usize::from(object.as_u16())];
        if MUTANT || seen.load(Ordering::Relaxed) == current {
            return None;
        }
        seen.store(current, Ordering::Relaxed);
        Some(Flush { object })
    }

    /// Publishes that `cpu` is in the hypervisor from now on: after an exit, and after idling.
    pub fn leave(&self, cpu: CpuId) {
        self.publish(cpu, Mode::Hypervisor);
    }

    /// Publishes that `cpu`, still in the hypervisor, holds no translation at this moment.
    ///
    /// For the head of a CPU's loop: one that neither enters nor idles, because it works off its queues, would hold up every ticket.
    pub fn quiesce(&self, cpu: CpuId) {
        self.publish(cpu, Mode::Hypervisor);
    }

    /// Publishes that `cpu` idles: it holds no translation until it [leaves](CpuWords::leave) this state.
    pub fn idle(&self, cpu: CpuId) {
        self.publish(cpu, Mode::Idle);
    }

    /// Returns whether `cpu` is in guest mode. Where it is, all that the caller has done before is seen by `cpu` after
    /// it has left.
    pub fn is_in_guest(&self, cpu: CpuId) -> bool {
        W::fence();
        matches!(self.look(cpu.index()).mode(), Mode::Guest(_))
    }

    /// Returns whether some CPU is in guest mode with `object`. One that enters after a call that
    /// says no sees all that the caller has done before.
    pub fn is_any_in(&self, object: ObjectId) -> bool {
        W::fence();
        (0..self.online).any(|cpu| self.look(cpu).mode() == Mode::Guest(object))
    }

    /// Stores the CPU's next word; what it did before is seen by who reads the word, what it reads later is read after the store.
    fn publish(&self, cpu: CpuId, mode: Mode) {
        let word = &self.per_cpu(cpu).word;
        let next = CpuWord(word.load(Ordering::Relaxed)).next(mode);
        word.store(next.0, Ordering::Release);
        W::fence();
    }

    fn per_cpu(&self, cpu: CpuId) -> &PerCpu<W> {
        assert!(cpu.index() < self.online, "only CPUs that are there have words");
        &self.cpus[cpu.index()]
    }

    fn look(&self, cpu: usize) -> CpuWord {
        CpuWord(self.cpus[cpu].word.load(Ordering::Acquire))
    }
}

/// Open until every CPU that could hold a translation taken away before has passed.
#[must_use = "frames wait for this ticket"]
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    passed: Passed,
    waiting: u32,
    seen: [CpuWord; MAX_CPUS],
}

impl Ticket {
    /// Opens a ticket for all translations of an object taken away so far; says whom to kick.
    ///
    /// `me` is the calling CPU, which holds none: it is not waited for. It flushes like every other at its next entry.
    pub(super) fn open<W: Word>(words: &CpuWords<W>, me: CpuId, object: ObjectId, generation: &Generation<W>) -> (Self, Kicks) {
        let generation = generation.bump();
        W::fence();
        let mut ticket = Self { passed: Passed { object, generation }, waiting: 0, seen: [CpuWord::FIRST; MAX_CPUS] };
        let mut kicks = Kicks::default();
        if MUTANT {
            return (ticket, kicks);
        }
        for cpu in (0..words.online).filter(|&cpu| cpu != me.index()) {
            let word = words.look(cpu);
            let bit = 1 << cpu;
            match word.mode() {
                Mode::Guest(running) if running == object => {
                    kicks.0 |= bit;
                    ticket.waiting |= bit;
                }
                Mode::Hypervisor => ticket.waiting |= bit,
                Mode::Idle | Mode::Guest(_) => {}
            }
            ticket.seen[cpu] = word;
        }
        (ticket, kicks)
    }

    /// Looks again; `Some` once every CPU has passed.
    pub fn poll<W: Word>(&mut self, words: &CpuWords<W>) -> Option<Passed> {
        for cpu in 0..words.online {
            let bit = 1 << cpu;
            if self.waiting & bit != 0 && words.look(cpu) != self.seen[cpu] {
                self.waiting &= !bit;
            }
        }
        (self.waiting == 0).then_some(self.passed)
    }
}

/// Proof that a ticket has passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    object: ObjectId,
    generation: u64,
}

impl Passed {
    /// Checks that this proof is about a translation of `object` that was gone when the generation was `at_generation`.
    ///
    /// The generation was read after the leaf had changed, so a ticket of a later one was opened after the change.
    ///
    /// # Panics
    /// If it is not: a frame would be used while a CPU can still reach it (our bug).
    pub(super) fn covers(&self, object: ObjectId, at_generation: u64) {
        assert!(self.object == object, "a ticket covers the translations of its own object");
        assert!(self.generation > at_generation, "a ticket covers translations taken away before it was opened");
    }
}
