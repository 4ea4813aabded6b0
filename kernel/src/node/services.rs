//! The hypervisor's work between guests: a bounded turn of everything except vCPUs.

use super::Node;
use super::monitor::{commands, notices};
use crate::arch::percpu::CpuId;
use crate::arch::time;
use crate::console::input::{ConsoleInput, InputReader, KeyDestination};
use crate::console::output::{self, ConsoleLine, ConsoleLines};
use crate::log::serial::{self, SerialLine};
use crate::sync::{RankedLock, rank};
use crate::time::{AtomicNs, Ns};
use core::sync::atomic::Ordering::Relaxed;

/// Bytes that one turn moves on each serial line.
const CONSOLE_BUDGET: usize = 256;
/// How often an idle CPU polls the serial lines for input.
pub const CONSOLE_INTERVAL_NS: Ns = Ns::from_ms(20);
/// How long a CPU idles while a flush is awaited.
pub const FLUSH_INTERVAL_NS: Ns = Ns::from_us(20);
/// How long a line may accept nothing at the end; a full FIFO drains in 1.4 ms.
const LAST_PATIENCE_NS: Ns = Ns::from_ms(20);

/// How often the disks are asked for incidents.
const INCIDENTS_INTERVAL_NS: Ns = Ns::from_ms(5);

/// Time of the next such question.
static INCIDENTS_DUE_NS: AtomicNs = AtomicNs::new(Ns::ZERO);

static READER: RankedLock<InputReader, { rank::CONSOLE }> = RankedLock::new(InputReader::new());

/// The machine's serial lines.
struct SerialLines;

/// The same, with the partition that receives the keys.
struct Keyed(&'static Node);

impl ConsoleLines for Keyed {
    fn write(&mut self, line: ConsoleLine, bytes: &[u8]) -> usize {
        SerialLines.write(line, bytes)
    }
    fn read(&mut self, line: ConsoleLine) -> Option<u8> {
        SerialLines.read(line)
    }
    fn takes_keys(&mut self) -> bool {
        let chosen = self.0.partition(self.0.host.keys_to.get());
        chosen.is_none_or(|shared| shared.takes_keys(time::now_ns()))
    }
}

impl ConsoleLines for SerialLines {
    fn write(&mut self, line: ConsoleLine, bytes: &[u8]) -> usize {
        serial::write(line_of(line), bytes)
    }
    fn read(&mut self, line: ConsoleLine) -> Option<u8> {
        serial::read(line_of(line))
    }
}

const fn line_of(which: ConsoleLine) -> SerialLine {
    match which {
        ConsoleLine::People => SerialLine::People,
        ConsoleLine::Programs => SerialLine::Machine,
    }
}

/// How long a CPU may do other work, or idle, before the next turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleLimit {
    /// There is more to do at once.
    None,
    /// A flush is awaited, which completes in microseconds.
    Short,
    /// Until an interrupt, or until the next poll of the console.
    Long,
}

/// Runs one turn of everything; returns when the next one is due.
pub fn turn(node: &'static Node, cpu: CpuId) -> IdleLimit {
    let rest = background(node, cpu);
    if console(node) { IdleLimit::None } else { rest }
}

/// Runs one turn of everything except the console.
pub fn background(node: &'static Node, cpu: CpuId) -> IdleLimit {
    let now = time::now_ns();
    let work = node.host.pager.poll(cpu, now);
    node.host.act_on(work);
    if work.has_notices {
        notices::report_all(node);
    }
    if now >= INCIDENTS_DUE_NS.load(Relaxed) {
        INCIDENTS_DUE_NS.store(now + INCIDENTS_INTERVAL_NS, Relaxed);
        notices::report_disks(node);
    }
    node.host.io.deliver(|| node.host.pager.take_completion());
    node.host.spaces.beat(now);
    node.host.spaces.mend(now);
    let has_member_work = node.poll_members(now);
    let tasks = node.host.tasks.poll();
    if tasks.ended {
        node.host.wake();
    }
    let (kicks, reaper_busy) =
        node.host.reaper.poll(&node.host.pager, node.host.words, &node.host.objects, cpu);
    node.host.kick(kicks);
    if work.poll_again | tasks.busy | reaper_busy | has_member_work {
        return IdleLimit::None;
    }
    if work.awaits_flush { IdleLimit::Short } else { IdleLimit::Long }
}

/// Reads input, carries out commands, writes output.
fn console(node: &'static Node) -> bool {
    if let Some(mut reader) = READER.try_lock() {
        reader.poll(&mut Keyed(node), CONSOLE_BUDGET, |input| match input {
            ConsoleInput::Key(key) => {
                let chosen = node.host.keys_to.get();
                if let Some(shared) = node.partition(chosen) {
                    shared.type_byte(key);
                    node.host.poke(chosen);
                }
                KeyDestination::Stay
            }
            ConsoleInput::Text(line) => commands::text(node, line),
            ConsoleInput::Json(line) => commands::json(node, line),
            ConsoleInput::TooLong => {
                commands::too_long();
                KeyDestination::Stay
            }
        });
        if reader.take_switched() {
            node.host.poke(node.host.keys_to.get());
        }
        return output::pump(&mut SerialLines, CONSOLE_BUDGET);
    }
    false
}

/// Writes the pending output before the machine stops, for as long as the line accepts bytes.
pub fn drain_output() {
    // The lock is never released: the other CPUs would print the same bytes again.
    core::mem::forget(READER.lock());
    let mut lines = Watched { deadline: time::now_ns() + LAST_PATIENCE_NS };
    while output::pump(&mut lines, CONSOLE_BUDGET) && time::now_ns() < lines.deadline {}
    serial::drain();
}

/// The serial lines, and the deadline for the next accepted byte.
struct Watched {
    deadline: Ns,
}

impl ConsoleLines for Watched {
    fn write(&mut self, line: ConsoleLine, bytes: &[u8]) -> usize {
        let taken = SerialLines.write(line, bytes);
        if taken > 0 {
            self.deadline = time::now_ns() + LAST_PATIENCE_NS;
        }
        taken
    }
    fn read(&mut self, line: ConsoleLine) -> Option<u8> {
        SerialLines.read(line)
    }
}
