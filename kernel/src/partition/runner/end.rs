//! The end of an incarnation: a crash with its dump and the restart gate, a reset, or a stop for good.

use super::{Backing, Next, PROMISE_NS, Runner, State, Then};
use crate::addr::PageIndex;
use crate::arch::{instr, time};
use crate::config::{DumpPolicy, Restart};
use crate::console::event::Event;
use crate::dump::gate::Gate;
use crate::mm::object::MemoryObject;
use crate::node::{Node, dumps, report};
use crate::partition::crash::{CrashRecord, Reason};
use crate::partition::ending::{End, true_end};
use crate::partition::shared::Phase;

impl Runner {
    /// Carries out an end that the guest has brought about itself.
    pub(super) fn end(&mut self, node: &'static Node, end: End) -> Next {
        match true_end(end, self.said()) {
            End::Crash(reason) => self.crash(node, reason),
            End::Stop(how, code) => self.stop(node, how, code),
            End::Reset => {
                let (partition, incarnation) = (self.shared.name(), self.incarnation);
                report(&Event::Stopped { partition, incarnation, how: "reset", code: 0 });
                self.retire(node, Then::Begin)
            }
        }
    }

    /// The partition crashes: its memory becomes a dump image at once, and the drain and the restart gate begin.
    pub(super) fn crash(&mut self, node: &'static Node, reason: Reason) -> Next {
        let at_ns = time::now_ns();
        let Some(object) = self.object.take() else { return self.stop(node, "crashed without memory", 0) };
        self.shared.publish_phase(Phase::Crashed);
        self.announce_crash(&object, reason);
        self.drain_console();
        self.end_console_line();
        match (self.shared.config.dump, self.space) {
            (DumpPolicy::Aided, Some(space)) => {
                let config = &self.shared.config;
                let gate = Gate::new(config.restart, config.memory_bytes, config.boot_memory_bytes);
                let (regs, state) = (*self.machine.vcpu.regs(), self.machine.vcpu.state());
                let record = CrashRecord { reason, incarnation: self.incarnation, at_ns, regs, state };
                let given_before = node.pager.counters().freed_from_live;
                // What the last crash has left over is not this one's.
                self.end_promise(node);
                if self.shared.config.restart != Restart::Never {
                    node.pager.promise(object.id(), u32::try_from(gate.boot_pages()).unwrap_or(u32::MAX));
                }
                let job = dumps::begin(node, self.shared.name(), record, object, space, self.note_page());
                (self.space, self.backing) = (None, Backing::Settled);
                self.state = State::Crashed { gate, job, at_ns, given_before };
                self.check_gate(node)
            }
            _ => {
                self.object = Some(object);
                match self.shared.config.restart {
                    Restart::Never => self.stop(node, "crashed", 0),
                    Restart::Threshold | Restart::Immediate => self.retire(node, Then::Begin),
                }
            }
        }
    }

    fn announce_crash(&self, object: &MemoryObject, reason: Reason) {
        let counts = object.counts();
        report(&Event::Crash {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            reason: reason.as_str(),
            detail: reason.detail(),
            rip: self.machine.vcpu.regs().rip,
            resident: u64::from(counts.resident + counts.going_out),
            paged: u64::from(counts.paged + counts.coming_in),
            zero: u64::from(counts.zero + counts.untouched + counts.loaned),
            tsc: instr::rdtsc(),
        });
    }

    /// Returns the page in which the guest says its VMCOREINFO note is.
    fn note_page(&self) -> Option<PageIndex> {
        let note = self.machine.platform.vmcoreinfo()?;
        self.layout.index_of(note.gpa.number())
    }

    pub(super) fn check_gate(&mut self, node: &'static Node) -> Next {
        let State::Crashed { gate, job, at_ns, given_before } = &self.state else { return Next::Again };
        let (freed, remaining, ended) = job.read();
        let Some(opened) = gate.check(freed, ended) else {
            // A gate that an ended drain does not open stays closed for good.
            return if ended { self.stop(node, "crashed", 0) } else { Next::look_again() };
        };
        report(&Event::Restart {
            partition: self.shared.name(),
            incarnation: self.incarnation + 1,
            gate: opened.as_str(),
            drain_remaining: remaining,
            freed_from_image: freed,
            freed_from_neighbours: node.pager.counters().freed_from_live.saturating_sub(*given_before),
            reserved: u64::from(node.pager.reserved(self.index)),
            boot_memory: gate.boot_pages(),
            since_crash_ns: time::now_ns().saturating_sub(*at_ns),
        });
        self.promise_ends = Some(time::now_ns().saturating_add(PROMISE_NS));
        self.state = State::NeedsSpace { told: false };
        self.find_space(node)
    }

    /// Has the memory taken apart; the space stays the partition's until that is over.
    fn retire(&mut self, node: &'static Node, then: Then) -> Next {
        match self.object.take() {
            Some(object) => self.state = State::Retiring { gone: node.graves.bury(object), then },
            // What is buried already only gets another end.
            None => match &mut self.state {
                State::Retiring { then: planned, .. } => *planned = then,
                _ => return self.retired(node, then),
            },
        }
        Next::Again
    }

    /// Goes on when no memory is left, and no I/O to the space.
    pub(super) fn retired(&mut self, node: &'static Node, then: Then) -> Next {
        match (then, self.space) {
            (Then::Begin, Some(space)) => {
                node.spaces.renew(space, self.shared.name(), &self.layout, self.incarnation + 1);
                self.state = State::Activating;
            }
            (Then::Begin, None) => return self.begin(node),
            (Then::Stop, _) => {
                if let Some(space) = self.space.take() {
                    node.spaces.release(space);
                }
                self.state = State::Stopped;
                // Last: when all have stopped and nothing is under way, the machine stops.
                self.shared.publish_phase(Phase::Stopped);
            }
        }
        Next::Again
    }

    /// Ends the partition for good.
    pub(super) fn stop(&mut self, node: &'static Node, how: &str, code: u64) -> Next {
        self.end_promise(node);
        report(&Event::Stopped { partition: self.shared.name(), incarnation: self.incarnation, how, code });
        self.retire(node, Then::Stop)
    }
}
