//! Two nodes on one image: what is done to them, and whether the log of the disk's server shows that they kept apart.

pub mod judge;
pub mod plan;
pub mod submitted;
