//! From your shell to power-on: the host command `tidepool` as a library, so that the tests drive the same code.
//!
//! ```text
//!  cli ──> commands ──> config (TOML) ──> archive ──┐
//!             │                                     ├──> bed: QEMU or Bochs ──> console, events
//!             └──> setup, kernel_build, initramfs ──┘
//! ```
//!
//! Nothing here is trusted by the hypervisor: the archive is parsed there again. What is written to disk is
//! written beside its place and renamed, so that an interruption leaves the old file or the new one.

pub mod archive;
pub mod atomic;
pub mod bed;
pub mod bench;
pub mod bounded;
pub mod cli;
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
pub mod paths;
pub mod regular;
pub mod report;
pub mod screen;
pub mod serial;
pub mod setup;
pub mod sockets;
pub mod terminal;
pub mod volume;
