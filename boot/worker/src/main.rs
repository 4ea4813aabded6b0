//! The program that Debian runs in the demonstrations; `worker child` is [`child`]. It fills memory
//! with [`worker::WorkerPage`]s and verifies them, pass after pass. An eighth of the pages is
//! rewritten in each pass, so that clean and dirty pages, paged and resident, all occur.
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

mod array;
mod child;

use array::{PageArray, available_mib, number};
use worker::{PAGE_BYTES, PageIdentity};

const DEFAULT_KEY: u64 = 0x5eed;
/// MiB left to the rest of the system where no size is given.
const RESERVE_MIB: u64 = 32;
/// Pages between two reports of the pages verified since the start.
const REPORT: u64 = 1024;
/// One page in this many is rewritten in a pass.
const REWRITE: usize = 8;

struct WorkerPages {
    key: u64,
    pages: PageArray,
    generations: Vec<u32>,
    /// Pages verified since the start.
    seen: u64,
}

fn main() {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    match std::env::args().nth(1).as_deref() {
        Some("child") => child::run(&cmdline),
        _ => work(&cmdline),
    }
}

fn work(cmdline: &str) -> ! {
    let option = |name| number(cmdline, name);
    let key = option("worker.key=").unwrap_or(DEFAULT_KEY);
    let mib = option("worker.mib=").unwrap_or_else(|| available_mib().saturating_sub(RESERVE_MIB));
    let incarnation = option("tidepool.incarnation=").unwrap_or(1);
    let crash_after = option("worker.crash_after=").filter(|_| incarnation == 1);

    let mut pages = WorkerPages::new(key, mib);
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
    fn new(key: u64, mib: u64) -> Self {
        let pages = PageArray::new(mib);
        let generations = vec![0; pages.count()];
        let mut all = Self { key, pages, generations, seen: 0 };
        // Each page is touched once, in order.
        for index in 0..all.count() {
            all.fill(index);
        }
        all
    }

    fn count(&self) -> usize {
        self.pages.count()
    }

    fn fill(&mut self, index: usize) {
        self.identity(index).fill(self.pages.page(index));
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
            self.fill(index);
        }
        self.count() - first
    }

    /// Verifies every page and rewrites some of them; returns the number of wrong pages.
    fn pass(&mut self, pass: u64) -> usize {
        let mut wrong = 0;
        for index in 0..self.count() {
            if let Err(what) = self.identity(index).check(self.pages.page(index)) {
                println!("worker: wrong page {index}: {what:?}");
                wrong += 1;
            }
            if (index as u64 + pass).is_multiple_of(REWRITE as u64) {
                self.generations[index] += 1;
                self.fill(index);
            }
            self.seen += 1;
            if self.seen.is_multiple_of(REPORT) {
                println!("worker: at {}", self.seen);
            }
        }
        wrong
    }
}
