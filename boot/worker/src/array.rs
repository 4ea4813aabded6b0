//! Pages of the worker's kind in the program's own memory, and the options on the kernel's command
//! line.

use worker::{PAGE_BYTES, WorkerPage};

const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Bytes in a MiB.
const MIB: usize = 1 << 20;

/// Page-aligned memory that the kernel gives untouched.
pub(crate) struct PageArray {
    words: Vec<u64>,
    /// Words before the first page boundary.
    skip: usize,
    count: usize,
}

impl PageArray {
    /// Reserves `mib` MiB.
    pub(crate) fn new(mib: u64) -> Self {
        let count = usize::try_from(mib).unwrap_or(0) * MIB / PAGE_BYTES;
        // Zeroed memory comes from the kernel untouched.
        let words = vec![0; (count + 1) * PAGE_WORDS];
        let skip = words.as_ptr().align_offset(PAGE_BYTES);
        Self { words, skip, count }
    }

    /// Returns the number of pages.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns a page.
    pub(crate) fn page(&mut self, index: usize) -> &mut WorkerPage {
        let (pages, _) = self.words[self.skip..].as_chunks_mut::<PAGE_WORDS>();
        &mut pages[index]
    }
}

/// Returns the number behind `name` on a command line.
pub(crate) fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

/// Returns the memory that the kernel has to give, in MiB.
pub(crate) fn available_mib() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or("");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
