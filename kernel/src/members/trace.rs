//! For tests: tells what the state machine was told, and what it answered, so that the same crate
//! can be driven by the same words on the host.
//!
//! `trace=cluster` on the hypervisor's command line switches it on. Each word is an event
//! `cluster_trace`:
//!
//! | step | numbers | data |
//! |---|---|---|
//! | `begin` | a random number, the last decree known before | incarnation |
//! | `wish` | | decree |
//! | `ask` | time; areas, resends; offset and bytes to write; offset and bytes to read; devices, free MiB, free spaces; end of the hurry | name, CRC32C of the bytes to write |
//! | `drain` | time | |
//! | `read` | area, offset in the area | a sector that is not all zeros |
//! | `done` | areas; times of submission, of the read, of completion | |
//! | `gave_up`, `leave` | | |
//! | `send` | time, slot, kind | text |
//! | `take` | | |
//! | `drained` | 1: tainted | |
//! | `noted` | last decree, end of the lease (0: none) | what the step has noted |
//!
//! The data of `noted` is text, all others are bytes, two hexadecimal digits each.

use super::side::AreaLane;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use cluster::beat::BeatDetails;
use cluster::crc::crc32c;
use cluster::decree::{DECREE, Decree};
use cluster::id::Incarnation;
use cluster::layout::Extent;
use cluster::node::{ClusterEvent, ClusterNode, NodeAsk};
use cluster::sector::{FieldWriter, SECTOR};
use cluster::watch::{Sighting, TurnTimes};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Switches the trace on.
pub fn switch_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

fn tell(step: &str, numbers: &[u64], data: &str) {
    report(&ConsoleEvent::ClusterTrace { step, numbers, data });
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A word without bytes.
pub(super) fn word(step: &str, numbers: &[u64]) {
    if is_on() {
        tell(step, numbers, "");
    }
}

/// An incarnation begins.
pub(super) fn begin(me: Incarnation, entropy: u64, expected: u64) {
    if is_on() {
        tell("begin", &[entropy, expected], &hex(&me.0.to_be_bytes()));
    }
}

/// A decree is wished for.
pub(super) fn wish(decree: &Decree) {
    if is_on() {
        let mut bytes = [0; DECREE];
        decree.write(&mut FieldWriter::new(&mut bytes));
        tell("wish", &[], &hex(&bytes));
    }
}

/// A message is sent.
pub(super) fn send(now: u64, slot: u16, kind: u16, text: &[u8]) {
    if is_on() {
        tell("send", &[now, slot.into(), kind.into()], &hex(text));
    }
}

/// The state machine was asked. Answers that change nothing in it are not told.
pub(super) fn asked((now, hurry): (u64, u64), details: &BeatDetails, ask: &NodeAsk, out: &[u8]) {
    if !is_on() {
        return;
    }
    match *ask {
        NodeAsk::Step { write, read, areas, resends } => {
            let place =
                |part: Option<Extent>| part.map_or([0, 0], |part| [part.at, part.len as u64]);
            let ([write_at, write_len], [read_at, read_len]) = (place(write), place(read));
            let BeatDetails { devices, free_mib, free_spaces, name } = details;
            let sum = crc32c(out.get(..write_len as usize).unwrap_or_default());
            let numbers = [
                now,
                areas.into(),
                resends.into(),
                write_at,
                write_len,
                read_at,
                read_len,
                *devices,
                (*free_mib).into(),
                (*free_spaces).into(),
                hurry,
            ];
            tell("ask", &numbers, &format!("{}{sum:08x}", hex(name)));
        }
        NodeAsk::Drain => tell("drain", &[now], ""),
        NodeAsk::Wait(_) | NodeAsk::Gone => {}
    }
}

/// A step is done: what it has read, and its times.
pub(super) fn done(lanes: &[AreaLane], areas: u8, read: Option<Extent>, times: &TurnTimes) {
    if !is_on() {
        return;
    }
    for lane in lanes.iter().filter(|lane| areas >> lane.area.number & 1 == 1) {
        let Some(part) = read else { break };
        let seen = lane.seen.get(..part.len).unwrap_or_default();
        let sectors = seen.chunks(SECTOR).enumerate();
        for (n, bytes) in sectors.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            let at = part.at + (n * SECTOR) as u64;
            tell("read", &[lane.area.number.into(), at], &hex(bytes));
        }
    }
    tell("done", &[areas.into(), times.asked_ns, times.read_ns, times.seen_ns], "");
}

/// What a step has noted.
pub(super) fn noted(node: &ClusterNode<Vec<Sighting>>, notes: &[ClusterEvent]) {
    if is_on() {
        let numbers = [node.state().number(), node.lease_end_ns().unwrap_or(0)];
        tell("noted", &numbers, &format!("{notes:?}"));
    }
}
