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

/// Locks the whole file until it is closed; returns whether the lock was free.
///
/// # Errors
/// Where the file system does not support such locks.
pub fn try_exclusive(file: &File) -> Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
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
