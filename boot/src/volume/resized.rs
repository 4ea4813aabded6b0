//! A paging space whose image was cut or grown. Its record is not at the end, so the image looks
//! like an unknown ELF file, or blank.
//!
//! ```text
//!   grown:  [ELF][...][record A][record B] 0 0 0 0  the record is there, but not at the end
//!   cut:    [ELF][...                               the record is gone; the ELF header has the end
//! ```

use super::SpaceImage;
use anyhow::Result;
use kernel::size::ReadableSize;
use kernel::space::SpaceRecord;
use kernel::space::layout::RECORD_SIZE;
use std::fmt;

/// Bytes before the end in which a record is searched.
const LOOK_BACK: u64 = 4 << 30;
const PIECE: u64 = 1 << 20;
/// The claim and both copies of the record.
const TAIL: u64 = 12 << 10;
/// Offset of a space's size in its record.
const CAPACITY_AT: usize = 168;
/// Bytes of program headers that are examined.
const HEADERS: usize = 64 << 10;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;

/// A space whose image has another size than the space was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ResizedSpace {
    /// A sound record lies before the end.
    Grown {
        /// The newest such record; it has the original size of the space.
        record: Box<SpaceRecord>,
        /// Present size of the space in bytes.
        is: u64,
    },
    /// A dump's header describes blocks beyond the end, or so far that their record would lie
    /// beyond it.
    Cut {
        /// Least original size of the space in bytes.
        least: u64,
        /// Present size in bytes.
        is: u64,
    },
}

impl fmt::Display for ResizedSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| format!("{} ({bytes} bytes)", ReadableSize(bytes));
        match self {
            Self::Grown { record, is } => {
                write!(
                    f,
                    "grown: was {}, is {}; {}",
                    size(record.capacity),
                    size(*is),
                    record.state.name()
                )?;
                match &record.owner {
                    Some(owner) => {
                        write!(f, ", made for {} incarnation {}", owner.name, owner.epoch)
                    }
                    None => Ok(()),
                }
            }
            Self::Cut { least, is } => {
                write!(
                    f,
                    "a dump that was cut: was {} at least, is {}; its record is gone",
                    size(*least),
                    size(*is)
                )
            }
        }
    }
}

impl ResizedSpace {
    /// Looks for a space of another size on an image that is not recognised at its present size.
    ///
    /// # Errors
    /// Where the image cannot be read.
    pub fn find(image: &SpaceImage) -> Result<Option<Self>> {
        match grown(image)? {
            Some(found) => Ok(Some(found)),
            None => cut(image),
        }
    }
}

fn grown(image: &SpaceImage) -> Result<Option<ResizedSpace>> {
    let is = image.capacity();
    let (mut end, mut piece) = (is / RECORD_SIZE * RECORD_SIZE, Vec::new());
    let least = end.saturating_sub(LOOK_BACK);
    let mut newest: Option<SpaceRecord> = None;
    // Once one copy is found, the other is at most a piece away.
    while end > least {
        let start = end.saturating_sub(PIECE);
        piece.resize((end - start) as usize, 0);
        image.read(start, &mut piece)?;
        let had_one = newest.is_some();
        for (n, bytes) in piece.as_chunks::<{ RECORD_SIZE as usize }>().0.iter().enumerate() {
            let found = record_at(bytes, start + n as u64 * RECORD_SIZE)
                .filter(|found| found.capacity != is);
            newest =
                [newest.take(), found].into_iter().flatten().max_by_key(|record| record.sequence);
        }
        if had_one {
            break;
        }
        end = start;
    }
    Ok(newest.map(|record| ResizedSpace::Grown { record: Box::new(record), is }))
}

/// Decodes a record whose space ends right behind it, or one record further.
fn record_at(bytes: &[u8; RECORD_SIZE as usize], at: u64) -> Option<SpaceRecord> {
    let capacity = u64::from_le_bytes(*bytes[CAPACITY_AT..].first_chunk()?);
    let behind = capacity.checked_sub(at)?;
    let is_there = behind == RECORD_SIZE || behind == 2 * RECORD_SIZE;
    SpaceRecord::decode(bytes, capacity).ok().filter(|_| is_there)
}

fn cut(image: &SpaceImage) -> Result<Option<ResizedSpace>> {
    let is = image.capacity();
    let mut head = vec![0; HEADERS.min(usize::try_from(is)?)];
    image.read(0, &mut head)?;
    Ok(described_end(&head)
        .map(|end| ResizedSpace::Cut { least: end + TAIL, is })
        .filter(|_| is > 0))
}

/// Returns the end of the last block that the program headers in `head` describe; `None` if they
/// are not a dump's.
fn described_end(head: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let count = usize::from(u16::from_le_bytes(*head.get(56..)?.first_chunk()?));
    let kind = |at: usize| word(at).map(|word| word & 0xffff_ffff);
    let is_dump =
        head.starts_with(b"\x7fELF\x02\x01\x01") && word(32)? == 64 && kind(64)? == PT_NOTE;
    let notes = word(64 + 8)?;
    let mut end = notes.checked_add(word(64 + 32)?)?;
    for at in (1..count).map(|n| 64 + 56 * n) {
        let (Some(kind), Some(offset), Some(len), Some(align)) =
            (kind(at), word(at + 8), word(at + 32), word(at + 48))
        else {
            break;
        };
        if kind != PT_LOAD || align != 0 || offset < notes {
            return None;
        }
        end = end.max(offset.checked_add(len)?);
    }
    (is_dump && notes.is_multiple_of(RECORD_SIZE)).then_some(end)
}
