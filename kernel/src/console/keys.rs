//! Decodes a terminal's bytes to keys: escape sequences are read whole, and those without a meaning
//! for the monitor are dropped.
//!
//! ECMA-48 defines the forms: `ESC [` parameters final byte (CSI), `ESC O` byte (SS3, keypad mode
//! of xterm), and strings from `ESC ]`, `ESC P` and similar to `ESC \` or BEL. A terminal's answers
//! (cursor report, attributes, colours) have the same forms as its keys.
//!
//! ```text
//!   Plain ──ESC──> Escape ──[──> Control ──final──> key or nothing
//!                         ──O──> Keypad  ──byte───> key or nothing
//!                         ──]──> Text    ──BEL, ESC \──> nothing
//! ```

/// Longest string that is read as one: a lone escape key before `]` must not swallow all further
/// input.
const LONGEST_TEXT: u16 = 256;
/// Bytes after `ESC [ M`: a mouse report of xterm's first protocol.
const MOUSE: u8 = 3;

/// A key with a meaning for the line editor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EditKey {
    /// Text: printable ASCII.
    Text(u8),
    /// The line is complete.
    Enter,
    /// Deletes to the left.
    Backspace,
    /// Deletes under the cursor.
    Delete,
    /// Moves left.
    Left,
    /// Moves right.
    Right,
    /// Moves to the start.
    Home,
    /// Moves to the end.
    End,
    /// Recalls the previous line of the history.
    Up,
    /// Recalls the next line of the history.
    Down,
    /// Deletes the whole line.
    KillLine,
    /// Deletes from the cursor on.
    KillToEnd,
    /// Deletes the word to the left.
    KillWord,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Within {
    Plain,
    Escape,
    Control {
        /// First parameter.
        number: u16,
        /// Whether its digits have ended.
        is_over: bool,
        /// Whether this is the first byte of the sequence.
        is_first: bool,
    },
    Keypad,
    Text {
        left: u16,
    },
    TextEscape {
        left: u16,
    },
    Mouse {
        left: u8,
    },
}

/// Decodes bytes one by one.
pub struct KeyDecoder {
    within: Within,
}

impl KeyDecoder {
    /// Starts outside any sequence.
    pub const fn new() -> Self {
        Self { within: Within::Plain }
    }

    /// Decodes a byte; returns the key that it completes.
    pub fn feed(&mut self, byte: u8) -> Option<EditKey> {
        let (within, key) = step(self.within, byte);
        self.within = within;
        key
    }
}

impl Default for KeyDecoder {
    fn default() -> Self {
        Self::new()
    }
}

const fn step(within: Within, byte: u8) -> (Within, Option<EditKey>) {
    match within {
        Within::Plain => plain(byte),
        Within::Escape => (escape(byte), if byte < 0x20 { plain(byte).1 } else { None }),
        Within::Control { number, is_over, is_first } => control(number, is_over, is_first, byte),
        Within::Keypad => (Within::Plain, letter(byte)),
        Within::Mouse { left } => {
            (if left > 1 { Within::Mouse { left: left - 1 } } else { Within::Plain }, None)
        }
        Within::Text { left } => (text(left, byte), None),
        Within::TextEscape { left } => {
            (if byte == b'\\' { Within::Plain } else { text(left, byte) }, None)
        }
    }
}

const fn plain(byte: u8) -> (Within, Option<EditKey>) {
    let key = match byte {
        0x1b => return (Within::Escape, None),
        b'\r' | b'\n' => EditKey::Enter,
        0x08 | 0x7f => EditKey::Backspace,
        0x01 => EditKey::Home,
        0x02 => EditKey::Left,
        0x04 => EditKey::Delete,
        0x05 => EditKey::End,
        0x06 => EditKey::Right,
        0x0b => EditKey::KillToEnd,
        0x0e => EditKey::Down,
        0x10 => EditKey::Up,
        // Ctrl-C discards the line, as in a shell.
        0x03 | 0x15 => EditKey::KillLine,
        0x17 => EditKey::KillWord,
        0x20..=0x7e => EditKey::Text(byte),
        _ => return (Within::Plain, None),
    };
    (Within::Plain, Some(key))
}

const fn escape(byte: u8) -> Within {
    match byte {
        b'[' => Within::Control { number: 0, is_over: false, is_first: true },
        b'O' => Within::Keypad,
        b']' | b'P' | b'X' | b'^' | b'_' => Within::Text { left: LONGEST_TEXT },
        // An intermediate byte, or a further escape key.
        0x20..=0x2f | 0x1b => Within::Escape,
        _ => Within::Plain,
    }
}

const fn control(
    number: u16,
    is_over: bool,
    is_first: bool,
    byte: u8,
) -> (Within, Option<EditKey>) {
    match byte {
        b'0'..=b'9' if !is_over => {
            let number = number.saturating_mul(10).saturating_add((byte - b'0') as u16);
            (Within::Control { number, is_over, is_first: false }, None)
        }
        0x20..=0x3f => (Within::Control { number, is_over: true, is_first: false }, None),
        b'M' if is_first => (Within::Mouse { left: MOUSE }, None),
        b'~' => (Within::Plain, numbered(number)),
        0x40..=0x7e => (Within::Plain, letter(byte)),
        // Any other byte ends the sequence and is decoded on its own.
        _ => plain(byte),
    }
}

/// Decodes `CSI n ~` of the VT220 and similar terminals.
const fn numbered(number: u16) -> Option<EditKey> {
    match number {
        1 | 7 => Some(EditKey::Home),
        4 | 8 => Some(EditKey::End),
        3 => Some(EditKey::Delete),
        _ => None,
    }
}

const fn letter(byte: u8) -> Option<EditKey> {
    match byte {
        b'A' => Some(EditKey::Up),
        b'B' => Some(EditKey::Down),
        b'C' => Some(EditKey::Right),
        b'D' => Some(EditKey::Left),
        b'H' => Some(EditKey::Home),
        b'F' => Some(EditKey::End),
        _ => None,
    }
}

const fn text(left: u16, byte: u8) -> Within {
    match byte {
        0x1b => Within::TextEscape { left },
        // BEL ends the string; a line end or a cancel shows that it was not a string.
        0x07 | b'\r' | b'\n' | 0x18 | 0x1a => Within::Plain,
        _ if left == 0 => Within::Plain,
        _ => Within::Text { left: left - 1 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EditKey::*;

    fn keys(bytes: &[u8]) -> Vec<EditKey> {
        let mut decoder = KeyDecoder::new();
        bytes.iter().filter_map(|&byte| decoder.feed(byte)).collect()
    }

    #[test]
    fn arrows_home_and_end_are_keys_in_all_their_forms() {
        assert_eq!(keys(b"\x1b[A\x1bOB\x1b[C\x1b[1;5D"), [Up, Down, Right, Left]);
        assert_eq!(
            keys(b"\x1b[H\x1bOH\x1b[1~\x1b[7~\x1b[F\x1bOF\x1b[4~\x1b[8~\x1b[3~"),
            [Home, Home, Home, Home, End, End, End, End, Delete]
        );
    }

    #[test]
    fn a_terminals_answers_are_no_text() {
        let answers: [&[u8]; 7] = [
            b"\x1b[24;80R",
            b"\x1b[?62;1;2c",
            b"\x1b]11;rgb:0000/0000/0000\x1b\\",
            b"\x1b]10;rgb:ffff/ffff/ffff\x07",
            b"\x1bP1$r0m\x1b\\",
            b"\x1b[M !!",
            b"\x1b[<0;10;10M",
        ];
        for answer in answers {
            let around = [b"a", answer, b"b"].concat();
            assert_eq!(keys(&around), [Text(b'a'), Text(b'b')], "{answer:?}");
        }
    }

    #[test]
    fn function_keys_alt_keys_and_pastes_brackets_are_dropped() {
        assert_eq!(keys(b"\x1b[15~\x1bOP\x1b[200~x\x1b[201~\x1bb"), [Text(b'x')]);
    }

    #[test]
    fn a_broken_sequence_ends_at_a_control_byte() {
        assert_eq!(keys(b"\x1b[1\rx"), [Enter, Text(b'x')]);
        assert_eq!(keys(b"\x1b\rx\x1b\x1b[A"), [Enter, Text(b'x'), Up]);
        assert_eq!(keys(b"\x1b]never ends\rx"), [Text(b'x')]);
    }

    #[test]
    fn a_string_that_never_ends_does_not_swallow_the_rest() {
        let mut bytes = b"\x1b]".to_vec();
        bytes.resize(2 + usize::from(LONGEST_TEXT) + 1, b'y');
        bytes.push(b'x');
        assert_eq!(keys(&bytes), [Text(b'x')]);
    }

    #[test]
    fn bytes_beyond_ascii_are_no_text() {
        assert_eq!(keys("ä€\u{7f}".as_bytes()), [Backspace]);
    }
}
