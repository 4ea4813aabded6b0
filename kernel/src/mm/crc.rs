//! CRC32C (Castagnoli), the checksum of a block.

/// CRC32C of a page's content, as it is kept beside its block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Crc32c(pub u32);

/// Returns the CRC32C of `bytes`.
pub fn crc32c(_bytes: &[u8]) -> Crc32c {
    todo!()
}
