//! The screen as a person sees it: the serial line's output, with our notices between its lines.
//!
//! ```text
//!   output at the start of a line   notices at once
//!   within a line, still growing    notices behind its end
//!   within a line, quiet (prompt)   line ended, notices, the line shown again
//!   a program's full screen         notices when the program leaves it, or ends with its partition
//! ```

use super::tracker::OutputTracker;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

/// Time without output after which an unfinished line is taken for a prompt.
const QUIET: Duration = Duration::from_millis(500);
/// Maximum number of waiting notices; later ones are only counted.
const WAITING: usize = 256;
/// Ends a program's full screen: attributes off, first screen, visible cursor.
const LEAVE: &[u8] = b"\x1b[m\x1b[?1049l\x1b[?25h";

/// When waiting notices can be shown next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// No notice waits, or only further output can make room for one.
    NotBefore,
    /// Now.
    Now,
    /// At this time, unless output comes first.
    At(Instant),
}

/// How line ends reach the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LineEnds {
    /// Line ends unchanged.
    #[default]
    Unchanged,
    /// The terminal does not return the carriage at a line feed, so a carriage return is put in
    /// front of each lone one.
    Return,
}

/// Writes output and notices.
pub struct ScreenPainter<W> {
    out: W,
    tracker: OutputTracker,
    waiting: VecDeque<String>,
    pub(super) left_out: u64,
    last: u8,
    heard_at: Option<Instant>,
    pub(super) line_ends: LineEnds,
}

impl<W: Write> ScreenPainter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out,
            tracker: OutputTracker::default(),
            waiting: VecDeque::new(),
            left_out: 0,
            last: 0,
            heard_at: None,
            line_ends: LineEnds::Unchanged,
        }
    }

    /// Shows output that came at `now`; waiting notices are shown at the first end of a line.
    pub fn output(&mut self, bytes: &[u8], now: Instant) {
        self.heard_at = Some(now);
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.copy(line);
            if !self.waiting.is_empty() && self.is_open() {
                self.show_waiting();
            }
        }
        self.flush();
    }

    /// Queues a notice.
    pub fn notice(&mut self, text: String) {
        if self.waiting.len() < WAITING {
            self.waiting.push_back(text);
        } else {
            self.left_out += 1;
        }
    }

    /// Leaves the full screen: the partition on the screen has ended, and with it the program that
    /// used it.
    pub fn leave_full_screen(&mut self) {
        if self.tracker.is_full_screen() {
            self.put(LEAVE);
            self.tracker.leave_full_screen();
        }
    }

    /// Returns when waiting notices can be shown.
    pub fn due(&self, now: Instant) -> Due {
        let quiet_at = self.heard_at.map(|at| at + QUIET);
        match quiet_at {
            _ if self.waiting.is_empty() || self.tracker.is_full_screen() => Due::NotBefore,
            _ if self.is_open() => Due::Now,
            Some(at) if now < at => Due::At(at),
            _ if self.tracker.is_between() => Due::Now,
            _ => Due::NotBefore,
        }
    }

    /// Shows the waiting notices now, even within a line.
    pub fn show(&mut self) {
        if !self.waiting.is_empty() {
            let unfinished = self.tracker.unfinished().to_vec();
            self.end_line();
            self.show_waiting();
            unfinished.iter().for_each(|&byte| self.tracker.feed(byte));
            self.put(&unfinished);
        }
        self.flush();
    }

    /// Prepares the screen for the output after ours: shows all notices and ends at the start of a
    /// line.
    pub fn finish(&mut self) {
        self.leave_full_screen();
        self.end_line();
        self.show_waiting();
        self.flush();
    }

    fn is_open(&self) -> bool {
        self.tracker.is_at_start() && self.tracker.is_between() && !self.tracker.is_full_screen()
    }

    fn end_line(&mut self) {
        if !self.tracker.is_at_start() {
            self.put(b"\r\n");
            self.tracker.feed(b'\n');
        }
    }

    fn show_waiting(&mut self) {
        while let Some(text) = self.waiting.pop_front() {
            self.put(format!("tidepool: {text}\r\n").as_bytes());
        }
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            self.put(format!("tidepool: {left_out} more notices were left out\r\n").as_bytes());
        }
    }

    /// Copies output. A program with the full screen moves its cursor down by line feeds, so a
    /// carriage return must not be added there.
    fn copy(&mut self, bytes: &[u8]) {
        if self.line_ends == LineEnds::Unchanged {
            bytes.iter().for_each(|&byte| self.tracker.feed(byte));
            return self.put(bytes);
        }
        let mut text = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if byte == b'\n' && self.last != b'\r' && !self.tracker.is_full_screen() {
                text.push(b'\r');
            }
            text.push(byte);
            self.tracker.feed(byte);
            self.last = byte;
        }
        self.put(&text);
    }

    /// Writes bytes and ignores errors: a closed pipe or a lost terminal must not stop the machine.
    fn put(&mut self, bytes: &[u8]) {
        let _ = self.out.write_all(bytes);
    }

    fn flush(&mut self) {
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painter() -> ScreenPainter<Vec<u8>> {
        ScreenPainter::new(Vec::new())
    }

    fn text(painter: &ScreenPainter<Vec<u8>>) -> String {
        String::from_utf8(painter.out.clone()).unwrap()
    }

    #[test]
    fn a_notice_never_cuts_a_line_that_still_grows() {
        let (mut painter, now) = (painter(), Instant::now());
        painter.output(b"one\r\ntw", now);
        painter.notice("web crashed".into());
        assert_eq!(painter.due(now), Due::At(now + QUIET));
        painter.output(b"o\r\nthr", now);
        assert_eq!(text(&painter), "one\r\ntwo\r\ntidepool: web crashed\r\nthr");
        assert_eq!(painter.due(now + QUIET), Due::NotBefore);
    }

    #[test]
    fn a_prompt_is_shown_again_behind_a_notice() {
        let (mut painter, now) = (painter(), Instant::now());
        painter.output(b"# ls", now);
        painter.notice("db crashed".into());
        assert_eq!(painter.due(now + QUIET), Due::Now);
        painter.show();
        painter.output(b" -l\r\n", now);
        assert_eq!(text(&painter), "# ls\r\ntidepool: db crashed\r\n# ls -l\r\n");
    }

    #[test]
    fn notices_wait_for_a_program_to_leave_the_full_screen() {
        let (mut painter, now) = (painter(), Instant::now());
        painter.output(b"\x1b[?1049h~\r\n~\r\n", now);
        painter.notice("db crashed".into());
        assert_eq!(painter.due(now + 2 * QUIET), Due::NotBefore);
        painter.output(b"~\r\n", now);
        assert!(!text(&painter).contains("db crashed"));
        painter.output(b"\x1b[?1049l\r\n", now);
        assert!(
            text(&painter).ends_with("\x1b[?1049l\r\ntidepool: db crashed\r\n"),
            "{}",
            text(&painter)
        );
    }

    #[test]
    fn the_end_of_its_partition_ends_a_full_screen() {
        let (mut painter, now) = (painter(), Instant::now());
        painter.output(b"\x1b[?1049h~", now);
        painter.notice("web crashed".into());
        painter.leave_full_screen();
        assert_eq!(painter.due(now + QUIET), Due::Now);
    }

    #[test]
    fn a_lone_line_feed_returns_where_the_terminal_does_not_but_not_on_a_full_screen() {
        let mut painter = painter();
        painter.line_ends = LineEnds::Return;
        painter.output(b"a\nb\r", Instant::now());
        painter.output(b"\nc\x1b[?1049h\n", Instant::now());
        assert_eq!(text(&painter), "a\r\nb\r\nc\x1b[?1049h\n");
    }

    #[test]
    fn notices_beyond_the_bound_are_counted() {
        let mut painter = painter();
        painter.output(b"\x1b[?1049h", Instant::now());
        (0..WAITING + 3).for_each(|n| painter.notice(format!("{n}")));
        painter.finish();
        assert!(
            text(&painter).ends_with("tidepool: 255\r\ntidepool: 3 more notices were left out\r\n")
        );
    }
}
