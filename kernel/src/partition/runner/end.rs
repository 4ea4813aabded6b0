//! The end of an incarnation: a crash with its dump and the restart gate, a reset, or a stop for
//! good.

use super::{PROMISE_NS, Runner, StepOutcome};
use crate::addr::PageIndex;
use crate::arch::{instr, time};
use crate::config::{DumpOverflow, DumpPolicy, RestartLimit, RestartPolicy};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::crash::dumps::{self, DrainStatus, DumpOrder};
use crate::crash::gate::RestartGate;
use crate::crash::record::{CrashCause, CrashRecord};
use crate::dump::bound::{self, CrashDumpAction};
use crate::host::Host;
use crate::log::history::{self, HistoryKind};
use crate::mm::object::MemoryObject;
use crate::partition::ending::{GuestEnd, end_of_stop, true_end};
use crate::partition::lifecycle::{AfterTeardown, BackingState, Lifecycle};
use crate::partition::restarts::RestartVerdict;
use crate::pool::AccountId;
use crate::time::Ns;
use core::sync::atomic::Ordering;

/// A partition that stops waits this long for a line that takes none of its output.
const LAST_OUTPUT_NS: Ns = Ns::from_secs(1);

impl Runner {
    /// Carries out an end that the guest has caused itself.
    pub(super) fn end(&mut self, host: &'static Host, end: GuestEnd) -> StepOutcome {
        let said = self.last_words.at(self.machine.msrs.kvmclock().offs()).signal();
        let end = true_end(end, said);
        match if self.duties.is_stopping() { end_of_stop(end) } else { end } {
            GuestEnd::Crash(reason) => self.crash(host, reason),
            GuestEnd::Stop(how, code) => self.stop(host, how, code),
            GuestEnd::Reset => {
                let (partition, incarnation) = (self.shared.name(), self.incarnation);
                report(&ConsoleEvent::Stopped { partition, incarnation, how: "reset", code: 0 });
                self.record(HistoryKind::MachineReset, 0, 0);
                self.retire(host, AfterTeardown::Begin)
            }
        }
    }

    /// Crashes the partition: its memory becomes a dump image at once, and the drain and the
    /// restart gate begin.
    pub(super) fn crash(&mut self, host: &'static Host, reason: CrashCause) -> StepOutcome {
        let at_ns = time::now_ns();
        self.cut_off_bus();
        let Some(object) = self.object.take() else {
            return self.stop(host, "crashed without memory", 0);
        };
        self.record(HistoryKind::Crashed, reason.recorded().0, reason.detail());
        let text = reason.in_words(self.machine.platform.panic_text());
        self.announce_crash(&object, reason, &text);
        self.drain_console(host);
        self.end_console_line(host);
        let mut policy = self.shared.policy();
        if self.duties.is_stopping() {
            policy.restart = RestartPolicy::Never;
        }
        self.duties.set_stop(None);
        let (restart, how) = self.restart_after_crash(policy.restart, at_ns);
        match (self.dump_of_crash(host, policy.dump), self.space) {
            (DumpPolicy::Aided, Some(space)) => {
                let config = &self.shared.config;
                let mut gate =
                    RestartGate::new(restart, config.memory_bytes, config.boot_memory_bytes);
                if object.base().is_some() {
                    let counts = object.counts();
                    gate = gate.at_most(u64::from(counts.resident + counts.going_out));
                }
                let (regs, state) = (*self.machine.vcpu.regs(), self.machine.vcpu.state());
                let record =
                    CrashRecord { reason, text, incarnation: self.incarnation, at_ns, regs, state };
                let given_before = host.pager.counters().freed_from_live;
                // Frames still promised after the last crash do not count for this one.
                self.end_promise(host);
                if restart != RestartPolicy::Never {
                    host.pager
                        .promise(object.id(), u32::try_from(gate.boot_pages()).unwrap_or(u32::MAX));
                }
                let job = dumps::begin(
                    host,
                    self.shared.name(),
                    record,
                    object,
                    space,
                    self.dump_order(),
                );
                (self.space, self.backing) = (None, BackingState::Settled);
                self.set_state(Lifecycle::Crashed { gate, how, job, at_ns, given_before });
                self.check_gate(host)
            }
            _ => {
                self.object = Some(object);
                match restart {
                    RestartPolicy::Never => self.stop(host, how, 0),
                    RestartPolicy::Threshold | RestartPolicy::Immediate => {
                        self.retire(host, AfterTeardown::Begin)
                    }
                }
            }
        }
    }

    fn dump_order(&self) -> DumpOrder {
        let bound = self
            .shared
            .config
            .dump_bound
            .filter(|bound| bound.when_full == DumpOverflow::DropOldest);
        DumpOrder {
            id: self.id,
            note_page: self.note_page(),
            drop_beyond: bound.map(|bound| bound.most),
        }
    }

    /// Returns whether the crash leads to a dump. If the bound of dumps forbids one, that is
    /// reported and counted.
    fn dump_of_crash(&self, host: &'static Host, dump: DumpPolicy) -> DumpPolicy {
        let (DumpPolicy::Aided, Some(bound), Some(space)) =
            (dump, self.shared.config.dump_bound, self.space)
        else {
            return dump;
        };
        let census = host.spaces.dumps_of(self.shared.name(), Some(space));
        match bound::at_crash(bound, &census) {
            CrashDumpAction::Dump => DumpPolicy::Aided,
            CrashDumpAction::Skip => {
                self.shared.dumps_skipped.fetch_add(1, Ordering::Relaxed);
                self.record(HistoryKind::DumpSkipped, 0, census.all().into());
                let (partition, incarnation) = (self.shared.name(), self.incarnation);
                report(&ConsoleEvent::DumpSkipped {
                    partition,
                    incarnation,
                    kept: census.all(),
                    bound: bound.most,
                });
                DumpPolicy::Off
            }
        }
    }

    /// Returns how the partition restarts after the crash at `at_ns`, and the reason for the stop
    /// if it does not.
    fn restart_after_crash(
        &mut self,
        restart: RestartPolicy,
        at_ns: Ns,
    ) -> (RestartPolicy, &'static str) {
        match restart {
            RestartPolicy::Never => (restart, "crashed"),
            RestartPolicy::Threshold | RestartPolicy::Immediate => {
                match self.restarts.crashed(at_ns) {
                    RestartVerdict::Allowed => (restart, "crashed"),
                    RestartVerdict::Exhausted(RestartLimit { restarts, time_ns }) => {
                        let (partition, incarnation) = (self.shared.name(), self.incarnation);
                        self.record(HistoryKind::RestartsExhausted, 0, restarts.into());
                        report(&ConsoleEvent::RestartLimit {
                            partition,
                            incarnation,
                            restarts,
                            time_ns,
                        });
                        (RestartPolicy::Never, "restart limit")
                    }
                }
            }
        }
    }

    fn announce_crash(&self, object: &MemoryObject, reason: CrashCause, text: &str) {
        let counts = object.counts();
        report(&ConsoleEvent::Crash {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            reason: reason.as_str(),
            detail: reason.detail(),
            text,
            rip: self.machine.vcpu.regs().rip,
            resident: u64::from(counts.resident + counts.going_out),
            paged: u64::from(counts.paged + counts.coming_in),
            zero: u64::from(counts.zero + counts.untouched),
            tsc: instr::rdtsc().as_u64(),
        });
    }

    /// Returns the page of the VMCOREINFO note that the guest has reported.
    pub(super) fn note_page(&self) -> Option<PageIndex> {
        let note = self.machine.platform.vmcoreinfo()?;
        self.layout.index_of(note.gpa.number())
    }

    pub(super) fn check_gate(&mut self, host: &'static Host) -> StepOutcome {
        let Lifecycle::Crashed { gate, how, job, at_ns, given_before } = &self.state else {
            return StepOutcome::Again;
        };
        let DrainStatus { freed, remaining, is_swept, has_ended } = job.read();
        let Some(opened) = gate.check(freed, is_swept || has_ended) else {
            // A gate that the end of the drain does not open stays closed for good.
            let how = *how;
            return if has_ended { self.stop(host, how, 0) } else { StepOutcome::look_again() };
        };
        history::record_partition(
            self.id,
            HistoryKind::RestartAllowed,
            0,
            [self.incarnation + 1, remaining],
        );
        report(&ConsoleEvent::Restart {
            partition: self.shared.name(),
            incarnation: self.incarnation + 1,
            gate: opened.as_str(),
            drain_remaining: remaining,
            freed_from_image: freed,
            freed_from_neighbours: host
                .pager
                .counters()
                .freed_from_live
                .saturating_sub(*given_before),
            reserved: u64::from(host.pager.reserved(AccountId::of(self.id))),
            boot_memory: gate.boot_pages(),
            since_crash_ns: time::now_ns().saturating_sub(*at_ns).as_u64(),
        });
        self.duties.set_promise(Some(time::now_ns().saturating_add(PROMISE_NS)));
        self.set_state(Lifecycle::NeedsSpace { told: false });
        self.find_space(host)
    }

    /// Has the memory taken apart. The partition keeps the space until that is over.
    pub(super) fn retire(&mut self, host: &'static Host, then: AfterTeardown) -> StepOutcome {
        self.cut_off_bus();
        match self.object.take() {
            Some(object) => {
                self.record(HistoryKind::TeardownBegun, 0, object.id().as_u16().into());
                self.set_state(Lifecycle::Retiring { gone: host.reaper.reap(object), then });
            }
            // The memory is being taken apart already: only the following step changes.
            None => match &mut self.state {
                Lifecycle::Retiring { then: planned, .. } => {
                    *planned = then;
                    self.shared.publish(self.state.view());
                }
                _ => return self.retired(host, then),
            },
        }
        StepOutcome::Again
    }

    /// Goes on when the memory, and all I/O to the space, is gone.
    pub(super) fn retired(&mut self, host: &'static Host, then: AfterTeardown) -> StepOutcome {
        if then == AfterTeardown::Stop && !self.console_is_out(host) {
            return StepOutcome::look_again();
        }
        self.record(HistoryKind::TeardownEnded, 0, 0);
        match (then, self.space) {
            (AfterTeardown::Suspend, _) => return self.suspended(host),
            (AfterTeardown::Begin, Some(space)) => {
                host.spaces.renew(space, self.shared.name(), &self.layout, self.incarnation + 1);
                self.set_state(Lifecycle::Activating);
            }
            (AfterTeardown::Begin, None) => return self.begin(host),
            (AfterTeardown::Stop, _) => {
                if let Some(space) = self.space.take() {
                    host.spaces.release(space);
                }
                self.note_stopped(host);
            }
        }
        StepOutcome::Again
    }

    /// Stops although a silent disk still has pages in flight: the machine ends, and memory and
    /// disk stay as they are. The space is not released, because late writes may still land on it;
    /// the next start finds it in use by an incarnation that is gone.
    pub(super) fn leave_behind(&mut self, host: &'static Host) -> StepOutcome {
        self.space = None;
        self.note_stopped(host);
        StepOutcome::Again
    }

    fn note_stopped(&mut self, host: &'static Host) {
        // Another partition may wait for a space that was kept for this one.
        host.spaces.end_reserve(self.shared.name());
        host.wake();
        // Last: when all partitions have stopped and no work is in progress, the machine stops.
        self.set_state(Lifecycle::Stopped);
    }

    /// Returns whether the line has taken all of the console's output, or has stopped taking any.
    fn console_is_out(&mut self, host: &Host) -> bool {
        let now = time::now_ns();
        if self.drain_console(host) {
            self.taken_ns = now;
        }
        self.machine.platform.console_output().is_empty()
            || now.saturating_sub(self.taken_ns) >= LAST_OUTPUT_NS
    }

    /// Ends the partition until the operator starts it again.
    pub(super) fn stop(&mut self, host: &'static Host, how: &str, code: u64) -> StepOutcome {
        self.end_promise(host);
        self.duties.set_stop(None);
        self.taken_ns = time::now_ns();
        self.give_line_back(host);
        self.record(HistoryKind::PartitionStopped, 0, code);
        report(&ConsoleEvent::Stopped {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            how,
            code,
        });
        self.retire(host, AfterTeardown::Stop)
    }
}
