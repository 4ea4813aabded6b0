//! The kind of lock that QEMU takes on its images: on the open file description. So QEMU and this
//! program exclude each other.
//!
//! QEMU holds shared locks on a few bytes of an image for as long as the image is open. An
//! exclusive lock on the whole file conflicts with each of them. (`File::lock` takes the other
//! kind, flock, which QEMU does not see.)

// UNSAFETY: such locks exist only as a system call.
#![expect(unsafe_code)]

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;

/// A byte beyond every image, and beyond those that QEMU locks.
const STORE_BYTE: i64 = 1 << 62;

/// Locks the whole file until it is closed; returns whether the lock was free.
///
/// # Errors
/// Where the file system does not support such locks.
pub fn try_exclusive(file: &File) -> Result<bool> {
    try_lock(file, libc::F_WRLCK, 0, 0)
}

/// Locks the image store in the file against other commands until it is closed, not against QEMU;
/// returns whether the lock was free.
///
/// # Errors
/// Where the file system does not support such locks.
pub fn try_store(file: &File) -> Result<bool> {
    try_lock(file, libc::F_WRLCK, STORE_BYTE, 1)
}

/// Locks `len` bytes from `start` on, as `kind`; a length of 0 means all.
fn try_lock(file: &File, kind: libc::c_int, start: i64, len: i64) -> Result<bool> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    // SAFETY: the kernel reads one `flock` and keeps no pointer to it; the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match Error::last_os_error() {
        _ if result == 0 => Ok(true),
        error
            if error.kind() == ErrorKind::WouldBlock
                || error.kind() == ErrorKind::PermissionDenied =>
        {
            Ok(false)
        }
        error => Err(error),
    }
}

/// Takes the locks that QEMU has on an open image.
#[cfg(test)]
pub(crate) fn as_emulator(file: &File) -> Result<bool> {
    try_lock(file, libc::F_RDLCK, 100, 200)
}
