//! One serial line of the Linux within Bochs, assigned to one machine after the other.
//!
//! ```text
//!  Bochs ═══ wire ═══╤═ machine 1's line (closed: it has ended)
//!                    └─ machine 2's line
//! ```
//!
//! When a machine's emulator has exited, the agent writes a mark with the machine's number on each
//! line that the emulator used. All output before the mark is that machine's. At the mark its line
//! is closed here, as if the emulator had closed it.

use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Begins a mark, which a line end terminates. (ASCII's record separator, which does not occur in
/// terminal output.)
const MARK: u8 = 0x1e;

/// A line and its present owner.
pub(super) struct Wire {
    shared: Arc<WireShared>,
    to_machine: Arc<Mutex<TcpStream>>,
}

#[derive(Default)]
struct WireShared {
    owner: Mutex<Option<Owner>>,
    freed: Condvar,
}

struct Owner {
    line: TcpStream,
    id: u32,
}

impl Wire {
    /// Takes over a connection from Bochs.
    pub(super) fn new(stream: TcpStream) -> Result<Self> {
        let (shared, reader) = (Arc::new(WireShared::default()), stream.try_clone()?);
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("wire".into()).spawn(move || listen(reader, &theirs))?;
        Ok(Self { shared, to_machine: Arc::new(Mutex::new(stream)) })
    }

    /// Assigns the line to machine `id`, whose own end is at `port` of this computer.
    pub(super) fn attach(&self, id: u32, port: u16) -> Result<()> {
        let line = TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port))?;
        line.set_nodelay(true)?;
        let (typed, to_machine) = (line.try_clone()?, Arc::clone(&self.to_machine));
        std::thread::Builder::new()
            .name("wire".into())
            .spawn(move || type_through(typed, &to_machine))?;
        *lock(&self.shared.owner) = Some(Owner { line, id });
        Ok(())
    }

    /// Waits for the machine's mark, at most `limit`, and closes its line.
    pub(super) fn detach(&self, limit: Duration) {
        let owner = lock(&self.shared.owner);
        let waited = self.shared.freed.wait_timeout_while(owner, limit, |owner| owner.is_some());
        close(&mut waited.unwrap_or_else(PoisonError::into_inner).0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(owner: &mut Option<Owner>) {
    if let Some(owner) = owner.take() {
        let _ = owner.line.shutdown(Shutdown::Both);
    }
}

fn listen(mut reader: TcpStream, shared: &WireShared) {
    let (mut buffer, mut filter) = ([0; 4096], Filter::default());
    loop {
        let heard = match reader.read(&mut buffer) {
            Ok(n) if n > 0 => filter.feed(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            _ => break,
        };
        let mut owner = lock(&shared.owner);
        for piece in heard {
            match (piece, owner.as_mut()) {
                // An owner that has closed its end needs no more output, so the error is ignored.
                (WirePiece::Bytes(bytes), Some(owner)) => drop(owner.line.write_all(&bytes)),
                (WirePiece::Mark(id), Some(current)) if current.id == id => close(&mut owner),
                _ => {}
            }
        }
        shared.freed.notify_all();
    }
    close(&mut lock(&shared.owner));
    shared.freed.notify_all();
}

fn type_through(mut line: TcpStream, to_machine: &Mutex<TcpStream>) {
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = line.read(&mut buffer) {
        if lock(to_machine).write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

/// A part of a line's output.
#[derive(PartialEq, Eq, Debug)]
enum WirePiece {
    Bytes(Vec<u8>),
    Mark(u32),
}

/// Separates marks from output. A mark may be split over several reads.
#[derive(Default)]
struct Filter {
    mark: Option<Vec<u8>>,
}

impl Filter {
    fn feed(&mut self, bytes: &[u8]) -> Vec<WirePiece> {
        let (mut pieces, mut plain) = (Vec::new(), Vec::new());
        for &byte in bytes {
            match (&mut self.mark, byte) {
                (None, MARK) => self.mark = Some(Vec::new()),
                (None, _) => plain.push(byte),
                (Some(digits), b'0'..=b'9') => digits.push(byte),
                (Some(digits), _) => {
                    let id = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
                    pieces.push(WirePiece::Bytes(std::mem::take(&mut plain)));
                    pieces.extend(id.map(WirePiece::Mark));
                    self.mark = None;
                }
            }
        }
        pieces.push(WirePiece::Bytes(plain));
        pieces.retain(|piece| *piece != WirePiece::Bytes(Vec::new()));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_however_it_is_cut() {
        let text = b"abc\x1e12\nde";
        for cut in 0..text.len() {
            let mut filter = Filter::default();
            let mut pieces = filter.feed(&text[..cut]);
            pieces.extend(filter.feed(&text[cut..]));
            let marks = pieces.iter().filter(|piece| **piece == WirePiece::Mark(12)).count();
            let bytes: Vec<u8> = pieces
                .iter()
                .flat_map(|p| if let WirePiece::Bytes(b) = p { b.clone() } else { vec![] })
                .collect();
            assert_eq!((marks, bytes.as_slice()), (1, b"abcde".as_slice()), "cut at {cut}");
        }
    }
}
