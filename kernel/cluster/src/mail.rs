//! Mail between members: a block a slot, which its member alone writes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 24 | 8 | number of this version of the block, from 1 |
//! | 32 | 1, 1 | messages; acknowledgements |
//! | 34 | 430 each | receiver 2 + 16, number 8, kind 2, length 2, text 400 |
//! | 3044 | 10 each | an acknowledgement: sender's slot 2, number 8 |
//! | 4092 | 4 | CRC32C |
//!
//! A half-written block is no block: its readers keep what they have read before, and the writer,
//! who has the messages in memory, writes it again. No decision rests on mail: decrees decide.

use crate::id::MemberId;
use crate::sector::{FieldReader, FieldWriter, SectorError, SectorKind};
use arrayvec::ArrayVec;

/// Bytes of a block.
pub const MAIL_BLOCK: usize = 4096;
/// Most messages of a member that are not acknowledged.
pub const MAX_OUTGOING: usize = 7;
/// Most bytes of a message.
pub const MAX_BODY: usize = 400;
/// Most senders whose messages are acknowledged at a time.
pub const MAX_ACKS: usize = 64;

const MESSAGE: usize = 2 + 16 + 8 + 2 + 2 + MAX_BODY;
const _: () = assert!(34 + MAX_OUTGOING * MESSAGE + MAX_ACKS * 10 + 4 <= MAIL_BLOCK);

/// The text of a message.
pub type MailBody = ArrayVec<u8, MAX_BODY>;

/// A message on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailMessage {
    /// Its receiver.
    pub to: MemberId,
    /// Counted up with every message of the sender.
    pub number: u64,
    /// What it is about: the caller's matter.
    pub kind: u16,
    /// Its text.
    pub body: MailBody,
}

/// What a receiver has read: all messages of the member in `slot` up to `number`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MailAck {
    /// The sender's slot.
    pub slot: u16,
    /// The last number that was read.
    pub number: u64,
}

/// A block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailBlock {
    /// Its writer.
    pub member: MemberId,
    /// Number of this version.
    pub version: u64,
    /// Messages that are not acknowledged.
    pub messages: ArrayVec<MailMessage, MAX_OUTGOING>,
    /// What the writer has read of others.
    pub acks: ArrayVec<MailAck, MAX_ACKS>,
}

impl MailBlock {
    /// Writes the block, which fills the first [`MAIL_BLOCK`] bytes.
    pub fn encode(&self, bytes: &mut [u8; MAIL_BLOCK]) {
        let mut out = FieldWriter::frame(bytes, SectorKind::Mail, self.member);
        out.u64(self.version);
        out.u8(self.messages.len() as u8);
        out.u8(self.acks.len() as u8);
        for place in 0..MAX_OUTGOING {
            let Some(message) = self.messages.get(place) else {
                out.raw(&[0; MESSAGE]);
                continue;
            };
            out.member(message.to);
            out.u64(message.number);
            out.u16(message.kind);
            out.u16(message.body.len() as u16);
            let mut body = [0; MAX_BODY];
            let (text, _) = body.split_at_mut(message.body.len());
            text.copy_from_slice(&message.body);
            out.raw(&body);
        }
        for ack in &self.acks {
            out.u16(ack.slot);
            out.u64(ack.number);
        }
        out.seal();
    }

    /// Reads a block.
    ///
    /// # Errors
    /// If it is empty, torn or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, SectorError> {
        let (member, mut fields) = FieldReader::open(bytes, SectorKind::Mail)?;
        let version = fields.u64();
        let (count, acked) = (usize::from(fields.u8()), usize::from(fields.u8()));
        if bytes.len() != MAIL_BLOCK || count > MAX_OUTGOING || acked > MAX_ACKS {
            return Err(SectorError::Torn);
        }
        let mut block = Self { member, version, messages: ArrayVec::new(), acks: ArrayVec::new() };
        for place in 0..MAX_OUTGOING {
            let message = message(&mut fields)?;
            if place < count {
                block.messages.push(message);
            }
        }
        for _ in 0..acked {
            block.acks.push(MailAck { slot: fields.u16(), number: fields.u64() });
        }
        Ok(block)
    }
}

fn message(fields: &mut FieldReader<'_>) -> Result<MailMessage, SectorError> {
    let (to, number, kind) = (fields.member(), fields.u64(), fields.u16());
    let len = usize::from(fields.u16());
    let text: [u8; MAX_BODY] = fields.raw();
    let text = text.get(..len).ok_or(SectorError::Torn)?;
    let body = text.iter().copied().collect();
    Ok(MailMessage { to, number, kind, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    fn block(messages: usize, acks: usize) -> MailBlock {
        let member = MemberId { slot: 3, incarnation: Incarnation(77) };
        let message = |n: usize| MailMessage {
            to: MemberId { slot: n as u16, incarnation: Incarnation(9 + n as u128) },
            number: 40 + n as u64,
            kind: n as u16,
            body: (0..MAX_BODY * n / 6).map(|at| at as u8 ^ 0x5a).collect(),
        };
        let ack = |n: usize| MailAck { slot: n as u16, number: n as u64 * 3 };
        MailBlock {
            member,
            version: 12,
            messages: (0..messages).map(message).collect(),
            acks: (0..acks).map(ack).collect(),
        }
    }

    fn encoded(block: &MailBlock) -> [u8; MAIL_BLOCK] {
        let mut bytes = [0xee; MAIL_BLOCK];
        block.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_block_comes_back_as_it_was_written() {
        for (messages, acks) in [(0, 0), (1, 0), (0, 1), (MAX_OUTGOING, MAX_ACKS)] {
            let block = block(messages, acks);
            assert_eq!(MailBlock::decode(&encoded(&block)), Ok(block));
        }
    }

    #[test]
    fn every_damaged_byte_and_every_half_is_found() {
        let (before, after) = (encoded(&block(2, 5)), encoded(&block(MAX_OUTGOING, MAX_ACKS)));
        for at in 0..MAIL_BLOCK {
            let mut bytes = after;
            bytes[at] ^= 1 << (at % 8);
            assert!(MailBlock::decode(&bytes).is_err(), "byte {at}");
        }
        for cut in (512..MAIL_BLOCK).step_by(512) {
            let torn = [&after[..cut], &before[cut..]].concat();
            assert_eq!(MailBlock::decode(&torn), Err(SectorError::Torn), "{cut}");
        }
        assert_eq!(MailBlock::decode(&[0; MAIL_BLOCK]), Err(SectorError::Empty));
        assert_eq!(MailBlock::decode(&after[..512]), Err(SectorError::Torn));
    }

    #[test]
    fn impossible_counts_and_lengths_are_torn() {
        for (at, value) in [(32, MAX_OUTGOING as u8 + 1), (33, MAX_ACKS as u8 + 1), (63, 2)] {
            let mut bytes = encoded(&block(1, 1));
            bytes[at] = value;
            let crc = crate::crc::crc32c(&bytes[..MAIL_BLOCK - 4]).to_le_bytes();
            bytes[MAIL_BLOCK - 4..].copy_from_slice(&crc);
            assert_eq!(MailBlock::decode(&bytes), Err(SectorError::Torn), "{at}");
        }
    }
}
