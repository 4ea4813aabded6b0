//! The contents of a disk after a power cut, derived from the log of its requests.
//!
//! ```text
//!   base image ─ writes covered by a flush ─ a part of the others ──> the image of the next start
//! ```
//!
//! A flush covers the writes that were answered before the flush arrived. It must have been
//! answered itself.

use crate::nbd::{RequestKind, RequestLogEntry};
use crate::seeds::Choices;
use std::time::Duration;

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The fate of the writes that no flush has covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnflushedFate {
    /// All are lost.
    Lost,
    /// All have landed.
    Landed,
    /// Some have landed, each as a whole.
    Some,
    /// Some sectors of each have landed.
    Torn,
    /// Only the last one has landed.
    Last,
    /// All but the last one have landed.
    ButLast,
}

impl UnflushedFate {
    /// All fates.
    pub const ALL: [Self; 6] =
        [Self::Lost, Self::Landed, Self::Some, Self::Torn, Self::Last, Self::ButLast];

    /// Returns whether a sector of a write lands.
    fn lands(self, write: WriteInDoubt, dice: &mut Choices) -> bool {
        match self {
            Self::Lost => false,
            Self::Landed => true,
            Self::Some => write.is_lucky,
            Self::Torn => dice.one_in(2),
            Self::Last => write.is_last,
            Self::ButLast => !write.is_last,
        }
    }
}

/// A write that no flush has covered.
#[derive(Clone, Copy)]
struct WriteInDoubt {
    is_last: bool,
    is_lucky: bool,
}

/// A disk's first image, and all its requests since.
#[derive(Clone, Debug)]
pub struct RecordedDisk {
    /// Its bytes before the first request.
    pub base: Vec<u8>,
    /// Its requests, in the order of their arrival.
    pub log: Vec<RequestLogEntry>,
}

impl RecordedDisk {
    /// Returns the disk's contents if the power is cut at `cut`, a time of the log.
    pub fn at(&self, cut: Duration, fate: UnflushedFate, dice: &mut Choices) -> Vec<u8> {
        let covered = self.covered(cut);
        let writes: Vec<_> =
            self.log.iter().filter(|entry| entry.writes() && entry.arrived <= cut).collect();
        let is_covered =
            |entry: &RequestLogEntry| entry.answered.is_some_and(|answered| answered <= covered);
        let last = writes.iter().rposition(|entry| !is_covered(entry));
        let mut image = self.base.clone();
        for (n, entry) in writes.into_iter().enumerate() {
            let write = WriteInDoubt { is_last: last == Some(n), is_lucky: dice.one_in(2) };
            let is_safe = is_covered(entry);
            put(&mut image, entry, || is_safe || fate.lands(write, dice));
        }
        image
    }

    /// Returns the time by which a write must have been answered to be covered by a flush at `cut`.
    fn covered(&self, cut: Duration) -> Duration {
        let ended = self
            .log
            .iter()
            .filter(|entry| entry.kind == RequestKind::Flush && entry.failure.is_none());
        let ended = ended.filter(|entry| entry.answered.is_some_and(|answered| answered <= cut));
        ended.map(|flush| flush.arrived).max().unwrap_or(Duration::ZERO)
    }
}

/// Copies the sectors of a write that land into an image. A trimmed range reads as zeros.
fn put(image: &mut [u8], entry: &RequestLogEntry, mut lands: impl FnMut() -> bool) {
    let (start, end) = (entry.bytes.start as usize, entry.bytes.end as usize);
    for at in (start..end).step_by(SECTOR) {
        if !lands() {
            continue;
        }
        let sector = at..end.min(at + SECTOR);
        match &entry.data {
            Some(data) => image[sector.clone()]
                .copy_from_slice(&data[sector.start - start..sector.end - start]),
            None => image[sector].fill(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::NbdError;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn request(
        kind: RequestKind,
        bytes: std::ops::Range<u64>,
        byte: u8,
        times: (u64, Option<u64>),
    ) -> RequestLogEntry {
        let data = (kind == RequestKind::Write)
            .then(|| vec![byte; (bytes.end - bytes.start) as usize].into());
        let (arrived, answered) = (ms(times.0), times.1.map(ms));
        RequestLogEntry {
            node: "n",
            kind,
            bytes,
            arrived,
            answered,
            action: None,
            failure: None,
            data,
        }
    }

    /// Three writes of two sectors. A flush covers only the first: the second is answered after the
    /// flush arrived.
    fn disk() -> RecordedDisk {
        let log = vec![
            request(RequestKind::Write, 0..1024, 1, (1, Some(2))),
            request(RequestKind::Write, 1024..2048, 2, (3, Some(6))),
            request(RequestKind::Flush, 0..0, 0, (5, Some(8))),
            request(RequestKind::WriteZeroes, 2048..3072, 0, (9, None)),
        ];
        RecordedDisk { base: vec![9; 3072], log }
    }

    fn sectors(cut: u64, fate: UnflushedFate) -> Vec<u8> {
        let image = disk().at(ms(cut), fate, &mut Choices::new(1));
        image.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn a_flush_covers_what_was_answered_before_it_arrived_and_only_when_it_is_answered() {
        assert_eq!(sectors(7, UnflushedFate::Lost), [9, 9, 9, 9, 9, 9]);
        assert_eq!(sectors(8, UnflushedFate::Lost), [1, 1, 9, 9, 9, 9]);
        assert_eq!(sectors(9, UnflushedFate::Landed), [1, 1, 2, 2, 0, 0]);
    }

    #[test]
    fn only_what_is_in_doubt_is_lost() {
        assert_eq!(sectors(9, UnflushedFate::Last), [1, 1, 9, 9, 0, 0]);
        assert_eq!(sectors(9, UnflushedFate::ButLast), [1, 1, 2, 2, 9, 9]);
        for fate in UnflushedFate::ALL {
            assert_eq!(sectors(9, fate)[..2], [1, 1], "{fate:?}");
        }
        let torn = |seed| disk().at(ms(9), UnflushedFate::Torn, &mut Choices::new(seed));
        assert!((0..20).any(|seed| torn(seed)[1024] != torn(seed)[1536]), "no write is ever torn");
    }

    #[test]
    fn a_failed_flush_covers_nothing() {
        let mut disk = disk();
        disk.log[2].failure = Some(NbdError::Io);
        assert_eq!(disk.at(ms(8), UnflushedFate::Lost, &mut Choices::new(1))[0], 9);
    }
}
