//! The guest runs: its waits, its devices' effects, and the ends of its stays.

use super::life::StayTimes;
use super::{HostCpu, LOOK_NS, PROMISE_NS, Runner, StepOutcome, VcpuResidence, WaitEvent};
use crate::arch::percpu::CpuId;
use crate::arch::{instr, time};
use crate::config::ConsoleRoute;
use crate::console::event::ConsoleEvent;
use crate::console::hex;
use crate::console::output;
use crate::console::report;
use crate::console::tagged::LineSplitter;
use crate::crash::record::CrashCause;
use crate::host::Host;
use crate::log::history::{self, HistoryKind};
use crate::partition::devices::{DeviceEffect, PanicKind};
use crate::partition::ending::{GuestEnd, POWER_OFF};
use crate::partition::hang::HangFinding;
use crate::partition::last_words::{PanicGrace, PanicSignal};
use crate::partition::lifecycle::{BackingState, Lifecycle, ParkReason};
use crate::partition::machine::StopReason;
use crate::time::Ns;
use alloc::format;

/// Bytes around a line with its partition's name: brackets, blank, end, and a name of 31 letters.
const TAG: usize = 36;
/// A halt of a guest that is longer than a turn beside others is recorded.
const LONG_HALT_NS: Ns = Ns::from_ms(10);
/// Twice an unfinished line: it is shown again behind another line.
const LONGEST_LINE: usize = 2 * 600;

impl Runner {
    pub(super) fn run(&mut self, host: &'static Host, on: &HostCpu<'_>, until: Ns) -> StepOutcome {
        self.count_halt();
        if let (Some(Ns::ZERO), Some(signal)) =
            (self.last_words.left_ns(), self.last_words.signal())
        {
            return self.crash(host, signal.reason());
        }
        if self.is_to_programs() {
            self.drain_console(host);
        }
        if let Some((on, deadline)) = self.still_parked(host) {
            return StepOutcome::Wait(on, deadline);
        }
        let Some(object) = self.object.clone() else { return StepOutcome::Again };
        self.announce_entry();
        self.move_in(on);
        let entered_ns = time::now_ns();
        if (self.stall.enter(entered_ns) || self.was_away) && !self.tell_stopped(host, &object) {
            return StepOutcome::Again;
        }
        let until = self.duties.last_moment(until);
        let until = self
            .last_words
            .left_ns()
            .map_or(until, |left| until.min(entered_ns.saturating_add(left)));
        let slice_end = time::tsc_at(until);
        let stop = self.machine.run(host, on.cpu, &object, &self.shared, slice_end);
        let stay = StayTimes { entered_ns, until_ns: until, left_ns: time::now_ns() };
        self.count_words(entered_ns);
        self.count_stall(&stay, stop);
        let hangs = self.look_for_hang(&stay, stop) == HangFinding::Hangs;
        let wrote = self.drain_console(host);
        if !wrote || stop == StopReason::Halted {
            self.show_prompt(host);
        }
        if hangs {
            return self.end(host, GuestEnd::Crash(CrashCause::Watchdog));
        }
        self.stopped(host, stop)
    }

    /// Returns the guest's wait and its deadline, if the wait is not over.
    fn still_parked(&mut self, host: &Host) -> Option<(WaitEvent, Option<Ns>)> {
        match (&self.state, &self.object) {
            (Lifecycle::Running(ParkReason::Page(ticket)), Some(object))
                if !object.ready(*ticket) =>
            {
                Some((WaitEvent::Page(object.clone(), *ticket), self.next_duty()))
            }
            (Lifecycle::Running(ParkReason::Console), _) => {
                self.drain_console(host);
                (!self.machine.platform.console_taken())
                    .then(|| (WaitEvent::Anything, Some(time::now_ns().saturating_add(LOOK_NS))))
            }
            (Lifecycle::Running(ParkReason::Halted), _) => {
                let typed = self.shared.take_typed(self.machine.platform.console_room());
                self.machine.platform.console_input(&typed);
                let is_asleep = !self.machine.is_awake(instr::rdtsc());
                let timer = self.machine.wake_up().map(time::ns_at);
                is_asleep.then(|| {
                    (WaitEvent::Own, [timer, self.next_duty()].into_iter().flatten().min())
                })
            }
            _ => None,
        }
    }

    /// Returns when the runner must be stepped, whatever the guest waits for.
    pub(super) fn next_duty(&self) -> Option<Ns> {
        // Memory that waits for its store cannot free a frame, so its own faults could wait for
        // ever.
        let store =
            (self.backing == BackingState::Awaited).then(|| time::now_ns().saturating_add(LOOK_NS));
        // The wait for a page is not the guest's own time.
        let words = self.last_words.left_ns().filter(|_| self.state_is_halted());
        let words = words.map(|left| self.halted_ns.saturating_add(left));
        // Output that programs have not taken waits in the UART, and no event wakes the guest for
        // it.
        let console = self.is_held_up().then(|| time::now_ns().saturating_add(LOOK_NS));
        [words, self.duties.next(), store, console].into_iter().flatten().min()
    }

    fn announce_entry(&mut self) {
        if !self.entered {
            self.entered = true;
            self.record(HistoryKind::GuestEntered, 0, 0);
            let kept = self.duties.promise_ends();
            self.duties.set_promise(kept.map(|_| time::now_ns().saturating_add(PROMISE_NS)));
            let (partition, incarnation) = (self.shared.name(), self.incarnation);
            report(&ConsoleEvent::Entered { partition, incarnation, tsc: instr::rdtsc().as_u64() });
        }
    }

    /// Loads vCPU and FPU state into the CPU. They stay there until another vCPU takes the CPU.
    fn move_in(&mut self, on: &HostCpu<'_>) {
        match self.residence {
            VcpuResidence::Memory => {
                self.machine.vcpu.load(on.enabled);
                self.fpu.load();
                self.residence = VcpuResidence::Cpu(on.cpu);
            }
            VcpuResidence::Cpu(cpu) => {
                assert!(cpu == on.cpu, "a vCPU leaves its CPU before it goes to another")
            }
        }
    }

    /// Saves vCPU and FPU state from this CPU to memory, so that any CPU can load them.
    pub fn move_out(&mut self, on: &HostCpu<'_>) {
        if let VcpuResidence::Cpu(cpu) = self.residence {
            assert!(cpu == on.cpu, "a vCPU is taken from its CPU by that CPU");
            self.fpu.save();
            self.machine.vcpu.unload();
            self.residence = VcpuResidence::Memory;
        }
    }

    /// Returns the CPU that holds the vCPU's state.
    pub fn resident(&self) -> Option<CpuId> {
        match self.residence {
            VcpuResidence::Cpu(cpu) => Some(cpu),
            VcpuResidence::Memory => None,
        }
    }

    /// Handles the end of the guest's stay.
    fn stopped(&mut self, host: &'static Host, stop: StopReason) -> StepOutcome {
        self.park(ParkReason::No);
        match stop {
            StopReason::Slice | StopReason::Asked => {}
            StopReason::Page(ticket) => self.park(ParkReason::Page(ticket)),
            StopReason::Halted if self.machine.can_wake() => {
                self.park(ParkReason::Halted);
                self.halted_ns = time::now_ns();
                self.record_long_halt();
            }
            StopReason::Halted => return self.end(host, GuestEnd::Stop("halted for good", 0)),
            StopReason::Crash(reason) => {
                self.record_end_of_guest(reason);
                return self.end(host, GuestEnd::Crash(reason));
            }
            StopReason::Device(effect) => return self.device(host, effect),
        }
        StepOutcome::Again
    }

    /// Records a halt from which no timer wakes the guest within a turn.
    fn record_long_halt(&self) {
        let timer = self.machine.wake_up().map(time::ns_at);
        if timer.is_none_or(|at| at.saturating_sub(self.halted_ns) > LONG_HALT_NS) {
            let numbers = [self.machine.vcpu.regs().rip, timer.unwrap_or(Ns::ZERO).as_u64()];
            history::record_partition(self.id, HistoryKind::HaltedLong, 0, numbers);
        }
    }

    /// Records an exit after which the guest cannot go on, with the place in the guest.
    #[cold]
    #[inline(never)]
    fn record_end_of_guest(&self, reason: CrashCause) {
        let numbers = [self.machine.vcpu.regs().rip, reason.detail()];
        let code = reason.recorded().0;
        history::record_partition(self.id, HistoryKind::GuestEnded, code, numbers);
    }

    fn device(&mut self, host: &'static Host, effect: DeviceEffect) -> StepOutcome {
        let clock_offs = self.machine.msrs.kvmclock().offs();
        match effect {
            DeviceEffect::Panicked(PanicKind::Panicked) => {
                self.record(HistoryKind::PanicReported, 0, 0);
                self.last_words = self.last_words.hear(PanicSignal::Panicked, clock_offs)
            }
            DeviceEffect::PanicRecorded => {
                self.record(HistoryKind::PanicReported, 1, 0);
                self.last_words = self.last_words.hear(PanicSignal::Recorded, clock_offs)
            }
            DeviceEffect::Panicked(PanicKind::CrashKernel) => {
                self.last_words = PanicGrace::CrashKernel { clock_offs };
                self.record(HistoryKind::CrashKernelStarted, 0, 0);
                self.tell("crash_kernel", "");
            }
            // The line takes no more at the moment.
            DeviceEffect::ConsoleFull => self.park(ParkReason::Console),
            // Output is fetched after every stay. A guest that shuts down in order ends by itself.
            DeviceEffect::None
            | DeviceEffect::Console
            | DeviceEffect::TestLine
            | DeviceEffect::Panicked(PanicKind::Shutdown) => {}
            DeviceEffect::BusWork => self.serve_bus(host),
            DeviceEffect::TestPassed => self.tell("pass", ""),
            DeviceEffect::TestFailed(code) => self.tell("fail", &format!("{code:#x}")),
            DeviceEffect::ExitCode(code) => {
                return self.end(host, GuestEnd::Stop("debug exit", u64::from(code)));
            }
            DeviceEffect::PowerOff => return self.end(host, POWER_OFF),
            DeviceEffect::Reset => return self.end(host, GuestEnd::Reset),
        }
        StepOutcome::Again
    }

    /// Ends a line that the guest will not finish any more.
    pub(super) fn end_console_line(&mut self, host: &Host) {
        self.has_shown_line &= self.has_line(host);
        if self.has_shown_line {
            output::print(b"\r\n");
            self.has_shown_line = false;
            self.lines.iter_mut().for_each(LineSplitter::clear);
        }
        if let Some(lines) = &mut self.lines
            && !lines.unfinished().is_empty()
        {
            output::print_line(self.shared.name(), lines.unfinished());
            lines.clear();
        }
    }

    fn has_keys(&self, host: &Host) -> bool {
        host.keys_to.get() == self.id
    }

    fn tell(&self, kind: &str, text: &str) {
        report(&ConsoleEvent::Guest {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            kind,
            text,
        });
    }

    /// Prints what the guest has written to its console, and reports a test kernel's lines.
    ///
    /// With several partitions only whole lines are printed. Returns whether the guest has written
    /// anything.
    pub(super) fn drain_console(&mut self, host: &Host) -> bool {
        let (mut bytes, mut any) = ([0; hex::OUTPUT], false);
        // Output stays in the device while the line's queue, or a program that reads it, has no
        // room.
        while output::guest_room() >= self.longest_print() && !self.is_held_up() {
            let len = self.machine.platform.console_output().take(&mut bytes);
            if len == 0 {
                break;
            }
            any = true;
            self.look_at_mode(host);
            self.tell_programs(&bytes[..len]);
            match &mut self.lines {
                None => output::print(&bytes[..len]),
                Some(lines) if self.has_shown_line => {
                    output::print(&bytes[..len]);
                    // Only the unfinished line is kept, for the time after the raw line.
                    lines.take(&bytes[..len], |_| {});
                }
                Some(lines) => {
                    lines.take(&bytes[..len], |line| output::print_line(self.shared.name(), line))
                }
            }
        }
        if any {
            self.machine.platform.console_taken();
        }
        while let Some(line) = self.machine.platform.test_port().take_line() {
            self.tell("log", &line);
        }
        any
    }

    /// Returns how much [`Self::drain_console`] prints at most in one go: with names, every byte
    /// may be a line.
    const fn longest_print(&self) -> usize {
        if self.lines.is_some() { 256 * TAG + LONGEST_LINE } else { 256 }
    }

    /// Returns whether programs that read the console have not taken its earlier output. The rest
    /// waits in the UART.
    fn is_held_up(&self) -> bool {
        self.is_to_programs() && !output::has_event_room()
    }

    fn is_to_programs(&self) -> bool {
        self.shared.config.console == ConsoleRoute::Programs
    }

    fn tell_programs(&self, bytes: &[u8]) {
        if self.is_to_programs() {
            report(&ConsoleEvent::Output {
                partition: self.shared.name(),
                bytes: &hex::encode(bytes),
            });
        }
    }

    /// Returns whether this partition has the raw serial line.
    fn has_line(&self, host: &Host) -> bool {
        self.lines.is_some() && output::is_raw() && self.has_keys(host)
    }

    /// Leaves the serial line to the other partitions, at this partition's end.
    pub(super) fn give_line_back(&mut self, host: &Host) {
        if self.has_line(host) {
            output::leave_raw();
        }
    }

    /// Shows the unfinished line, for example a prompt, when the partition gets the raw serial
    /// line.
    fn look_at_mode(&mut self, host: &Host) {
        let has_line = self.has_line(host);
        if has_line
            && !self.has_shown_line
            && let Some(lines) = &self.lines
        {
            output::print(lines.unfinished());
        }
        self.has_shown_line = has_line;
    }

    /// Shows the guest's unfinished line, for example a prompt, if this partition has the keys.
    fn show_prompt(&mut self, host: &Host) {
        self.look_at_mode(host);
        if let Some(lines) = &self.lines
            && !lines.unfinished().is_empty()
            && self.has_keys(host)
        {
            output::show_unfinished(self.shared.name(), lines.unfinished());
        }
    }
}
