//! What waits for the two serial lines: text for people, events for programs.
//!
//! Anybody may print or report at any time, from any CPU, holding any lock below rank `EVENTS`; bytes move when
//! [`pump`] is called. Nothing here waits.

use super::event::{self, Event, MAX_LINE};
use super::ring::Ring;
use super::tagged::Screen;
use crate::sync::{Ranked, rank};
use arrayvec::ArrayString;
use core::fmt::{self, Write};

/// Bytes kept of each line's output while nobody takes it.
const ROOM: usize = 64 << 10;

struct Outputs {
    screen: Screen,
    people: Ring<ROOM>,
    events: Ring<ROOM>,
}

static OUTPUTS: Ranked<Outputs, { rank::EVENTS }> =
    Ranked::new(Outputs { screen: Screen::new(), people: Ring::new(), events: Ring::new() });

/// Reports an event on the second line, with the time `t_ns` since the start.
pub fn report(event: &Event<'_>, t_ns: u64) {
    let mut line = [0; MAX_LINE];
    let Some(len) = event::encode(event, t_ns, &mut line) else { return };
    let outputs = &mut *OUTPUTS.lock();
    let lost = outputs.events.take_dropped();
    if lost > 0 {
        let mut note = [0; 64];
        if let Some(len) = event::encode(&Event::Lost { lines: lost }, t_ns, &mut note) {
            outputs.events.push(&note[..len]);
        }
    }
    outputs.events.push(&line[..len]);
}

/// Prints bytes on the first line as they are.
pub fn print(bytes: &[u8]) {
    OUTPUTS.lock().people.push(bytes);
}

/// Prints a whole line of a partition behind its name.
pub fn print_line(partition: &str, text: &[u8]) {
    let Outputs { screen, people, .. } = &mut *OUTPUTS.lock();
    screen.line(partition, text, |bytes| {
        people.push(bytes);
    });
}

/// Shows an unfinished line of the partition that has the keys.
pub fn show_unfinished(partition: &str, text: &[u8]) {
    let Outputs { screen, people, .. } = &mut *OUTPUTS.lock();
    screen.show(partition, text, |bytes| {
        people.push(bytes);
    });
}

/// Says that the keys go elsewhere now: ends an unfinished line and prints formatted text, with nobody's output in between, so that
/// whatever stands unfinished afterwards stands behind it.
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
    // Longer text is cut: this is for lines.
    let _ = write!(CrLf(&mut text), "{args}");
    text
}

struct CrLf<'a>(&'a mut ArrayString<1024>);

impl Write for CrLf<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.chars().try_for_each(|c| if c == '\n' { self.0.write_str("\r\n") } else { self.0.write_char(c) })
    }
}

/// Where bytes go and come from: the serial lines, or a test.
pub trait Lines {
    /// Writes what the line takes at once; returns how many bytes that was.
    fn write(&mut self, line: Which, bytes: &[u8]) -> usize;
    /// Reads a byte that has arrived.
    fn read(&mut self, line: Which) -> Option<u8>;
}

/// One of the two lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// COM1.
    People,
    /// COM2.
    Programs,
}

/// Moves what the lines take, at most `budget` bytes each; returns whether anything is still waiting.
pub fn pump(lines: &mut impl Lines, budget: usize) -> bool {
    let mut waiting = false;
    for which in [Which::People, Which::Programs] {
        waiting |= pump_one(lines, which, budget);
    }
    waiting
}

fn pump_one(lines: &mut impl Lines, which: Which, budget: usize) -> bool {
    let mut left = budget;
    while left > 0 {
        // The ring is only held to copy: a slow line must not hold up whoever reports.
        let mut piece = arrayvec::ArrayVec::<u8, 16>::new();
        {
            let outputs = &mut *OUTPUTS.lock();
            let ring = if which == Which::People { &mut outputs.people } else { &mut outputs.events };
            ring.peek_into(&mut piece);
        }
        if piece.is_empty() {
            return false;
        }
        let taken = lines.write(which, &piece);
        let outputs = &mut *OUTPUTS.lock();
        let ring = if which == Which::People { &mut outputs.people } else { &mut outputs.events };
        ring.discard(taken);
        if taken < piece.len() {
            return true;
        }
        left = left.saturating_sub(taken);
    }
    true
}
