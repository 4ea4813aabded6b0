//! Decrees: the entries of the cluster's log. Time has no say in them, so all members see the same
//! ones in the same order.
//!
//! | tag | decree | fields |
//! |---|---|---|
//! | 1 | nothing | |
//! | 2 | member | slot, incarnation |
//! | 3 | fence | slot, heir's slot |
//! | 4 | quiet | slot, proof |
//! | 5 | own | partition, from, to |
//! | 6 | take | partition, space, by |
//! | 7 | hand over | partition, space, from, to, sealed epoch |
//! | 8 | release | space, from |
//!
//! A decree has 192 bytes; the rest are zeros.

use crate::id::{Incarnation, MemberId};
use crate::sector::{FieldReader, FieldWriter};

/// Bytes of a decree.
pub const DECREE: usize = 192;

/// An owner of a partition or a space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// None: free, or cold (suspended).
    Unowned,
    /// The member in this slot.
    Slot(u16),
}

impl Owner {
    const fn number(self) -> u16 {
        match self {
            Self::Unowned => u16::MAX,
            Self::Slot(slot) => slot,
        }
    }

    const fn of(number: u16) -> Self {
        if number == u16::MAX { Self::Unowned } else { Self::Slot(number) }
    }

    pub(crate) fn write(self, out: &mut FieldWriter<'_>) {
        out.u16(self.number());
    }

    pub(crate) fn read(fields: &mut FieldReader<'_>) -> Self {
        Self::of(fields.u16())
    }
}

/// Why a fenced member can submit nothing that still lands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum QuietProof {
    /// Its last beat says LEAVING, without taint.
    Left,
    /// The operator has confirmed that the machine is off.
    Confirmed,
}

/// A decree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decree {
    /// Closes the open number without an effect. A suspect proposes it.
    Nothing,
    /// The winner of a slot becomes a member.
    Member(MemberId),
    /// A member is fenced: it must not write any more.
    Fence {
        /// Its slot.
        who: u16,
        /// Slot of the member that takes care of its partitions.
        heir: u16,
    },
    /// A fenced member's writes have all landed.
    Quiet {
        /// Its slot.
        who: u16,
        /// The reason.
        proof: QuietProof,
    },
    /// A partition without its space goes to another owner.
    Own {
        /// The partition.
        partition: u128,
        /// Its owner so far.
        from: Owner,
        /// Its next owner.
        to: Owner,
    },
    /// A free space is bound to a partition of the taker.
    Take {
        /// The partition.
        partition: u128,
        /// The space.
        space: u128,
        /// The taker's slot.
        by: u16,
    },
    /// A partition goes to another owner together with its suspended space: moved, suspended
    /// (`to` is unowned), resumed (`from` is unowned), taken back (both equal) or inherited.
    HandOver {
        /// The partition.
        partition: u128,
        /// Its space.
        space: u128,
        /// The owner so far.
        from: Owner,
        /// The next owner.
        to: Owner,
        /// The epoch of the SUSPENDED record that the proposer has read.
        sealed: u64,
    },
    /// A space becomes free.
    Release {
        /// The space.
        space: u128,
        /// Its owner so far.
        from: Owner,
    },
}

fn put(out: &mut FieldWriter<'_>, fields: &[u16]) {
    fields.iter().for_each(|field| out.u16(*field));
}

impl Decree {
    /// Appends the decree, [`DECREE`] bytes.
    pub fn write(&self, out: &mut FieldWriter<'_>) {
        let mut bytes = [0; DECREE];
        let mut own = FieldWriter::new(&mut bytes);
        match *self {
            Self::Nothing => own.u16(1),
            Self::Member(member) => {
                own.u16(2);
                own.member(member);
            }
            Self::Fence { who, heir } => put(&mut own, &[3, who, heir]),
            Self::Quiet { who, proof } => {
                let proof = if proof == QuietProof::Left { 1 } else { 2 };
                put(&mut own, &[4, who, proof]);
            }
            Self::Own { partition, from, to } => {
                own.u16(5);
                own.u128(partition);
                put(&mut own, &[from.number(), to.number()]);
            }
            Self::Take { partition, space, by } => {
                own.u16(6);
                own.u128(partition);
                own.u128(space);
                own.u16(by);
            }
            Self::HandOver { partition, space, from, to, sealed } => {
                own.u16(7);
                own.u128(partition);
                own.u128(space);
                put(&mut own, &[from.number(), to.number()]);
                own.u64(sealed);
            }
            Self::Release { space, from } => {
                own.u16(8);
                own.u128(space);
                from.write(&mut own);
            }
        }
        out.raw(&bytes);
    }

    /// Reads [`DECREE`] bytes; `None` if they are no decree.
    pub fn read(fields: &mut FieldReader<'_>) -> Option<Self> {
        let bytes: [u8; DECREE] = fields.raw();
        let mut own = FieldReader::new(&bytes);
        let decree = match own.u16() {
            1 => Self::Nothing,
            2 => Self::Member(own.member()),
            3 => Self::Fence { who: own.u16(), heir: own.u16() },
            4 => Self::Quiet {
                who: own.u16(),
                proof: match own.u16() {
                    1 => QuietProof::Left,
                    2 => QuietProof::Confirmed,
                    _ => return None,
                },
            },
            5 => Self::Own {
                partition: own.u128(),
                from: Owner::read(&mut own),
                to: Owner::read(&mut own),
            },
            6 => Self::Take { partition: own.u128(), space: own.u128(), by: own.u16() },
            7 => Self::HandOver {
                partition: own.u128(),
                space: own.u128(),
                from: Owner::read(&mut own),
                to: Owner::read(&mut own),
                sealed: own.u64(),
            },
            8 => Self::Release { space: own.u128(), from: Owner::read(&mut own) },
            _ => return None,
        };
        let is_named =
            !matches!(decree, Self::Member(member) if member.incarnation == Incarnation(0));
        is_named.then_some(decree)
    }
}
