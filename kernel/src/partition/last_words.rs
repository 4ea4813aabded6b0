//! The time after a guest has reported a panic: it stores its log, or a crash kernel of its own
//! takes over.
//!
//! ```text
//!   pvpanic: panicked ───┐            ┌─ another record: the time begins anew, within a limit
//!   a panic's record ────┴─> counts ──┤
//!                                     ├─ the time is over, reset, halt, triple fault ───────> crash
//!                                     └─ KVM's clock is switched off: the crash kernel runs ─> nothing was said
//!   pvpanic: crash kernel ─> records are stored, and ignored until it runs
//! ```
//!
//! Linux writes to pvpanic first, then stores its log in several records, the newest part first. It
//! does not tell how many records there will be, so each record starts the wait anew. Only time in
//! which the guest runs, or halts by itself, counts: not its waits for pages, and not the time in
//! which other partitions have the CPU.
//!
//! Linux stores the log with interrupts off, and enables them when it has stored everything. In a
//! slow guest (an emulator on a busy machine), storing one record takes longer than the wait after
//! the last record. So time with interrupts off counts less.
//!
//! On its way to a crash kernel, and on no other way out of a panic, Linux switches KVM's clock off
//! (`machine_ops.crash_shutdown` is `kvm_crash_shutdown`). This reveals a crash kernel even if
//! pvpanic did not announce it because its driver is not loaded.

use crate::crash::record::CrashCause;
use crate::time::Ns;

/// Nanoseconds with interrupts off that count as one.
const OFF_AS_ONE: u64 = 5;
/// The wait for the next record: nanoseconds of the guest's own time.
const NEXT_NS: Ns = Ns::from_ms(100);
/// The wait for all records together.
const ALL_NS: Ns = Ns::from_secs(1);

/// The way in which the guest reported its panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PanicSignal {
    /// Through pvpanic.
    Panicked,
    /// By storing a part of its log.
    Recorded,
}

impl PanicSignal {
    /// Returns the reason for the crash of a guest that reported its panic in this way.
    pub const fn reason(self) -> CrashCause {
        match self {
            PanicSignal::Panicked => CrashCause::Panic,
            PanicSignal::Recorded => CrashCause::PanicRecord,
        }
    }
}

/// Whether the guest takes interrupts (RFLAGS.IF).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestInterrupts {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// The reports of an incarnation so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PanicGrace {
    /// None.
    #[default]
    None,
    /// It has reported a panic.
    Spoken {
        /// The first report.
        first: PanicSignal,
        /// Nanoseconds left for the next record.
        next_ns: Ns,
        /// Nanoseconds left for all records.
        all_ns: Ns,
        /// How often KVM's clock had been switched off.
        clock_offs: u32,
    },
    /// It panics, and has announced a crash kernel of its own.
    CrashKernel {
        /// How often KVM's clock had been switched off.
        clock_offs: u32,
    },
}

impl PanicGrace {
    /// Takes in a report of a panic.
    pub const fn hear(self, signal: PanicSignal, clock_offs: u32) -> Self {
        match self.at(clock_offs) {
            Self::None => {
                Self::Spoken { first: signal, next_ns: NEXT_NS, all_ns: ALL_NS, clock_offs }
            }
            Self::Spoken { first, all_ns, clock_offs, .. } => {
                Self::Spoken { first, next_ns: NEXT_NS, all_ns, clock_offs }
            }
            announced @ Self::CrashKernel { .. } => announced,
        }
    }

    /// Returns the reports that still hold: none, if a crash kernel has taken over since.
    pub const fn at(self, clock_offs: u32) -> Self {
        match self {
            Self::Spoken { clock_offs: before, .. } | Self::CrashKernel { clock_offs: before }
                if before != clock_offs =>
            {
                Self::None
            }
            same => same,
        }
    }

    /// Counts time in which the guest could have stored a record; `interrupts` is its RFLAGS.IF at
    /// the end of that time.
    pub const fn spend(&mut self, ns: Ns, interrupts: GuestInterrupts) {
        let ns = match interrupts {
            GuestInterrupts::On => ns,
            GuestInterrupts::Off => Ns::new(ns.as_u64().div_ceil(OFF_AS_ONE)),
        };
        if let Self::Spoken { next_ns, all_ns, .. } = self {
            *next_ns = next_ns.saturating_sub(ns);
            *all_ns = all_ns.saturating_sub(ns);
        }
    }

    /// Returns how much of its own time a panicking guest has left.
    pub fn left_ns(&self) -> Option<Ns> {
        match self {
            Self::Spoken { next_ns, all_ns, .. } => Some(*next_ns.min(all_ns)),
            Self::None | Self::CrashKernel { .. } => None,
        }
    }

    /// Returns the first report of a guest that is about to crash.
    pub const fn signal(&self) -> Option<PanicSignal> {
        match self {
            Self::Spoken { first, .. } => Some(*first),
            Self::None | Self::CrashKernel { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_waited_for_anew_but_not_for_ever() {
        let mut words = PanicGrace::None.hear(PanicSignal::Panicked, 0);
        let mut records = 0;
        while words.left_ns() > Some(Ns::ZERO) {
            words.spend(NEXT_NS - Ns::new(1), GuestInterrupts::On);
            if words.left_ns() > Some(Ns::ZERO) {
                words = words.hear(PanicSignal::Recorded, 0);
                records += 1;
            }
        }
        assert_eq!((records, words.signal()), (10, Some(PanicSignal::Panicked)));
    }

    #[test]
    fn silence_ends_it() {
        let mut words = PanicGrace::None.hear(PanicSignal::Recorded, 3);
        words.spend(NEXT_NS - Ns::new(1), GuestInterrupts::On);
        assert_eq!(
            (words.left_ns(), words.signal()),
            (Some(Ns::new(1)), Some(PanicSignal::Recorded))
        );
        words.spend(Ns::MAX, GuestInterrupts::On);
        assert_eq!(words.left_ns(), Some(Ns::ZERO));
    }

    #[test]
    fn a_guest_that_is_at_it_has_five_times_as_long() {
        let mut words = PanicGrace::None.hear(PanicSignal::Panicked, 0);
        words.spend(5 * NEXT_NS - Ns::new(5), GuestInterrupts::Off);
        assert_eq!(words.left_ns(), Some(Ns::new(1)));
        words.spend(Ns::new(1), GuestInterrupts::Off);
        assert_eq!(words.left_ns(), Some(Ns::ZERO), "but not for ever");
    }

    #[test]
    fn an_announced_crash_kernel_may_store_records_and_starts_afresh() {
        let words = PanicGrace::CrashKernel { clock_offs: 0 };
        assert_eq!(words.hear(PanicSignal::Recorded, 0), words);
        assert_eq!((words.left_ns(), words.signal(), words.at(1)), (None, None, PanicGrace::None));
        // A panic of the crash kernel itself counts as a panic.
        assert_eq!(words.hear(PanicSignal::Recorded, 1).signal(), Some(PanicSignal::Recorded));
    }

    #[test]
    fn a_crash_kernel_that_nobody_announced_is_noticed_when_it_takes_over() {
        let words = PanicGrace::None.hear(PanicSignal::Recorded, 0).hear(PanicSignal::Recorded, 0);
        assert_eq!((words.at(0), words.at(1)), (words, PanicGrace::None));
    }
}
