//! The image file of the server.

use super::protocol::{NbdError, NbdRequest, RequestKind};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An image of fixed size.
#[derive(Debug)]
pub(super) struct NbdImage {
    file: File,
    len: u64,
}

impl NbdImage {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// Returns the size in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Carries a request out; returns the bytes read.
    pub(super) fn carry_out(&self, request: &NbdRequest) -> Result<Vec<u8>, NbdError> {
        if request.bytes.end > self.len {
            return Err(NbdError::Invalid);
        }
        self.touch(request).map_err(|_| NbdError::Io)
    }

    fn touch(&self, request: &NbdRequest) -> std::io::Result<Vec<u8>> {
        let start = request.bytes.start;
        match request.kind {
            RequestKind::Read => {
                let mut data = vec![0; request.len()];
                self.file.read_exact_at(&mut data, start)?;
                return Ok(data);
            }
            RequestKind::Write => self.file.write_all_at(&request.data, start)?,
            RequestKind::WriteZeroes | RequestKind::Trim => self.clear(request)?,
            // Only the emulators are cut off, not this process or the host, so no fsync is needed.
            RequestKind::Flush => {}
        }
        Ok(Vec::new())
    }

    fn clear(&self, request: &NbdRequest) -> std::io::Result<()> {
        const PIECE: usize = 64 << 10;
        let zeroes = [0; PIECE];
        let mut at = request.bytes.start;
        while at < request.bytes.end {
            let len = (request.bytes.end - at).min(PIECE as u64) as usize;
            self.file.write_all_at(&zeroes[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }
}
