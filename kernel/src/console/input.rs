//! What arrives on the two lines: keys for a partition or the monitor, JSON lines for commands.
//!
//! ```text
//!   COM1 ──┬─ Ctrl-] ──> switches            ┌─ partition: keys go to the console that is chosen
//!          └─ other ───> where it points ────┴─ monitor: a line with editing, then a command
//!   COM2 ────> a JSON line, then a command
//! ```

use super::output::{Lines, Which, print, print_switch};
use arrayvec::ArrayVec;

/// Switches between the partition's console and the monitor: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Longest line at the monitor.
const TEXT_LINE: usize = 128;
/// Longest JSON line.
const JSON_LINE: usize = 512;

/// Where keys go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Focus {
    Partition,
    Monitor,
}

/// A complete piece of input.
pub enum Input<'a> {
    /// A key for the partition's console.
    Key(u8),
    /// A line for the monitor.
    Text(&'a str),
    /// A line for the command interpreter.
    Json(&'a [u8]),
    /// A JSON line that was too long, and dropped.
    TooLong,
}

/// Where keys go after a piece of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Where they went.
    Stay,
    /// To the console.
    Console,
}

/// The state of both lines' input.
pub struct Reader {
    focus: Focus,
    text: ArrayVec<u8, TEXT_LINE>,
    json: ArrayVec<u8, JSON_LINE>,
    overrun: bool,
}

impl Reader {
    /// Starts with the keys going to the partition.
    pub const fn new() -> Self {
        Self { focus: Focus::Partition, text: ArrayVec::new_const(), json: ArrayVec::new_const(), overrun: false }
    }

    /// Takes what has arrived, at most `budget` bytes a line, and hands complete pieces to `take`, which says where keys go then.
    pub fn poll(&mut self, lines: &mut impl Lines, budget: usize, mut take: impl FnMut(Input<'_>) -> Then) {
        for _ in 0..budget {
            let Some(byte) = lines.read(Which::People) else { break };
            self.key(byte, &mut take);
        }
        for _ in 0..budget {
            let Some(byte) = lines.read(Which::Programs) else { break };
            self.json_byte(byte, &mut take);
        }
    }

    fn key(&mut self, byte: u8, take: &mut impl FnMut(Input<'_>) -> Then) {
        match (self.focus, byte) {
            (Focus::Partition, ESCAPE) => {
                self.focus = Focus::Monitor;
                print_switch(format_args!("\n[monitor: 'help' lists the commands, Ctrl-] goes back]\n"));
                prompt();
            }
            (Focus::Monitor, ESCAPE) => {
                self.focus = Focus::Partition;
                self.text.clear();
                print_switch(format_args!("\n[console]\n"));
            }
            (Focus::Partition, key) => {
                take(Input::Key(key));
            }
            (Focus::Monitor, key) => self.edit(key, take),
        }
    }

    /// Line editing: backspace, Ctrl-U, and what can be printed.
    fn edit(&mut self, key: u8, take: &mut impl FnMut(Input<'_>) -> Then) {
        match key {
            b'\r' | b'\n' => {
                print(b"\r\n");
                // Only printable ASCII gets in, so this is always text.
                let then = take(Input::Text(core::str::from_utf8(&self.text).unwrap_or_default()));
                self.text.clear();
                match then {
                    Then::Stay => prompt(),
                    Then::Console => self.focus = Focus::Partition,
                }
            }
            0x08 | 0x7f if self.text.pop().is_some() => print(b"\x08 \x08"),
            0x15 => {
                self.text.clear();
                print(b"\r\x1b[K");
                prompt();
            }
            0x20..=0x7e if self.text.try_push(key).is_ok() => print(&[key]),
            _ => {}
        }
    }

    fn json_byte(&mut self, byte: u8, take: &mut impl FnMut(Input<'_>) -> Then) {
        if byte != b'\n' {
            self.overrun |= byte != b'\r' && self.json.try_push(byte).is_err();
            return;
        }
        if core::mem::take(&mut self.overrun) {
            take(Input::TooLong);
        } else if !self.json.is_empty() {
            take(Input::Json(&self.json));
        }
        self.json.clear();
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

fn prompt() {
    print(b"tidepool> ");
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        people: Vec<u8>,
        programs: Vec<u8>,
    }

    impl Lines for Fake {
        fn write(&mut self, _: Which, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn read(&mut self, line: Which) -> Option<u8> {
            let from = if line == Which::People { &mut self.people } else { &mut self.programs };
            (!from.is_empty()).then(|| from.remove(0))
        }
    }

    fn read(people: &[u8], programs: &[u8]) -> Vec<String> {
        let mut lines = Fake { people: people.to_vec(), programs: programs.to_vec() };
        let mut out = Vec::new();
        Reader::new().poll(&mut lines, 4096, |input| {
            let then = if matches!(input, Input::Text("console b")) { Then::Console } else { Then::Stay };
            out.push(match input {
                Input::Key(k) => format!("key {}", k as char),
                Input::Text(t) => format!("text {t}"),
                Input::Json(j) => format!("json {}", String::from_utf8_lossy(j)),
                Input::TooLong => "too long".into(),
            });
            then
        });
        out
    }

    #[test]
    fn keys_reach_the_partition_until_the_escape_key() {
        assert_eq!(read(b"a\x1dlisx\x7ft\r\x1db", b""), ["key a", "text list", "key b"]);
    }

    #[test]
    fn a_command_can_give_the_keys_back_to_a_console() {
        assert_eq!(read(b"\x1dconsole b\rx", b""), ["text console b", "key x"]);
    }

    #[test]
    fn a_json_line_that_is_too_long_is_dropped_whole() {
        let mut input = vec![b'x'; JSON_LINE + 1];
        input.extend_from_slice(b"\n{}\r\n\n");
        assert_eq!(read(b"", &input), ["too long", "json {}"]);
    }
}
