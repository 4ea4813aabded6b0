//! The words for codes in entries.
//!
//! The types behind the codes belong to rooms above this one. The tests of those types hold the
//! words against them.

/// Errors of a disk: `block::DiskError`.
pub const DISK_ERRORS: &[&str] =
    &["I/O error", "not supported", "timed out", "takes no requests", "no memory"];
/// Causes of a loss: `paging::PageLossError`.
pub const LOSSES: &[&str] = &["cannot be read", "checksum", "unwritable", "no frames"];
/// Reasons of a crash: `space::CrashReason`.
pub const CRASHES: &[&str] = &[
    "none",
    "triple fault",
    "pvpanic",
    "panic log by ERST",
    "operator",
    "page could not be read back",
    "entry failed",
    "watchdog",
    "unknown exit",
    "instruction not emulated",
    "execution outside memory",
    "tables or stack outside memory",
    "pages cannot be written",
    "task switch",
    "machine check",
    "suspended",
    "moves",
];
/// States of a space: `space::SpaceState`.
pub const SPACES: &[&str] = &[
    "",
    "free",
    "active",
    "draining",
    "complete",
    "partial",
    "releasing",
    "suspended",
    "sealed",
    "crashed",
];
/// Requests to a partition: `partition::shared::PartitionRequest`.
pub const REQUESTS: &[&str] = &["", "crash", "stop", "", "give up", "", "", "", "shut down"];
/// Purposes of a batch: `paging`'s own.
pub const BATCHES: &[&str] = &["leave", "be cleaned"];
/// Self-tests that end the hypervisor on purpose.
pub const SELF_TESTS: &[&str] = &["other", "panic", "exception", "overflow"];
/// Requests around the blocks: `block::patience::SpaceAccess`.
pub const ACCESSES: &[&str] =
    &["read", "write", "record", "flush", "claim", "end of claims", "selection", "deselection"];
/// How a guest reports its panic.
pub const REPORTS: &[&str] = &["pvpanic", "record"];
/// Extents of a sealed dump.
pub const SEALS: &[&str] = &["complete", "partial"];
