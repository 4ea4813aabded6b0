//! Memory: frames, second-level tables, the flush protocol, copies from and to guests.

pub mod guest;
pub mod layout;
