//! Two nodes on one image: the disturbances, and whether the log of the disk's server shows that
//! the nodes kept apart.

pub mod judge;
pub mod plan;
pub mod submitted;
