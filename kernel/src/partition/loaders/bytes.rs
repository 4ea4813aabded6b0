//! The bytes of a kernel that a plan looks at: a few ranges, each of bounded size.
//!
//! A kernel in the boot archive is in memory as a whole. Of a kernel in an image store only the
//! ranges that were asked for are: [`LoadError::Unread`] names the next one.

use super::{ImageSource, LoadError};

/// Most bytes that a plan asks for at once.
pub const MOST_AT_ONCE: usize = 16 << 10;
/// Bytes at the start of a kernel that have its format and its headers.
const HEAD: u64 = 4096;

/// A kernel.
#[derive(Clone, Copy)]
pub(super) struct KernelBytes<'a> {
    source: &'a dyn ImageSource,
    name: &'a str,
    length: u64,
}

impl<'a> KernelBytes<'a> {
    /// Returns the kernel called `name`; `None` if there is none.
    pub(super) fn of(source: &'a dyn ImageSource, name: &'a str) -> Option<Self> {
        Some(Self { source, name, length: source.length(name)? })
    }

    /// Returns its length.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Returns its first bytes: all that a format's headers need, or the whole of a short kernel.
    pub(super) fn head(&self) -> Result<&'a [u8], LoadError> {
        self.get(0, HEAD.min(self.length))
    }

    /// Returns `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`LoadError::Damaged`] if the kernel does not have them, or they are more than
    /// [`MOST_AT_ONCE`]; [`LoadError::Unread`] if they have to be read first.
    pub(super) fn get(&self, offset: u64, len: u64) -> Result<&'a [u8], LoadError> {
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= self.length);
        if !is_inside || len > MOST_AT_ONCE as u64 {
            return Err(LoadError::Damaged);
        }
        if len == 0 {
            return Ok(&[]);
        }
        let there = self.source.bytes(self.name, offset);
        there
            .and_then(|bytes| bytes.get(..len as usize))
            .ok_or(LoadError::Unread { offset, bytes: len as u32 })
    }
}
