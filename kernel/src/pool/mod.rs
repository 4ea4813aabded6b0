//! Who may hold how much of the pool, and who gives frames back when they run short.
//!
//! Everything here is arithmetic on numbers that the caller took from the frame list and the objects: no locks, no
//! frames, no clock of its own. `paging` acts on the answers. The published rules that this follows are those of
//! LoPAR's CMO option ("informative" pool algorithm).
//!
//! ```text
//!  free frames   0 ....... low ............... high ....... pool
//!                | waiters | reclaim works up  | idle: background cleaning
//! ```
//!
//! * [`watermark`]: when reclaim starts and stops;
//! * [`policy`]: whose page leaves, and which one (replaceable); [`shares`]: the one that follows what partitions use;
//! * [`terms`]: what an object keeps whatever happens, and whose credit it draws on;
//! * [`credit`]: free frames that are promised to a partition which is about to restart;
//! * [`needs`]: what a configuration takes of the machine's memory beside the pool.

pub mod credit;
pub mod needs;
pub mod policy;
pub mod shares;
pub mod terms;
pub mod watermark;

pub use credit::Credits;
pub use needs::MemoryNeeds;
pub use policy::{Candidate, Clock, Policy, Verdict};
pub use shares::Shares;
pub use terms::Terms;
pub use watermark::Watermarks;
