//! The state of the serial line's output: at the start of a line, within a line, or on a program's
//! full screen.
//!
//! Parses only the necessary part of ECMA-48: line ends, control sequences, and the private modes
//! by which xterm and similar terminals switch to their second screen (`CSI ? 1049 h`, "Private
//! Modes" in xterm's ctlseqs).

/// Longest unfinished line that can be shown again.
const LONGEST: usize = 1024;
/// Maximum length of a control sequence's parameters that is kept.
const PARAMETERS: usize = 16;
/// Private modes that show the second screen.
const SECOND_SCREEN: [&[u8]; 3] = [b"?1049", b"?1047", b"?47"];

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Within {
    #[default]
    Text,
    Escape,
    /// A control sequence: `CSI`, parameters, one final byte.
    Control,
    /// An operating system command or a similar string, up to BEL or ST.
    Command,
    /// The escape that may end it.
    CommandEscape,
}

/// Follows output byte by byte.
#[derive(Debug, Default)]
pub(super) struct OutputTracker {
    within: Within,
    parameters: Vec<u8>,
    line: Vec<u8>,
    is_too_long: bool,
    is_full_screen: bool,
}

impl OutputTracker {
    /// Takes a byte that is written to the terminal.
    pub(super) fn feed(&mut self, byte: u8) {
        if byte == b'\n' {
            self.line.clear();
            self.is_too_long = false;
        } else if self.line.len() < LONGEST {
            self.line.push(byte);
        } else {
            self.is_too_long = true;
        }
        self.within = match (self.within, byte) {
            (Within::Command, 0x1b) => Within::CommandEscape,
            (_, 0x1b) => Within::Escape,
            (Within::Escape, b'[') => {
                self.parameters.clear();
                Within::Control
            }
            (Within::Escape, b']' | b'P' | b'X' | b'^' | b'_') => Within::Command,
            (Within::Escape, 0x20..=0x2f) => Within::Escape,
            (Within::Control, 0x20..=0x3f) => {
                self.parameters.extend((self.parameters.len() < PARAMETERS).then_some(byte));
                Within::Control
            }
            (Within::Control, end) => {
                self.control(end);
                Within::Text
            }
            (Within::Command, 0x07 | 0x18 | 0x1a) | (Within::CommandEscape, b'\\') => Within::Text,
            (Within::Command, _) => Within::Command,
            _ => Within::Text,
        };
    }

    fn control(&mut self, end: u8) {
        if SECOND_SCREEN.contains(&self.parameters.as_slice()) && matches!(end, b'h' | b'l') {
            self.is_full_screen = end == b'h';
            // The terminal restores the first screen. A program switches to the second screen from
            // the start of a line.
            self.line.clear();
        }
    }

    /// Returns whether the cursor stands at the start of a line.
    pub(super) fn is_at_start(&self) -> bool {
        self.line.iter().all(|&byte| byte == b'\r')
    }

    /// Returns whether the output is outside any escape sequence.
    pub(super) fn is_between(&self) -> bool {
        self.within == Within::Text
    }

    /// Returns whether a program uses the second screen.
    pub(super) fn is_full_screen(&self) -> bool {
        self.is_full_screen
    }

    /// Leaves the second screen, because its program is gone.
    pub(super) fn leave_full_screen(&mut self) {
        self.is_full_screen = false;
        self.line.clear();
    }

    /// Returns the unfinished line, to be shown again; empty where it is too long.
    pub(super) fn unfinished(&self) -> &[u8] {
        if self.is_too_long { &[] } else { &self.line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> OutputTracker {
        let mut tracker = OutputTracker::default();
        text.bytes().for_each(|byte| tracker.feed(byte));
        tracker
    }

    #[test]
    fn a_line_is_unfinished_until_its_end() {
        assert!(
            after("").is_at_start()
                && after("one\r\n").is_at_start()
                && after("one\r\n\r").is_at_start()
        );
        assert!(!after("login: ").is_at_start());
        assert_eq!(after("one\r\nlogin: ").unfinished(), b"login: ");
    }

    #[test]
    fn the_second_screen_is_entered_and_left() {
        assert!(after("\x1b[?1049h").is_full_screen() && after("\x1b[?47hx").is_full_screen());
        assert!(!after("\x1b[?1049h~\x1b[?1049l").is_full_screen());
        assert!(!after("\x1b[?25h\x1b[1049h\x1b]0;?1049h\x07").is_full_screen());
    }

    #[test]
    fn an_unfinished_sequence_is_known_as_one() {
        for part in ["\x1b", "\x1b[", "\x1b[1;2", "\x1b]0;title", "\x1b]0;title\x1b", "\x1b("] {
            assert!(!after(part).is_between(), "{part:?}");
        }
        for whole in ["x", "\x1b[1;2H", "\x1b]0;title\x07", "\x1b]0;title\x1b\\", "\x1b(B", "\x1bM"]
        {
            assert!(after(whole).is_between(), "{whole:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_not_shown_again() {
        let tracker = after(&"x".repeat(LONGEST + 1));
        assert!(!tracker.is_at_start() && tracker.unfinished().is_empty());
    }
}
