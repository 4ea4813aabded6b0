//! What others may know of a partition and ask of it while its vCPU runs.
//!
//! The runner (`partition::runner`) belongs to the CPU that runs it; everybody else talks to the partition through this:
//! requests are bits that the runner takes at its next stop (the CPU is kicked), its state is published here.

use crate::config;
use crate::console::ring::Ring;
use crate::sync::{Ranked, rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// What is asked of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Request {
    /// Crash, as if the guest had panicked.
    Crash = 1 << 0,
    /// Stop for good.
    Stop = 1 << 1,
}

/// The life of a partition as others see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Waits for a paging space.
    Waiting,
    /// Its kernel is being copied into its memory.
    Loading,
    /// The guest runs.
    Running,
    /// It has crashed and the restart gate is closed.
    Crashed,
    /// It will not run again.
    Stopped,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Waiting, Self::Loading, Self::Running, Self::Crashed, Self::Stopped];

    /// Returns the word for people and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Loading => "loading",
            Phase::Running => "running",
            Phase::Crashed => "crashed",
            Phase::Stopped => "stopped",
        }
    }
}

/// Bytes typed at a console that the guest has not taken yet.
const TYPED: usize = 256;
/// No memory object: the partition has never started.
const NO_OBJECT: u32 = u32::MAX;

/// The part of a partition that everybody may reach.
pub struct Shared {
    /// What it was configured as.
    pub config: config::Partition,
    /// Exits of its vCPU so far.
    pub exits: AtomicU64,
    requests: AtomicU32,
    phase: AtomicU8,
    incarnation: AtomicU64,
    object: AtomicU32,
    typed: Ranked<Ring<TYPED>, { rank::EVENTS }>,
    /// Whether `typed` holds anything; changed under its lock.
    has_typed: AtomicBool,
}

impl Shared {
    /// Makes the shared part of a partition that has not started.
    pub fn new(config: config::Partition) -> Self {
        Self {
            config,
            exits: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Waiting as u8),
            incarnation: AtomicU64::new(0),
            object: AtomicU32::new(NO_OBJECT),
            typed: Ranked::new(Ring::new()),
            has_typed: AtomicBool::new(false),
        }
    }

    /// Returns the partition's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Asks for something; whoever asks kicks the partition's CPU.
    pub fn ask(&self, request: Request) {
        self.requests.fetch_or(request as u32, Ordering::AcqRel);
    }

    /// Returns whether anything is asked: cheap enough for every stop.
    pub fn is_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    /// Takes `request` if it was asked.
    pub fn take(&self, request: Request) -> bool {
        self.requests.fetch_and(!(request as u32), Ordering::AcqRel) & request as u32 != 0
    }

    /// Types a byte at the partition's console; what does not fit is lost, as on a real line.
    pub fn type_byte(&self, byte: u8) {
        let mut typed = self.typed.lock();
        typed.push(&[byte]);
        self.has_typed.store(true, Ordering::Release);
    }

    /// Returns whether [`Self::take_typed`] may answer anything: cheap enough for every stop.
    #[inline]
    pub fn has_typed(&self) -> bool {
        self.has_typed.load(Ordering::Acquire)
    }

    /// Takes up to 16 typed bytes.
    pub fn take_typed(&self) -> ArrayVec<u8, 16> {
        let mut bytes = ArrayVec::new();
        let mut typed = self.typed.lock();
        typed.peek_into(&mut bytes);
        typed.discard(bytes.len());
        self.has_typed.store(!typed.is_empty(), Ordering::Relaxed);
        bytes
    }

    /// Returns where the partition is in its life.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire)) % Phase::ALL.len()]
    }

    /// Returns the number of its incarnation; 0 before the first.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Returns the number of its live memory object.
    pub fn object(&self) -> Option<u16> {
        u16::try_from(self.object.load(Ordering::Acquire)).ok()
    }

    #[cfg(any(target_os = "none", test))] // only runners publish
    pub(super) fn publish_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    #[cfg(any(target_os = "none", test))] // only runners publish
    pub(super) fn publish_incarnation(&self, number: u64, object: u16) {
        self.object.store(u32::from(object), Ordering::Release);
        self.incarnation.store(number, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DumpPolicy, Kernel, Partition, Restart};

    fn shared() -> Shared {
        Shared::new(Partition {
            name: "a".into(),
            memory_bytes: 4096,
            kernel: Kernel { image: "k".into(), initrd: None },
            cmdline: "".into(),
            dump: DumpPolicy::Aided,
            restart: Restart::Immediate,
            boot_memory_bytes: None,
        })
    }

    #[test]
    fn a_request_is_taken_once() {
        let shared = shared();
        shared.ask(Request::Crash);
        assert!(shared.is_asked() && !shared.take(Request::Stop));
        assert!(shared.take(Request::Crash) && !shared.take(Request::Crash) && !shared.is_asked());
    }

    #[test]
    fn typed_bytes_are_announced_until_the_last_is_taken() {
        let shared = shared();
        assert!(!shared.has_typed());
        (0..20).for_each(|byte| shared.type_byte(byte));
        assert_eq!((shared.has_typed(), shared.take_typed().len()), (true, 16));
        assert_eq!((shared.has_typed(), shared.take_typed().len()), (true, 4));
        assert!(!shared.has_typed());
    }

    #[test]
    fn what_is_published_is_seen() {
        let shared = shared();
        assert_eq!((shared.phase(), shared.incarnation(), shared.object()), (Phase::Waiting, 0, None));
        shared.publish_phase(Phase::Crashed);
        shared.publish_incarnation(3, 7);
        assert_eq!((shared.phase(), shared.incarnation(), shared.object()), (Phase::Crashed, 3, Some(7)));
    }
}
