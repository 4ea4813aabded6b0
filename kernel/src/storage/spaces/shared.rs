//! Spaces on a cluster's disks: the log says whose they are.
//!
//! ```text
//!              look: free         acquire                   take decided, claimed, opened
//!   Shared ──────────────> takeable ──────> Activating (own, take) ──────────> Free ──> Active ...
//!     ^  └ anything else, unowned: adopted, opened, kept if it is a dump                     │
//!     └──────────────── claim ended, release decided <── Free <── scrubbed <─────────────────┘
//! ```
//!
//! * Nothing is written to a space before the log has given it to this member and its claim is
//!   taken. The claim is a second line of defence, against programs that do not know the log.
//! * A start recovers nothing: the log gives it nothing. What a member has left becomes unowned
//!   when nothing of that member lands any more. Until then the space is in *quarantine*.
//! * An unowned space whose record is not FREE is adopted: an interrupted drain becomes a partial
//!   dump, a dump is kept and listed by the member that has adopted it, everything else is freed.

use super::{Space, SpaceId, SpacePhase, Spaces};
use crate::arch::time;
use crate::block::{Disk, DiskError};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::mm::layout::RamLayout;
use crate::space::{DeviceContent, Residue, SpaceBase, SpaceState, Uuid};
use crate::storage::DiskLease;
use crate::storage::cluster_disks::ClusterDisks;
use crate::storage::log_desk::{LogDesk, OwnError};
use crate::time::Ns;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayString;
use cluster::decree::Owner;
use cluster::state::{ClusterState, Thing, VoidError};
use core::sync::atomic::Ordering;

/// How long a space that another member has got first is not tried again.
const AGAIN_NS: Ns = Ns::from_ms(500);

/// Where a space on a cluster's disk stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharedStanding {
    /// Any member may take it.
    Unowned,
    /// This member.
    Own,
    /// The member in this slot.
    Others(u16),
    /// A fenced member, in this slot, whose writes may still land.
    Quarantined(u16),
}

/// Returns the number of a partition in the log. Its name is unique because the number is the
/// name's.
pub fn number_of(name: &str) -> u128 {
    u128::from_be_bytes(Uuid::from_name(name).0)
}

impl Spaces {
    /// Has the log say from now on who owns the spaces on its cluster's disks.
    pub fn join_log(&self, log: &'static LogDesk, disks: &'static ClusterDisks) {
        self.log.call_once(|| log);
        self.cluster.call_once(|| disks);
    }

    /// Returns the log if the space is on the disk of a cluster.
    pub(super) fn log_of(&self, id: SpaceId) -> Option<&'static LogDesk> {
        let log = self.log.get().copied()?;
        (self.disk(id).lease() != DiskLease::Alone).then_some(log)
    }

    /// Returns the number of a space in the log: its GPT partition's name, which every member reads
    /// alike also before the space is formatted. A whole disk has only the name in its record.
    pub(super) fn thing(&self, id: SpaceId) -> u128 {
        let space = self.space(id);
        let name = match space.guid {
            Uuid::NIL => space.name.get().copied().unwrap_or(Uuid::NIL),
            guid => guid,
        };
        u128::from_be_bytes(name.0)
    }

    /// Returns where a space stands in its cluster's log, and its epoch; `None` if it is in none.
    pub fn standing(&self, id: SpaceId) -> Option<(SharedStanding, u64)> {
        let thing = Thing::Space(self.thing(id));
        self.log_of(id)?.with_state(|me, state| {
            let row = state.row(thing);
            let standing = match row.owner {
                Owner::Unowned => SharedStanding::Unowned,
                Owner::Slot(slot) if slot == me => SharedStanding::Own,
                Owner::Slot(slot) if state.is_quarantined(slot) => {
                    SharedStanding::Quarantined(slot)
                }
                Owner::Slot(slot) => SharedStanding::Others(slot),
            };
            (standing, row.epoch)
        })
    }

    /// Returns the slot of the fenced member for whose proof of quiet a space waits.
    pub(super) fn quarantined_of(&self, id: SpaceId) -> Option<u16> {
        match self.standing(id) {
            Some((SharedStanding::Quarantined(slot), _)) => Some(slot),
            _ => None,
        }
    }

    /// Counts the spaces that wait for proof of quiet.
    pub fn quarantined(&self) -> usize {
        (0..self.spaces.len()).filter_map(|id| self.quarantined_of(SpaceId(id))).count()
    }

    /// Returns the slot of another member that owns the partition of this name.
    pub fn other_owner(&self, partition: &str) -> Option<u16> {
        let thing = Thing::Partition(number_of(partition));
        let other = |me, state: &ClusterState| match state.row(thing).owner {
            Owner::Slot(slot) if slot != me => Some(slot),
            _ => None,
        };
        self.log.get()?.with_state(other).flatten()
    }

    /// Returns what a partition without a space waits for.
    pub fn awaited(&self, owner: &str) -> String {
        match (self.other_owner(owner), self.quarantined()) {
            (Some(slot), _) => format!("the end of the partition of this name on slot {slot}"),
            (None, 0) => "a free paging space".into(),
            (None, n) => format!("a free paging space; quarantined: {n}"),
        }
    }

    /// Notes that the log, or a disk, has something new.
    pub fn note_log(&self) {
        self.mend_due_ns.lower(time::now_ns(), Ordering::AcqRel);
    }

    /// Leaves a space to the log, at a start or after this node has registered anew.
    pub(super) fn share(&self, id: SpaceId) {
        let mut inner = self.space(id).inner.lock();
        (inner.phase, inner.looked) = (SpacePhase::Shared, None);
        drop(inner);
        self.note_log();
    }

    /// Looks at a shared space without an owner, if it has changed its owner since the last look.
    /// A space of this member was put out of use by an error, and is opened again.
    pub(super) fn follow(&'static self, id: SpaceId) {
        let Some((standing, epoch)) = self.standing(id) else { return };
        if let SharedStanding::Quarantined(slot) = standing {
            return self.look_at_remains(id, slot);
        }
        self.forget_remains(id);
        let mut inner = self.space(id).inner.lock();
        match standing {
            SharedStanding::Unowned => {}
            SharedStanding::Own if inner.phase == SpacePhase::Shared => {
                (inner.phase, inner.is_refused) = (SpacePhase::Looking, false);
                drop(inner);
                return self.tasks.start(self.settle_taken(id));
            }
            _ => return,
        }
        if inner.phase != SpacePhase::Shared || inner.looked.is_some_and(|(seen, _)| seen == epoch)
        {
            return;
        }
        inner.phase = SpacePhase::Looking;
        drop(inner);
        self.tasks.start(async move {
            let class = self.class(id).await;
            let (record, is_free) = match class {
                Ok(Some(DeviceContent::Blank)) => (None, true),
                Ok(Some(DeviceContent::Space(record))) => {
                    let is_free = record.state == SpaceState::Free;
                    (Some(record), is_free)
                }
                Ok(Some(DeviceContent::Closed(closed))) => {
                    self.tell_closed(id, &closed);
                    self.space(id).inner.lock().phase = SpacePhase::Unusable;
                    return;
                }
                Ok(_) => {
                    self.trouble(id, "is no paging space: the cluster leaves it alone");
                    self.space(id).inner.lock().phase = SpacePhase::Unusable;
                    return;
                }
                Err(error) => return self.set_aside(id, error),
            };
            // A suspended partition without an owner waits for the member that resumes it.
            let is_known = record.is_some() && !self.is_cold(id);
            {
                let mut inner = self.space(id).inner.lock();
                (inner.record, inner.looked) = (record, Some((epoch, is_free)));
                inner.phase = SpacePhase::Shared;
            }
            if is_known && !is_free {
                self.adopt(id).await;
            }
        });
    }

    /// Takes an unowned space that is not free, and opens it as a start does.
    async fn adopt(&'static self, id: SpaceId) {
        {
            let mut inner = self.space(id).inner.lock();
            if inner.phase != SpacePhase::Shared {
                return;
            }
            inner.phase = SpacePhase::Looking;
        }
        let result = match self.node_as_partition() {
            Some(node) => self.take_for(id, node).await,
            None => Err(OwnError::NotMember),
        };
        match result {
            Ok(()) => self.settle_taken(id).await,
            Err(_) => self.come_back(id),
        }
    }

    /// Opens a space of this member that no partition uses, and gives it back unless it holds a
    /// dump.
    async fn settle_taken(&'static self, id: SpaceId) {
        if self.open_taken(id).await.is_ok() {
            self.settle_opened(id).await;
        }
    }

    /// Goes on with a space of this member that was opened.
    pub(super) async fn settle_opened(&'static self, id: SpaceId) {
        let phase = self.space(id).inner.lock().phase;
        match phase {
            SpacePhase::Releasing => self.scrub(id).await,
            SpacePhase::Inheriting => self.inherit(id).await,
            SpacePhase::Free if self.log_of(id).is_some() => self.give_back(id).await,
            _ => {}
        }
    }

    /// Returns the number under which this member owns what belongs to no partition of its own: its
    /// incarnation's.
    pub(super) fn node_as_partition(&self) -> Option<u128> {
        let name = |me, state: &ClusterState| Some(state.member(me)?.id.incarnation.0);
        self.log.get()?.with_state(name)?
    }

    /// Looks at a space again soon: another member has got it, or this node is no member.
    fn come_back(&self, id: SpaceId) {
        let mut inner = self.space(id).inner.lock();
        inner.phase = SpacePhase::Failed(DiskError::Dead);
        inner.again_ns = time::now_ns().saturating_add(AGAIN_NS);
        self.mend_due_ns.lower(inner.again_ns, Ordering::AcqRel);
    }

    /// Has the log give partition and space to this member.
    async fn take_for(&'static self, id: SpaceId, partition: u128) -> Result<(), OwnError> {
        let Some(log) = self.log_of(id) else { return Err(OwnError::NotMember) };
        match log.own(partition, Some(Owner::Unowned), None).await {
            // It is this member's already.
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        log.take_space(partition, self.thing(id)).await?;
        Ok(())
    }

    /// Claims and opens a space that the log has given to this member.
    async fn open_taken(&'static self, id: SpaceId) -> Result<(), DiskError> {
        // What was read before the take may be another's, and a beat must not put it back.
        self.space(id).inner.lock().record = None;
        let result = match self.claim_space(id).await {
            // A program that does not know the log has claimed it.
            Ok(()) if self.is_refused(id) => Err(DiskError::Dead),
            Ok(()) => self.open_one(id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.trouble(id, &format!("cannot be opened: {error}; it is tried again later"));
            self.set_aside(id, error);
        }
        result
    }

    /// Returns the smallest shared space without an owner that fits; its phase changes.
    fn choose_shared(&self, owner: &str, ram: &RamLayout) -> Option<SpaceId> {
        let thing = Thing::Partition(number_of(owner));
        let is_ours = |me, state: &ClusterState| match state.row(thing).owner {
            Owner::Unowned => true,
            Owner::Slot(slot) => slot == me,
        };
        if !self.log.get()?.with_state(is_ours)? {
            return None;
        }
        let now = time::now_ns();
        let is_takeable = |id: &SpaceId| {
            let disk = self.disk(*id);
            let has_lease = matches!(disk.lease(), DiskLease::Until(end) if end > now);
            has_lease
                && !disk.is_dead()
                && self.place(*id).area.fits(ram.pages())
                && matches!(self.standing(*id), Some((SharedStanding::Unowned, epoch))
                    if self.space(*id).inner.lock().looked == Some((epoch, true)))
        };
        let all = (0..self.spaces.len()).map(SpaceId);
        let mut fitting: Vec<_> = all.filter(is_takeable).collect();
        // Members that look at the same time choose different ones.
        let me = self.node.halves().1 as usize;
        fitting.sort_by_key(|&id| (self.place(id).area.bytes(), id.0.wrapping_add(me) % 61));
        fitting.into_iter().find(|&id| {
            let mut inner = self.space(id).inner.lock();
            let is_there = inner.phase == SpacePhase::Shared;
            if is_there {
                inner.phase = SpacePhase::Activating;
                (inner.user, inner.is_selected) = (Some(Uuid::from_name(owner)), false);
            }
            is_there
        })
    }

    /// As [`Self::acquire`], from a cluster's disks.
    pub(super) fn acquire_shared(
        &'static self,
        owner: &str,
        ram: &RamLayout,
        of: (u64, Option<SpaceBase>),
    ) -> Option<SpaceId> {
        let id = self.choose_shared(owner, ram)?;
        let (name, ram) = (ArrayString::from(owner).unwrap_or_default(), *ram);
        self.tasks.start(async move {
            match self.take_for(id, number_of(&name)).await {
                Ok(()) => {}
                Err(error) => {
                    if error == OwnError::Void(VoidError::Full) {
                        report(&ConsoleEvent::StateFull { partition: &name });
                    }
                    return self.come_back(id);
                }
            }
            if self.open_taken(id).await.is_err() {
                return;
            }
            let phase = self.space(id).inner.lock().phase;
            match phase {
                SpacePhase::Free => {}
                // It is no free space any more, but this member's.
                SpacePhase::Releasing => return self.scrub(id).await,
                _ => return,
            }
            self.space(id).inner.lock().phase = SpacePhase::Activating;
            if self.has_strangers_pages(id, &name)
                && let Err(error) = self.wipe(id).await
            {
                self.trouble(id, &format!("cannot be scrubbed: {error}; it is tried again later"));
                return self.set_aside(id, error);
            }
            self.activate_and_tell(id, name, &ram, of).await;
        });
        Some(id)
    }

    fn has_strangers_pages(&self, id: SpaceId, owner: &str) -> bool {
        let inner = self.space(id).inner.lock();
        inner.record.as_ref().is_some_and(|record| {
            let known = record.owner.as_ref();
            let is_owners = known.is_some_and(|known| known.partition == Uuid::from_name(owner));
            record.residue == Residue::Stale && !is_owners
        })
    }

    /// Gives a clean space back to the log; the record says FREE.
    pub(super) async fn give_back(&'static self, id: SpaceId) {
        let Some(log) = self.log_of(id) else { return };
        self.space(id).inner.lock().phase = SpacePhase::Looking;
        let holding = {
            let _turn = self.beats.turn(self.place(id).disk).await;
            self.space(id).inner.lock().holding.take()
        };
        if let Some(holding) = holding
            && let Err(error) = self.end_claim(id, &holding.claim()).await
        {
            self.trouble(id, &format!("its claim cannot be released: {error}"));
        }
        let user = self.space(id).inner.lock().user.take();
        match log.release_space(self.thing(id)).await {
            Ok(epoch) => {
                let mut inner = self.space(id).inner.lock();
                (inner.phase, inner.looked) = (SpacePhase::Shared, Some((epoch, true)));
            }
            Err(_) => return self.come_back(id),
        }
        let stopped = user.filter(|user| self.has_stopped(*user));
        if let Some(Uuid(bytes)) = stopped {
            // It keeps its name as long as it has dumps: then the decree has no effect.
            let _ = log.own(u128::from_be_bytes(bytes), None, Some(Owner::Unowned)).await;
        }
        self.note_log();
    }
}

/// Returns whether a space holds something, or is in use, as its summary says.
pub(super) fn word_of(
    space: &Space,
    standing: Option<(SharedStanding, u64)>,
) -> Option<&'static str> {
    let is_shared = matches!(space.inner.lock().phase, SpacePhase::Shared | SpacePhase::Looking);
    match standing {
        Some((SharedStanding::Quarantined(_), _)) => Some("quarantined"),
        Some((SharedStanding::Others(_), _)) => Some("another node's"),
        Some((SharedStanding::Unowned, _)) if is_shared => {
            let looked = space.inner.lock().looked;
            looked.map(|(_, is_free)| if is_free { "free" } else { "unowned" })
        }
        _ => None,
    }
}
