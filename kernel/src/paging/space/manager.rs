//! All live spaces of this node: which one a partition gets, and what is said when there is none.
//!
//! Choice: the smallest free space in which the memory fits, one with the partition's own old blocks before one of the
//! same size that is clean. A space with somebody else's blocks is scrubbed first, and only where nothing
//! better is there.

use arrayvec::ArrayVec;

use super::layout::Layout;
use super::live::{LiveSpace, SpaceId, Status};
use super::record::Residue;
use super::state::SpaceState;
use super::uuid::Uuid;
use crate::block::Completion;
use crate::paging::cookie::{Class, Tag};

/// Most spaces.
pub const MAX_SPACES: usize = 16;

/// Why a partition gets no space now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// There is no space at all.
    NoSpace,
    /// The memory is larger than every space; the largest holds this many pages.
    TooLarge {
        /// Pages of the largest space.
        largest: u32,
    },
    /// One that fits is being scrubbed.
    Scrubbing,
    /// All that fit are in use by running partitions or hold dumps that nobody released.
    InUse {
        /// How many of them hold a dump.
        dumps: u8,
    },
}

/// The live spaces.
#[derive(Default)]
pub struct Spaces {
    spaces: ArrayVec<LiveSpace, MAX_SPACES>,
}

impl Spaces {
    /// Makes an empty set.
    pub const fn new() -> Self {
        Self { spaces: ArrayVec::new_const() }
    }

    /// Adds a space; returns it where there are too many already.
    ///
    /// # Errors
    /// The space itself.
    // The value comes back, large as it is: nothing is lost, and this happens at start-up.
    #[allow(clippy::result_large_err)]
    pub fn add(&mut self, space: LiveSpace) -> Result<(), LiveSpace> {
        self.spaces.try_push(space).map_err(|full| full.element())
    }

    /// Returns all spaces.
    pub fn iter(&self) -> impl Iterator<Item = &LiveSpace> {
        self.spaces.iter()
    }

    /// Returns a space.
    pub fn get(&self, id: SpaceId) -> Option<&LiveSpace> {
        self.spaces.iter().find(|space| space.id() == id)
    }

    /// Returns a space to work on.
    pub fn get_mut(&mut self, id: SpaceId) -> Option<&mut LiveSpace> {
        self.spaces.iter_mut().find(|space| space.id() == id)
    }

    /// Chooses a space for `pages` pages of `partition`.
    ///
    /// # Errors
    /// [`Unavailable`]; a scrub may have been started, so it is worth asking again.
    pub fn choose(&mut self, pages: u32, partition: Uuid) -> Result<SpaceId, Unavailable> {
        let rank = |space: &&LiveSpace| (Layout::most_pages(space.record().capacity), residue_rank(space));
        let fitting = self.spaces.iter().filter(|space| fits(space, pages));
        let usable = fitting.filter(|space| is_usable(space) && open_to(space, partition));
        if let Some(best) = usable.min_by_key(rank) {
            return Ok(best.id());
        }
        self.scrub_one(pages);
        Err(self.why_none(pages))
    }

    /// Starts to scrub one space that would do if it were clean, unless one is being scrubbed already.
    fn scrub_one(&mut self, pages: u32) {
        let scrubbing = |space: &LiveSpace| fits(space, pages) && is_scrubbing(space);
        if self.spaces.iter().any(scrubbing) {
            return;
        }
        if let Some(space) = self.spaces.iter_mut().find(|space| fits(space, pages) && is_usable(space)) {
            let begun = space.release();
            debug_assert_eq!(begun, Ok(()), "an idle FREE space may be scrubbed");
        }
    }

    fn why_none(&self, pages: u32) -> Unavailable {
        let Some(largest) = self.spaces.iter().map(|s| Layout::most_pages(s.record().capacity)).max() else {
            return Unavailable::NoSpace;
        };
        if largest < pages {
            return Unavailable::TooLarge { largest };
        }
        if self.spaces.iter().any(|space| fits(space, pages) && is_scrubbing(space)) {
            return Unavailable::Scrubbing;
        }
        let dumps = self.spaces.iter().filter(|space| fits(space, pages) && space.state().holds_dump()).count();
        Unavailable::InUse { dumps: dumps as u8 }
    }

    /// Lets every space go on.
    pub fn advance(&mut self) {
        self.spaces.iter_mut().for_each(LiveSpace::advance);
    }

    /// Takes a completion of class `Metadata`; returns the space and its state if that has just been published.
    pub fn complete(&mut self, completion: Completion) -> Option<(SpaceId, SpaceState)> {
        let tag = Tag::of(completion.cookie).filter(|tag| tag.class == Class::Metadata)?;
        let id = SpaceId(u8::try_from(tag.slot).ok()?);
        let state = self.get_mut(id)?.complete(completion)?;
        Some((id, state))
    }
}

fn fits(space: &LiveSpace, pages: u32) -> bool {
    Layout::most_pages(space.record().capacity) >= pages
}

/// Free, and nothing is being done to it.
fn is_usable(space: &LiveSpace) -> bool {
    space.state() == SpaceState::Free && space.status() == Status::Idle
}

/// On its way to being free and clean.
fn is_scrubbing(space: &LiveSpace) -> bool {
    match space.state() {
        SpaceState::Releasing => !matches!(space.status(), Status::Failed(_)),
        SpaceState::Free => space.status() == Status::Busy && space.record().residue == Residue::Stale,
        _ => false,
    }
}

fn open_to(space: &LiveSpace, partition: Uuid) -> bool {
    let record = space.record();
    record.residue == Residue::Clean || record.owner.as_ref().is_some_and(|owner| owner.partition == partition)
}

/// The partition's own old blocks first: a clean space serves anybody.
fn residue_rank(space: &LiveSpace) -> u8 {
    u8::from(space.record().residue == Residue::Clean)
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
