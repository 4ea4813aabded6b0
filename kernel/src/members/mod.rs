//! This node's part in a cluster: it registers in the area on its disks, beats, takes part in the
//! log, and knows the other members. The rules are the crate `cluster`'s; `docs/cluster.md` has
//! them.
//!
//! ```text
//!   Members ── find     the areas on the disks, and whether they can be joined
//!           ── driver   the state machine's steps as requests, at real times
//!           ── side     what this member is
//!           ── roll     the members with their last beats
//!           ── local    what this node knew last, on a disk of its own
//!           ── orphans  the partitions of fenced members, and who tries to start them when
//!           ── desk     the members and their mail, for tasks
//!           ── letters  what members write to each other
//!           ── tell     events, and the leases of the areas' disks
//!           ── trace    for tests: every word with the state machine
//! ```
//!
//! A disk with an area belongs to the cluster: its paging spaces get requests only while this node
//! has a lease, besides the claims of their own. A registration that fails gives the disk up, and
//! the node runs on with its other disks.

mod area;
mod desk;
mod driver;
mod find;
pub mod letters;
mod local;
pub mod orphans;
mod roll;
mod side;
mod tell;
pub mod trace;

pub use local::LocalDevice;
pub use roll::{RollRow, RollStatus};
pub use side::MemberStanding;

use crate::arch::heap;
use crate::arch::time;
use crate::block::dma::DmaRegion;
use crate::config::MAX_NAME;
use crate::space::Uuid;
use crate::storage::cluster_disks::ClusterDisks;
use crate::storage::log_desk::LogDesk;
use crate::storage::spaces::AreaPlace;
use crate::sync::{RankedGuard, RankedLock, rank};
use crate::task::io::AsyncIo;
use crate::task::until;
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use area::{AreaIo, ClusterArea};
use cluster::beat::BeatDetails;
use cluster::id::Incarnation;
use cluster::local::LocalCopy;
use cluster::node::ClusterNode;
use cluster::post::{MailError, ReadMail};
use cluster::watch::Sighting;
pub use desk::MailDesk;
use driver::{DriverParts, MemberDriver};
use letters::LetterKind;
use orphans::OrphanWatch;
use roll::MemberRoll;
use side::{AreaLane, MemberSide};

/// How long a clean end waits for its last beat.
const LEAVE_NS: Ns = Ns::from_secs(4);

/// Who this start is in its cluster.
#[derive(Clone, Debug)]
pub struct MemberIdentity {
    /// Name for people: the configuration's, or one made of the start's name.
    pub name: String,
    /// The start's name, which no other start has.
    pub start: Uuid,
    /// A random number.
    pub entropy: u64,
}

impl MemberIdentity {
    /// Names a start. Without a name it is called after its first digits.
    pub fn new(name: Option<&str>, start: Uuid, entropy: u64) -> Self {
        let (high, _) = start.halves();
        let name =
            name.map_or_else(|| alloc::format!("node-{:08x}", high >> 32), |name| name.into());
        Self { name, start, entropy }
    }
}

/// What a node has left, which its beats tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FreeRoom {
    /// MiB of the pool.
    pub mib: u32,
    /// Free paging spaces.
    pub spaces: u32,
}

/// Where this node and its cluster stand.
#[derive(Clone, Copy, Debug)]
pub struct ClusterView {
    /// The cluster's name.
    pub cluster: Uuid,
    /// Where this node stands.
    pub standing: MemberStanding,
    /// This node's slot, once it is won.
    pub slot: Option<u16>,
    /// The last decree that is known here.
    pub decree: u64,
    /// Slots that were ever a member's.
    pub used: u32,
    /// Slots of the area.
    pub slots: u16,
}

/// Why a member cannot be confirmed to be off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfirmError {
    /// No member has this name or slot.
    NoMember,
    /// Several have; a slot's number tells them apart.
    Several,
    /// It is not fenced: this one is up.
    NotFenced,
    /// Too many confirmations wait.
    Busy,
}

/// Why a member cannot be written to, or get a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetError {
    /// No member has this name or slot.
    NoMember,
    /// Several have.
    Several,
    /// It does not take part.
    NotUp(RollStatus),
}

impl core::fmt::Display for TargetError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMember => write!(f, "{}", ConfirmError::NoMember),
            Self::Several => write!(f, "{}", ConfirmError::Several),
            Self::NotUp(status) => write!(f, "it is {}", status.as_str()),
        }
    }
}

impl core::fmt::Display for ConfirmError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoMember => "no member has this name or slot; 'nodes' shows them",
            Self::Several => "several members have this name: give the slot's number",
            Self::NotFenced => "it is not fenced: a member is fenced when its beats stop",
            Self::Busy => "other confirmations wait: try again",
        })
    }
}

/// This node's part in its cluster.
pub struct Members {
    io: &'static AreaIo,
    name: [u8; 32],
    /// Paging spaces lie on the areas' disks.
    shares_disks: bool,
    local: Option<&'static LocalDevice>,
    /// The log, as the node's tasks see it.
    pub log: &'static LogDesk,
    /// The cluster's disks.
    pub disks: &'static ClusterDisks,
    /// The partitions of fenced members.
    pub orphans: OrphanWatch,
    /// The members, and mail to them, likewise.
    pub desk: MailDesk,
    driver: RankedLock<Box<MemberDriver>, { rank::SCHEDULER }>,
}

impl Members {
    /// Judges the areas on the disks and prepares the registration; `None` if there is no area that
    /// can be joined. `buffer` takes memory for good.
    ///
    /// # Errors
    /// That of `buffer`.
    pub fn new<E>(
        places: &[AreaPlace],
        local: Option<&'static LocalDevice>,
        identity: &MemberIdentity,
        io: &'static AsyncIo,
        mut buffer: impl FnMut(usize) -> Result<DmaRegion, E>,
    ) -> Result<Option<&'static Self>, E> {
        let Some(found) = find::cluster(places) else { return Ok(None) };
        let (layout, superblock) = (found.layout, found.areas[0].superblock);
        let sizes = area::buffer_sizes(&layout);
        let room: Result<Vec<_>, _> = found.areas.iter().map(|_| heap::zeroed(sizes[1])).collect();
        let Ok(room) = room else {
            for area in &found.areas {
                find::trouble(&area.place, "the heap has no room for its cluster area");
                area.disk.give_up();
            }
            return Ok(None);
        };
        let disks: &'static ClusterDisks =
            Box::leak(Box::new(ClusterDisks::new(find::name_of(superblock.cluster))));
        let mut lanes = Vec::new();
        for (area, seen) in found.areas.into_iter().zip(room) {
            let buffers = [buffer(sizes[0])?, buffer(sizes[1])?];
            disks.add(area.disk);
            let number = area.superblock.area;
            let area = ClusterArea::new(number, area.place, area.disk, buffers);
            lanes.push(AreaLane { area, seen, writes: 0, reads: 0, has_bad_read: false });
        }
        let limit = superblock.state_bytes as usize;
        let seen = vec![Sighting::NEVER; usize::from(layout.slots())];
        let me = Incarnation(u128::from_be_bytes(identity.start.0));
        let entropy = identity.entropy;
        let io: &'static AreaIo = Box::leak(Box::new(AreaIo::new(io)));
        let known = local.and_then(|local| local.decree_of(superblock.cluster));
        let mut node = ClusterNode::new(me, layout, superblock.timing, limit, entropy, seen);
        node.expect_decree(known.unwrap_or(0));
        trace::begin(me, entropy, known.unwrap_or(0));
        let side = MemberSide {
            node,
            roll: MemberRoll::new(),
            first: me,
            standing: MemberStanding::Joining,
            has_told_slots: false,
            is_fenced: false,
            is_tainted: false,
            is_ending: false,
            cluster: superblock.cluster,
            extended: None,
            layout,
            disks,
            lanes,
        };
        let log: &'static LogDesk = Box::leak(Box::new(LogDesk::new(limit)));
        let driver = MemberDriver::new(DriverParts {
            side,
            log,
            areas: superblock.areas,
            io,
            out: vec![0; layout.longest_write()],
            entropy: entropy.rotate_left(32),
        });
        let mut name = [0; 32];
        let len = identity.name.len().min(MAX_NAME);
        name[..len].copy_from_slice(&identity.name.as_bytes()[..len]);
        let shares_disks = places.iter().any(|place| place.has_spaces);
        let driver = RankedLock::new(Box::new(driver));
        let local = local.filter(|_| known.is_some());
        let (orphans, desk) = (OrphanWatch::new(), MailDesk::default());
        let members = Self { io, name, shares_disks, local, log, disks, orphans, desk, driver };
        Ok(Some(Box::leak(Box::new(members))))
    }

    /// Goes on; called at every turn. `unix_ns` is the time of day. Returns whether there is more
    /// to do at once, and whether the log has something new.
    pub fn poll(&self, now_ns: Ns, unix_ns: u64, room: impl Fn() -> FreeRoom) -> (bool, bool) {
        let (turn, mut has_news) = (self.io.tasks.poll(), false);
        if let Some(local) = self.local {
            local.poll();
        }
        if let Some(mut driver) = self.driver.try_lock() {
            let reached = driver.side.reached();
            driver.poll(now_ns, || {
                let FreeRoom { mib, spaces } = room();
                BeatDetails {
                    devices: reached.into(),
                    free_mib: mib,
                    free_spaces: spaces,
                    name: self.name,
                }
            });
            let MemberSide { node, roll, .. } = &mut driver.side;
            self.desk.visit(node, roll, now_ns);
            self.keep(&driver, now_ns, unix_ns);
            let side = &driver.side;
            let is_member =
                matches!(side.standing, MemberStanding::Member | MemberStanding::Frozen);
            let me = is_member.then(|| side.node.me().slot);
            has_news = self.log.publish(me, side.node.state());
        }
        (turn.busy, has_news)
    }

    /// Returns whether this node was fenced, has signed off, and waits for [`Self::rejoin`].
    pub fn has_parted(&self) -> bool {
        self.driver.try_lock().is_some_and(|d| d.side.standing == MemberStanding::Parted)
    }

    /// Registers anew. To be called when nothing uses the cluster's disks any more.
    pub fn rejoin(&self, now_ns: Ns) {
        self.driver().rejoin(now_ns);
    }

    /// Writes the local copy, if one is due.
    fn keep(&self, driver: &MemberDriver, now_ns: Ns, unix_ns: u64) {
        let (Some(local), side) = (self.local, &driver.side) else { return };
        let (node, decree) = (&side.node, side.node.announced());
        if decree == 0 || !node.is_member() {
            return;
        }
        let copy = LocalCopy {
            member: node.me(),
            sequence: 0,
            cluster: side.cluster,
            decree,
            written_ns: unix_ns,
            is_member: true,
            name: self.name,
            used: node.state().used_slots() as u16,
            slots: side.layout.slots(),
        };
        local.write(now_ns, copy, side.roll.rows(), node.state());
    }

    fn driver(&self) -> RankedGuard<'_, Box<MemberDriver>, { rank::SCHEDULER }> {
        self.driver.lock()
    }

    /// Returns whether paging spaces wait for the registration.
    pub const fn holds_spaces(&self) -> bool {
        self.shares_disks
    }

    /// Waits until this node is a member or will be none.
    pub async fn joined(&self) {
        until(|| (self.driver().side.standing != MemberStanding::Joining).then_some(())).await;
    }

    /// Signs off, and waits for the last beat, but not for long.
    pub async fn leave(&self) {
        let end = time::now_ns() + LEAVE_NS;
        {
            let mut driver = self.driver();
            driver.side.is_ending = true;
            if driver.side.standing == MemberStanding::Parted {
                driver.side.standing = MemberStanding::Out;
            }
            driver.side.node.leave();
            trace::word("leave", &[]);
        }
        until(|| {
            let is_over =
                self.driver().side.standing == MemberStanding::Out || time::now_ns() >= end;
            is_over.then_some(())
        })
        .await;
    }

    /// Returns where this node and its cluster stand.
    pub fn view(&self) -> ClusterView {
        let driver = self.driver();
        let (state, me) = (driver.side.node.state(), driver.side.node.me());
        ClusterView {
            cluster: find::name_of(driver.side.cluster),
            standing: driver.side.standing,
            slot: driver.side.node.is_member().then_some(me.slot),
            decree: state.number(),
            used: state.used_slots(),
            slots: driver.side.layout.slots(),
        }
    }

    /// Returns the members in the order of their slots.
    pub fn rows(&self) -> Vec<RollRow> {
        let mut rows = self.driver().side.roll.rows().to_vec();
        rows.sort_by_key(|row| row.id.slot);
        rows
    }

    /// Sends a message to the member in a slot; returns its number.
    ///
    /// # Errors
    /// [`MailError`]; then nothing is sent.
    pub fn send(&self, slot: u16, kind: LetterKind, text: &[u8]) -> Result<u64, MailError> {
        let (mut driver, now, kind) = (self.driver(), time::now_ns().as_u64(), kind as u16);
        trace::send(now, slot, kind, text);
        driver.side.node.send(slot, kind, text, now)
    }

    /// Takes the oldest message that was read.
    pub fn take_mail(&self) -> Option<ReadMail> {
        let letter = self.driver.try_lock()?.side.node.take_mail()?;
        trace::word("take", &[]);
        Some(letter)
    }

    /// Checks whether the member in a slot reads mail.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn check_mail(&self, slot: u16) -> Result<(), MailError> {
        self.driver().side.node.check_mail(slot).map(drop)
    }

    /// Returns the member that takes part and has this name or slot.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn target(&self, node: &str) -> Result<RollRow, TargetError> {
        let slot: Option<u16> = node.parse().ok();
        let is_it = |row: &&RollRow| row.name() == node || slot == Some(row.id.slot);
        let rows = self.rows();
        let all: Vec<&RollRow> = rows.iter().filter(is_it).collect();
        let mut up = all.iter().filter(|row| row.status == RollStatus::Up);
        match (up.next(), up.next()) {
            (Some(_), Some(_)) => Err(TargetError::Several),
            (Some(row), None) => Ok(**row),
            (None, _) => {
                Err(all.first().map_or(TargetError::NoMember, |row| TargetError::NotUp(row.status)))
            }
        }
    }

    /// Takes the operator's word that a fenced member's machine is off.
    ///
    /// # Errors
    /// [`ConfirmError`] says why it is not taken.
    pub fn confirm(&self, node: &str) -> Result<(), ConfirmError> {
        let mut driver = self.driver();
        let slot: Option<u16> = node.parse().ok();
        let is_it = |row: &&RollRow| row.name() == node || slot == Some(row.id.slot);
        let fenced = |row: &&RollRow| row.status == RollStatus::Fenced;
        let rows: Vec<RollRow> = driver.side.roll.rows().iter().filter(is_it).copied().collect();
        let mut found = rows.iter().filter(fenced);
        let row = match (found.next(), found.next()) {
            (Some(row), None) => row,
            (Some(_), Some(_)) => return Err(ConfirmError::Several),
            (None, _) if rows.is_empty() => return Err(ConfirmError::NoMember),
            (None, _) => return Err(ConfirmError::NotFenced),
        };
        if driver.confirm(row.id.slot) { Ok(()) } else { Err(ConfirmError::Busy) }
    }
}
