//! Bytes for functions that want them for as long as the machine runs.
// UNSAFETY: a run's input lives shorter; leaking each would fill the memory.
#![expect(unsafe_code)]

/// Passes `bytes` to `read` as if they lived for ever.
///
/// # Safety
/// `read` keeps no reference to them.
pub unsafe fn for_ever(bytes: &[u8], read: impl FnOnce(&'static [u8])) {
    // SAFETY: the reference is used only until `read` returns (the caller's promise).
    read(unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) });
}
