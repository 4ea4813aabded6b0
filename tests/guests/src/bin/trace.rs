//! Replays a trace of page accesses ([`worker::trace`]) over more pages than the pool has frames,
//! and measures each access.
//!
//! `trace=` (1 to 4), `pages=`, `ops=`, `seed=`. It fills the pages in order, logs `trace start`
//! and waits for a byte on its console, so that counters can be read before the trace. At the end
//! it logs `trace done ops N ticks T median M p99 P worst W wrong X`, in ticks of its time-stamp
//! counter for one access.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::worker::trace::{Trace, Workload, fill_ranks};
#[cfg(target_os = "none")]
use guests::{Machine, TestVerdict, instr, pages::FreePages};

#[cfg(target_os = "none")]
fn run(machine: &Machine) -> TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let (pages, ops, seed) = (option("pages", 1024), option("ops", 4096), option("seed", 1));
    let Some(workload) = Workload::numbered(option("trace", 1)) else {
        return guests::fail("trace= is 1 to 4");
    };
    let mut memory = FreePages::take(machine, u64::MAX);
    guests::check!(
        memory.count() > pages + (pages * 8).div_ceil(4096),
        "{} pages are too few",
        memory.count()
    );
    let ranks = memory.take_words(pages as usize);
    fill_ranks(ranks);
    let mut trace = Trace::new(workload, seed, ranks);
    for page in 0..pages {
        let words = memory.page(page);
        words[0] = page ^ KEY;
        words[511] = !page;
    }
    guests::log!("trace start");
    while instr::inb(LINE_STATUS) & DATA_READY == 0 {
        instr::pause();
    }
    let mut times = Times::new();
    let (mut wrong, start) = (0, instr::tsc());
    for n in 0..ops {
        let step = trace.step();
        let before = instr::tsc();
        let words = memory.page(u64::from(step.page));
        wrong += u64::from(words[0] != u64::from(step.page) ^ KEY);
        if step.writes {
            words[8] = n;
        }
        times.note(instr::tsc() - before);
    }
    let ticks = instr::tsc() - start;
    let (median, p99) = (times.quantile(500), times.quantile(990));
    guests::log!(
        "trace done ops {ops} ticks {ticks} median {median} p99 {p99} worst {} wrong {wrong}",
        times.worst
    );
    guests::check!(wrong == 0, "{wrong} pages are wrong");
    guests::pass()
}

#[cfg(target_os = "none")]
const KEY: u64 = 0x7ace_7ace_7ace_7ace;
/// COM1's line status, and its bit for a received byte.
#[cfg(target_os = "none")]
const LINE_STATUS: u16 = 0x3fd;
#[cfg(target_os = "none")]
const DATA_READY: u8 = 1;

/// A histogram with 16 steps for each power of two.
#[cfg(target_os = "none")]
struct Times {
    counts: [u32; 1024],
    all: u64,
    worst: u64,
}

#[cfg(target_os = "none")]
impl Times {
    const fn new() -> Self {
        Self { counts: [0; 1024], all: 0, worst: 0 }
    }

    fn note(&mut self, ticks: u64) {
        let power = (ticks | 16).ilog2();
        let step = if ticks < 16 {
            ticks
        } else {
            u64::from(power - 3) * 16 + (ticks >> (power - 4) & 15)
        };
        self.counts[step as usize] += 1;
        self.all += 1;
        self.worst = self.worst.max(ticks);
    }

    /// Returns the lower bound of the step that contains this quantile, in thousandths.
    fn quantile(&self, thousandths: u64) -> u64 {
        let mut seen = 0;
        for (step, &count) in (0_u64..).zip(&self.counts) {
            seen += u64::from(count);
            if seen * 1000 >= self.all * thousandths {
                let power = step / 16 + 3;
                return if step < 16 { step } else { (16 + (step & 15)) << (power - 4) };
            }
        }
        self.worst
    }
}
