//! Several partitions' consoles on one line: whole lines, each with its partition's name before it.
//!
//! ```text
//!   web: "Deb" "ian 12\r\n" ──> "[web] Debian 12"
//!   db:  "ready\n"          ──> "[db] ready"
//!   web: "login: "          ──> shown unfinished when web pauses, if web has the keys; a line of another partition
//!                               ends it, and it is shown again after that line
//! ```
//!
//! [`LineSplitter`] belongs to a partition and cuts its output into lines. [`TaggedScreen`] belongs
//! to the serial line and tracks the unfinished line there.

use super::editor::PROMPT;
use arrayvec::ArrayVec;

/// Longest line that is kept whole.
const LINE: usize = 512;
/// The same with a name before it.
const TAGGED: usize = LINE + 40;
const END: &[u8] = b"\r\n";
/// Moves to the start of the line and erases it (ECMA-48 EL).
const ERASE: &[u8] = b"\r\x1b[K";

/// Cuts a partition's output into lines.
#[derive(Debug, Default)]
pub struct LineSplitter {
    line: ArrayVec<u8, LINE>,
}

impl LineSplitter {
    /// Makes an empty buffer.
    pub const fn new() -> Self {
        Self { line: ArrayVec::new_const() }
    }

    /// Adds output; calls `whole` with each line that is now complete, without its end.
    pub fn take(&mut self, bytes: &[u8], mut whole: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte == b'\n' || self.line.is_full() {
                whole(self.line.strip_suffix(b"\r").unwrap_or(&self.line));
                self.line.clear();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    /// Returns the unfinished line.
    pub fn unfinished(&self) -> &[u8] {
        &self.line
    }

    /// Drops the unfinished line.
    pub fn clear(&mut self) {
        self.line.clear();
    }
}

/// The end of the serial line's output.
#[derive(Debug, Default)]
pub struct TaggedScreen {
    /// Name and text of an unfinished line, or nothing.
    open: ArrayVec<u8, TAGGED>,
}

impl TaggedScreen {
    /// Starts at the beginning of a line.
    pub const fn new() -> Self {
        Self { open: ArrayVec::new_const() }
    }

    /// Prints a whole line of the partition `name`. An unfinished line is shown again after it,
    /// unless it was the same line.
    pub fn line(&mut self, name: &str, text: &[u8], mut put: impl FnMut(&[u8])) {
        let line = tagged(name, text);
        let own = self.open.starts_with(&tagged(name, b""));
        match line.strip_prefix(&*self.open) {
            // Also if no line is open.
            Some(rest) => put(rest),
            None => {
                put(self.gap());
                put(&line);
            }
        }
        put(END);
        if own {
            self.open.clear();
        }
        put(&self.open);
    }

    /// Shows an unfinished line of the partition that has the keys.
    pub fn show(&mut self, name: &str, text: &[u8], mut put: impl FnMut(&[u8])) {
        let line = tagged(name, text);
        match line.strip_prefix(&*self.open) {
            Some(rest) => put(rest),
            None => {
                put(END);
                put(&line);
            }
        }
        self.open = line;
    }

    /// Returns the bytes that make room for another line: the monitor's line is erased because it
    /// is shown again, a partition's line stays.
    fn gap(&self) -> &'static [u8] {
        if self.open.starts_with(PROMPT) { ERASE } else { END }
    }

    /// Records the monitor's line, which is on the screen already.
    pub fn set_open(&mut self, text: &[u8]) {
        self.open = text.iter().copied().take(TAGGED).collect();
    }

    /// Ends an unfinished line, so that the next output starts on its own line.
    pub fn leave(&mut self, mut put: impl FnMut(&[u8])) {
        if !self.open.is_empty() {
            put(END);
            self.open.clear();
        }
    }
}

/// Returns a line with its partition's name before it, and its end.
pub fn whole_line(name: &str, text: &[u8]) -> ArrayVec<u8, { TAGGED + END.len() }> {
    tagged(name, text).iter().chain(END).copied().collect()
}

fn tagged(name: &str, text: &[u8]) -> ArrayVec<u8, TAGGED> {
    let parts: [&[u8]; 4] = [b"[", name.as_bytes(), b"] ", text];
    parts.into_iter().flatten().copied().take(TAGGED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let (mut lines, mut whole) = (LineSplitter::new(), Vec::new());
        for piece in pieces {
            lines.take(piece, |line| whole.push(String::from_utf8_lossy(line).into_owned()));
        }
        (whole, String::from_utf8_lossy(lines.unfinished()).into_owned())
    }

    #[test]
    fn pieces_become_lines_without_their_ends() {
        let (whole, rest) = cut(&[b"Deb", b"ian 12\r\n\nlog", b"in: "]);
        assert_eq!((whole, &*rest), (vec!["Debian 12".into(), String::new()], "login: "));
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let (whole, rest) = cut(&[&[b'x'; LINE + 3]]);
        assert_eq!((whole.len(), whole[0].len(), rest.len()), (1, LINE, 3));
    }

    /// The screen's state, and the bytes on the serial line.
    struct Terminal(TaggedScreen, Vec<u8>);

    impl Terminal {
        fn new() -> Self {
            Self(TaggedScreen::new(), Vec::new())
        }
        fn line(&mut self, name: &str, text: &str) {
            self.0.line(name, text.as_bytes(), |bytes| self.1.extend_from_slice(bytes));
        }
        fn show(&mut self, name: &str, text: &str) {
            self.0.show(name, text.as_bytes(), |bytes| self.1.extend_from_slice(bytes));
        }
        fn text(&self) -> &str {
            core::str::from_utf8(&self.1).unwrap()
        }
    }

    #[test]
    fn each_line_stands_behind_its_partitions_name() {
        let mut terminal = Terminal::new();
        terminal.line("web", "one");
        terminal.line("db", "two");
        assert_eq!(terminal.text(), "[web] one\r\n[db] two\r\n");
    }

    #[test]
    fn an_unfinished_line_grows_in_place_and_is_finished() {
        let mut terminal = Terminal::new();
        terminal.show("web", "$ ");
        terminal.show("web", "$ l");
        terminal.show("web", "$ l");
        terminal.line("web", "$ ls");
        terminal.line("web", "file");
        assert_eq!(terminal.text(), "[web] $ ls\r\n[web] file\r\n");
    }

    #[test]
    fn another_partitions_line_ends_it_and_it_is_shown_again() {
        let mut terminal = Terminal::new();
        terminal.show("web", "$ l");
        terminal.line("db", "checkpoint");
        terminal.line("web", "$ ls");
        assert_eq!(terminal.text(), "[web] $ l\r\n[db] checkpoint\r\n[web] $ ls\r\n");
    }

    #[test]
    fn who_loses_the_keys_leaves_no_unfinished_line_behind() {
        let mut terminal = Terminal::new();
        terminal.show("web", "$ ");
        terminal.0.leave(|bytes| terminal.1.extend_from_slice(bytes));
        terminal.line("db", "x");
        assert_eq!(terminal.text(), "[web] $ \r\n[db] x\r\n");
    }

    #[test]
    fn the_monitors_line_is_shown_again_behind_a_partitions() {
        let mut terminal = Terminal::new();
        terminal.0.set_open(b"tidepool> li");
        terminal.line("web", "one");
        assert_eq!(terminal.text(), "\r\x1b[K[web] one\r\ntidepool> li");
    }

    #[test]
    fn one_name_may_begin_like_another() {
        let mut terminal = Terminal::new();
        terminal.show("a", "x");
        terminal.line("ab", "y");
        assert_eq!(terminal.text(), "[a] x\r\n[ab] y\r\n[a] x");
    }
}
