//! Applies [`crate::block::patience`] to I/O outside the blocks. The first and the last refusal are
//! reported as events that name device and bytes.

use super::{SpaceId, Spaces, sleep};
use crate::block::DiskError;
use crate::block::patience::{AfterRefusal, PAUSE_NS, RetryCount, SpaceAccess};
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
                    self.trouble(id, &format!("{access} ({error}): it is tried again"));
                }
                sleep(PAUSE_NS).await;
                true
            }
            AfterRefusal::GivenUp(count) => {
                self.trouble(id, &format!("{access} ({error}), {count} times in a row"));
                false
            }
            AfterRefusal::Hopeless => false,
        }
    }
}
