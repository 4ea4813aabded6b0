//! Repairs late writes of an earlier owner on a sealed dump. The image's tables still describe
//! header, bitmap and checksums. So the dump's task keeps them for as long as late writes are
//! expected, and then frees them.

use super::DumpJob;
use super::writer::{DumpWriter, Repaired};
use crate::arch::time;
use crate::block::DiskError;
use crate::space::succession::pause_after;
use crate::space::{SpaceRecord, SpaceState};
use crate::task::until;
use crate::time::Ns;
use core::sync::atomic::Ordering;

impl DumpJob {
    /// Checks the sealed dump repeatedly, until late writes are no longer expected, the dump is
    /// released, the disk refuses, or the machine ends.
    pub(super) async fn look_for_late_writes(&self, writer: &mut DumpWriter<'_>) {
        let (spaces, mut took_ns) = (self.host.spaces, Ns::ZERO);
        // If refused writes have left frames in the image, there is no check: the frames are freed
        // at once.
        while spaces.succession(self.space).is_watched(time::now_ns()) && self.has_no_frames() {
            let due_ns = time::now_ns().saturating_add(pause_after(took_ns));
            until(|| (self.is_ending() || time::now_ns() >= due_ns).then_some(())).await;
            let start_ns = time::now_ns();
            match self.look_once(writer).await {
                Ok(Some(Repaired::Something)) => {
                    spaces.tell_repaired(self.space, "a part around the blocks of its dump")
                }
                Ok(Some(Repaired::Nothing)) => {}
                Ok(None) | Err(_) => return,
            }
            took_ns = time::now_ns().saturating_sub(start_ns);
        }
    }

    /// Checks once, while no other task changes the space's record; `None` if the dump is gone.
    async fn look_once(&self, writer: &mut DumpWriter<'_>) -> Result<Option<Repaired>, DiskError> {
        let spaces = self.host.spaces;
        let record = spaces.take_record(self.space).await;
        let is_ours =
            |r: &SpaceRecord| r.crash.as_ref().is_some_and(|crash| crash.name == self.name);
        let is_there = record.is_some_and(|r| {
            matches!(r.state, SpaceState::Complete | SpaceState::Partial) && is_ours(&r)
        });
        let result = match is_there && !self.is_ending() {
            true => writer.repair().await.map(Some),
            false => Ok(None),
        };
        spaces.give_record(self.space);
        result
    }

    fn has_no_frames(&self) -> bool {
        let counts = self.drain.image().counts();
        counts.resident + counts.going_out + counts.coming_in == 0
    }

    fn is_ending(&self) -> bool {
        self.host.ending.load(Ordering::Acquire)
    }
}
