//! Evaluates a guest's stays on the CPU: whether it still stores its log after a panic, was stopped
//! for long, or hangs.

use super::Runner;
use crate::arch::{instr, time};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::log::history::HistoryKind;
use crate::mm::guest::GuestMemoryError;
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::object::MemoryObject;
use crate::partition::hang::{self, HangFinding};
use crate::partition::identity;
use crate::partition::last_words::{GuestInterrupts, PanicGrace};
use crate::partition::lifecycle::{Lifecycle, ParkReason};
use crate::partition::machine::StopReason;
use crate::partition::msr::MsrError;
use crate::partition::stall::{StallWatch, WakeTime};
use crate::time::Ns;

/// A stay, nanoseconds since the start.
pub(super) struct StayTimes {
    pub entered_ns: Ns,
    /// The time at which the guest had to be left.
    pub until_ns: Ns,
    /// The time at which it was left.
    pub left_ns: Ns,
}

impl Runner {
    /// Counts the guest's own time since `since_ns` if it has reported a panic, and finds out
    /// whether a crash kernel runs.
    pub(super) fn count_words(&mut self, since_ns: Ns) {
        if self.last_words != PanicGrace::None {
            let is_on = self.machine.vcpu.regs().interrupts_enabled();
            let interrupts = if is_on { GuestInterrupts::On } else { GuestInterrupts::Off };
            self.last_words.spend(time::now_ns().saturating_sub(since_ns), interrupts);
            self.last_words = self.last_words.at(self.machine.msrs.kvmclock().offs());
        }
    }

    /// Counts the time that a guest has halted.
    pub(super) fn count_halt(&mut self) {
        if self.state_is_halted() {
            self.count_words(self.halted_ns);
            self.halted_ns = time::now_ns();
        }
    }

    pub(super) const fn state_is_halted(&self) -> bool {
        matches!(self.state, Lifecycle::Running(ParkReason::Halted))
    }

    /// Counts the time that the guest has lost.
    pub(super) fn count_stall(&mut self, stay: &StayTimes, stop: StopReason) {
        let timer = self.machine.platform.next_deadline().map(time::ns_at);
        let wants = match (stop, timer) {
            (StopReason::Halted, Some(at)) => WakeTime::At(at),
            (StopReason::Halted, None) => WakeTime::Nothing,
            _ => WakeTime::Now,
        };
        self.stall.leave(stay.entered_ns, stay.until_ns, stay.left_ns, wants);
    }

    /// Tells the guest that it was stopped for long, and a clone that it is one; `false` while the
    /// page of its clock or of its generation ID is not resident.
    pub(super) fn tell_stopped(&mut self, host: &Host, object: &MemoryObject) -> bool {
        let ticket = object.wait_ticket();
        let memory = GuestBytes { object, memory: host.memory, faulter: &host.pager };
        let clock = self.machine.msrs.kvmclock();
        let moment = self.machine.msrs.moment(instr::rdtsc());
        // The clock goes on with this machine's frequency.
        let published = if self.was_away {
            clock.publish_again(self.machine.platform.clock(), &memory, moment)
        } else {
            Ok(())
        };
        let told = clock.tell_stopped(&memory);
        let identity =
            self.doubled.map(|id| identity::was_doubled(&mut self.machine.platform, &memory, &id));
        match identity {
            Some(Err(GuestMemoryError::NotResident(_))) => {
                self.park(ParkReason::Page(ticket));
                return false;
            }
            Some(Err(_)) => report(&ConsoleEvent::Error {
                place: self.shared.name(),
                message: "the page of its generation ID cannot be read: it has its twin's ID",
            }),
            Some(Ok(())) | None => {}
        }
        self.doubled = None;
        if matches!(published, Err(MsrError::Memory(GuestMemoryError::NotResident(_))))
            || matches!(told, Err(GuestMemoryError::NotResident(_)))
        {
            self.park(ParkReason::Page(ticket));
            return false;
        }
        self.was_away = false;
        self.stall = StallWatch::new();
        true
    }

    /// Looks for a sign of life, and sends an NMI if there has been none for too long.
    pub(super) fn look_for_hang(&mut self, stay: &StayTimes, stop: StopReason) -> HangFinding {
        let Some(watch) = &mut self.hang else { return HangFinding::Alive };
        let regs = self.machine.vcpu.regs();
        if stop == StopReason::Halted && regs.interrupts_enabled() {
            watch.halted();
            return HangFinding::Alive;
        }
        let (rip, ticks) = (regs.rip, self.machine.platform.lapic().ticks());
        let ran_ns = stay.left_ns.min(stay.until_ns).saturating_sub(stay.entered_ns);
        let finding = watch.take(hang::GuestStay { ran_ns, ticks });
        // A panicking guest has a time-out of its own, and its crash kernel counts as another
        // guest.
        if self.last_words != PanicGrace::None {
            return HangFinding::Alive;
        }
        if finding == HangFinding::Silent {
            self.record(HistoryKind::HangSuspected, 0, rip);
            report(&ConsoleEvent::Hang {
                partition: self.shared.name(),
                incarnation: self.incarnation,
                rip,
            });
            self.machine.platform.raise_nmi();
        }
        finding
    }
}
