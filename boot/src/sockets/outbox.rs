//! The bounded queue to one client, written out by a thread of its own, so that a slow client holds
//! up only itself.

use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait for one client.
pub(super) const ROOM: usize = 1 << 20;

/// A line, or a piece of output, shared by the clients that get it.
pub(super) type OutboxPiece = Arc<[u8]>;

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<OutboxPiece>,
    bytes: usize,
    is_closed: bool,
    is_writing: bool,
}

#[derive(Default)]
struct OutboxShared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// The output queue of one client.
#[derive(Clone, Default)]
pub(super) struct Outbox(Arc<OutboxShared>);

impl Outbox {
    /// Starts the thread that writes to `stream`.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn start(stream: UnixStream) -> std::io::Result<Self> {
        let outbox = Self::default();
        let theirs = outbox.clone();
        std::thread::Builder::new().name("client".into()).spawn(move || theirs.write_to(stream))?;
        Ok(outbox)
    }

    /// Queues a piece if there is room; returns whether it was queued.
    pub(super) fn push(&self, piece: &OutboxPiece) -> bool {
        let mut waiting = self.lock();
        let fits = waiting.bytes + piece.len() <= ROOM;
        if fits && !waiting.is_closed {
            waiting.bytes += piece.len();
            waiting.pieces.push_back(Arc::clone(piece));
            self.0.changed.notify_all();
        }
        fits
    }

    /// Returns whether the client has disconnected.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Sends the queue to the client until `deadline`, and closes the connection.
    pub(super) fn finish(&self, deadline: Instant) {
        let mut waiting = self.lock();
        while !waiting.is_closed && (waiting.is_writing || !waiting.pieces.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            waiting = self
                .0
                .changed
                .wait_timeout(waiting, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        waiting.is_closed = true;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut stream: UnixStream) {
        while let Some(piece) = self.next() {
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
        self.lock().is_closed = true;
        self.0.changed.notify_all();
        // This ends the thread that reads the same connection.
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn next(&self) -> Option<OutboxPiece> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        self.0.changed.notify_all();
        loop {
            if waiting.is_closed {
                return None;
            }
            if let Some(piece) = waiting.pieces.pop_front() {
                waiting.bytes -= piece.len();
                waiting.is_writing = true;
                return Some(piece);
            }
            waiting = self.0.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_client_that_reads_nothing_holds_up_nobody() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let outbox = Outbox::start(ours).unwrap();
        let piece: OutboxPiece = vec![b'x'; 64 << 10].into();
        let taken = (0..1000).take_while(|_| outbox.push(&piece)).count();
        assert!((ROOM / piece.len()..1000).contains(&taken), "{taken}");
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all.len()
        });
        outbox.finish(Instant::now() + Duration::from_secs(10));
        assert_eq!(reader.join().unwrap(), taken * piece.len());
    }

    #[test]
    fn a_client_that_has_gone_is_known() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let outbox = Outbox::start(ours).unwrap();
        drop(theirs);
        let piece: OutboxPiece = vec![b'x'; 16].into();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !outbox.is_closed() && Instant::now() < deadline {
            outbox.push(&piece);
            std::thread::yield_now();
        }
        assert!(outbox.is_closed());
    }
}
