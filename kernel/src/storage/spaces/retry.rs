//! Applies [`crate::block::patience`] to I/O outside the blocks. The first and the last refusal are
//! reported as events that name device and bytes.

use super::{SpaceId, SpaceLocation, Spaces, sleep};
use crate::block::DiskError;
use crate::block::patience::{AfterRefusal, PAUSE_NS, RetryCount, SpaceAccess};
use crate::log::history::{self, HistoryKind};
use alloc::format;

/// Makes a request of a space, and repeats it if the disk refuses; the value is the last result.
///
/// A macro, because a task's future has to be `Send`, and that cannot be shown for the future of a
/// closure that borrows.
macro_rules! patiently {
    ($spaces:expr, $id:expr, $access:expr, $request:expr) => {{
        let mut tries = $crate::block::patience::RetryCount::default();
        loop {
            let result = $request;
            if !$spaces.tries_again($id, &mut tries, result.map(|_| ()), $access).await {
                break result;
            }
        }
    }};
}
pub(super) use patiently;

impl Spaces {
    /// Waits and returns true if the request is to be tried again; reports the refusals that must
    /// be reported.
    pub(super) async fn tries_again(
        &self,
        id: SpaceId,
        tries: &mut RetryCount,
        result: Result<(), DiskError>,
        access: SpaceAccess,
    ) -> bool {
        let Err(error) = result else { return false };
        match tries.refused(error) {
            AfterRefusal::Again => {
                if tries.is_first() {
                    self.record_refusal(id, access);
                    self.trouble(id, &format!("{access} ({error}): it is tried again"));
                }
                sleep(PAUSE_NS).await;
                true
            }
            AfterRefusal::GivenUp(count) => {
                self.record_refusal(id, access);
                self.trouble(id, &format!("{access} ({error}), {count} times in a row"));
                false
            }
            AfterRefusal::Hopeless => false,
        }
    }

    fn record_refusal(&self, id: SpaceId, access: SpaceAccess) {
        let SpaceLocation { disk, number, .. } = self.place(id);
        history::record_machine(
            HistoryKind::SpaceRefused,
            access.code(),
            [disk as u64, number.into()],
        );
    }
}
