//! A bounded queue of bytes between printing code and the serial line.
//!
//! Records are kept whole. A record that does not fit is dropped as a whole and counted, so a slow
//! or absent reader loses output, but costs neither time nor memory.

/// A ring of `N` bytes.
pub struct ByteRing<const N: usize> {
    bytes: [u8; N],
    /// Next byte to take; increases without wrapping, like `tail`.
    head: u64,
    tail: u64,
    dropped: u64,
}

impl<const N: usize> ByteRing<N> {
    /// Makes an empty ring.
    pub const fn new() -> Self {
        Self { bytes: [0; N], head: 0, tail: 0, dropped: 0 }
    }

    /// Returns the number of waiting bytes.
    pub const fn len(&self) -> usize {
        (self.tail - self.head) as usize
    }

    /// Returns whether nothing is waiting.
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Returns the number of bytes that still fit.
    pub const fn room(&self) -> usize {
        N - self.len()
    }

    /// Adds the whole record, or drops and counts it; returns whether it was added.
    pub fn push(&mut self, record: &[u8]) -> bool {
        if record.len() > self.room() {
            self.dropped += 1;
            return false;
        }
        for byte in record {
            self.bytes[(self.tail % N as u64) as usize] = *byte;
            self.tail += 1;
        }
        true
    }

    /// Copies the oldest bytes, as many as fit, without taking them.
    pub fn peek_into<const M: usize>(&self, out: &mut arrayvec::ArrayVec<u8, M>) {
        let count = self.len().min(out.remaining_capacity()) as u64;
        out.extend((self.head..self.head + count).map(|at| self.bytes[(at % N as u64) as usize]));
    }

    /// Takes the oldest `count` bytes, or all if there are fewer.
    pub fn discard(&mut self, count: usize) {
        self.head = self.tail.min(self.head + count as u64);
    }

    /// Takes the oldest byte.
    pub fn pop(&mut self) -> Option<u8> {
        let byte = (!self.is_empty()).then(|| self.bytes[(self.head % N as u64) as usize])?;
        self.head += 1;
        Some(byte)
    }

    /// Returns how many records were dropped since the last call.
    pub const fn take_dropped(&mut self) -> u64 {
        core::mem::replace(&mut self.dropped, 0)
    }
}

impl<const N: usize> Default for ByteRing<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_across_the_wrap() {
        let mut ring = ByteRing::<4>::new();
        for round in 0..10u8 {
            assert!(ring.push(&[round, round + 1, round + 2]));
            assert_eq!(
                [ring.pop(), ring.pop(), ring.pop(), ring.pop()],
                [Some(round), Some(round + 1), Some(round + 2), None]
            );
        }
    }

    #[test]
    fn a_record_that_does_not_fit_is_dropped_whole_and_counted() {
        let mut ring = ByteRing::<4>::new();
        assert!(ring.push(b"abc"));
        assert!(!ring.push(b"de"));
        assert_eq!((ring.len(), ring.take_dropped(), ring.take_dropped()), (3, 1, 0));
    }
}
