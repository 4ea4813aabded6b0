//! Compares the contents of two disks after a power cut with the hypervisor's promises and with the
//! guest's real pages.

use super::promises::{DumpPromise, DumpPromises};
use super::truth::{CrashMoment, GuestTruth, PagesShown};
use crate::space::SpaceBytes;
use anyhow::{Context, Result, ensure};
use boot::dump::Dump;
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::space::SpaceState;
use std::path::{Path, PathBuf};

/// A dump on a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldDump {
    /// Its name.
    pub name: String,
    /// The incarnation that it is of.
    pub incarnation: u64,
    /// The state of its space.
    pub state: SpaceState,
}

impl HeldDump {
    /// Reads the record of a disk; `None` where it holds no dump.
    ///
    /// # Errors
    /// Where there is no valid record.
    pub fn on(image: &Path) -> Result<Option<Self>> {
        let record = SpaceImage::open(image, VolumeAccess::Read)?.record()?;
        if !record.state.holds_dump() {
            return Ok(None);
        }
        let (crash, owner) = (
            record.crash.context("a dump of no crash")?,
            record.owner.context("a dump of nobody")?,
        );
        Ok(Some(Self {
            name: crash.name.to_string(),
            incarnation: owner.epoch,
            state: record.state,
        }))
    }

    /// Returns the state that the next start gives it.
    #[must_use]
    pub fn after_a_start(self) -> Self {
        let state =
            if self.state == SpaceState::Draining { SpaceState::Partial } else { self.state };
        Self { state, ..self }
    }

    /// Checks the dump by the host command's code, by the independent readers and against the
    /// guest's own pages.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn check(&self, image: &Path, truth: &GuestTruth, first: u64) -> Result<PagesShown> {
        self.check_at(image, truth, first, CrashMoment::AtTheEnd)
    }

    /// As [`HeldDump::check`], for a guest that crashed at this moment.
    ///
    /// # Errors
    /// As [`HeldDump::check`].
    pub fn check_at(
        &self,
        image: &Path,
        truth: &GuestTruth,
        first: u64,
        moment: CrashMoment,
    ) -> Result<PagesShown> {
        let verdict = Dump::open(image, VolumeAccess::Read)?.verify()?;
        ensure!(verdict.wrong == 0, "{} dump: {verdict:?}", self.state.name());
        let shown = match self.state {
            SpaceState::Complete | SpaceState::Partial => {
                truth.check(image, first, self.incarnation, moment)?
            }
            // The next start brings the header of such a dump up to date.
            _ => return Ok(PagesShown::default()),
        };
        ensure!(verdict.header_current, "{} dump: {verdict:?}", self.state.name());
        if self.state == SpaceState::Complete {
            SpaceBytes::open(image)?.verify()?;
            // A page that was never written is in no segment.
            let is_whole = moment == CrashMoment::OnTheWay || shown.missing == 0;
            ensure!(is_whole && verdict.missing == 0, "a complete dump: {shown:?}, {verdict:?}");
        }
        Ok(shown)
    }
}

/// Checks all disks right after a power cut; returns the dump on each.
///
/// # Errors
/// Where a promise is broken, or a dump is wrong.
pub fn survey(
    images: &[PathBuf],
    promises: &DumpPromises,
    truth: &GuestTruth,
    first: Option<u64>,
) -> Result<Vec<Option<HeldDump>>> {
    let look = |(disk, image): (u64, &PathBuf)| -> Result<_> {
        let held = HeldDump::on(image)?;
        keeps(promises.of(disk), held.as_ref())?;
        if let Some(held) = &held {
            held.check(image, truth, first.context("a dump of a guest that has not begun")?)?;
        }
        Ok(held)
    };
    (0..)
        .zip(images)
        .map(|pair| look(pair).with_context(|| format!("disk {} behind the cut", pair.0)))
        .collect()
}

/// Checks that a dump exists as promised.
fn keeps(promise: Option<(u64, DumpPromise)>, held: Option<&HeldDump>) -> Result<()> {
    let Some((incarnation, promise)) = promise else { return Ok(()) };
    let held = held.with_context(|| {
        format!("the dump of incarnation {incarnation} was promised and is not there")
    })?;
    let is_kept = match promise {
        DumpPromise::Begun => held.state != SpaceState::Crashed,
        DumpPromise::Whole => held.state == SpaceState::Complete,
    };
    ensure!(
        held.incarnation == incarnation && is_kept,
        "incarnation {incarnation}, {promise:?}: {held:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(incarnation: u64, state: SpaceState) -> HeldDump {
        HeldDump { name: String::new(), incarnation, state }
    }

    #[test]
    fn a_promise_is_kept_by_that_dump_in_that_state_alone() {
        let keeps = |promise, held: Option<HeldDump>| keeps(promise, held.as_ref()).is_ok();
        let (begun, whole) = (Some((2, DumpPromise::Begun)), Some((2, DumpPromise::Whole)));
        assert!(keeps(None, None) && keeps(None, Some(held(1, SpaceState::Crashed))));
        assert!(!keeps(begun, None) && !keeps(whole, None));
        assert!(
            keeps(begun, Some(held(2, SpaceState::Draining)))
                && keeps(begun, Some(held(2, SpaceState::Complete)))
        );
        assert!(
            !keeps(begun, Some(held(2, SpaceState::Crashed)))
                && !keeps(begun, Some(held(3, SpaceState::Draining)))
        );
        assert!(
            keeps(whole, Some(held(2, SpaceState::Complete)))
                && !keeps(whole, Some(held(2, SpaceState::Draining)))
        );
    }
}
