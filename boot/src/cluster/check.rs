//! What an area holds: slots, members, and every structure that is torn, newer or out of place.
//!
//! Nodes may run meanwhile, so a structure may be half written when it is read. A fault counts only
//! if two reads find it.

use super::{ClusterImages, name_of};
use ::cluster::beat::{Beat, BeatMode};
use ::cluster::block::LogBlock;
use ::cluster::id::MemberId;
use ::cluster::layout::Extent;
use ::cluster::mail::{MAIL_BLOCK, MailBlock};
use ::cluster::sector::{FieldReader, SectorError, SectorKind};
use ::cluster::state::{ClusterState, MemberStatus};
use ::cluster::superblock::{Superblock, SuperblockError};
use anyhow::Result;

/// A member, for people.
pub struct MemberLine {
    /// Its slot and its incarnation.
    pub id: MemberId,
    /// Its name; empty if its beat cannot be read.
    pub name: String,
    /// Where it stands.
    pub status: &'static str,
    /// The decree that put it there.
    pub since: u64,
}

/// What was found.
#[derive(Default)]
pub struct AreaReport {
    /// Slots that are taken.
    pub used: usize,
    /// Number of the last decree whose state is on the disk.
    pub decree: u64,
    /// The members.
    pub members: Vec<MemberLine>,
    /// Remarks: a damaged copy whose other copy counts.
    pub notes: Vec<String>,
    /// Faults: each names its place.
    pub faults: Vec<String>,
}

impl AreaReport {
    /// Looks at all structures of all areas.
    ///
    /// # Errors
    /// Where an image cannot be read.
    pub fn of(images: &ClusterImages) -> Result<Self> {
        let first = Self::look(images)?;
        if first.faults.is_empty() && first.notes.is_empty() {
            return Ok(first);
        }
        let mut second = Self::look(images)?;
        second.faults.retain(|fault| first.faults.contains(fault));
        second.notes.retain(|note| first.notes.contains(note));
        Ok(second)
    }

    fn look(images: &ClusterImages) -> Result<Self> {
        let mut report = Self::default();
        let (state, _) = images.newest_state()?;
        report.decree = state.number();
        for number in 0..images.areas.len() {
            Look { images, number, state: &state, report: &mut report }.all()?;
        }
        let beats = images.read_all(images.layout.beats())?;
        for row in state.members() {
            let place = usize::from(row.id.slot) * 512;
            let sectors = beats.iter().filter_map(|all| all.get(place..place + 512));
            let beat = sectors.filter_map(|bytes| Beat::decode(bytes).ok());
            let beat = beat.filter(|beat| beat.member == row.id).max_by_key(|beat| beat.sequence);
            let has_left = beat.is_some_and(|beat| beat.mode == BeatMode::Leaving);
            report.members.push(MemberLine {
                id: row.id,
                name: beat.map(|beat| beat.details.name().to_owned()).unwrap_or_default(),
                status: match row.status {
                    MemberStatus::Up if has_left => "leaving",
                    MemberStatus::Up => "up",
                    MemberStatus::Fenced { .. } => "fenced",
                    MemberStatus::Quiet(_) => "quiet",
                },
                since: row.since,
            });
        }
        Ok(report)
    }
}

impl ClusterImages {
    /// Returns the newest state on the disks and the slot that has it; the empty state and slot 0
    /// before the first decree.
    ///
    /// # Errors
    /// Where an image cannot be read.
    pub(super) fn newest_state(&self) -> Result<(ClusterState, u16)> {
        let mut newest = (ClusterState::new(self.superblock.state_bytes as usize), 0);
        let each = 2 * self.superblock.state_bytes as usize;
        for states in self.read_all(self.layout.states())? {
            for (slot, both) in (0..).zip(states.chunks(each)) {
                match ClusterState::newer(both) {
                    Some(state) if state.number() > newest.0.number() => newest = (state, slot),
                    _ => {}
                }
            }
        }
        Ok(newest)
    }
}

/// A look at one area.
struct Look<'a> {
    images: &'a ClusterImages,
    number: usize,
    state: &'a ClusterState,
    report: &'a mut AreaReport,
}

impl Look<'_> {
    fn place(&self, what: &str) -> String {
        format!("{}: {what}", self.images.areas[self.number].path().display())
    }

    fn fault(&mut self, what: &str, fault: &str) {
        let line = self.place(&format!("{what}: {fault}"));
        self.report.faults.push(line);
    }

    fn note(&mut self, what: &str, note: &str) {
        let line = self.place(&format!("{what}: {note}"));
        self.report.notes.push(line);
    }

    fn read(&self, extent: Extent) -> Result<Vec<u8>> {
        self.images.areas[self.number].read(extent)
    }

    fn all(&mut self) -> Result<()> {
        self.superblocks()?;
        let layout = self.images.layout;
        let (joins, beats) = (self.read(layout.joins())?, self.read(layout.beats())?);
        let (logs, states) = (self.read(layout.logs())?, self.read(layout.states())?);
        let state = 2 * self.images.superblock.state_bytes as usize;
        let mut used = 0;
        for (slot, (join, beat)) in (0..).zip(joins.chunks(1024).zip(beats.chunks(512))) {
            let (x, y) = join.split_at(512);
            used += usize::from(y.iter().any(|byte| *byte != 0));
            self.join(slot, "X", x);
            self.join(slot, "Y", y);
            self.beat(slot, beat);
        }
        self.report.used = self.report.used.max(used);
        for (slot, both) in (0..).zip(logs.chunks(1024)) {
            let copies = both.split_at(512);
            let member = |bytes| LogBlock::decode(bytes).map(|block| block.member);
            self.copies("log block", slot, [member(copies.0), member(copies.1)]);
        }
        for (slot, both) in (0..).zip(states.chunks(state)) {
            let writer = |bytes| {
                ClusterState::decode(bytes)?;
                FieldReader::open(bytes, SectorKind::State).map(|(member, _)| member)
            };
            self.copies("state", slot, ClusterState::halves(both).map(writer));
        }
        for (slot, block) in (0..).zip(self.read(layout.mails())?.chunks(MAIL_BLOCK)) {
            self.mail(slot, block);
        }
        Ok(())
    }

    fn superblocks(&mut self) -> Result<()> {
        let [a, b] = self.images.areas[self.number].superblocks()?;
        for (copy, name) in [(&a, "superblock A"), (&b, "superblock B")] {
            match Superblock::decode([copy, copy]) {
                Ok(_) => {}
                Err(SuperblockError::Foreign) => self.note(name, "no magic; the other counts"),
                Err(error) => self.note(name, &format!("{error}; the other copy counts")),
            }
        }
        Ok(())
    }

    fn join(&mut self, slot: u16, sector: &str, bytes: &[u8]) {
        let found = FieldReader::open(bytes, SectorKind::Join).map(|(member, _)| member);
        let place = format!("slot {slot}, join {sector}");
        match found {
            Err(SectorError::Empty) => {}
            Ok(member) if member.slot == slot => {}
            Ok(member) => self.fault(&place, &format!("is of slot {}", member.slot)),
            Err(SectorError::Torn) => self.note(&place, "torn or foreign; the slot stays taken"),
            Err(SectorError::Newer(version)) => self.fault(&place, &newer(version)),
        }
    }

    fn beat(&mut self, slot: u16, bytes: &[u8]) {
        let place = format!("slot {slot}, beat");
        match Beat::decode(bytes) {
            Err(SectorError::Empty) => {}
            Ok(beat) => self.owner(&place, slot, beat.member),
            // Every other member's lease stops while such a beat may be a member's.
            Err(SectorError::Torn) if self.state.is_up(slot) || !self.state.was_used(slot) => {
                self.fault(&place, "torn or foreign: no member gets a lease until it is fenced");
            }
            Err(SectorError::Torn) => self.note(&place, "torn; its member is fenced"),
            Err(SectorError::Newer(version)) => self.fault(&place, &newer(version)),
        }
    }

    fn mail(&mut self, slot: u16, bytes: &[u8]) {
        let place = format!("slot {slot}, mail");
        match MailBlock::decode(bytes) {
            Err(SectorError::Empty) => {}
            Ok(block) => self.owner(&place, slot, block.member),
            Err(SectorError::Torn) => self.note(&place, "torn; its member writes it again"),
            Err(SectorError::Newer(version)) => self.fault(&place, &newer(version)),
        }
    }

    /// Judges the two copies of a structure that are written in turn.
    fn copies(&mut self, what: &str, slot: u16, copies: [Result<MemberId, SectorError>; 2]) {
        let is_whole = copies.iter().any(Result::is_ok);
        for (half, copy) in ["A", "B"].into_iter().zip(copies) {
            let place = format!("slot {slot}, {what} {half}");
            match copy {
                Ok(member) => self.owner(&place, slot, member),
                Err(SectorError::Empty) => {}
                Err(SectorError::Torn) if is_whole => self.note(&place, "torn; the other counts"),
                Err(SectorError::Torn) => self.fault(&place, "torn or foreign"),
                Err(SectorError::Newer(version)) => self.fault(&place, &newer(version)),
            }
        }
    }

    /// Checks that a structure is in its writer's slot.
    fn owner(&mut self, place: &str, slot: u16, writer: MemberId) {
        if writer.slot != slot {
            return self.fault(place, &format!("was written for slot {}", writer.slot));
        }
        let member = self.state.member(slot).map(|row| row.id);
        if member.is_some_and(|member| member != writer) {
            self.fault(
                place,
                &format!("is of incarnation {}, not the slot's", name_of(writer.incarnation.0)),
            );
        }
    }
}

fn newer(version: u16) -> String {
    format!("version {version} of a newer program")
}
