//! Paging: what does not fit into the pool lives in paging spaces.

pub mod blocks;
pub mod cookie;
pub mod counters;
pub mod space;
