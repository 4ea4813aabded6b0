//! The guest runs: what it waits for, what its devices want, what ends its stay.

use super::{Backing, Host, LOOK_NS, Next, PROMISE_NS, Parked, Residence, Runner, State, WaitFor};
use crate::arch::percpu::CpuId;
use crate::arch::{instr, time};
use crate::console::event::Event;
use crate::console::output;
use crate::node::{Node, report};
use crate::partition::crash::Reason;
use crate::partition::devices::clock::Tsc;
use crate::partition::devices::{Effect, PanicKind};
use crate::partition::ending::End;
use crate::partition::machine::Stop;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

/// How long a guest that said it panicked may go on, to store its log.
const LAST_WORDS_NS: u64 = 100_000_000;

impl Runner {
    pub(super) fn run(&mut self, node: &'static Node, host: &Host<'_>, until: u64) -> Next {
        let now = time::now_ns();
        if self.last_words.is_some_and(|deadline| now >= deadline) {
            return self.crash(node, Reason::Panic);
        }
        if let Some((on, deadline)) = self.still_parked() {
            return Next::Wait(on, deadline);
        }
        let Some(object) = self.object.clone() else { return Next::Again };
        self.announce_entry();
        let slice_end = Tsc(time::tsc_at(until));
        self.move_in(host);
        let stop = self.machine.run(node, host.cpu, &object, &self.shared, slice_end);
        let wrote = self.drain_console();
        if !wrote || stop == Stop::Halted {
            self.show_prompt(node);
        }
        self.stopped(node, stop)
    }

    /// Returns until when the guest has nothing to do, if it waits for something that has not come yet.
    fn still_parked(&mut self) -> Option<(WaitFor, Option<u64>)> {
        match (&self.state, &self.object) {
            (State::Running(Parked::Page(ticket)), Some(object)) if !object.ready(*ticket) => {
                Some((WaitFor::Page(object.clone(), *ticket), self.next_duty()))
            }
            (State::Running(Parked::Halted), _) => {
                let typed = self.shared.take_typed();
                self.machine.platform.console_input(&typed);
                let is_asleep = !self.machine.is_awake(Tsc(instr::rdtsc()));
                let timer = self.machine.platform.next_deadline().map(|deadline| time::ns_at(deadline.0));
                is_asleep.then(|| (WaitFor::Own, [timer, self.next_duty()].into_iter().flatten().min()))
            }
            _ => None,
        }
    }

    /// Returns when the runner has to be stepped whatever the guest waits for.
    fn next_duty(&self) -> Option<u64> {
        // Memory that waits for its store cannot give a frame, so that its own faults could wait for ever.
        let store = (self.backing == Backing::Awaited).then(|| time::now_ns().saturating_add(LOOK_NS));
        [self.last_words, self.promise_ends, store].into_iter().flatten().min()
    }

    fn announce_entry(&mut self) {
        if !self.entered {
            self.entered = true;
            self.promise_ends = self.promise_ends.map(|_| time::now_ns().saturating_add(PROMISE_NS));
            let (partition, incarnation) = (self.shared.name(), self.incarnation);
            report(&Event::Entered { partition, incarnation, tsc: instr::rdtsc() });
        }
    }

    /// Makes vCPU and FPU state resident on the CPU, where they stay until another vCPU takes it.
    fn move_in(&mut self, host: &Host<'_>) {
        match self.residence {
            Residence::Memory => {
                self.machine.vcpu.load(host.enabled);
                self.fpu.load();
                self.residence = Residence::Cpu(host.cpu);
            }
            Residence::Cpu(cpu) => assert!(cpu == host.cpu, "a vCPU leaves its CPU before it goes to another"),
        }
    }

    /// Brings vCPU and FPU state from the CPU, on which this runs, to memory: any CPU can take them from there.
    pub fn move_out(&mut self, host: &Host<'_>) {
        if let Residence::Cpu(cpu) = self.residence {
            assert!(cpu == host.cpu, "a vCPU is taken from its CPU by that CPU");
            self.fpu.save();
            self.machine.vcpu.unload();
            self.residence = Residence::Memory;
        }
    }

    /// Returns the CPU that holds the vCPU's state.
    pub fn resident(&self) -> Option<CpuId> {
        match self.residence {
            Residence::Cpu(cpu) => Some(cpu),
            Residence::Memory => None,
        }
    }

    /// Deals with what ended the guest's stay.
    fn stopped(&mut self, node: &'static Node, stop: Stop) -> Next {
        self.state = State::Running(Parked::No);
        match stop {
            Stop::Slice | Stop::Asked => {}
            Stop::Page(ticket) => self.state = State::Running(Parked::Page(ticket)),
            Stop::Halted if self.machine.can_wake() => self.state = State::Running(Parked::Halted),
            Stop::Halted => return self.end(node, End::Stop("halted for good", 0)),
            Stop::Crash(reason) => return self.end(node, End::Crash(reason)),
            Stop::Device(effect) => return self.device(node, effect),
        }
        Next::Again
    }

    fn device(&mut self, node: &'static Node, effect: Effect) -> Next {
        match effect {
            Effect::Panicked(PanicKind::Panicked) => {
                self.last_words.get_or_insert(time::now_ns().saturating_add(LAST_WORDS_NS));
            }
            // Output is fetched after every stay. A kernel that was loaded for the crash takes over; or it goes down in order.
            Effect::None | Effect::Console | Effect::TestLine | Effect::Panicked(_) => {}
            Effect::TestPassed => self.tell("pass", ""),
            Effect::TestFailed(code) => self.tell("fail", &format!("{code:#x}")),
            Effect::PanicRecorded => return self.end(node, End::Crash(Reason::PanicRecord)),
            Effect::ExitCode(code) => return self.end(node, End::Stop("debug exit", u64::from(code))),
            Effect::PowerOff => return self.end(node, End::Stop("power off", 0)),
            Effect::Reset => return self.end(node, End::Reset),
        }
        Next::Again
    }

    /// Ends a line that the guest will not finish any more.
    pub(super) fn end_console_line(&mut self) {
        if let Some(lines) = &mut self.lines
            && !lines.unfinished().is_empty()
        {
            output::print_line(self.shared.name(), lines.unfinished());
            lines.clear();
        }
    }

    fn has_keys(&self, node: &Node) -> bool {
        node.partitions.get(node.console.load(Relaxed)).is_some_and(|chosen| Arc::ptr_eq(chosen, &self.shared))
    }

    fn tell(&self, kind: &str, text: &str) {
        report(&Event::Guest { partition: self.shared.name(), incarnation: self.incarnation, kind, text });
    }

    /// Prints what the guest has written to its console, and reports a test kernel's lines.
    ///
    /// With several partitions only whole lines are printed. Returns whether the guest has written anything.
    pub(super) fn drain_console(&mut self) -> bool {
        let (mut bytes, mut any) = ([0; 256], false);
        loop {
            let len = self.machine.platform.console_output().take(&mut bytes);
            if len == 0 {
                break;
            }
            any = true;
            match &mut self.lines {
                None => output::print(&bytes[..len]),
                Some(lines) => lines.take(&bytes[..len], |line| output::print_line(self.shared.name(), line)),
            }
        }
        while let Some(line) = self.machine.platform.test_port().take_line() {
            self.tell("log", &line);
        }
        any
    }

    /// Shows a line that the guest leaves unfinished, a prompt say, if this partition has the keys.
    fn show_prompt(&self, node: &Node) {
        if let Some(lines) = &self.lines
            && !lines.unfinished().is_empty()
            && self.has_keys(node)
        {
            output::show_unfinished(self.shared.name(), lines.unfinished());
        }
    }
}
