//! An entry, its codec and its text.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | time since the hypervisor's start, ns |
//! | 8 | 2 | kind, a number of [`HistoryKind`] |
//! | 10 | 1 | partition's number; 255: the entry is about the machine |
//! | 11 | 1 | CPU that wrote the entry |
//! | 12 | 4 | code |
//! | 16 | 8 | first number |
//! | 24 | 8 | second number |
//!
//! All fields are little-endian. The kind says what code and numbers mean.

use super::kind::{CodeMeaning, HistoryKind};
use core::fmt;

/// Bytes of an encoded entry.
pub const ENTRY_BYTES: usize = 32;
/// Words of an entry in a ring.
pub(super) const ENTRY_WORDS: usize = ENTRY_BYTES / 8;

/// The partition's number that stands for the machine.
const MACHINE: u8 = u8::MAX;

/// The subject of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistorySubject {
    /// Disks, the pool, the hypervisor itself.
    Machine,
    /// A partition, by its number in the configuration, from 0.
    Partition(u8),
}

impl HistorySubject {
    /// Returns the subject of a partition's entries; a number beyond 254 counts as the machine.
    pub const fn partition(number: usize) -> Self {
        if number < MACHINE as usize { Self::Partition(number as u8) } else { Self::Machine }
    }
}

impl fmt::Display for HistorySubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.pad("machine"),
            Self::Partition(number) => write!(f, "partition {number:<3}"),
        }
    }
}

/// An event of the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// Time since the hypervisor's start, in ns.
    pub t_ns: u64,
    /// The number of its [`HistoryKind`], which a reader may not know.
    pub kind: u16,
    /// Its subject.
    pub of: HistorySubject,
    /// The CPU that wrote it.
    pub cpu: u8,
    /// An error, a disk or another code, by the kind.
    pub code: u32,
    /// Two numbers, by the kind.
    pub numbers: [u64; 2],
}

impl HistoryEntry {
    /// Returns the entry as words.
    pub(super) const fn words(&self) -> [u64; ENTRY_WORDS] {
        let of = match self.of {
            HistorySubject::Machine => MACHINE,
            HistorySubject::Partition(number) => number,
        };
        let small = self.kind as u64
            | (of as u64) << 16
            | (self.cpu as u64) << 24
            | (self.code as u64) << 32;
        [self.t_ns, small, self.numbers[0], self.numbers[1]]
    }

    /// Returns the entry of these words.
    pub(super) const fn of_words([t_ns, small, first, second]: [u64; ENTRY_WORDS]) -> Self {
        Self {
            t_ns,
            kind: small as u16,
            of: match (small >> 16) as u8 {
                MACHINE => HistorySubject::Machine,
                number => HistorySubject::Partition(number),
            },
            cpu: (small >> 24) as u8,
            code: (small >> 32) as u32,
            numbers: [first, second],
        }
    }

    /// Encodes the entry.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.words()) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// Decodes an entry. Any bytes are an entry, perhaps of an unknown kind.
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let mut words = [0; ENTRY_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self::of_words(words)
    }
}

/// Subject, kind and numbers; the caller prints the time.
impl fmt::Display for HistoryEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<13} CPU {}  ", self.of, self.cpu)?;
        let [first, second] = self.numbers;
        let Some(kind) = HistoryKind::of(self.kind) else {
            return write!(
                f,
                "unknown kind {}: code={} first={first:#x} second={second:#x}",
                self.kind, self.code
            );
        };
        let shape = kind.shape();
        write!(f, "{:<20}", shape.name)?;
        match shape.code {
            CodeMeaning::None => {}
            CodeMeaning::Number(label) => write!(f, " {label}={}", self.code)?,
            CodeMeaning::Words(label, words) => match words.get(self.code as usize) {
                Some(word) => write!(f, " {label}=\"{word}\"")?,
                None => write!(f, " {label}={}", self.code)?,
            },
        }
        for (label, number) in shape.numbers.into_iter().zip(self.numbers) {
            match label.strip_suffix(":x") {
                Some(label) => write!(f, " {label}={number:#x}")?,
                None if label.is_empty() => {}
                None => write!(f, " {label}={number}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn entry(kind: u16) -> HistoryEntry {
        HistoryEntry {
            t_ns: 0x0102_0304_0506_0708,
            kind,
            of: HistorySubject::Partition(3),
            cpu: 5,
            code: 0x8000_0001,
            numbers: [u64::MAX, 0x1122_3344_5566_7788],
        }
    }

    #[test]
    fn every_kind_comes_back_from_its_bytes() {
        let unknown = [0, 15, 9999, u16::MAX];
        for kind in HistoryKind::ALL.iter().map(|kind| *kind as u16).chain(unknown) {
            for of in (0..=254).map(HistorySubject::Partition).chain([HistorySubject::Machine]) {
                let entry = HistoryEntry { of, ..entry(kind) };
                assert_eq!(HistoryEntry::decode(&entry.encode()), entry);
            }
        }
    }

    #[test]
    fn the_bytes_lie_where_the_table_says() {
        let bytes = entry(0x1234).encode();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[8..16], [0x34, 0x12, 3, 5, 1, 0, 0, 0x80]);
        assert_eq!(bytes[24..], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(HistorySubject::partition(254), HistorySubject::Partition(254));
        assert_eq!(HistorySubject::partition(255), HistorySubject::Machine);
    }

    #[test]
    fn a_kind_is_told_in_its_own_words() {
        let crashed = HistoryEntry {
            kind: HistoryKind::Crashed as u16,
            code: 1,
            numbers: [7, 0x10],
            ..entry(0)
        };
        assert_eq!(
            crashed.to_string(),
            "partition 3   CPU 5  crashed              reason=\"triple fault\" incarnation=7 \
             detail=0x10"
        );
        let written_off = HistoryEntry {
            kind: HistoryKind::DiskWrittenOff as u16,
            of: HistorySubject::Machine,
            code: 2,
            numbers: [4, 9],
            ..crashed
        };
        assert_eq!(
            written_off.to_string(),
            "machine       CPU 5  disk written off     disk=2 unanswered=4"
        );
    }

    #[test]
    fn what_is_not_known_is_told_by_its_numbers() {
        let text = HistoryEntry { code: 8, numbers: [1, 2], ..entry(15) }.to_string();
        assert!(text.ends_with("unknown kind 15: code=8 first=0x1 second=0x2"), "{text}");
        let beyond = HistoryEntry { kind: HistoryKind::Crashed as u16, code: 99, ..entry(0) };
        assert!(beyond.to_string().contains(" reason=99 "), "{beyond}");
        for kind in 0..=u16::MAX {
            let text = HistoryEntry { kind, ..beyond }.to_string();
            assert!(text.len() < 160, "{text}");
        }
    }
}
