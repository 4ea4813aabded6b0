//! What members write to each other: kinds of messages, and the texts of those that are no words
//! for people.
//!
//! | kind | from | text |
//! |---|---|---|
//! | 1 text | operator | UTF-8 |
//! | 2 may I move | source | number, name, memory, space, policy, what guests are promised there |
//! | 3 answer | target | number, yes or no, reason |
//! | 4 arrived | target | number, yes or no, reason |
//! | 5 drain | operator | 1 drain, 0 end the drain |
//!
//! A message is a request or news. Nothing rests on it: decrees say who owns what.

use arrayvec::ArrayString;
use cluster::mail::{MAX_BODY, MailBody};
use cluster::sector::{FieldReader, FieldWriter};

/// Bytes of what a machine promises to its guests.
pub const PROMISE_LEN: usize = 160;

/// The kind of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum LetterKind {
    /// Words of an operator.
    Text = 1,
    /// May this partition move to you?
    MoveAsked = 2,
    /// The answer to that.
    MoveAnswered = 3,
    /// It runs, or was given back.
    MoveEnded = 4,
    /// Give all partitions away.
    Drain = 5,
}

impl LetterKind {
    /// Returns the kind with this number; `None` if it is a newer program's.
    pub fn of(number: u16) -> Option<Self> {
        let all = [Self::Text, Self::MoveAsked, Self::MoveAnswered, Self::MoveEnded, Self::Drain];
        all.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// May this partition move to you?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveQuestion {
    /// Number of the move at its source.
    pub number: u64,
    /// The partition.
    pub name: ArrayString<64>,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// The space that it lies in, as the log names it.
    pub space: u128,
    /// What a crash leads to.
    pub policy: u8,
    /// What the source promises to its guests.
    pub promise: [u8; PROMISE_LEN],
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveWord {
    /// Number of the move at its source.
    pub number: u64,
    /// The reason for a no.
    pub refused: Option<ArrayString<256>>,
}

fn body(write: impl FnOnce(&mut FieldWriter<'_>)) -> MailBody {
    let mut bytes = [0; MAX_BODY];
    let mut out = FieldWriter::new(&mut bytes);
    write(&mut out);
    let len = out.len().min(MAX_BODY);
    bytes.iter().take(len).copied().collect()
}

fn text_of<const N: usize>(fields: &mut FieldReader<'_>) -> Option<ArrayString<N>> {
    let len = usize::from(fields.u16());
    let bytes: [u8; N] = fields.raw();
    ArrayString::from(core::str::from_utf8(bytes.get(..len)?).ok()?).ok()
}

fn put_text<const N: usize>(out: &mut FieldWriter<'_>, text: &ArrayString<N>) {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    out.u16(text.len() as u16);
    out.raw(&bytes);
}

impl MoveQuestion {
    /// Encodes the message.
    pub fn encode(&self) -> MailBody {
        body(|out| {
            out.u64(self.number);
            put_text(out, &self.name);
            out.u64(self.memory_bytes);
            out.u128(self.space);
            out.u8(self.policy);
            out.raw(&self.promise);
        })
    }

    /// Reads a message; `None` if it is none of this program.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = FieldReader::new(bytes);
        let number = fields.u64();
        let name = text_of(&mut fields)?;
        Some(Self {
            number,
            name,
            memory_bytes: fields.u64(),
            space: fields.u128(),
            policy: fields.u8(),
            promise: fields.raw(),
        })
    }
}

impl MoveWord {
    /// Encodes the message.
    pub fn encode(&self) -> MailBody {
        body(|out| {
            out.u64(self.number);
            out.u8(self.refused.is_some().into());
            put_text(out, &self.refused.unwrap_or_default());
        })
    }

    /// Reads a message; `None` if it is none of this program.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = FieldReader::new(bytes);
        let (number, is_refused) = (fields.u64(), fields.u8() != 0);
        let reason = text_of(&mut fields)?;
        Some(Self { number, refused: is_refused.then_some(reason) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_written() {
        let name = ArrayString::from(&"n".repeat(64)).unwrap();
        let promise = core::array::from_fn(|n| n as u8);
        let (space, policy) = (u128::MAX - 5, 3);
        let question =
            MoveQuestion { number: 7, name, memory_bytes: 1 << 40, space, policy, promise };
        assert_eq!(MoveQuestion::decode(&question.encode()), Some(question));
        for refused in [None, Some(ArrayString::from(&"w".repeat(256)).unwrap())] {
            let word = MoveWord { number: 9, refused };
            assert_eq!(MoveWord::decode(&word.encode()), Some(word));
        }
    }

    #[test]
    fn texts_of_other_programs_are_refused() {
        let mut bytes = MoveWord { number: 9, refused: None }.encode();
        bytes[9] = 0xff;
        bytes[10] = 0xff;
        assert_eq!(MoveWord::decode(&bytes), None);
        bytes[9] = 1;
        bytes[10] = 0;
        bytes[11] = 0xff;
        assert_eq!(MoveWord::decode(&bytes), None, "no text");
        assert_eq!(LetterKind::of(6), None);
        assert_eq!(LetterKind::of(4), Some(LetterKind::MoveEnded));
    }
}
