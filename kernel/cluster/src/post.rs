//! A member's mail: what it sends, what it has read.
//!
//! ```text
//!   send ──> outgoing ── block written, then the beat tells its version ──> read by the receiver
//!               ^  └── acknowledged, or the receiver is not up any more: dropped      │
//!               └───────────────── the receiver's block tells the number <────────────┘
//! ```
//!
//! * A message stays in the block until its receiver has acknowledged it or is no member any more.
//! * Numbers of a sender grow, and an acknowledgement stays until the sender has taken the message
//!   out. So no message is read twice.
//! * A version of a block says nothing if a later one was read.

use crate::event::ClusterEvent;
use crate::id::MemberId;
use crate::mail::{MAX_ACKS, MAX_BODY, MAX_OUTGOING, MailAck, MailBlock, MailBody, MailMessage};
use crate::state::{ClusterState, MemberStatus};
use crate::watch::MailRest;
use arrayvec::ArrayVec;

/// Most messages that were read and wait for the caller.
const MAX_INCOMING: usize = 4;

/// Why a message is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailError {
    /// The area has no room for mail: it was made by an older program.
    NoRoom,
    /// The receiver's program is older and reads no mail, or its first beat was not seen yet.
    Deaf,
    /// The receiver is not up.
    NotUp,
    /// As many messages as can be wait for their receivers.
    Full,
    /// The text is too long.
    TooLong,
}

impl core::fmt::Display for MailError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "the cluster area has no room for mail: an older program has made it",
            Self::Deaf => "its program reads no mail",
            Self::NotUp => "it is not up",
            Self::Full => "earlier messages wait for their receivers: try again in a moment",
            Self::TooLong => "a message has at most 400 bytes",
        })
    }
}

impl core::error::Error for MailError {}

/// A message that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadMail {
    /// Its sender.
    pub from: MemberId,
    /// Its number.
    pub number: u64,
    /// What it is about.
    pub kind: u16,
    /// Its text.
    pub body: MailBody,
}

/// A member's mail.
#[derive(Clone, Debug)]
pub struct MemberMail {
    outgoing: ArrayVec<(MailMessage, u64), MAX_OUTGOING>,
    acks: ArrayVec<MailAck, MAX_ACKS>,
    incoming: ArrayVec<ReadMail, MAX_INCOMING>,
    last: u64,
    /// The version that was written last.
    version: u64,
    /// The block on the disk is not what it should be.
    is_stale: bool,
}

impl MemberMail {
    /// Returns the mail of a new member.
    pub(crate) const fn new() -> Self {
        Self {
            outgoing: ArrayVec::new_const(),
            acks: ArrayVec::new_const(),
            incoming: ArrayVec::new_const(),
            last: 0,
            version: 0,
            is_stale: false,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.outgoing.clear();
        self.acks.clear();
        self.incoming.clear();
        (self.last, self.version, self.is_stale) = (0, 0, false);
    }

    /// Returns whether the block has to be written.
    pub(crate) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Returns whether a message waits for its receiver.
    pub(crate) fn waits(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns the version that was written last.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Adds a message, and returns its number.
    ///
    /// # Errors
    /// [`MailError::TooLong`], [`MailError::Full`].
    pub(crate) fn send(
        &mut self,
        to: MemberId,
        kind: u16,
        text: &[u8],
        now_ns: u64,
    ) -> Result<u64, MailError> {
        if text.len() > MAX_BODY {
            return Err(MailError::TooLong);
        }
        let number = self.last + 1;
        let message = MailMessage { to, number, kind, body: text.iter().copied().collect() };
        self.outgoing.try_push((message, now_ns)).map_err(|_| MailError::Full)?;
        (self.last, self.is_stale) = (number, true);
        Ok(number)
    }

    /// Returns the next version of the block.
    pub(crate) fn block(&self, member: MemberId) -> MailBlock {
        MailBlock {
            member,
            version: self.version + 1,
            messages: self.outgoing.iter().map(|(message, _)| message.clone()).collect(),
            acks: self.acks.clone(),
        }
    }

    /// Notes that the block is being written: what comes from now on needs another version.
    pub(crate) const fn posting(&mut self) {
        self.is_stale = false;
    }

    /// Notes that the block is durable.
    pub(crate) const fn posted(&mut self) {
        self.version += 1;
    }

    /// Reads another member's block. The caller has made sure that no later one was read before.
    pub(crate) fn read(
        &mut self,
        me: MemberId,
        block: &MailBlock,
        now_ns: u64,
        note: &mut impl FnMut(ClusterEvent),
    ) -> MailRest {
        let slot = block.member.slot;
        if let Some(ack) = block.acks.iter().find(|ack| ack.slot == me.slot) {
            let before = self.outgoing.len();
            self.outgoing.retain(|(message, since_ns)| {
                let is_read = message.to == block.member && message.number <= ack.number;
                if is_read {
                    let took_ns = now_ns.saturating_sub(*since_ns);
                    note(ClusterEvent::MailRead { slot, number: message.number, took_ns });
                }
                !is_read
            });
            self.is_stale |= self.outgoing.len() != before;
        }
        let known = self.acked(slot);
        let mine = block.messages.iter().filter(|message| message.to == me);
        if known.is_some_and(|known| !mine.clone().any(|message| message.number <= known)) {
            // The sender has seen the acknowledgement.
            self.acks.retain(|ack| ack.slot != slot);
            self.is_stale = true;
        }
        let is_whole = mine.into_iter().all(|message| self.take_in(block.member, message));
        if is_whole { MailRest::Nothing } else { MailRest::More }
    }

    fn acked(&self, slot: u16) -> Option<u64> {
        self.acks.iter().find(|ack| ack.slot == slot).map(|ack| ack.number)
    }

    /// Takes a message; returns false if there is no room for it now.
    fn take_in(&mut self, from: MemberId, message: &MailMessage) -> bool {
        let MailMessage { number, kind, body, .. } = message;
        let known = self.acked(from.slot);
        if known.is_some_and(|known| known >= *number) && !mutant!(DeliverTwice) {
            return true;
        }
        let is_full = self.incoming.is_full() && !mutant!(AckUnread);
        if is_full || known.is_none() && self.acks.is_full() {
            return false;
        }
        let read = ReadMail { from, number: *number, kind: *kind, body: body.clone() };
        let _ = self.incoming.try_push(read);
        match self.acks.iter_mut().find(|ack| ack.slot == from.slot) {
            Some(ack) => ack.number = *number,
            None => self.acks.push(MailAck { slot: from.slot, number: *number }),
        }
        self.is_stale = true;
        true
    }

    /// Takes the oldest message that was read.
    pub(crate) fn take(&mut self) -> Option<ReadMail> {
        self.incoming.pop_at(0)
    }

    /// Drops what concerns members that are not up any more.
    pub(crate) fn settle(&mut self, state: &ClusterState, note: &mut impl FnMut(ClusterEvent)) {
        let is_up = |id: MemberId| {
            state.member(id.slot).is_some_and(|row| row.id == id && row.status == MemberStatus::Up)
        };
        let before = (self.outgoing.len(), self.acks.len());
        self.outgoing.retain(|(message, _)| {
            let stays = is_up(message.to);
            if !stays {
                let slot = message.to.slot;
                note(ClusterEvent::MailLost { slot, number: message.number });
            }
            stays
        });
        self.acks.retain(|ack| state.is_up(ack.slot));
        self.is_stale |= (self.outgoing.len(), self.acks.len()) != before;
    }
}

#[cfg(test)]
#[path = "post_tests.rs"]
mod tests;
