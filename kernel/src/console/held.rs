//! Lines that are held back while one partition has the serial line in raw mode. The newest lines
//! are kept, the lost ones are counted.

use super::ring::ByteRing;

/// Bytes of held lines.
const ROOM: usize = 16 << 10;

/// Lines waiting to be shown.
pub struct HeldLines {
    lines: ByteRing<ROOM>,
    lost: u64,
}

impl HeldLines {
    /// Makes an empty buffer.
    pub const fn new() -> Self {
        Self { lines: ByteRing::new(), lost: 0 }
    }

    /// Adds a line, which ends with a line feed. If there is no room, the oldest lines are dropped.
    pub fn push(&mut self, line: &[u8]) {
        while line.len() > self.lines.room() && self.drop_oldest() {}
        if !self.lines.push(line) {
            self.lost += 1;
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let is_any = !self.lines.is_empty();
        while self.lines.pop().is_some_and(|byte| byte != b'\n') {}
        self.lost += u64::from(is_any);
        is_any
    }

    /// Passes all lines to `put`, in pieces; returns how many were lost since the last call.
    pub fn take(&mut self, mut put: impl FnMut(&[u8])) -> u64 {
        loop {
            let mut piece = arrayvec::ArrayVec::<u8, 64>::new();
            self.lines.peek_into(&mut piece);
            if piece.is_empty() {
                break;
            }
            put(&piece);
            self.lines.discard(piece.len());
        }
        core::mem::take(&mut self.lost)
    }
}

impl Default for HeldLines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(held: &mut HeldLines) -> (String, u64) {
        let mut bytes = Vec::new();
        let lost = held.take(|piece| bytes.extend_from_slice(piece));
        (String::from_utf8(bytes).unwrap(), lost)
    }

    #[test]
    fn the_newest_lines_stay_whole_and_the_lost_are_counted() {
        let mut held = HeldLines::new();
        let line = |n: usize| format!("[db] line {n:04}{}\r\n", "x".repeat(100));
        let fit = ROOM / line(0).len();
        (0..fit + 5).for_each(|n| held.push(line(n).as_bytes()));
        let (text, lost) = taken(&mut held);
        assert_eq!(
            (text.starts_with(&line(5)), text.ends_with(&line(fit + 4)), lost),
            (true, true, 5)
        );
        assert_eq!(taken(&mut held), (String::new(), 0));
    }

    #[test]
    fn a_line_longer_than_the_room_is_lost() {
        let mut held = HeldLines::new();
        held.push(b"a\n");
        held.push(&[b'x'; ROOM + 1]);
        assert_eq!(taken(&mut held), (String::new(), 2));
    }
}
