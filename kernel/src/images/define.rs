//! Defining and undefining a partition, by nodes and by the host command.
//!
//! ```text
//!   again: write over the older copy; flush; read, mine? the same over the other copy;
//!          read the directory: are the images there?
//!   new:   read the slot, free? ──at most 200 ms── reserve it; flush; 200 ms; read all slots:
//!          still mine, and the name nowhere else? ──at most 2 s── go on as above
//! ```
//!
//! **A slot is taken by one program.** Two may find it free and reserve it. The later reservation
//! lands at most 200 ms after its program's read, so before the earlier program reads again; the
//! earlier one then gives up (Fischer's algorithm, as for claims). A program that stood still in
//! between has written its reservation late, and does not believe it.
//!
//! **A definition is on both sides before it is announced.** So one late write of another program,
//! a reservation for example, costs one copy of it and not the definition. A program reads after
//! every write, and stops where the slot is no longer its own.
//!
//! **A name is taken by one program.** Each reserves before it reads all slots. So of two at least
//! one sees the other, and then withdraws ([`StoreRefusedError::Busy`]); both may.
//!
//! **A reservation that was left** by a program that was cut off is given back when it has not
//! changed for four seconds, by the next program that it hinders. A program that comes back later
//! than two seconds does not go on.
//!
//! **A definition that exists** is changed by one program at a time: by the owner of the partition.
//! A node changes and removes only the definition that it knows ([`StoreRefusedError::Changed`]).
//! Two that change the same one at once leave one of the two definitions, whole.

use super::device::StoreWrite;
use super::error::{StoreContentError, StoreError, StoreFault, StorePlace, StoreRefusedError};
use super::layout::{StoreLayout, StoreSide};
use super::slot::{DefinitionName, DefinitionSlot, SlotCopy, SlotState, StoredDefinition};
use super::superblock::StoreSuperblock;
use super::{find, open};
use crate::space::Uuid;

/// Longest time from the read that found a slot free to the end of its reservation.
pub const TAKE_NS: u64 = 200_000_000;
/// Time from the reservation to the read that confirms it.
pub const SETTLE_NS: u64 = 200_000_000;
/// Longest time from a reservation to the definition.
pub const DEFINE_NS: u64 = 2_000_000_000;
/// A reservation that has not changed for this time was left behind.
pub const LEFT_BEHIND_NS: u64 = 4_000_000_000;
/// How many slots are tried.
const TRIES: u32 = 4;

/// A definition that is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Defined {
    /// Its slot.
    pub slot: u32,
    /// Its generation: 1 if the partition is new.
    pub generation: u64,
}

/// The slots as far as one name is concerned.
struct Survey {
    /// The slot with the definition.
    defined: Option<DefinitionSlot>,
    /// Another program reserves the name.
    is_busy: bool,
    /// The free slot to try first.
    free: Option<u32>,
}

/// The partition that a name may belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NameUse {
    /// None yet.
    New,
    /// None, or one whose definition this program may change.
    NewOrOwn,
    /// One with this definition.
    Own(KnownDefinition),
}

/// A program that defines partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Definer {
    /// The store.
    pub superblock: StoreSuperblock,
    /// This start of a node, or this command; no other ever has the name.
    pub writer: Uuid,
}

/// A definition as a program has read or written it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownDefinition {
    /// The partition's permanent name.
    pub partition: Uuid,
    /// How often it was defined.
    pub generation: u64,
}

impl KnownDefinition {
    /// Returns what identifies a definition.
    pub const fn of(definition: &StoredDefinition) -> Self {
        Self { partition: definition.partition, generation: definition.generation }
    }

    /// Refuses a slot with another definition.
    fn check(self, slot: &DefinitionSlot) -> Result<(), StoreRefusedError> {
        let found = slot.definition().map(Self::of);
        if found == Some(self) { Ok(()) } else { Err(StoreRefusedError::Changed) }
    }
}

impl Definer {
    /// Defines a partition, or defines it anew. `definition.generation` is set here.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the reason; the definition before then stands, or none.
    pub async fn define<D: StoreWrite>(
        &self,
        disk: &mut D,
        definition: StoredDefinition,
    ) -> Result<Defined, StoreError<D::Error>> {
        self.define_as(disk, definition, NameUse::NewOrOwn).await
    }

    /// Defines a partition whose name the store does not have. Of two programs that do so at the
    /// same time, at most one succeeds.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the reason; nothing has changed then.
    pub async fn define_new<D: StoreWrite>(
        &self,
        disk: &mut D,
        definition: StoredDefinition,
    ) -> Result<Defined, StoreError<D::Error>> {
        self.define_as(disk, definition, NameUse::New).await
    }

    /// Writes another definition over this one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with the reason; the definition before then stands, or none.
    pub async fn change<D: StoreWrite>(
        &self,
        disk: &mut D,
        definition: StoredDefinition,
        known: KnownDefinition,
    ) -> Result<Defined, StoreError<D::Error>> {
        self.define_as(disk, definition, NameUse::Own(known)).await
    }

    async fn define_as<D: StoreWrite>(
        &self,
        disk: &mut D,
        mut definition: StoredDefinition,
        name: NameUse,
    ) -> Result<Defined, StoreError<D::Error>> {
        definition.check()?;
        self.images_are_there(disk, &definition).await?;
        let mut survey = self.survey(disk, &definition.name, None).await?;
        let is_hindered = survey.defined.is_none() && (survey.is_busy || survey.free.is_none());
        if is_hindered && self.give_back_left_behind(disk).await? > 0 {
            survey = self.survey(disk, &definition.name, None).await?;
        }
        match (survey.defined, name) {
            (Some(slot), NameUse::New) => {
                let earlier = slot.definition().map_or(0, |earlier| earlier.generation);
                Err(StoreRefusedError::Exists(earlier).into())
            }
            (Some(slot), NameUse::Own(known)) => {
                known.check(&slot)?;
                self.again(disk, slot, definition).await
            }
            (Some(slot), NameUse::NewOrOwn) => self.again(disk, slot, definition).await,
            (None, NameUse::Own(_)) => Err(StoreRefusedError::NoDefinition.into()),
            (None, _) if survey.is_busy => Err(StoreRefusedError::Busy.into()),
            (None, _) => {
                definition.generation = 1;
                self.anew(disk, survey.free, definition).await
            }
        }
    }

    /// Takes the definition of a partition away: this one, or `None`: any.
    ///
    /// # Errors
    /// [`StoreRefusedError::NoDefinition`], [`StoreRefusedError::Changed`].
    pub async fn undefine<D: StoreWrite>(
        &self,
        disk: &mut D,
        name: &str,
        known: Option<KnownDefinition>,
    ) -> Result<(), StoreError<D::Error>> {
        let survey = self.survey(disk, name, None).await?;
        let slot = survey.defined.ok_or(StoreRefusedError::NoDefinition)?;
        known.map_or(Ok(()), |known| known.check(&slot))?;
        self.settle(disk, &slot, SlotState::Free).await.map(|_| ())
    }

    /// Gives back slots that programs have reserved and then left. Waits only if a slot is
    /// reserved; returns how many were given back.
    ///
    /// # Errors
    /// The disk's error.
    pub async fn give_back_left_behind<D: StoreWrite>(
        &self,
        disk: &mut D,
    ) -> Result<u32, StoreError<D::Error>> {
        let mut pending = alloc::vec::Vec::new();
        let no_room = find::each(disk, &self.superblock, |slot| {
            if slot.is_pending() {
                let place = StorePlace::Slot(slot.number, StoreSide::A);
                if pending.try_reserve(1).is_err() {
                    return Some(StoreContentError { place, fault: StoreFault::OutOfMemory });
                }
                pending.push(slot);
            }
            None
        })
        .await?;
        if let Some(error) = no_room {
            return Err(error.into());
        }
        if pending.is_empty() {
            return Ok(0);
        }
        disk.pause(LEFT_BEHIND_NS).await;
        let mut count = 0;
        for slot in pending {
            if find::slot(disk, &self.superblock, slot.number).await? == slot {
                // An error says that its program has come back.
                match self.put(disk, &slot, SlotState::Free).await {
                    Ok(_) => count += 1,
                    Err(StoreError::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }

    /// Reads all slots. `own` is a slot that this program has reserved.
    async fn survey<D: StoreWrite>(
        &self,
        disk: &mut D,
        name: &str,
        own: Option<u32>,
    ) -> Result<Survey, StoreError<D::Error>> {
        let slots = self.superblock.layout.slots();
        // Different names begin at different slots, so programs seldom meet.
        let start = Uuid::from_name(name).halves().0 as u32 % slots;
        let distance = |slot: u32| (slot + slots - start) % slots;
        let mut survey = Survey { defined: None, is_busy: false, free: None };
        let newer = find::each(disk, &self.superblock, |slot| {
            if slot.is_newer() {
                return slot.faults().find(|(_, fault)| fault.is_newer()).map(|(side, fault)| {
                    StoreContentError { place: StorePlace::Slot(slot.number, side), fault }
                });
            }
            let number = slot.number;
            let is_named = slot.newest().is_some_and(|copy| copy.state.name() == Some(name));
            if slot.is_free() {
                let is_nearer = survey.free.is_none_or(|free| distance(number) < distance(free));
                survey.free = if is_nearer { Some(number) } else { survey.free };
            } else if is_named && own != Some(number) {
                // A reservation that this program made too late hinders only others.
                let is_own = slot.newest().is_some_and(|copy| copy.writer == self.writer);
                survey.is_busy |= slot.is_pending() && !is_own;
                survey.defined =
                    slot.definition().is_some().then_some(slot).or(survey.defined.take());
            }
            None
        })
        .await?;
        match newer {
            Some(error) => Err(error.into()),
            None => Ok(survey),
        }
    }

    /// Writes the next state of a slot on one side, and returns the slot as it is after that.
    async fn put<D: StoreWrite>(
        &self,
        disk: &mut D,
        slot: &DefinitionSlot,
        state: SlotState,
    ) -> Result<DefinitionSlot, StoreError<D::Error>> {
        let copy = SlotCopy { sequence: slot.next_sequence(), writer: self.writer, state };
        self.write(disk, slot.number, &copy).await?;
        disk.flush().await.map_err(StoreError::Disk)?;
        let after = find::slot(disk, &self.superblock, slot.number).await?;
        if after.newest() == Some(&copy) {
            Ok(after)
        } else {
            Err(StoreRefusedError::Overtaken.into())
        }
    }

    /// As [`Self::put`], on both sides.
    async fn settle<D: StoreWrite>(
        &self,
        disk: &mut D,
        slot: &DefinitionSlot,
        state: SlotState,
    ) -> Result<DefinitionSlot, StoreError<D::Error>> {
        let first = self.put(disk, slot, state.clone()).await?;
        self.put(disk, &first, state).await
    }

    async fn write<D: StoreWrite>(
        &self,
        disk: &mut D,
        slot: u32,
        copy: &SlotCopy,
    ) -> Result<(), StoreError<D::Error>> {
        let block = StoreLayout::slot(slot, StoreSide::of(copy.sequence));
        let bytes = copy.encode(slot, self.superblock.store);
        disk.write(block, &bytes).await.map_err(StoreError::Disk)
    }

    async fn images_are_there<D: StoreWrite>(
        &self,
        disk: &mut D,
        definition: &StoredDefinition,
    ) -> Result<(), StoreError<D::Error>> {
        let found = open::directory(disk, &self.superblock).await?;
        match definition.images().find(|image| !found.directory.offers(*image)) {
            Some(image) => Err(StoreRefusedError::NoImage(image).into()),
            None => Ok(()),
        }
    }

    /// Writes the definition into the slot that has an earlier one.
    async fn again<D: StoreWrite>(
        &self,
        disk: &mut D,
        slot: DefinitionSlot,
        mut definition: StoredDefinition,
    ) -> Result<Defined, StoreError<D::Error>> {
        let before = slot.definition().cloned().map_or(SlotState::Free, SlotState::Defined);
        definition.generation =
            slot.definition().map_or(1, |earlier| earlier.generation.saturating_add(1));
        self.finish(disk, &slot, definition, before).await
    }

    /// Takes a slot and writes the definition into it.
    async fn anew<D: StoreWrite>(
        &self,
        disk: &mut D,
        mut free: Option<u32>,
        definition: StoredDefinition,
    ) -> Result<Defined, StoreError<D::Error>> {
        let mut failure = StoreRefusedError::Overtaken;
        for _ in 0..TRIES {
            let number = free.ok_or(StoreRefusedError::NoSlot)?;
            let reserved_ns = disk.now_ns();
            let reserved = self.reserve(disk, number, definition.name).await?;
            let survey = self.survey(disk, &definition.name, Some(number)).await?;
            let slot = find::slot(disk, &self.superblock, number).await?;
            let is_late = disk.now_ns().saturating_sub(reserved_ns) > DEFINE_NS;
            failure = match reserved {
                Err(error) => error,
                Ok(_) if is_late => StoreRefusedError::TooSlow,
                Ok(copy) if slot.newest() != Some(&copy) => StoreRefusedError::Overtaken,
                Ok(_) if survey.is_busy || survey.defined.is_some() => {
                    self.put(disk, &slot, SlotState::Free).await?;
                    return Err(StoreRefusedError::Busy.into());
                }
                Ok(_) => return self.finish(disk, &slot, definition, SlotState::Free).await,
            };
            free = survey.free;
        }
        Err(failure.into())
    }

    /// Reserves a slot and waits until no other reservation can land on it. The inner error says
    /// why the slot cannot be used.
    async fn reserve<D: StoreWrite>(
        &self,
        disk: &mut D,
        number: u32,
        name: DefinitionName,
    ) -> Result<Result<SlotCopy, StoreRefusedError>, StoreError<D::Error>> {
        let asked_ns = disk.now_ns();
        let slot = find::slot(disk, &self.superblock, number).await?;
        if !slot.is_free() {
            return Ok(Err(StoreRefusedError::Overtaken));
        }
        let copy = SlotCopy {
            sequence: slot.next_sequence(),
            writer: self.writer,
            state: SlotState::Reserved(name),
        };
        self.write(disk, number, &copy).await?;
        if disk.now_ns().saturating_sub(asked_ns) > TAKE_NS {
            // The slot may be another program's by now, so nothing is written to it again.
            return Ok(Err(StoreRefusedError::TooSlow));
        }
        disk.flush().await.map_err(StoreError::Disk)?;
        disk.pause(SETTLE_NS).await;
        Ok(Ok(copy))
    }

    /// Writes the definition into a slot of this program. Writes `before` again if an image of the
    /// definition has gone meanwhile.
    async fn finish<D: StoreWrite>(
        &self,
        disk: &mut D,
        slot: &DefinitionSlot,
        definition: StoredDefinition,
        before: SlotState,
    ) -> Result<Defined, StoreError<D::Error>> {
        let generation = definition.generation;
        let after = self.settle(disk, slot, SlotState::Defined(definition.clone())).await?;
        match self.images_are_there(disk, &definition).await {
            Ok(()) => Ok(Defined { slot: slot.number, generation }),
            Err(error) => {
                self.settle(disk, &after, before).await?;
                Err(error)
            }
        }
    }
}
