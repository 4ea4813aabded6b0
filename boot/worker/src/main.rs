//! The program that Debian runs in the demonstration. It fills memory with [`worker::WorkerPage`]s
//! and verifies them, pass after pass. An eighth of the pages is rewritten in each pass, so that
//! clean and dirty pages, paged and resident, all occur.
//!
//! ```text
//! worker: filled pages 45056 key 0x5eed
//! worker: at 46080
//! worker: pass 3 pages 45056 wrong 0
//! ```
//!
//! `/proc/cmdline` sets `worker.mib=` (default: the available memory less a reserve), `worker.key=`
//! and `worker.crash_after=`. After that many passes the first incarnation rewrites
//! `worker.dirty_mib=` MiB, prints “crash now”, and touches no memory from then on. The program
//! never ends.

use worker::{PAGE_BYTES, PageIdentity, WorkerPage};

const DEFAULT_KEY: u64 = 0x5eed;
const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// MiB left to the rest of the system where no size is given.
const RESERVE_MIB: u64 = 32;
/// Pages between two reports of the pages verified since the start.
const REPORT: u64 = 1024;
/// One page in this many is rewritten in a pass.
const REWRITE: usize = 8;

struct WorkerPages {
    key: u64,
    words: Vec<u64>,
    /// Words before the first page boundary.
    skip: usize,
    generations: Vec<u32>,
    /// Pages verified since the start.
    seen: u64,
}

fn main() -> ! {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let option = |name| number(&cmdline, name);
    let key = option("worker.key=").unwrap_or(DEFAULT_KEY);
    let mib = option("worker.mib=").unwrap_or_else(|| available_mib().saturating_sub(RESERVE_MIB));
    let incarnation = option("tidepool.incarnation=").unwrap_or(1);
    let crash_after = option("worker.crash_after=").filter(|_| incarnation == 1);

    let mut pages =
        WorkerPages::new(key, usize::try_from(mib).unwrap_or(0) * (1 << 20) / PAGE_BYTES);
    println!("worker: filled pages {} key {key:#x}", pages.count());
    for pass in 1.. {
        let wrong = pages.pass(pass);
        println!("worker: pass {pass} pages {} wrong {wrong}", pages.count());
        if Some(pass) == crash_after {
            let dirty = usize::try_from(option("worker.dirty_mib=").unwrap_or(0)).unwrap_or(0)
                * (1 << 20)
                / PAGE_BYTES;
            println!("worker: wrote anew pages {}", pages.rewrite_last(dirty));
            println!("worker: crash now");
            break;
        }
    }
    loop {
        // The process must stay alive, so that its memory is in the dump.
        std::thread::park();
    }
}

impl WorkerPages {
    fn new(key: u64, count: usize) -> Self {
        // Zeroed memory comes from the kernel untouched; afterwards each page is touched once, in
        // order.
        let words = vec![0; (count + 1) * PAGE_WORDS];
        let skip = words.as_ptr().align_offset(PAGE_BYTES);
        let mut pages = Self { key, words, skip, generations: vec![0; count], seen: 0 };
        for index in 0..count {
            pages.identity(index).fill(pages.page(index));
        }
        pages
    }

    fn count(&self) -> usize {
        self.generations.len()
    }

    fn page(&mut self, index: usize) -> &mut WorkerPage {
        let (pages, _) = self.words[self.skip..].as_chunks_mut::<PAGE_WORDS>();
        &mut pages[index]
    }

    fn identity(&self, index: usize) -> PageIdentity {
        PageIdentity {
            key: self.key,
            index: index as u64,
            generation: self.generations[index].into(),
        }
    }

    /// Rewrites the last `count` pages, so that they are dirty at the crash; returns their number.
    fn rewrite_last(&mut self, count: usize) -> usize {
        let first = self.count().saturating_sub(count);
        for index in first..self.count() {
            self.generations[index] += 1;
            self.identity(index).fill(self.page(index));
        }
        self.count() - first
    }

    /// Verifies every page and rewrites some of them; returns the number of wrong pages.
    fn pass(&mut self, pass: u64) -> usize {
        let mut wrong = 0;
        for index in 0..self.count() {
            if let Err(what) = self.identity(index).check(self.page(index)) {
                println!("worker: wrong page {index}: {what:?}");
                wrong += 1;
            }
            if (index as u64 + pass).is_multiple_of(REWRITE as u64) {
                self.generations[index] += 1;
                self.identity(index).fill(self.page(index));
            }
            self.seen += 1;
            if self.seen.is_multiple_of(REPORT) {
                println!("worker: at {}", self.seen);
            }
        }
        wrong
    }
}

fn number(text: &str, name: &str) -> Option<u64> {
    let value = text.split_whitespace().find_map(|word| word.strip_prefix(name))?;
    match value.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => value.parse().ok(),
    }
}

fn available_mib() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or("");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
