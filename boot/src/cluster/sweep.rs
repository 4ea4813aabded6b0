//! The offline sweep: gives the slots of starts that are gone back, and is the proof of quiet for
//! all members.
//!
//! ```text
//!   state n + 2 and a beat that knows it, in the keeper's slot ──> each other slot: beat, log, states, X ──> Y
//! ```
//!
//! Each arrow is a flush. An interrupted sweep leaves slots that are taken, and the next one goes
//! on.

use super::ClusterImages;
use ::cluster::beat::Beat;
use ::cluster::id::{Incarnation, MemberId};
use ::cluster::layout::Half;
use ::cluster::sector::{FieldReader, SectorKind};
use ::cluster::state::ClusterState;
use ::cluster::sweep::{latest_number, pending};
use anyhow::{Result, bail};

/// What a sweep has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SweepOutcome {
    /// Slots that are free again.
    pub freed: usize,
    /// Slots that stay taken: the keeper's, and those of members that own something.
    pub kept: usize,
    /// Members that were up or fenced, and are quiet now.
    pub quieted: usize,
    /// The last decree.
    pub decree: u64,
}

impl ClusterImages {
    /// Sweeps. The images have to be open for writing.
    ///
    /// # Errors
    /// Where an image cannot be read or written, or the newest state is lost.
    pub fn sweep(&self) -> Result<SweepOutcome> {
        let (mut state, keeper) = self.newest_state()?;
        let logs = self.read_all(self.layout.logs())?;
        let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
        let beats = self.read_all(self.layout.beats())?;
        let sectors = beats.iter().flat_map(|all| all.chunks(512));
        let told =
            sectors.filter_map(|bytes| Beat::decode(bytes).ok()).map(|beat| beat.known).max();
        let latest = told.unwrap_or(0).max(latest_number(&logs).saturating_sub(1));
        if latest > state.number() {
            bail!(
                "the state after decree {latest} is lost, the newest is after {}: nothing is swept",
                state.number()
            );
        }
        if let Some(value) = pending(&logs, state.number() + 1) {
            // A void decree counts too.
            let _ = state.apply(&value);
        }
        let before = state.members().len();
        if state.number() > 0 {
            state.sweep(keeper);
            self.keep(&state, keeper)?;
        }
        let freed = self.clear(&state)?;
        let kept = (0..self.layout.slots()).filter(|slot| state.was_used(*slot)).count();
        Ok(SweepOutcome { freed, kept, quieted: before, decree: state.number() })
    }

    /// Writes the state, and then the beat that leads the next start to it.
    fn keep(&self, state: &ClusterState, keeper: u16) -> Result<()> {
        let copies = self.layout.both_states(keeper);
        let old = self.areas[0].read(copies)?;
        let opened = ClusterState::halves(&old)
            .map(|half| FieldReader::open(half, SectorKind::State).ok().map(|(member, _)| member));
        let writer = opened.into_iter().flatten().next();
        let incarnation =
            writer.map_or(Incarnation(self.superblock.cluster), |one| one.incarnation);
        let member = MemberId { slot: keeper, incarnation };
        let last = ClusterState::halves(&old)
            .map(|half| ClusterState::decode(half).map(|(sequence, _)| sequence).unwrap_or(0));
        let sequence = last[0].max(last[1]) + 1;
        // The half with the older state is overwritten.
        let half = if last[0] <= last[1] { Half::A } else { Half::B };
        let extent = self.layout.state(keeper, half);
        let mut bytes = vec![0; extent.len];
        state.encode(member, sequence, &mut bytes);
        self.write_all(extent.at, &bytes)?;
        let beat = Beat { sequence: u64::MAX, known: state.number(), ..Beat::new(member) };
        self.write_all(self.layout.beat(keeper).at, &beat.encode())
    }

    /// Clears the slots that the state does not name; returns the number of those that were taken.
    fn clear(&self, state: &ClusterState) -> Result<usize> {
        let mut freed = 0;
        let joins = self.read_all(self.layout.joins())?;
        for slot in (0..self.layout.slots()).filter(|slot| !state.was_used(*slot)) {
            let at = usize::from(slot) * 1024;
            let is_clear = |all: &Vec<u8>| all[at..at + 1024].iter().all(|byte| *byte == 0);
            if joins.iter().all(is_clear) {
                continue;
            }
            freed += 1;
            for area in &self.areas {
                area.clear(self.layout.beat(slot))?;
                area.clear(self.layout.log(slot, Half::A))?;
                area.clear(self.layout.log(slot, Half::B))?;
                area.clear(self.layout.both_states(slot))?;
                self.layout.mail(slot).map_or(Ok(()), |mail| area.clear(mail))?;
                area.clear(self.layout.join(slot, Half::A))?;
            }
            self.flush_all()?;
            for area in &self.areas {
                area.clear(self.layout.join(slot, Half::B))?;
            }
            self.flush_all()?;
        }
        Ok(freed)
    }
}
