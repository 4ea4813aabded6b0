//! Pending output for the two serial lines: text for people, events for programs.
//!
//! Any CPU may print or report at any time, holding any lock below rank `EVENTS`; bytes move when
//! [`pump`] is called. Nothing here waits.

use super::event::{self, ConsoleEvent, MAX_LINE};
use super::held::HeldLines;
use super::ring::ByteRing;
use super::tagged::{self, TaggedScreen};
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use arrayvec::ArrayString;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Bytes kept of each line's output while the line accepts none.
const ROOM: usize = 64 << 10;

struct Outputs {
    screen: TaggedScreen,
    held: HeldLines,
    people: ByteRing<ROOM>,
    events: ByteRing<ROOM>,
}

static OUTPUTS: RankedLock<Outputs, { rank::EVENTS }> = RankedLock::new(Outputs {
    screen: TaggedScreen::new(),
    held: HeldLines::new(),
    people: ByteRing::new(),
    events: ByteRing::new(),
});

/// Whether the monitor has the keys; changed with `OUTPUTS` locked.
static IS_MONITOR: AtomicBool = AtomicBool::new(false);
/// Whether the partition with the keys has the first line in raw mode; changed with `OUTPUTS`
/// locked.
static IS_RAW: AtomicBool = AtomicBool::new(false);

/// Reports an event on the second line, with the time `t_ns` since the start.
pub fn report(event: &ConsoleEvent<'_>, t_ns: Ns) {
    let mut line = [0; MAX_LINE];
    let Some(len) = event::encode(event, t_ns.as_u64(), &mut line) else { return };
    let outputs = &mut *OUTPUTS.lock();
    let lost = outputs.events.take_dropped();
    if lost > 0 {
        let mut note = [0; 64];
        if let Some(len) =
            event::encode(&ConsoleEvent::Lost { lines: lost }, t_ns.as_u64(), &mut note)
        {
            outputs.events.push(&note[..len]);
        }
    }
    outputs.events.push(&line[..len]);
}

/// Bytes that guests' output leaves free for the monitor and messages.
const RESERVED: usize = 8 << 10;

/// Returns how many bytes of guests' output fit now.
pub fn guest_room() -> usize {
    OUTPUTS.lock().people.room().saturating_sub(RESERVED)
}

/// Returns whether the second line has room for a few more events of maximum length.
pub fn has_event_room() -> bool {
    OUTPUTS.lock().events.room() > 4 * MAX_LINE
}

/// Prints bytes on the first line unchanged.
pub fn print(bytes: &[u8]) {
    #[cfg(test)]
    super::fake::note_printed(bytes);
    OUTPUTS.lock().people.push(bytes);
}

/// Prints a whole line of a partition with its name before it, or holds it back while another
/// partition has the line in raw mode.
pub fn print_line(partition: &str, text: &[u8]) {
    #[cfg(test)]
    super::fake::note_printed(&tagged::whole_line(partition, text));
    let Outputs { screen, held, people, .. } = &mut *OUTPUTS.lock();
    if is_raw() {
        return held.push(&tagged::whole_line(partition, text));
    }
    screen.line(partition, text, |bytes| {
        people.push(bytes);
    });
}

/// Directs the keys to the monitor, whose line shows `text`. The line is shown again after each
/// line of a partition.
pub fn enter_monitor(text: &[u8]) {
    OUTPUTS.lock().screen.set_open(text);
    IS_MONITOR.store(true, Ordering::Relaxed);
}

/// Directs the keys to a partition again.
pub fn leave_monitor() {
    OUTPUTS.lock().screen.set_open(&[]);
    IS_MONITOR.store(false, Ordering::Relaxed);
}

/// Returns whether the partition with the keys has the first line in raw mode.
pub fn is_raw() -> bool {
    IS_RAW.load(Ordering::Relaxed)
}

/// Gives the first line in raw mode to the partition with the keys.
pub fn enter_raw() {
    let _outputs = OUTPUTS.lock();
    IS_RAW.store(true, Ordering::Relaxed);
}

/// Ends raw mode, and shows the lines that were held back.
pub fn leave_raw() {
    let Outputs { held, people, .. } = &mut *OUTPUTS.lock();
    if !IS_RAW.swap(false, Ordering::Relaxed) {
        return;
    }
    // Resets the attributes: the interrupted program may have set some.
    people.push(b"\x1b[m\r\n");
    let lost = held.take(|bytes| {
        people.push(bytes);
    });
    if lost > 0 {
        people.push(
            formatted(format_args!("[{lost} lines of other partitions were lost]\n")).as_bytes(),
        );
    }
}

/// Shows an unfinished line of the partition that has the keys.
pub fn show_unfinished(partition: &str, text: &[u8]) {
    let Outputs { screen, people, .. } = &mut *OUTPUTS.lock();
    if is_raw() || IS_MONITOR.load(Ordering::Relaxed) {
        return;
    }
    screen.show(partition, text, |bytes| {
        people.push(bytes);
    });
}

/// Announces that the keys go elsewhere: ends an unfinished line and prints formatted text, with no
/// other output in between. Any line that is unfinished later appears after the text.
pub fn print_switch(args: fmt::Arguments<'_>) {
    let text = formatted(args);
    let Outputs { screen, people, .. } = &mut *OUTPUTS.lock();
    screen.leave(|bytes| {
        people.push(bytes);
    });
    people.push(text.as_bytes());
}

/// Prints formatted text on the first line, with `\r\n` for `\n`.
pub fn print_text(args: fmt::Arguments<'_>) {
    print(formatted(args).as_bytes());
}

fn formatted(args: fmt::Arguments<'_>) -> ArrayString<1024> {
    let mut text = ArrayString::new();
    // Longer text is cut: this is meant for lines.
    let _ = write!(CrLf(&mut text), "{args}");
    text
}

struct CrLf<'a>(&'a mut ArrayString<1024>);

impl Write for CrLf<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.chars().try_for_each(|c| {
            if c == '\n' { self.0.write_str("\r\n") } else { self.0.write_char(c) }
        })
    }
}

/// Where bytes are written and read: the serial lines, or a test.
pub trait ConsoleLines {
    /// Writes the bytes that the line accepts at once; returns how many.
    fn write(&mut self, line: ConsoleLine, bytes: &[u8]) -> usize;
    /// Reads a byte that has arrived.
    fn read(&mut self, line: ConsoleLine) -> Option<u8>;
    /// Returns whether the partition's console has room for a key; otherwise the key stays on the
    /// line.
    fn takes_keys(&mut self) -> bool {
        true
    }
}

/// One of the two lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleLine {
    /// COM1.
    People,
    /// COM2.
    Programs,
}

/// Writes what the lines accept, at most `budget` bytes each; returns whether output is still
/// pending.
pub fn pump(lines: &mut impl ConsoleLines, budget: usize) -> bool {
    let mut waiting = false;
    for which in [ConsoleLine::People, ConsoleLine::Programs] {
        waiting |= pump_one(lines, which, budget);
    }
    waiting
}

fn pump_one(lines: &mut impl ConsoleLines, which: ConsoleLine, budget: usize) -> bool {
    let mut left = budget;
    while left > 0 {
        // The lock is held only to copy: a slow line must not delay a CPU that reports.
        let mut piece = arrayvec::ArrayVec::<u8, 16>::new();
        {
            let outputs = &mut *OUTPUTS.lock();
            let ring = if which == ConsoleLine::People {
                &mut outputs.people
            } else {
                &mut outputs.events
            };
            ring.peek_into(&mut piece);
        }
        if piece.is_empty() {
            return false;
        }
        let taken = lines.write(which, &piece);
        let outputs = &mut *OUTPUTS.lock();
        let ring =
            if which == ConsoleLine::People { &mut outputs.people } else { &mut outputs.events };
        ring.discard(taken);
        if taken < piece.len() {
            return true;
        }
        left = left.saturating_sub(taken);
    }
    true
}
