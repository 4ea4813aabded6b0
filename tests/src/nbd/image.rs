//! The image file of the server.

use super::protocol::{Failure, Kind, Request};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An image of fixed size.
#[derive(Debug)]
pub(super) struct Image {
    file: File,
    len: u64,
}

impl Image {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path).with_context(|| path.display().to_string())?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }

    /// Returns the size in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Carries a request out; returns the bytes read.
    pub(super) fn carry_out(&self, request: &Request) -> Result<Vec<u8>, Failure> {
        if request.bytes.end > self.len {
            return Err(Failure::Invalid);
        }
        self.touch(request).map_err(|_| Failure::Io)
    }

    fn touch(&self, request: &Request) -> std::io::Result<Vec<u8>> {
        let start = request.bytes.start;
        match request.kind {
            Kind::Read => {
                let mut data = vec![0; request.len()];
                self.file.read_exact_at(&mut data, start)?;
                return Ok(data);
            }
            Kind::Write => self.file.write_all_at(&request.data, start)?,
            Kind::WriteZeroes | Kind::Trim => self.clear(request)?,
            // Only the emulators are cut off, not this process or the host, so no fsync is needed.
            Kind::Flush => {}
        }
        Ok(Vec::new())
    }

    fn clear(&self, request: &Request) -> std::io::Result<()> {
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
