//! A member's mail among its other work: its block is written before the beat that tells it, and
//! others' blocks are read after a turn whose beats tell something new.
//!
//! ```text
//!   Idle ── something to write ──> Post ──> Turn ── a beat tells a later version ──> Mail(slot) ──> Idle
//! ```
//!
//! A turn without news costs nothing more.

use super::{ClusterEvent, ClusterNode, MAIL_BLOCK, NodeAsk, NodePhase, StepDone};
use crate::id::MemberId;
use crate::mail::MailBlock;
use crate::post::{MailError, ReadMail};
use crate::watch::Sighting;

/// Time from one turn to the next while mail is awaited.
const HURRY_NS: u64 = 100_000_000;

impl<S: AsRef<[Sighting]> + AsMut<[Sighting]>> ClusterNode<S> {
    /// Sends a message to the member in a slot; returns its number. [`ClusterEvent::MailRead`] or
    /// [`ClusterEvent::MailLost`] follows.
    ///
    /// # Errors
    /// [`MailError`]; then nothing is sent.
    pub fn send(
        &mut self,
        slot: u16,
        kind: u16,
        text: &[u8],
        now_ns: u64,
    ) -> Result<u64, MailError> {
        let to = self.check_mail(slot)?;
        self.mail.send(to, kind, text, now_ns)
    }

    /// Returns the member in a slot if it reads mail.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn check_mail(&self, slot: u16) -> Result<MemberId, MailError> {
        if self.layout.mail(slot).is_none() {
            return Err(MailError::NoRoom);
        }
        let row = self.state.member(slot).filter(|row| self.state.is_up(row.id.slot));
        let to = row.filter(|_| self.is_member).ok_or(MailError::NotUp)?.id;
        if self.watch.reads_mail(slot) { Ok(to) } else { Err(MailError::Deaf) }
    }

    /// Takes the oldest message that was read.
    pub fn take_mail(&mut self) -> Option<ReadMail> {
        self.mail.take()
    }

    /// Lets turns follow each other every 100 ms until this time.
    pub fn hurry(&mut self, until_ns: u64) {
        self.hurry_ns = self.hurry_ns.max(until_ns);
    }

    /// Returns until when turns follow each other.
    pub const fn hurries_until_ns(&self) -> u64 {
        self.hurry_ns
    }

    /// Returns what a beat says about mail.
    pub(super) const fn announced_mail(&self) -> u64 {
        match self.layout.mail(0) {
            Some(_) => self.mail.version() + 1,
            None => 0,
        }
    }

    /// Returns whether the block has to be written.
    pub(super) const fn has_to_post(&self) -> bool {
        self.is_member && self.mail.is_stale()
    }

    /// Returns when the idle time ends that would end at `until` otherwise.
    pub(super) fn sooner(&self, until: u64, now_ns: u64) -> u64 {
        let is_hurried = self.is_member && (now_ns < self.hurry_ns || self.mail.waits());
        if is_hurried { until.min(self.turn_ns.saturating_add(HURRY_NS)) } else { until }
    }

    pub(super) fn write_mail(&mut self, out: &mut [u8]) -> NodeAsk {
        let Some(at) = self.layout.mail(self.me().slot) else {
            self.mail.posting();
            self.phase = NodePhase::Turn;
            return NodeAsk::Wait(0);
        };
        if let Some(room) = out.first_chunk_mut::<MAIL_BLOCK>() {
            self.mail.block(self.me()).encode(room);
        }
        self.mail.posting();
        self.step(Some(at), None)
    }

    /// Reads the next block from `from` on that has something new.
    pub(super) fn look_for_mail(&mut self, from: u16) {
        if self.layout.mail(0).is_none() {
            return;
        }
        let next = self.watch.next_mail(&self.state, from);
        self.phase = next.map_or(NodePhase::Idle(self.next_turn_ns), NodePhase::Mail);
    }

    /// Judges the reads of a block.
    pub(super) fn read_mail(
        &mut self,
        slot: u16,
        done: &StepDone<'_>,
        note: &mut impl FnMut(ClusterEvent),
    ) {
        let is_its =
            |block: &MailBlock| self.state.member(slot).is_some_and(|row| row.id == block.member);
        let blocks = done.reads.iter().filter_map(|read| MailBlock::decode(read).ok());
        let newest = blocks.filter(is_its).max_by_key(|block| block.version);
        // A block that is half written is read again in the next turn.
        if let Some(block) = newest
            && self.watch.has_news(slot, block.version)
        {
            let rest = self.mail.read(self.me(), &block, done.times.seen_ns, note);
            self.watch.note_mail(slot, block.version, rest);
        }
        self.look_for_mail(slot + 1);
    }
}
