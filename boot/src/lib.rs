//! From your shell to power-on: the host command `tidepool` as a library, so that the tests run the
//! same code.
//!
//! ```text
//!  cli ──> commands ──> config (TOML) ──> archive ──┐
//!             │                                     ├──> bed: QEMU or Bochs ──> console, events
//!             └──> setup, kernel_build, initramfs ──┘
//! ```
//!
//! The hypervisor trusts nothing from here: it parses the archive again. Files are written under a
//! temporary name and renamed, so an interruption leaves either the old file or the new one.

pub mod archive;
pub mod atomic;
pub mod bed;
pub mod bench;
pub mod bounded;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod demo;
pub mod dump;
pub mod events;
pub mod initramfs;
pub mod interrupt;
pub mod iso;
pub mod kernel_build;
pub mod keyboard;
mod own_part;
pub mod paths;
mod quantity;
pub mod regular;
pub mod report;
pub mod screen;
pub mod serial;
pub mod setup;
pub mod size;
pub mod sockets;
pub mod store;
pub mod terminal;
pub mod volume;
