//! What the hypervisor does between guests: a bounded turn of everything that is not a vCPU.

use super::Node;
use super::commands;
use crate::arch::percpu::CpuId;
use crate::arch::time;
use crate::console::input::{Input, Reader};
use crate::console::output::{self, Lines, Which};
use crate::log::serial::{self, Line};
use crate::sync::{Ranked, rank};

/// Bytes that a turn moves on each serial line.
const CONSOLE_BUDGET: usize = 256;
/// How often the serial lines' input is looked at by a CPU that idles.
pub const CONSOLE_INTERVAL_NS: u64 = 20_000_000;

static READER: Ranked<Reader, { rank::CONSOLE }> = Ranked::new(Reader::new());

/// The machine's serial lines.
struct Serial;

impl Lines for Serial {
    fn write(&mut self, line: Which, bytes: &[u8]) -> usize {
        serial::write(line_of(line), bytes)
    }
    fn read(&mut self, line: Which) -> Option<u8> {
        serial::read(line_of(line))
    }
}

const fn line_of(which: Which) -> Line {
    match which {
        Which::People => Line::People,
        Which::Programs => Line::Machine,
    }
}

/// Gives everything a turn; returns whether there is more to do at once.
pub fn turn(node: &'static Node, cpu: CpuId) -> bool {
    let work = node.pager.poll(cpu, time::now_ns());
    node.act_on(work);
    node.io.deliver(&node.pager);
    let tasks = node.tasks.poll();
    if tasks.ended {
        node.kick_others();
    }
    let (kicks, graves_busy) = node.graves.poll(&node.pager, node.words, &node.objects, cpu);
    node.kick(kicks);
    work.busy | tasks.busy | graves_busy | console(node)
}

/// Takes input, carries out commands, moves output.
fn console(node: &'static Node) -> bool {
    if let Some(mut reader) = READER.try_lock() {
        reader.poll(&mut Serial, CONSOLE_BUDGET, |input| match input {
            Input::Key(key) => {
                if let Some(shared) = node.partitions.first() {
                    shared.type_byte(key);
                    node.kick_others();
                }
            }
            Input::Text(line) => commands::text(node, line),
            Input::Json(line) => commands::json(node, line),
            Input::TooLong => commands::too_long(),
        });
        return output::pump(&mut Serial, CONSOLE_BUDGET);
    }
    false
}

/// Moves out what is still waiting, before the machine stops.
pub fn drain_output() {
    // Kept for good: the other CPUs would print the same bytes again.
    core::mem::forget(READER.lock());
    // Bounded: a line that nobody reads takes nothing, and then each turn is one.
    for _ in 0..10_000 {
        if !output::pump(&mut Serial, CONSOLE_BUDGET) {
            break;
        }
    }
    serial::drain();
}
