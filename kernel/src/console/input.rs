//! Input from the two lines: keys for a partition or the monitor, JSON lines with commands.
//!
//! ```text
//!   COM1 ──┬─ Ctrl-] ──> switches            ┌─ partition: keys go to the chosen console
//!          └─ other ───> present target ─────┴─ monitor: a line with editing, then a command
//!   COM2 ────> a JSON line, then a command
//! ```

use super::editor::{LineEditor, PROMPT};
use super::keys::KeyDecoder;
use super::output::{self, ConsoleLine, ConsoleLines, print, print_switch};
use arrayvec::ArrayVec;

/// Switches between the partition's console and the monitor: Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Longest JSON line.
const JSON_LINE: usize = 2048;

/// Where keys go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Focus {
    Partition,
    Monitor,
}

/// A complete piece of input.
pub enum ConsoleInput<'a> {
    /// A key for the partition's console.
    Key(u8),
    /// A line for the monitor.
    Text(&'a str),
    /// A line for the command interpreter.
    Json(&'a [u8]),
    /// A JSON line that exceeded the length limit and was dropped.
    TooLong,
}

/// How the console of the partition with the keys is shown if there are several partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleMode {
    /// Lines of all partitions, each with its partition's name before it.
    Lines,
    /// Its raw output, for programs that use the whole screen; the others' lines are held back.
    Raw,
}

impl ConsoleMode {
    /// Returns the name for events.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConsoleMode::Lines => "lines",
            ConsoleMode::Raw => "raw",
        }
    }
}

/// Destination of the keys after a piece of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyDestination {
    /// Unchanged.
    Stay,
    /// A chosen console, shown in this way.
    Console(ConsoleMode),
}

/// State of the input from both lines.
pub struct InputReader {
    focus: Focus,
    mode: ConsoleMode,
    keys: KeyDecoder,
    editor: LineEditor,
    has_switched: bool,
    json: ArrayVec<u8, JSON_LINE>,
    overrun: bool,
}

impl InputReader {
    /// Starts with the keys directed to the partition.
    pub const fn new() -> Self {
        Self {
            focus: Focus::Partition,
            mode: ConsoleMode::Lines,
            keys: KeyDecoder::new(),
            editor: LineEditor::new(),
            has_switched: false,
            json: ArrayVec::new_const(),
            overrun: false,
        }
    }

    /// Reads input, at most `budget` bytes per line, and passes complete pieces to `take`, which
    /// returns where the keys go then.
    pub fn poll(
        &mut self,
        lines: &mut impl ConsoleLines,
        budget: usize,
        mut take: impl FnMut(ConsoleInput<'_>) -> KeyDestination,
    ) {
        for _ in 0..budget {
            if self.focus == Focus::Partition && !lines.takes_keys() {
                break;
            }
            let Some(byte) = lines.read(ConsoleLine::People) else { break };
            self.key(byte, &mut take);
        }
        for _ in 0..budget {
            let Some(byte) = lines.read(ConsoleLine::Programs) else { break };
            self.json_byte(byte, &mut take);
        }
    }

    fn key(&mut self, byte: u8, take: &mut impl FnMut(ConsoleInput<'_>) -> KeyDestination) {
        match (self.focus, byte) {
            (Focus::Partition, ESCAPE) => {
                self.focus = Focus::Monitor;
                self.keys = KeyDecoder::new();
                output::leave_raw();
                print_switch(format_args!(
                    "\n[monitor: 'help' lists the commands, Ctrl-] goes back]\n"
                ));
                self.prompt();
            }
            (Focus::Monitor, ESCAPE) => {
                self.editor.clear();
                print_switch(format_args!("\n[console]\n"));
                self.enter_console(self.mode);
            }
            (Focus::Partition, key) => {
                take(ConsoleInput::Key(key));
            }
            (Focus::Monitor, key) => self.edit(key, take),
        }
    }

    fn enter_console(&mut self, mode: ConsoleMode) {
        (self.focus, self.mode, self.has_switched) = (Focus::Partition, mode, true);
        output::leave_monitor();
        match mode {
            ConsoleMode::Lines => output::leave_raw(),
            ConsoleMode::Raw => output::enter_raw(),
        }
    }

    fn edit(&mut self, byte: u8, take: &mut impl FnMut(ConsoleInput<'_>) -> KeyDestination) {
        let Some(key) = self.keys.feed(byte) else { return };
        let Some(line) = self.editor.take(key, &mut print) else {
            return output::enter_monitor(&self.editor.shown());
        };
        // The output of the command, and of partitions meanwhile, appears on lines of its own.
        output::enter_monitor(&[]);
        // The editor accepts only printable ASCII, so this is always valid text.
        match take(ConsoleInput::Text(core::str::from_utf8(&line).unwrap_or_default())) {
            KeyDestination::Stay => self.prompt(),
            KeyDestination::Console(mode) => self.enter_console(mode),
        }
    }

    fn prompt(&mut self) {
        print(PROMPT);
        output::enter_monitor(&self.editor.shown());
    }

    /// Returns whether the keys were directed to a console since the last call; the console's
    /// prompt must then be shown.
    pub fn take_switched(&mut self) -> bool {
        core::mem::take(&mut self.has_switched)
    }

    fn json_byte(&mut self, byte: u8, take: &mut impl FnMut(ConsoleInput<'_>) -> KeyDestination) {
        if byte != b'\n' {
            self.overrun |= byte != b'\r' && self.json.try_push(byte).is_err();
            return;
        }
        if core::mem::take(&mut self.overrun) {
            take(ConsoleInput::TooLong);
        } else if !self.json.is_empty() {
            // A program chooses a console; the keys stay at the monitor if they are there.
            match (take(ConsoleInput::Json(&self.json)), self.focus) {
                (KeyDestination::Console(mode), Focus::Partition) => self.enter_console(mode),
                (KeyDestination::Console(mode), Focus::Monitor) => self.mode = mode,
                (KeyDestination::Stay, _) => {}
            }
        }
        self.json.clear();
    }
}

impl Default for InputReader {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeConsoleLines {
        people: Vec<u8>,
        programs: Vec<u8>,
    }

    impl ConsoleLines for FakeConsoleLines {
        fn write(&mut self, _: ConsoleLine, bytes: &[u8]) -> usize {
            bytes.len()
        }
        fn read(&mut self, line: ConsoleLine) -> Option<u8> {
            let from =
                if line == ConsoleLine::People { &mut self.people } else { &mut self.programs };
            (!from.is_empty()).then(|| from.remove(0))
        }
    }

    fn read(people: &[u8], programs: &[u8]) -> Vec<String> {
        let mut lines = FakeConsoleLines { people: people.to_vec(), programs: programs.to_vec() };
        let mut out = Vec::new();
        InputReader::new().poll(&mut lines, 4096, |input| {
            let then = if matches!(input, ConsoleInput::Text("console b")) {
                KeyDestination::Console(ConsoleMode::Lines)
            } else {
                KeyDestination::Stay
            };
            out.push(match input {
                ConsoleInput::Key(k) => format!("key {}", k as char),
                ConsoleInput::Text(t) => format!("text {t}"),
                ConsoleInput::Json(j) => format!("json {}", String::from_utf8_lossy(j)),
                ConsoleInput::TooLong => "too long".into(),
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
    fn what_a_terminal_answers_is_no_part_of_a_command() {
        assert_eq!(
            read(b"\x1dli\x1b[24;80Rst\x1b[D\x1b[D\x1b[C\r\x1b[A\r", b""),
            ["text list", "text list"]
        );
    }

    #[test]
    fn an_answer_cut_by_the_escape_key_does_not_reach_the_next_command() {
        assert_eq!(read(b"\x1dx\x1b[2\x1d\x1d4list\r", b""), ["text 4list"]);
    }

    #[test]
    fn a_json_line_that_is_too_long_is_dropped_whole() {
        let mut input = vec![b'x'; JSON_LINE + 1];
        input.extend_from_slice(b"\n{}\r\n\n");
        assert_eq!(read(b"", &input), ["too long", "json {}"]);
    }
}
