//! Pages read for a whole workload: the pager against LRU on the same trace of accesses.
//!
//! The traces are those of the benchmarks M1 to M4 at a quarter of their size: an array of 12,288
//! pages, filled in order, in a pool of 7,168 frames. The generators are xorshift64*, so a run is
//! repeatable.

use super::*;
use std::collections::{BTreeMap, HashMap};

const PAGES: u32 = 12288;
const FRAMES: u32 = 7168;
/// Accesses between two polls of a CPU whose guest does not wait.
const POLL_EVERY: u32 = 64;

/// A workload: the sequence of accessed pages, and which accesses write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Workload {
    /// All pages in order, repeatedly; only reads.
    Cyclic,
    /// Uniformly random pages; a fifth are written.
    Uniform,
    /// Zipf's law with an exponent of 0.99 over scattered pages; a fifth are written.
    Zipf,
    /// A third of the pages, and another third after 25,000 accesses; a fifth are written.
    Moving,
}

struct Trace {
    workload: Workload,
    state: u64,
    at: u32,
    /// Cumulative weights of Zipf's law.
    ranks: Vec<f64>,
}

impl Trace {
    fn new(workload: Workload) -> Self {
        let mut sum = 0.0;
        let weight = |rank: u32| f64::from(rank).powf(-0.99);
        let ranks = (1..=PAGES).map(|rank| (sum += weight(rank), sum).1).collect();
        Self { workload, state: 0x9e37_79b9_7f4a_7c16, at: 0, ranks }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.random() % u64::from(end)) as u32
    }

    fn ranked(&mut self) -> u32 {
        let at = self.random() as f64 / (1_u64 << 53) as f64 * self.ranks[PAGES as usize - 1];
        let rank = self.ranks.partition_point(|sum| *sum < at) as u64;
        let hash = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20) as u32 % PAGES
    }

    fn next(&mut self) -> (u32, PageAccess) {
        let at = self.at;
        self.at += 1;
        let hot = PAGES / 3;
        let page = match self.workload {
            Workload::Cyclic => return (at % PAGES, PageAccess::Read),
            Workload::Uniform => self.below(PAGES),
            Workload::Zipf => self.ranked(),
            Workload::Moving => (at / 25_000 * hot + self.below(hot)) % PAGES,
        };
        let writes = self.below(10) < 2;
        (page, if writes { PageAccess::Write } else { PageAccess::Read })
    }
}

/// Counts the pages that a pool under exact LRU would read.
#[derive(Default)]
struct Lru {
    at: u64,
    last: HashMap<u32, u64>,
    order: BTreeMap<u64, u32>,
    misses: u64,
}

impl Lru {
    fn access(&mut self, page: u32) {
        self.at += 1;
        match self.last.insert(page, self.at) {
            Some(before) => drop(self.order.remove(&before)),
            None => self.misses += 1,
        }
        self.order.insert(self.at, page);
        if self.order.len() > FRAMES as usize {
            let (_, victim) = self.order.pop_first().unwrap();
            self.last.remove(&victim);
        }
    }
}

/// Cost of a trace, in pages.
#[derive(Debug)]
struct Cost {
    read: u64,
    written: u64,
    faults: u64,
    lru: u64,
}

fn replay(workload: Workload, accesses: u32) -> Cost {
    let mut rig = RigParameters {
        frames: FRAMES,
        blocks: PAGES as usize,
        max_segments: 64,
        ..RigParameters::default()
    }
    .start();
    let object = rig.object(PAGES, 0);
    let mut lru = Lru::default();
    for page in 0..PAGES {
        rig.write(&object, page, u64::from(page) + 1);
        lru.access(page);
    }
    rig.settle();
    lru.misses = 0;
    let before = traffic(&rig);
    let mut trace = Trace::new(workload);
    for n in 0..accesses {
        let (page, access) = trace.next();
        rig.touch(&object, page, access);
        lru.access(page);
        if n % POLL_EVERY == 0 {
            rig.poll();
        }
    }
    let (read, written, faults) = traffic(&rig);
    Cost {
        read: read - before.0,
        written: written - before.1,
        faults: faults - before.2,
        lru: lru.misses,
    }
}

/// Returns pages read, pages written, and faults that had to read.
fn traffic(rig: &Rig) -> (u64, u64, u64) {
    let inner = rig.disk.inner();
    (inner.blocks_read, inner.blocks_written, rig.pager.counters().page_ins)
}

/// Checks that the pages read are at most `percent` percent of those that LRU would read.
fn check_reads(cost: &Cost, percent: u64) {
    assert!(cost.lru > 1000 && cost.read * 100 <= cost.lru * percent, "{cost:?}");
}

#[test]
fn uniform_accesses_read_little_more_than_lru() {
    check_reads(&replay(Workload::Uniform, 20_000), 108);
}

#[test]
fn accesses_by_zipfs_law_read_little_more_than_lru_and_write_about_what_they_must() {
    let cost = replay(Workload::Zipf, 125_000);
    check_reads(&cost, 114);
    // A fifth of the accesses write, and each page that is evicted dirty has to be written.
    assert!(cost.written <= cost.read * 12 / 10, "{cost:?}");
}

#[test]
fn a_set_that_moves_reads_about_what_lru_does() {
    check_reads(&replay(Workload::Moving, 75_000), 108);
}

#[test]
fn a_walk_reads_each_page_once_and_most_of_them_ahead() {
    let cost = replay(Workload::Cyclic, 24_576);
    // Frames kept free for the next windows hold no page meanwhile.
    check_reads(&cost, 102);
    assert!(cost.faults * 50 < cost.read, "{cost:?}");
}
