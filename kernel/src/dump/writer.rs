//! Writes a stream to a part of the space, one request at a time, without waiting.
//!
//! ```text
//!   idle ── fill the buffer, submit ──> in flight ── completed ──> idle ── stream at its end ──> done
//!    ^                                      │ error
//!    └── queue full: try again later        └──────────────────────────> failed
//! ```
//!
//! The buffer is the job's own for its whole life. What describes a dump is small beside its blocks, so one request of
//! [`PIECE`] bytes in flight is enough.

use super::describe::{CorePages, MIN_PIECE, Stream};
use crate::block::dma::DmaRegion;
use crate::block::{Cookie, Disk, DiskError, Operation, Request, SectorRange, Segment, SubmitError};
use crate::paging::space::layout::Extent;
use arrayvec::ArrayVec;

/// Bytes of the buffer, and of a request at most.
pub const PIECE: usize = 64 << 10;
const SECTOR: usize = 512;

/// Why a stream could not be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// The disk failed.
    Disk(DiskError),
    /// The disk did not take a request that is in range.
    Refused(SubmitError),
    /// The stream is longer than its part of the space (our bug, but the dump is only partial for it).
    TooLong,
}

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// There is more to do: call again after completions were delivered.
    Busy,
    /// Everything is written (not flushed).
    Done {
        /// Bytes written, whole sectors.
        bytes: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// The buffer is full and waits for a place in the queue.
    Filled(usize),
    InFlight(usize),
    Ended,
}

/// Where a writer works: the disk, its buffer there, and the word that completions come back with.
pub struct Io<'a> {
    /// The paging device.
    pub disk: &'a dyn Disk,
    /// At least [`PIECE`] bytes that nobody else uses.
    pub buffer: &'a DmaRegion,
    /// Comes back with each completion.
    pub cookie: Cookie,
}

/// Writes one stream to one part of a space.
#[derive(Debug)]
pub struct Writer<S> {
    stream: S,
    extent: Extent,
    written: u64,
    state: State,
    carry: ArrayVec<u8, SECTOR>,
}

impl<S: Stream> Writer<S> {
    /// Starts at the first byte of `extent`.
    pub const fn new(stream: S, extent: Extent) -> Self {
        Self { stream, extent, written: 0, state: State::Idle, carry: ArrayVec::new_const() }
    }

    /// Does what can be done now; `completed` is the result of the request in flight, once it has one.
    ///
    /// # Errors
    /// [`WriteError`]: nothing more is written.
    pub fn step(
        &mut self,
        io: &Io<'_>,
        pages: &impl CorePages,
        completed: Option<Result<(), DiskError>>,
    ) -> Result<Progress, WriteError> {
        match (self.state, completed) {
            (State::InFlight(bytes), Some(result)) => {
                result.map_err(WriteError::Disk)?;
                self.written += bytes as u64;
                self.state = State::Idle;
            }
            (State::InFlight(_), None) => return Ok(Progress::Busy),
            _ => {}
        }
        if self.state == State::Idle {
            self.state = match self.fill(io.buffer, pages) {
                0 => State::Ended,
                bytes => State::Filled(bytes),
            };
        }
        if let State::Filled(bytes) = self.state {
            self.submit(io, bytes)?;
        }
        Ok(if self.state == State::Ended { Progress::Done { bytes: self.written } } else { Progress::Busy })
    }

    /// Fills the buffer; returns the bytes, whole sectors. Pieces of a stream end anywhere, so what is behind the last
    /// whole sector is carried over; only the very end is padded.
    fn fill(&mut self, buffer: &DmaRegion, pages: &impl CorePages) -> usize {
        let mut at = self.carry.len();
        put(buffer, 0, &core::mem::take(&mut self.carry));
        let mut piece = [0; MIN_PIECE];
        while at + piece.len() <= PIECE {
            let len = self.stream.fill(pages, &mut piece);
            if len == 0 {
                let end = at.next_multiple_of(SECTOR);
                (at..end).for_each(|n| buffer.write(n, 0u8));
                return end;
            }
            put(buffer, at, &piece[..len]);
            at += len;
        }
        let end = at - at % SECTOR;
        self.carry.extend((end..at).map(|n| buffer.read::<u8>(n)));
        end
    }

    fn submit(&mut self, io: &Io<'_>, bytes: usize) -> Result<(), WriteError> {
        let sectors: SectorRange = self.extent.sectors(self.written, bytes as u64).ok_or(WriteError::TooLong)?;
        let segments = [Segment { base: io.buffer.hpa(0), len: bytes as u32 }];
        let request = Request { operation: Operation::Write, sectors, segments: &segments, cookie: io.cookie };
        match io.disk.submit(&request) {
            Ok(()) => self.state = State::InFlight(bytes),
            Err(SubmitError::Full) => {}
            Err(error) => return Err(WriteError::Refused(error)),
        }
        Ok(())
    }
}

fn put(buffer: &DmaRegion, at: usize, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        buffer.write(at + n, *byte);
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
