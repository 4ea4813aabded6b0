//! Keys at the monitor's line: the terminal shows the line that the editor has.
#![no_main]

use kernel::console::editor::{LineEditor, PROMPT};
use kernel::console::keys::KeyDecoder;
use libfuzzer_sys::fuzz_target;

/// A terminal of one line that knows backspaces and `CSI K`.
#[derive(Default)]
struct Terminal {
    cells: Vec<u8>,
    cursor: usize,
}

impl Terminal {
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

fuzz_target!(|bytes: &[u8]| {
    let (mut editor, mut keys) = (LineEditor::new(), KeyDecoder::new());
    let mut terminal = Terminal::default();
    for &byte in bytes {
        let Some(key) = keys.feed(byte) else { continue };
        let line = editor.take(key, &mut |bytes| terminal.put(bytes));
        assert!(line.is_none_or(|line| line.iter().all(|b| (b' '..=b'~').contains(b))));
        let mut shown = PROMPT.to_vec();
        shown.extend(&terminal.cells);
        shown.extend(std::iter::repeat_n(8, terminal.cells.len() - terminal.cursor));
        assert_eq!(editor.shown().as_slice(), shown);
    }
});
