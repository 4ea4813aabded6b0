//! Nodes of a cluster under trouble: the plan of a seed, and what the server of their disk saw.

pub mod blocks;
pub mod judge;
pub mod ledger;
pub mod party;
pub mod plan;
