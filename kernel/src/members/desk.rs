//! What this node's tasks see of the members, and write to them. A task must not take the driver's
//! lock, so the driver comes to this desk.

use super::letters::LetterKind;
use super::roll::{MemberRoll, RollRow};
use super::trace;
use crate::sync::{RankedLock, rank};
use crate::time::Ns;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use cluster::id::MemberId;
use cluster::mail::{MAX_BODY, MailBody};
use cluster::node::ClusterNode;
use cluster::post::MailError;
use cluster::watch::Sighting;

/// Most messages that wait until they can be sent.
const MAX_WAITING: usize = 16;

#[derive(Default)]
struct MailPile {
    waiting: ArrayVec<(MemberId, LetterKind, MailBody), MAX_WAITING>,
    hurry_ns: Ns,
    rows: Vec<RollRow>,
    /// The version of the roll that the rows are of.
    version: u64,
}

/// The desk. It may be used under any other lock but a serial line's.
#[derive(Default)]
pub struct MailDesk(RankedLock<MailPile, { rank::EVENTS }>);

impl MailDesk {
    /// Has a message sent to a member. If it is not up any more then, the message is dropped.
    ///
    /// # Errors
    /// [`MailError::Full`], [`MailError::TooLong`].
    pub fn send(&self, to: MemberId, kind: LetterKind, text: &[u8]) -> Result<(), MailError> {
        if text.len() > MAX_BODY {
            return Err(MailError::TooLong);
        }
        let letter = (to, kind, text.iter().copied().collect());
        self.0.lock().waiting.try_push(letter).map_err(|_| MailError::Full)
    }

    /// Takes turns sooner until this time.
    pub fn hurry(&self, until_ns: Ns) {
        let mut desk = self.0.lock();
        desk.hurry_ns = desk.hurry_ns.max(until_ns);
    }

    /// Returns the members as the last turn has found them.
    pub fn rows(&self) -> Vec<RollRow> {
        self.0.lock().rows.clone()
    }

    /// Sends what waits, and shows the members.
    pub(super) fn visit(&self, node: &mut ClusterNode<Vec<Sighting>>, roll: &MemberRoll, now: Ns) {
        let mut desk = self.0.lock();
        if desk.hurry_ns > now {
            node.hurry(desk.hurry_ns.as_u64());
        }
        desk.waiting.retain(|(to, kind, text)| {
            let is_its = node.state().member(to.slot).is_some_and(|row| row.id == *to);
            let sent = if is_its {
                trace::send(now.as_u64(), to.slot, *kind as u16, text);
                node.send(to.slot, *kind as u16, text, now.as_u64()).map(drop)
            } else {
                Err(MailError::NotUp)
            };
            sent == Err(MailError::Full)
        });
        if desk.version != roll.version() {
            desk.version = roll.version();
            desk.rows.clear();
            desk.rows.extend_from_slice(roll.rows());
        }
    }
}
