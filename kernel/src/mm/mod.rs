//! Memory: frames, second-level tables, the flush protocol, copies from and to guests.

pub mod crc;
pub mod flush;
pub mod frames;
pub mod guest;
pub mod guest_bytes;
pub mod layout;
pub mod leaf;
pub mod object;
pub mod page;
pub mod phys;
pub mod table;
