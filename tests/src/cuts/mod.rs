//! Power cuts on emulators: a machine ends at any moment, and the next start reads its disks.
//!
//! ```text
//!   CrashCycle (events ──> DumpPromises) ── cut ──> survey (HeldDump, GuestTruth) ── NextStart ──> the same again
//! ```

mod cycle;
mod next_start;
mod promises;
mod recorded;
mod survey;
mod truth;

pub use cycle::{CrashCycle, CycleDisks, LIMIT, PARTITION, SLOW_DISKS};
pub use next_start::NextStart;
pub use promises::{DumpPromise, DumpPromises};
pub use recorded::{RecordedDisk, UnflushedFate};
pub use survey::{HeldDump, survey};
pub use truth::{CrashMoment, GuestTruth, PagesShown};
