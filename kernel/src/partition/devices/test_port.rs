//! The port through which a test kernel reports: three commands on three ports.
//!
//! | port | write | means |
//! |---|---|---|
//! | 0x5e0 | byte | log: collected to lines, `\n` ends one |
//! | 0x5e1 | byte to dword | fail, with a code |
//! | 0x5e2 | anything | pass |
//! | 0x5e3 | (read) | 0x7d: there is a test port |

use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;
use alloc::string::String;

use super::effect::DeviceEffect;

/// Longest line; longer ones are split.
const LINE_BYTES: usize = 240;
/// Lines that can wait; further ones are lost.
const LINES: usize = 64;

/// The log side of the test port.
#[derive(Clone, Debug, Default)]
pub struct TestPort {
    line: String,
    done: alloc::collections::VecDeque<String>,
}

impl TestPort {
    /// Takes a byte of the log.
    pub fn log(&mut self, byte: u8) -> DeviceEffect {
        if byte != b'\n' {
            // Only printable ASCII passes: the guest's text ends in a person's terminal.
            self.line.push(if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' });
        }
        if byte != b'\n' && self.line.len() < LINE_BYTES {
            return DeviceEffect::None;
        }
        let line = core::mem::take(&mut self.line);
        if self.done.len() < LINES {
            self.done.push_back(line);
        }
        DeviceEffect::TestLine
    }

    /// Takes the oldest complete line.
    pub fn take_line(&mut self) -> Option<String> {
        self.done.pop_front()
    }
}

impl SavedDevice for TestPort {
    const PART: StatePart = StatePart::TestPort;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.counted(self.line.as_bytes());
        out.u32(self.done.len() as u32);
        self.done.iter().for_each(|line| out.counted(line.as_bytes()));
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.line = text(from)?;
        from.check(self.line.len() < LINE_BYTES)?;
        let lines = from.u32()? as usize;
        from.check(lines <= LINES)?;
        self.done.clear();
        for _ in 0..lines {
            self.done.push_back(text(from)?);
        }
        Ok(())
    }
}

fn text(from: &mut StateReader<'_>) -> Result<String, StateError> {
    let bytes = from.counted(LINE_BYTES)?;
    from.check(bytes.iter().all(|byte| (b' '..=b'~').contains(byte)))?;
    Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_newlines_or_where_they_get_too_long() {
        let mut port = TestPort::default();
        assert_eq!(port.log(b'a'), DeviceEffect::None);
        assert_eq!(port.log(0x1b), DeviceEffect::None);
        assert_eq!(port.log(b'\n'), DeviceEffect::TestLine);
        assert_eq!(port.take_line().as_deref(), Some("a?"));
        assert!((0..LINE_BYTES - 1).all(|_| port.log(b'x') == DeviceEffect::None));
        assert_eq!(port.log(b'x'), DeviceEffect::TestLine);
    }

    #[test]
    fn a_flood_of_lines_is_bounded() {
        let mut port = TestPort::default();
        (0..10_000).for_each(|_| assert_eq!(port.log(b'\n'), DeviceEffect::TestLine));
        assert_eq!(core::iter::from_fn(|| port.take_line()).count(), LINES);
    }
}
