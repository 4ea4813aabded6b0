//! NBD on the wire: the fixed newstyle handshake, requests and simple replies, all numbers
//! big-endian. NBD's `doc/proto.md`, "Fixed newstyle negotiation", "Request message", "Simple reply
//! message", "Values".

use anyhow::{Result, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;

const SERVER_MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u64 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

const FIXED_NEWSTYLE: u16 = 1;
/// Transmission flags: flags valid, FLUSH, TRIM, WRITE_ZEROES, multiple connections with one cache.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8;
/// Longest option that is accepted.
const LONGEST_OPTION: usize = 4096;
/// Most data bytes of a request.
const LONGEST_REQUEST: u64 = 32 << 20;

mod option {
    pub(super) const EXPORT_NAME: u32 = 1;
    pub(super) const ABORT: u32 = 2;
    pub(super) const INFO: u32 = 6;
    pub(super) const GO: u32 = 7;
}

mod reply {
    pub(super) const ACKNOWLEDGED: u32 = 1;
    pub(super) const INFO: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = 1 << 31 | 1;
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// Return bytes.
    Read,
    /// Write bytes.
    Write,
    /// Make earlier writes durable.
    Flush,
    /// Discard bytes.
    Trim,
    /// Write zeros.
    WriteZeroes,
}

/// A request's error: an error number of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NbdError {
    /// EIO.
    Io,
    /// EINVAL.
    Invalid,
    /// ENOSPC.
    NoSpace,
}

impl NbdError {
    const fn number(self) -> u32 {
        match self {
            Self::Io => 5,
            Self::Invalid => 22,
            Self::NoSpace => 28,
        }
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NbdRequest {
    pub(super) kind: RequestKind,
    /// Bytes of the disk.
    pub(super) bytes: Range<u64>,
    /// The bytes to write.
    pub(super) data: Vec<u8>,
    handle: [u8; 8],
}

impl NbdRequest {
    /// Reads the next request; `None` where the client disconnects.
    pub(super) fn read(stream: &mut impl Read) -> Result<Option<Self>> {
        let mut head = [0; 28];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        ensure!(number(&head[..4]) == REQUEST_MAGIC, "no request of NBD: {head:x?}");
        let (start, len) = (number(&head[16..24]), number(&head[24..]));
        let kind = match number(&head[6..8]) {
            0 => RequestKind::Read,
            1 => RequestKind::Write,
            2 => return Ok(None),
            3 => RequestKind::Flush,
            4 => RequestKind::Trim,
            6 => RequestKind::WriteZeroes,
            other => bail!("a request of kind {other}"),
        };
        let carried = if matches!(kind, RequestKind::Read | RequestKind::Write) { len } else { 0 };
        ensure!(carried <= LONGEST_REQUEST, "a request of {len} bytes");
        let mut data = vec![0; if kind == RequestKind::Write { len as usize } else { 0 }];
        stream.read_exact(&mut data)?;
        let mut handle = [0; 8];
        handle.copy_from_slice(&head[8..16]);
        Ok(Some(Self { kind, bytes: start..start.saturating_add(len), data, handle }))
    }

    /// Returns the number of bytes that the request covers.
    pub(super) fn len(&self) -> usize {
        (self.bytes.end - self.bytes.start) as usize
    }

    /// Answers with the bytes read, or with an error.
    pub(super) fn answer(
        &self,
        stream: &mut impl Write,
        outcome: Result<Vec<u8>, NbdError>,
    ) -> std::io::Result<()> {
        let (error, data) = match outcome {
            Ok(data) => (0, data),
            Err(failure) => (failure.number(), Vec::new()),
        };
        let (magic, error) = (REPLY_MAGIC.to_be_bytes(), error.to_be_bytes());
        stream.write_all(&[&magic[..], &error, &self.handle, &data].concat())
    }
}

/// Answers options until one begins the transmission phase; returns false where the client
/// disconnects.
pub(super) fn shake_hands(stream: &mut (impl Read + Write), len: u64) -> Result<bool> {
    stream.write_all(&[&SERVER_MAGIC[..], OPTION_MAGIC, &FIXED_NEWSTYLE.to_be_bytes()].concat())?;
    let mut client_flags = [0; 4];
    stream.read_exact(&mut client_flags)?;
    let (size, flags) = (len.to_be_bytes(), FLAGS.to_be_bytes());
    loop {
        match read_option(stream)? {
            option::EXPORT_NAME => {
                stream.write_all(&[&size[..], &flags, &[0; 124]].concat())?;
                return Ok(true);
            }
            option::ABORT => return Ok(false),
            option @ (option::INFO | option::GO) => {
                const EXPORT: [u8; 2] = [0; 2];
                send_reply(stream, option, reply::INFO, &[&EXPORT[..], &size, &flags].concat())?;
                send_reply(stream, option, reply::ACKNOWLEDGED, &[])?;
                if option == option::GO {
                    return Ok(true);
                }
            }
            other => send_reply(stream, other, reply::UNSUPPORTED, &[])?,
        }
    }
}

fn read_option(stream: &mut impl Read) -> Result<u32> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    ensure!(&head[..8] == OPTION_MAGIC, "no option of NBD: {head:x?}");
    let len = number(&head[12..]) as usize;
    ensure!(len <= LONGEST_OPTION, "an option of {len} bytes");
    stream.read_exact(&mut vec![0; len])?;
    Ok(number(&head[8..12]) as u32)
}

fn send_reply(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> std::io::Result<()> {
    let words = [option, kind, data.len() as u32].map(u32::to_be_bytes);
    stream.write_all(&[&OPTION_REPLY.to_be_bytes()[..], words.as_flattened(), data].concat())
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
