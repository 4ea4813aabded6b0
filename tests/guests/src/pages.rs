//! Free memory as pages that can be verified by themselves ([`worker::PageIdentity`]).

// UNSAFETY: free memory is accessed by physical address.
#![expect(unsafe_code)]

use crate::Machine;
use worker::{PAGE_BYTES, PageError, PageIdentity, WorkerPage};

/// Place of the machine's generation ID (docs/guest-platform.md).
const GENERATION_ID: u64 = 0xf_fe00;

/// Returns the machine's generation ID, which is another one in a clone.
pub fn generation() -> [u64; 2] {
    // SAFETY: the firmware's reserved page below 1 MiB, mapped at itself; the hypervisor writes it
    // while this CPU stands still.
    unsafe { (GENERATION_ID as *const [u64; 2]).read_volatile() }
}

/// The free memory of the machine, in pages.
pub struct FreePages {
    start: u64,
    count: u64,
    /// Bytes from one page to the next.
    stride: u64,
}

impl FreePages {
    /// Takes at most `limit` pages of the free memory. Must be called only once.
    pub fn take(machine: &Machine, limit: u64) -> Self {
        let free = machine.free();
        let stride = PAGE_BYTES as u64;
        Self { start: free.start, count: limit.min((free.end - free.start) / stride), stride }
    }

    /// Takes `count` pages, evenly spread over the RAM above 4 GiB; empty where there is no such
    /// RAM. Must be called only once.
    pub fn far(machine: &Machine, count: u64) -> Self {
        let high = machine.high();
        let stride = (high.end - high.start) / count.max(1) / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        Self { start: high.start, count: if stride == 0 { 0 } else { count }, stride }
    }

    /// Removes the last pages and returns them as `words` words, all zero.
    pub fn take_words(&mut self, words: usize) -> &'static mut [u64] {
        let taken = (words as u64 * 8).div_ceil(PAGE_BYTES as u64);
        assert!(
            taken <= self.count && self.stride == PAGE_BYTES as u64,
            "{taken} of {} pages",
            self.count
        );
        self.count -= taken;
        let start = self.start + self.count * self.stride;
        // SAFETY: RAM that nothing else uses, mapped at itself; these pages are no longer among
        // those that `page` reaches.
        unsafe { core::slice::from_raw_parts_mut(start as *mut u64, words) }
    }

    /// Returns the number of pages.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the physical address of a page.
    pub fn address(&self, index: u64) -> u64 {
        assert!(index < self.count, "page {index} of {}", self.count);
        self.start + index * self.stride
    }

    /// Returns a page.
    pub fn page(&mut self, index: u64) -> &mut WorkerPage {
        // SAFETY: RAM that nothing else uses (`Machine::free`), mapped at itself; `&mut self` makes
        // the borrow the only one.
        unsafe { &mut *(self.address(index) as *mut WorkerPage) }
    }

    /// Fills page `index`.
    pub fn fill(&mut self, key: u64, index: u64, generation: u64) {
        PageIdentity { key, index, generation }.fill(self.page(index));
    }

    /// Checks page `index`.
    ///
    /// # Errors
    /// The page's fault, as [`PageError`].
    pub fn check(&mut self, key: u64, index: u64, generation: u64) -> Result<(), PageError> {
        PageIdentity { key, index, generation }.check(self.page(index))
    }

    /// Fills page `n` as the page of another index.
    pub fn fill_as(&mut self, key: u64, n: u64, index: u64) {
        PageIdentity { key, index, generation: 0 }.fill(self.page(n));
    }

    /// Checks page `n` as the page of another index.
    ///
    /// # Errors
    /// The page's fault, as [`PageError`].
    pub fn check_as(&mut self, key: u64, n: u64, index: u64) -> Result<(), PageError> {
        PageIdentity { key, index, generation: 0 }.check(self.page(n))
    }
}
