//! The word that a CPU publishes, and its atomics.
//!
//! ```text
//!  63 ............... 16  15..14  13 12  11........0
//!        sequence           0     mode     object       mode: 0 idle, 1 hypervisor, 2 guest
//! ```
//!
//! 48 bits of sequence last 8,900 years at a transition every millisecond, or 9 years at one every
//! microsecond.

use super::ObjectId;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// The mode of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CpuMode {
    Idle,
    Hypervisor,
    Guest(ObjectId),
}

/// A CPU's mode and the number of its transition into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ModeWord(pub(super) u64);

const SEQUENCE_SHIFT: u32 = 16;
const MODE_SHIFT: u32 = 12;
const MODE_MASK: u64 = 3;
const OBJECT_MASK: u64 = (1 << MODE_SHIFT) - 1;
const IDLE: u64 = 0;
const HYPERVISOR: u64 = 1;
const GUEST: u64 = 2;

impl ModeWord {
    /// The word of a CPU before its first transition.
    pub(super) const FIRST: Self = Self(IDLE << MODE_SHIFT);

    pub(super) const fn next(self, mode: CpuMode) -> Self {
        let sequence = (self.0 >> SEQUENCE_SHIFT).wrapping_add(1) << SEQUENCE_SHIFT;
        Self(
            sequence
                | match mode {
                    CpuMode::Idle => IDLE << MODE_SHIFT,
                    CpuMode::Hypervisor => HYPERVISOR << MODE_SHIFT,
                    CpuMode::Guest(object) => GUEST << MODE_SHIFT | object.as_u16() as u64,
                },
        )
    }

    pub(super) const fn mode(self) -> CpuMode {
        match self.0 >> MODE_SHIFT & MODE_MASK {
            IDLE => CpuMode::Idle,
            GUEST => CpuMode::Guest(ObjectId((self.0 & OBJECT_MASK) as u16)),
            _ => CpuMode::Hypervisor,
        }
    }
}

/// The atomics of the protocol: the machine's own, or the model checker's.
///
/// It is a trait, not a compile-time switch of one type, so that the rest of the crate is unchanged
/// while the model runs.
pub trait AtomicWord {
    /// Makes a word.
    fn new(value: u64) -> Self;
    /// Reads the word.
    fn load(&self, order: Ordering) -> u64;
    /// Writes the word.
    fn store(&self, value: u64, order: Ordering);
    /// Adds one, ordered both ways; returns the value before.
    fn add_one(&self) -> u64;
    /// Orders all accesses before it against all accesses after it, sequentially consistent.
    fn fence();
}

impl AtomicWord for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }
    #[inline]
    fn add_one(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel)
    }
    #[inline]
    fn fence() {
        fence(Ordering::SeqCst);
    }
}
