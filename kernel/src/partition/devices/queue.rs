//! A bounded queue of bytes between a device and the console: allocated once; bytes that do not fit
//! are lost and counted.

use crate::dump::state_note::{StateError, StateReader, StateWriter};
use alloc::collections::VecDeque;

/// The bytes of the queue.
#[derive(Clone, Debug)]
pub struct ByteQueue {
    bytes: VecDeque<u8>,
    limit: usize,
    lost: u64,
}

impl ByteQueue {
    /// Makes a queue for `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: VecDeque::with_capacity(limit), limit, lost: 0 }
    }
    /// Appends a byte; a full queue loses it.
    pub fn push(&mut self, byte: u8) {
        if self.bytes.len() < self.limit {
            self.bytes.push_back(byte);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }
    /// Takes the oldest byte.
    pub fn pop(&mut self) -> Option<u8> {
        self.bytes.pop_front()
    }
    /// Moves as many bytes as fit to `buf` and returns how many.
    pub fn take(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.bytes.len());
        buf.iter_mut().zip(self.bytes.drain(..count)).for_each(|(to, from)| *to = from);
        count
    }
    /// Tells whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    /// Returns how many more bytes fit.
    pub fn room(&self) -> usize {
        self.limit - self.bytes.len()
    }
    /// Forgets all bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
    /// Returns the number of bytes lost so far.
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl ByteQueue {
    /// Appends the bytes that wait.
    pub(super) fn save(&self, out: &mut StateWriter) {
        let (front, back) = self.bytes.as_slices();
        out.u32(self.bytes.len() as u32);
        out.bytes(front);
        out.bytes(back);
        out.u64(self.lost);
    }

    /// Takes saved bytes over: at most as many as fit.
    pub(super) fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        let bytes = from.counted(self.limit)?;
        self.bytes.clear();
        self.bytes.extend(bytes);
        self.lost = from.u64()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_keeps_the_old_bytes_and_counts_the_new() {
        let mut queue = ByteQueue::new(2);
        (1..=4).for_each(|b| queue.push(b));
        let mut buf = [0; 8];
        assert_eq!(
            (queue.take(&mut buf), &buf[..2], queue.lost(), queue.room()),
            (2, &[1, 2][..], 2, 2)
        );
    }
}
