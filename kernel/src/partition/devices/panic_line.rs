//! The guest's own words for its panic: the line that its kernel prints on its console or stores in
//! a log.
//!
//! ```text
//!   <0>[   54.110425][    T1] Kernel panic - not syncing: sysrq triggered crash
//!   └──────── skipped ──────┘ └──────────────── kept, 128 bytes ────────────┘
//! ```
//!
//! A line counts only if nothing but the log's level, time and caller stands before the marker. So
//! an old log that a program prints with its own words around it is not believed. The bytes come
//! from a guest: the text is bounded, and printable ASCII only.

use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::space::CrashText;

/// Bytes of a line that are examined: a prefix of levels, time and caller, and the text.
const LINE_BYTES: usize = 192;

/// The beginnings of a kernel's panic line: Linux, the BSDs.
const MARKERS: &[&[u8]] = &[b"Kernel panic - not syncing", b"panic: "];

/// Cuts a stream of bytes into lines and keeps the text of the last line with a panic's marker.
#[derive(Clone, Debug)]
pub struct PanicLine {
    line: [u8; LINE_BYTES],
    len: usize,
    found: Option<CrashText>,
}

impl PanicLine {
    /// Makes an empty one.
    pub(super) const fn new() -> Self {
        Self { line: [0; LINE_BYTES], len: 0, found: None }
    }

    /// Takes a byte. A line's bytes beyond the first 192 are ignored.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        if byte == b'\n' {
            self.found = self.unfinished().or(self.found);
            self.len = 0;
        } else if let Some(place) = self.line.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// Returns the text of the last line with a marker, also if that line is not finished.
    pub fn text(&self) -> Option<CrashText> {
        self.unfinished().or(self.found)
    }

    fn unfinished(&self) -> Option<CrashText> {
        message(&self.line[..self.len])
    }
}

/// Returns the text of the last line of `log` with a panic's marker.
pub fn last_in(log: &[u8]) -> Option<CrashText> {
    log.split(|byte| *byte == b'\n').rev().find_map(message)
}

fn message(line: &[u8]) -> Option<CrashText> {
    let rest = behind_prefix(line);
    MARKERS.iter().any(|marker| rest.starts_with(marker)).then(|| readable(rest))
}

/// Skips `<0>`, `[   54.110425]`, `[    T1]`, colours, and the blanks between.
fn behind_prefix(mut line: &[u8]) -> &[u8] {
    loop {
        line = line.trim_ascii_start();
        let close = match line {
            [b'<', ..] => b'>',
            [b'[', ..] => b']',
            [0x1b, b'[', ..] => b'm',
            _ => return line,
        };
        let Some(end) = line.iter().position(|byte| *byte == close) else { return line };
        line = &line[end + 1..];
    }
}

fn readable(text: &[u8]) -> CrashText {
    let mut readable = CrashText::new();
    for byte in text.trim_ascii_end() {
        let byte = if byte.is_ascii_graphic() || *byte == b' ' { *byte } else { b'?' };
        if readable.try_push(char::from(byte)).is_err() {
            break;
        }
    }
    readable
}

impl PanicLine {
    /// Appends the unfinished line and the text that was found.
    pub(super) fn save(&self, out: &mut StateWriter) {
        out.counted(&self.line[..self.len]);
        save_text(self.found, out);
    }

    /// Takes both over.
    pub(super) fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let line = from.counted(LINE_BYTES)?;
        self.line[..line.len()].copy_from_slice(line);
        self.len = line.len();
        self.found = restored_text(from)?;
        Ok(())
    }
}

/// Appends a text that may be missing.
pub(super) fn save_text(text: Option<CrashText>, out: &mut StateWriter) {
    out.bool(text.is_some());
    out.counted(text.unwrap_or_default().as_bytes());
}

/// Takes such a text over.
pub(super) fn restored_text(from: &mut StateReader<'_>) -> Result<Option<CrashText>, StateError> {
    let is_there = from.bool()?;
    let bytes = from.counted(CrashText::new().capacity())?;
    let text = core::str::from_utf8(bytes).ok().and_then(|text| CrashText::from(text).ok());
    let text = text.filter(|text| is_there || text.is_empty()).ok_or(from.impossible())?;
    Ok(is_there.then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Option<CrashText> {
        let mut line = PanicLine::new();
        bytes.iter().for_each(|byte| line.push(*byte));
        line.text()
    }

    #[test]
    fn the_text_of_a_panic_stands_behind_level_time_and_caller() {
        let expected = Some("Kernel panic - not syncing: sysrq triggered crash");
        for prefix in ["", "[   54.110425] ", "<0>[   54.1][    T1] ", "\x1b[31m", "\r  "] {
            let log = format!(
                "boot\n{prefix}Kernel panic - not syncing: sysrq triggered crash\r\nCPU: 0 PID: \
                 1\n"
            );
            assert_eq!(heard(log.as_bytes()).as_deref(), expected, "{prefix:?}");
            assert_eq!(last_in(log.as_bytes()).as_deref(), expected, "{prefix:?}");
        }
        assert_eq!(heard(b"panic: page fault").as_deref(), Some("panic: page fault"));
    }

    #[test]
    fn the_last_panic_counts_and_its_end_mark_is_none() {
        let log = b"Kernel panic - not syncing: one\nKernel panic - not syncing: two\n\
              ---[ end Kernel panic - not syncing: x ]---\n";
        assert_eq!(heard(log).as_deref(), Some("Kernel panic - not syncing: two"));
        assert_eq!(last_in(log).as_deref(), Some("Kernel panic - not syncing: two"));
    }

    #[test]
    fn other_lines_that_name_a_panic_are_not_believed() {
        for line in [
            "# echo Kernel panic - not syncing",
            "log: [ 1.0] Kernel panic - not syncing: x",
            "[ 1.0 Kernel panic",
            "",
        ] {
            assert_eq!(heard(format!("{line}\n").as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_guests_bytes_are_bounded_and_printable() {
        let mut line = b"Kernel panic - not syncing: \x1b[2J\x00\"\xc3\xa4".to_vec();
        assert_eq!(heard(&line).as_deref(), Some("Kernel panic - not syncing: ?[2J?\"??"));
        line.extend([b'x'; 5000]);
        assert_eq!(heard(&line).map(|text| text.len()), Some(CrashText::new().capacity()));
        let mut prefix = vec![b'['; 5000];
        prefix.extend(b"Kernel panic - not syncing: x\n");
        assert_eq!(heard(&prefix), None);
    }
}
