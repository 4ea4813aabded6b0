//! The monitor's line editor, with a history.
//!
//! The terminal is updated by the simplest means: backspaces, `CSI K` (erase to the end of the
//! line), and rewriting the rest of the line.

use super::keys::EditKey;
use arrayvec::ArrayVec;

/// Longest line.
const LONGEST: usize = 128;
/// Lines that are remembered.
const REMEMBERED: usize = 8;
/// Shown before each line.
pub const PROMPT: &[u8] = b"tidepool> ";

type Text = ArrayVec<u8, LONGEST>;

/// The line at the monitor.
pub struct LineEditor {
    text: Text,
    cursor: usize,
    /// Earlier lines, the latest last.
    history: ArrayVec<Text, REMEMBERED>,
    /// Position in the history of the shown line; the history's length stands for the new line.
    place: usize,
    /// The new line while an earlier one is shown.
    new: Text,
}

impl LineEditor {
    /// Makes an empty line without a history.
    pub const fn new() -> Self {
        Self {
            text: Text::new_const(),
            cursor: 0,
            history: ArrayVec::new_const(),
            place: 0,
            new: Text::new_const(),
        }
    }

    /// Handles a key and passes the bytes for the terminal to `put`; returns a complete line.
    pub fn take(&mut self, key: EditKey, put: &mut impl FnMut(&[u8])) -> Option<Text> {
        match key {
            EditKey::Enter => return Some(self.enter(put)),
            EditKey::Text(byte) => self.insert(byte, put),
            EditKey::Backspace if self.cursor > 0 => {
                self.left(put);
                self.delete(put);
            }
            EditKey::Delete => self.delete(put),
            EditKey::Left => self.left(put),
            EditKey::Right => self.right(put),
            EditKey::Home => (0..self.cursor).for_each(|_| self.left(put)),
            EditKey::End => (self.cursor..self.text.len()).for_each(|_| self.right(put)),
            EditKey::Up => self.recall(self.place.checked_sub(1), put),
            EditKey::Down => self.recall(self.place.checked_add(1), put),
            EditKey::KillLine => self.replace(Text::new(), put),
            EditKey::KillToEnd => {
                self.text.truncate(self.cursor);
                put(b"\x1b[K");
            }
            EditKey::KillWord => self.kill_word(put),
            EditKey::Backspace => {}
        }
        None
    }

    /// Returns the bytes that show the line: prompt, text, and backspaces to the cursor.
    pub fn shown(&self) -> ArrayVec<u8, { PROMPT.len() + 2 * LONGEST }> {
        let back = core::iter::repeat_n(0x08, self.text.len() - self.cursor);
        PROMPT.iter().copied().chain(self.text.iter().copied()).chain(back).collect()
    }

    /// Clears the line, but not the history.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
        self.place = self.history.len();
    }

    fn enter(&mut self, put: &mut impl FnMut(&[u8])) -> Text {
        put(b"\r\n");
        let line = self.text.clone();
        let is_blank = line.iter().all(|&byte| byte == b' ');
        if !is_blank && self.history.last() != Some(&line) {
            if self.history.is_full() {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        self.clear();
        line
    }

    fn insert(&mut self, byte: u8, put: &mut impl FnMut(&[u8])) {
        if !self.text.is_full() {
            self.text.insert(self.cursor, byte);
            put(&self.text[self.cursor..]);
            self.cursor += 1;
            self.back(put);
        }
    }

    fn delete(&mut self, put: &mut impl FnMut(&[u8])) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
            put(&self.text[self.cursor..]);
            put(b"\x1b[K");
            self.back(put);
        }
    }

    fn left(&mut self, put: &mut impl FnMut(&[u8])) {
        if self.cursor > 0 {
            self.cursor -= 1;
            put(b"\x08");
        }
    }

    fn right(&mut self, put: &mut impl FnMut(&[u8])) {
        if let Some(byte) = self.text.get(self.cursor) {
            put(&[*byte]);
            self.cursor += 1;
        }
    }

    fn kill_word(&mut self, put: &mut impl FnMut(&[u8])) {
        let is_space = |editor: &Self| {
            editor.text.get(editor.cursor.wrapping_sub(1)).is_none_or(|&byte| byte == b' ')
        };
        while self.cursor > 0 && is_space(self) {
            self.take(EditKey::Backspace, put);
        }
        while self.cursor > 0 && !is_space(self) {
            self.take(EditKey::Backspace, put);
        }
    }

    /// Shows the line at `place` of the history, or after the last the new line.
    fn recall(&mut self, place: Option<usize>, put: &mut impl FnMut(&[u8])) {
        let Some(place) = place.filter(|&place| place <= self.history.len()) else { return };
        if self.place == self.history.len() {
            self.new = self.text.clone();
        }
        self.place = place;
        let line = self.history.get(place).unwrap_or(&self.new).clone();
        self.replace(line, put);
    }

    fn replace(&mut self, line: Text, put: &mut impl FnMut(&[u8])) {
        (0..self.cursor).for_each(|_| put(b"\x08"));
        put(&line);
        put(b"\x1b[K");
        self.cursor = line.len();
        self.text = line;
    }

    /// Moves the terminal's cursor from the end of the text back to the editor's cursor.
    fn back(&self, put: &mut impl FnMut(&[u8])) {
        (self.cursor..self.text.len()).for_each(|_| put(b"\x08"));
    }
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::keys::KeyDecoder;

    /// A one-line terminal that supports backspaces and `CSI K`.
    #[derive(Default)]
    struct Shown {
        cells: Vec<u8>,
        cursor: usize,
    }

    impl Shown {
        fn put(&mut self, bytes: &[u8]) {
            if bytes == b"\x1b[K" {
                return self.cells.truncate(self.cursor);
            }
            for &byte in bytes {
                match byte {
                    0x08 => self.cursor -= 1,
                    b'\r' | b'\n' => *self = Self::default(),
                    _ => {
                        self.cells.resize(self.cells.len().max(self.cursor + 1), b' ');
                        self.cells[self.cursor] = byte;
                        self.cursor += 1;
                    }
                }
            }
        }
    }

    /// Types `bytes`; returns the lines entered, the text shown of the last one, and the cursor's
    /// position.
    fn typed(bytes: &[u8]) -> (Vec<String>, String, usize) {
        let (mut editor, mut keys, mut shown, mut lines) =
            (LineEditor::new(), KeyDecoder::new(), Shown::default(), Vec::new());
        for &byte in bytes {
            let Some(key) = keys.feed(byte) else { continue };
            let line = editor.take(key, &mut |bytes| shown.put(bytes));
            lines.extend(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            assert_eq!(
                (shown.cells.as_slice(), shown.cursor),
                (editor.text.as_slice(), editor.cursor)
            );
        }
        (lines, String::from_utf8(shown.cells).unwrap(), shown.cursor)
    }

    #[test]
    fn text_goes_in_and_out_where_the_cursor_is() {
        assert_eq!(typed(b"lst\x1b[Di").1, "lsit");
        assert_eq!(typed(b"lst\x1b[D\x1b[Di").1, "list");
        assert_eq!(typed(b"xlist\x1b[H\x1b[3~"), (vec![], "list".into(), 0));
        assert_eq!(typed(b"list\x01\x7f\x05\x7f"), (vec![], "lis".into(), 3));
        assert_eq!(typed(b"crash web\x17db\x0b"), (vec![], "crash db".into(), 8));
        assert_eq!(typed(b"abc\x02\x02\x0b"), (vec![], "a".into(), 1));
        assert_eq!(typed(b"abc\x15").1, "");
    }

    #[test]
    fn earlier_lines_come_back_and_the_new_one_is_not_lost() {
        let (lines, shown, _) = typed(b"one\rtwo\rthr\x1b[A\x1b[A\x1b[A\r\x1b[A\x1b[B");
        assert_eq!((lines, shown.as_str()), (vec!["one".into(), "two".into(), "one".into()], ""));
        assert_eq!(typed(b"one\rthr\x1b[A\x1b[B").1, "thr");
        assert_eq!(typed(b"one\rone\r  \r\x1b[A\x1b[A").1, "one");
    }

    #[test]
    fn only_the_last_lines_are_remembered() {
        let mut bytes: Vec<u8> =
            (0..=REMEMBERED).flat_map(|n| format!("line {n}\r").into_bytes()).collect();
        (0..=REMEMBERED).for_each(|_| bytes.extend_from_slice(b"\x1b[A"));
        assert_eq!(typed(&bytes).1, "line 1");
    }

    #[test]
    fn a_line_that_is_full_takes_no_more() {
        let (lines, ..) = typed(&[&[b'x'; LONGEST + 9][..], b"\r"].concat());
        assert_eq!(lines[0].len(), LONGEST);
    }
}
