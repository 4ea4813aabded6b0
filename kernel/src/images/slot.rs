//! Definition slots: two blocks each, for the definition of one partition.
//!
//! ```text
//!             take                  define                 define again
//!   Free ──────────────> Reserved ──────────> Defined ──┐ <─────┐
//!    ^ ^  withdraw, or     │                     │ └────┴───────┘
//!    │ └─ left behind ─────┘                     │
//!    └──────────────────undefine─────────────────┘
//! ```
//!
//! The whole copy with the higher sequence number counts, and each change goes over the other one.
//! A definition lies on both sides.

use super::entry::ImageDigest;
use super::error::{StoreFault, StoreRefusedError};
use super::layout::{BLOCK, StoreSide};
use super::raw::{DEFINITION_LEN, NAME_LEN, RawDefinitionSlot, SLOT_MAGIC, check, head, sealed};
use crate::space::Uuid;
use crate::space::raw::{get_text, put_text};
use alloc::vec::Vec;
use arrayvec::ArrayString;
use zerocopy::{FromBytes, FromZeros};

/// A partition's name.
pub type DefinitionName = ArrayString<NAME_LEN>;

/// The definition of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredDefinition {
    /// Name of the partition, 1 to 31 bytes.
    pub name: DefinitionName,
    /// Its permanent name.
    pub partition: Uuid,
    /// How often this partition was defined, from 1 on.
    pub generation: u64,
    /// Its kernel.
    pub kernel: ImageDigest,
    /// Its initrd.
    pub initrd: Option<ImageDigest>,
    /// The version of `bytes`: [`crate::config::DEFINITION_VERSION`].
    pub encoding: u32,
    /// The partition's configuration, as [`crate::config::PartitionConfig`] encodes it.
    pub bytes: Vec<u8>,
}

impl StoredDefinition {
    /// Returns its images.
    pub fn images(&self) -> impl Iterator<Item = ImageDigest> + use<> {
        [Some(self.kernel), self.initrd].into_iter().flatten()
    }

    /// Checks that a slot can hold it.
    ///
    /// # Errors
    /// The part that no slot can hold.
    pub fn check(&self) -> Result<(), StoreRefusedError> {
        if self.name.is_empty() || self.name.len() > crate::config::MAX_NAME {
            return Err(StoreRefusedError::Name);
        }
        if self.bytes.len() > DEFINITION_LEN {
            return Err(StoreRefusedError::DefinitionLength(self.bytes.len()));
        }
        Ok(())
    }
}

/// What a slot is used for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// Nothing.
    Free,
    /// A program takes it for the partition with this name.
    Reserved(DefinitionName),
    /// A definition.
    Defined(StoredDefinition),
}

impl SlotState {
    /// Returns the partition's name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Free => None,
            Self::Reserved(name) => Some(name),
            Self::Defined(definition) => Some(&definition.name),
        }
    }
}

/// The content of one copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotCopy {
    /// Number of this state, below 2^63.
    pub sequence: u64,
    /// The start of a node, or the command, that wrote it.
    pub writer: Uuid,
    /// The state.
    pub state: SlotState,
}

/// Both copies of a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefinitionSlot {
    /// Its number.
    pub number: u32,
    /// The copies.
    pub copies: [Result<SlotCopy, StoreFault>; 2],
}

impl DefinitionSlot {
    /// Decodes both copies.
    pub fn decode(number: u32, copies: [&[u8; BLOCK]; 2], store: Uuid) -> Self {
        let [a, b] = copies;
        Self {
            number,
            copies: [
                SlotCopy::decode(a, number, StoreSide::A, store),
                SlotCopy::decode(b, number, StoreSide::B, store),
            ],
        }
    }

    /// Returns the copy that counts. `None` if the slot was never written, or
    /// [`Self::is_unreadable`].
    pub fn newest(&self) -> Option<&SlotCopy> {
        if self.is_newer() {
            return None;
        }
        self.copies.iter().flatten().max_by_key(|copy| copy.sequence)
    }

    /// Returns the definition, if it has one.
    pub fn definition(&self) -> Option<&StoredDefinition> {
        match &self.newest()?.state {
            SlotState::Defined(definition) => Some(definition),
            SlotState::Free | SlotState::Reserved(_) => None,
        }
    }

    /// Returns whether a newer program wrote a copy.
    pub fn is_newer(&self) -> bool {
        self.copies.iter().any(|copy| copy.as_ref().is_err_and(|fault| fault.is_newer()))
    }

    /// Returns whether it is unknown what it holds: no copy can be read, and not because none was
    /// ever written.
    pub fn is_unreadable(&self) -> bool {
        let is_empty = |copy: &Result<SlotCopy, StoreFault>| *copy == Err(StoreFault::Empty);
        self.newest().is_none() && !self.copies.iter().all(is_empty)
    }

    /// Returns whether it may be taken.
    pub fn is_free(&self) -> bool {
        match self.newest() {
            Some(copy) => copy.state == SlotState::Free,
            None => !self.is_unreadable(),
        }
    }

    /// Returns whether it is neither free nor defined: being taken, or left so by a program that
    /// was cut off. A torn copy beside a copy that was never written is a reservation.
    pub fn is_pending(&self) -> bool {
        match self.newest() {
            Some(copy) => matches!(copy.state, SlotState::Reserved(_)),
            None => {
                let holds = |fault| self.copies.contains(&Err(fault));
                holds(StoreFault::Empty) && holds(StoreFault::Checksum)
            }
        }
    }

    /// Returns the sequence number of the next change.
    pub fn next_sequence(&self) -> u64 {
        match self.newest() {
            Some(copy) => copy.sequence + 1,
            // Over the torn first write, if there is one.
            None if self.copies[StoreSide::A.index()] == Err(StoreFault::Checksum) => 2,
            None => 1,
        }
    }

    /// Returns the faults of copies that were written.
    pub fn faults(&self) -> impl Iterator<Item = (StoreSide, StoreFault)> + '_ {
        StoreSide::BOTH.into_iter().zip(&self.copies).filter_map(|(side, copy)| match copy {
            Ok(_) | Err(StoreFault::Empty) => None,
            Err(fault) => Some((side, *fault)),
        })
    }
}

impl SlotCopy {
    /// Encodes it for slot `number`.
    pub fn encode(&self, number: u32, store: Uuid) -> [u8; BLOCK] {
        let mut raw = RawDefinitionSlot::new_zeroed();
        raw.head = head(SLOT_MAGIC, BLOCK, store);
        raw.sequence = self.sequence.into();
        raw.writer = self.writer.0;
        raw.slot = number.into();
        raw.state = match self.state {
            SlotState::Free => 1,
            SlotState::Reserved(_) => 2,
            SlotState::Defined(_) => 3,
        }
        .into();
        put_text(&mut raw.name, self.state.name().unwrap_or(""));
        if let SlotState::Defined(definition) = &self.state {
            raw.partition = definition.partition.0;
            raw.generation = definition.generation.into();
            raw.kernel = definition.kernel.0;
            raw.initrd = definition.initrd.map_or([0; 32], |digest| digest.0);
            raw.encoding = definition.encoding.into();
            raw.len = (definition.bytes.len().min(DEFINITION_LEN) as u32).into();
            raw.bytes.iter_mut().zip(&definition.bytes).for_each(|(to, from)| *to = *from);
        }
        sealed(&raw)
    }

    /// Decodes the copy of slot `number` on `side`.
    ///
    /// # Errors
    /// Its fault.
    pub fn decode(
        bytes: &[u8; BLOCK],
        number: u32,
        side: StoreSide,
        store: Uuid,
    ) -> Result<Self, StoreFault> {
        check(bytes, SLOT_MAGIC, BLOCK, Some(store))?;
        let raw =
            RawDefinitionSlot::ref_from_bytes(bytes).map_err(|_| StoreFault::Impossible("size"))?;
        let sequence = raw.sequence.get();
        if sequence >= 1 << 63 || StoreSide::of(sequence) != side {
            return Err(StoreFault::Impossible("sequence"));
        }
        if raw.slot.get() != number {
            return Err(StoreFault::Impossible("slot"));
        }
        let name = || {
            let text = get_text(&raw.name)
                .filter(|name| (1..=crate::config::MAX_NAME).contains(&name.len()));
            text.and_then(|text| DefinitionName::from(text).ok())
                .ok_or(StoreFault::Impossible("name"))
        };
        let state = match raw.state.get() {
            1 => SlotState::Free,
            2 => SlotState::Reserved(name()?),
            3 => SlotState::Defined(StoredDefinition {
                name: name()?,
                partition: Uuid(raw.partition),
                generation: raw.generation.get(),
                kernel: ImageDigest(raw.kernel),
                initrd: Some(ImageDigest(raw.initrd)).filter(|digest| digest.0 != [0; 32]),
                encoding: raw.encoding.get(),
                bytes: copied(raw)?,
            }),
            _ => return Err(StoreFault::Impossible("state")),
        };
        Ok(Self { sequence, writer: Uuid(raw.writer), state })
    }
}

fn copied(raw: &RawDefinitionSlot) -> Result<Vec<u8>, StoreFault> {
    let from = raw.bytes.get(..raw.len.get() as usize).ok_or(StoreFault::Impossible("len"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(from.len()).map_err(|_| StoreFault::OutOfMemory)?;
    bytes.extend_from_slice(from);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::raw::seal;

    const STORE: Uuid = Uuid([1; 16]);

    fn defined(sequence: u64, generation: u64) -> SlotCopy {
        SlotCopy {
            sequence,
            writer: Uuid([2; 16]),
            state: SlotState::Defined(StoredDefinition {
                name: DefinitionName::from("web").unwrap(),
                partition: Uuid([3; 16]),
                generation,
                kernel: ImageDigest([4; 32]),
                initrd: generation.is_multiple_of(2).then_some(ImageDigest([5; 32])),
                encoding: 1,
                bytes: vec![9; generation as usize],
            }),
        }
    }

    fn slot(a: &[u8; BLOCK], b: &[u8; BLOCK]) -> DefinitionSlot {
        DefinitionSlot::decode(6, [a, b], STORE)
    }

    #[test]
    fn copies_read_back_and_the_newer_one_counts() {
        let (old, new) = (defined(8, 3), defined(9, DEFINITION_LEN as u64));
        let (a, b) = (old.encode(6, STORE), new.encode(6, STORE));
        assert_eq!(slot(&a, &b).newest(), Some(&new));
        assert_eq!((slot(&a, &b).next_sequence(), slot(&a, &b).faults().count()), (10, 0));
        for at in (0..BLOCK).step_by(7) {
            let mut torn = b;
            torn[at] ^= 1;
            assert_eq!(slot(&a, &torn).newest(), Some(&old), "byte {at}");
            assert_eq!(slot(&a, &torn).next_sequence(), 9, "over the torn copy");
        }
        let fault = |bytes: &[u8; BLOCK], number, side| {
            SlotCopy::decode(bytes, number, side, STORE).unwrap_err()
        };
        assert_eq!(fault(&a, 5, StoreSide::A), StoreFault::Impossible("slot"));
        assert_eq!(fault(&a, 6, StoreSide::B), StoreFault::Impossible("sequence"));
    }

    #[test]
    fn a_slot_is_free_pending_or_unreadable() {
        let zeros = [0; BLOCK];
        let reserved = SlotCopy {
            sequence: 1,
            writer: STORE,
            state: SlotState::Reserved(DefinitionName::from("web").unwrap()),
        };
        let free = SlotCopy { sequence: 2, state: SlotState::Free, ..reserved.clone() };
        let (reserved, free) = (reserved.encode(6, STORE), free.encode(6, STORE));
        let mut torn = reserved;
        torn[2000] ^= 1;
        let mut newer = free;
        newer[8] = 2;
        seal(&mut newer);
        for (name, slot, expected) in [
            ("never written", slot(&zeros, &zeros), (true, false, false, 1)),
            ("reserved", slot(&zeros, &reserved), (false, true, false, 2)),
            ("given back", slot(&free, &reserved), (true, false, false, 3)),
            ("torn reservation", slot(&zeros, &torn), (false, true, true, 1)),
            ("torn reservation", slot(&torn, &zeros), (false, true, true, 2)),
            ("both torn", slot(&torn, &torn), (false, false, true, 2)),
            ("of a newer program", slot(&newer, &reserved), (false, false, true, 1)),
        ] {
            let found =
                (slot.is_free(), slot.is_pending(), slot.is_unreadable(), slot.next_sequence());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_no_slot_holds_is_refused() {
        let SlotState::Defined(definition) = defined(8, 1).state else { unreachable!() };
        assert_eq!(definition.check(), Ok(()));
        let long = StoredDefinition { bytes: vec![0; DEFINITION_LEN + 1], ..definition.clone() };
        assert_eq!(long.check(), Err(StoreRefusedError::DefinitionLength(DEFINITION_LEN + 1)));
        let unnamed = StoredDefinition { name: DefinitionName::new(), ..definition };
        assert_eq!(unnamed.check(), Err(StoreRefusedError::Name));
    }
}
