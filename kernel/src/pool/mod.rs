//! Limits on each partition's part of the pool, and the choice of victims when frames run short.
//!
//! Pure arithmetic on numbers that the caller took from the frame list and the objects: no locks,
//! no frames, no clock. `paging` acts on the results. The rules follow the published ones of
//! LoPAR's CMO option ("informative" pool algorithm).
//!
//! ```text
//!  free frames   0 ....... low ............... high ....... pool
//!                | waiters | reclaim works up  | idle: background cleaning
//! ```
//!
//! * [`watermark`]: when reclaim starts and stops;
//! * [`policy`]: the victim object and page (replaceable); [`shares`]: the policy that follows the
//!   use of memory;
//! * [`terms`]: an object's guaranteed frames, and the account whose credit it draws on;
//! * [`credit`]: free frames that are promised to a partition that is about to restart;
//! * [`needs`]: the machine's memory that a configuration needs besides the pool.

pub mod credit;
pub mod needs;
pub mod policy;
pub mod shares;
pub mod terms;
pub mod watermark;

pub use credit::FrameCredits;
pub use needs::MemoryNeeds;
pub use policy::{ClockPolicy, PageVerdict, ReclaimCandidate, ReclaimPolicy};
pub use shares::SharesPolicy;
pub use terms::{AccountId, PoolTerms};
pub use watermark::Watermarks;
