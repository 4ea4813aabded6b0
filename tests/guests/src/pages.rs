//! Free memory as pages that prove themselves ([`worker::Identity`]).

// UNSAFETY: free memory is named by physical address.
#![allow(unsafe_code)]

use crate::Machine;
use worker::{Identity, PAGE_BYTES, Page, Wrong};

/// The free memory of the machine, in pages.
pub struct Pages {
    start: u64,
    count: u64,
}

impl Pages {
    /// Takes at most `limit` pages of the free memory; call it once.
    pub fn take(machine: &Machine, limit: u64) -> Self {
        let free = machine.free();
        Self { start: free.start, count: limit.min((free.end - free.start) / PAGE_BYTES as u64) }
    }

    /// Returns how many pages there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the physical address of a page.
    pub fn address(&self, index: u64) -> u64 {
        assert!(index < self.count, "page {index} of {}", self.count);
        self.start + index * PAGE_BYTES as u64
    }

    /// Returns a page.
    pub fn page(&mut self, index: u64) -> &mut Page {
        // SAFETY: RAM that nothing else uses (`Machine::free`), mapped at itself; `&mut self` makes the borrow the only one.
        unsafe { &mut *(self.address(index) as *mut Page) }
    }

    /// Fills page `index`.
    pub fn fill(&mut self, key: u64, index: u64, generation: u64) {
        Identity { key, index, generation }.fill(self.page(index));
    }

    /// Checks page `index`.
    ///
    /// # Errors
    /// What is [`Wrong`].
    pub fn check(&mut self, key: u64, index: u64, generation: u64) -> Result<(), Wrong> {
        Identity { key, index, generation }.check(self.page(index))
    }
}
