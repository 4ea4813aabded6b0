//! A store's disk in memory that keeps what was written since the last flush apart, and may let
//! another program act at any of its operations.

use super::layout::BLOCK;
use super::{StoreRead, StoreWrite};

/// An operation that changes the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FakeOperation {
    Write(u64, Vec<u8>),
    Flush,
}

type Hook = Box<dyn FnMut(usize, &mut Vec<u8>)>;

/// The disk.
pub(super) struct FakeStoreDisk {
    pub bytes: Vec<u8>,
    /// Writes and flushes so far.
    pub operations: Vec<FakeOperation>,
    /// Called before each operation with its number; it may change the bytes.
    pub hook: Option<Hook>,
    pub count: usize,
    pub now_ns: u64,
    /// Time that each operation takes.
    pub cost_ns: u64,
    /// The number of an operation that takes longer, and how much longer.
    pub stall: Option<(usize, u64)>,
}

impl FakeStoreDisk {
    pub(super) fn new(blocks: u64) -> Self {
        Self::of(vec![0; blocks as usize * BLOCK])
    }

    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            operations: vec![],
            hook: None,
            count: 0,
            now_ns: 0,
            cost_ns: 1_000_000,
            stall: None,
        }
    }

    fn step(&mut self) {
        if let Some(hook) = &mut self.hook {
            hook(self.count, &mut self.bytes);
        }
        if let Some((_, ns)) = self.stall.filter(|(count, _)| *count == self.count) {
            self.now_ns += ns;
        }
        self.count += 1;
        self.now_ns += self.cost_ns;
    }
}

/// Applies a write to bytes.
pub(super) fn apply(bytes: &mut [u8], first: u64, new: &[u8]) {
    bytes[first as usize * BLOCK..][..new.len()].copy_from_slice(new);
}

impl StoreRead for FakeStoreDisk {
    type Error = core::convert::Infallible;

    fn blocks(&self) -> u64 {
        (self.bytes.len() / BLOCK) as u64
    }

    async fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        assert!(into.len().is_multiple_of(BLOCK) && !into.is_empty());
        self.step();
        into.copy_from_slice(&self.bytes[first as usize * BLOCK..][..into.len()]);
        Ok(())
    }

    async fn pause(&mut self, ns: u64) {
        self.step();
        self.now_ns += ns;
    }
}

impl StoreWrite for FakeStoreDisk {
    async fn write(&mut self, first: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        assert!(bytes.len().is_multiple_of(BLOCK) && !bytes.is_empty());
        self.step();
        apply(&mut self.bytes, first, bytes);
        self.operations.push(FakeOperation::Write(first, bytes.to_vec()));
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.step();
        self.operations.push(FakeOperation::Flush);
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}
