//! A disk with the cluster area: bytes, a cache that a power cut loses, torn writes.

use crate::sector::SECTOR;
use std::collections::BTreeSet;

pub(super) struct FakeArea {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// Number of power cuts.
    pub(super) cuts: u32,
    /// Requests wait until then.
    pub(super) stalled_until: u64,
}

impl FakeArea {
    pub(super) fn new(len: u64) -> Self {
        let bytes = vec![0; len as usize];
        Self { durable: bytes.clone(), bytes, dirty: BTreeSet::new(), cuts: 0, stalled_until: 0 }
    }

    pub(super) fn write(&mut self, at: u64, new: &[u8]) {
        let at = at as usize;
        self.bytes[at..at + new.len()].copy_from_slice(new);
        self.dirty.extend(at / SECTOR..(at + new.len()).div_ceil(SECTOR));
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        self.bytes[at as usize..at as usize + len].to_vec()
    }

    pub(super) fn flush(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            self.durable[range.clone()].copy_from_slice(&self.bytes[range]);
        }
    }

    /// Loses sectors that were not flushed; `keeps` decides which ones stay.
    pub(super) fn cut(&mut self, mut keeps: impl FnMut() -> bool) -> usize {
        let lost: Vec<usize> = self.dirty.iter().copied().filter(|_| !keeps()).collect();
        for sector in &lost {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            self.bytes[range.clone()].copy_from_slice(&self.durable[range]);
        }
        self.flush();
        self.cuts += 1;
        lost.len()
    }
}
