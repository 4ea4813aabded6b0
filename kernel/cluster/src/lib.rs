//! The rules by which Tidepool's nodes share disks: membership, leases, ownership.
//!
//! The crate computes; it does no I/O, reads no clock and allocates nothing. The kernel and a
//! simulation (`sim`, in the tests) drive the same rules. `docs/cluster.md` has the safety
//! argument.
//!
//! ```text
//!   node ──> join, watch, proposal, duty ──> state, inherit ──> beat, block, decree ──> sector, layout
//!     └────> round, post ──> mail   sweep ──────┘               superblock ──> timing
//! ```
#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

// A test file that another crate includes too calls this one by its name.
#[cfg(test)]
extern crate self as cluster;

#[macro_use]
mod mutant;

pub mod beat;
pub mod block;
#[cfg(test)]
mod codec_tests;
pub mod crc;
#[cfg(test)]
mod cut_tests;
pub mod decree;
pub mod duty;
pub mod event;
pub mod id;
pub mod inherit;
pub mod join;
pub mod layout;
pub mod local;
#[cfg(test)]
mod local_tests;
pub mod mail;
pub mod node;
pub mod post;
pub mod proposal;
pub mod round;
#[cfg(test)]
mod rule_tests;
pub mod sector;
#[cfg(test)]
mod sim;
pub mod standing;
pub mod state;
mod state_codec;
pub mod superblock;
pub mod sweep;
pub mod timing;
pub mod watch;
