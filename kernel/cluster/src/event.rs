//! What a member's task notes while it works: for the caller's events, and for the simulation.

use crate::decree::Decree;
use crate::id::MemberId;
use crate::join::JoinStep;
use crate::state::VoidError;

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterEvent {
    /// A slot is this incarnation's.
    Won(u16),
    /// A slot was tried and lost to another start; so many were until now.
    Burned(u16),
    /// A member in this slot.
    Joined(u16),
    /// No slot is free, or the areas do not answer.
    JoinFailed(JoinStep),
    /// A decree was decided in this member's own ballot, with or without effect.
    Decided(u64, Decree, Result<(), VoidError>),
    /// A later state was read.
    Learned(u64),
    /// A ballot was lost to a higher one.
    Conflict,
    /// The lease goes on until this time.
    Extended(u64),
    /// Another member suspects this one, or may do so: the lease does not go on.
    Suspected,
    /// A suspicion is written.
    Suspects(MemberId),
    /// A suspicion has ended without a proposal.
    Withdrew(MemberId),
    /// The fence of the member is proposed for this number.
    Proposes(MemberId, u64),
    /// The log has fenced this member.
    Fenced,
    /// The member in this slot has read a message.
    MailRead {
        /// Its slot.
        slot: u16,
        /// Number of the message.
        number: u64,
        /// Time from the sending to the acknowledgement.
        took_ns: u64,
    },
    /// The member in this slot is not up any more, and has not acknowledged the message.
    MailLost {
        /// Its slot.
        slot: u16,
        /// Number of the message.
        number: u64,
    },
    /// The area or this machine is a copy.
    Foreign,
    /// The area has forgotten decrees that this node knew: it is an old image.
    Restored {
        /// The last decree that the area knows.
        known: u64,
        /// The last decree in the local copy.
        expected: u64,
    },
}
