//! Traces of page accesses, identical on every machine: replayed by a guest, and by a model of a
//! cache on the host.
//!
//! | trace | pages | written |
//! |---|---|---|
//! | M1, cyclic | all in order, again and again | none |
//! | M2, uniform | any | a fifth |
//! | M3, Zipf | by Zipf's law with exponent 0.99, ranks scattered over the pages | a fifth |
//! | M4, moving | a third of them, the next third after 100,000 accesses | a fifth |
//!
//! Zipf's law is YCSB's approximation (Gray et al., "Quickly Generating Billion-Record Synthetic
//! Databases", 1994), which maps a uniform number to a rank. The map is monotonic. So a table with
//! the first number of each rank replaces the computation of a power for each access. All numbers
//! are IEEE doubles, added and multiplied in a fixed order: guests without a floating-point unit
//! get the same results.

/// Zipf's exponent.
const THETA: f64 = 0.99;
/// Random numbers have this many bits.
const RANDOM_BITS: u32 = 53;
/// Accesses before the working set of [`Workload::Moving`] moves on.
const PERIOD: u64 = 100_000;

/// The kind of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// M1.
    Cyclic,
    /// M2.
    Uniform,
    /// M3.
    Zipf,
    /// M4.
    Moving,
}

impl Workload {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Cyclic, Self::Uniform, Self::Zipf, Self::Moving];

    /// Returns the workload of M1 to M4 by its number, from 1 on.
    pub fn numbered(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }
}

/// An access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceStep {
    /// The page.
    pub page: u32,
    /// Whether the access is a write.
    pub writes: bool,
}

/// Fills `table`, one word a page: for each rank of Zipf's law, the random number at which the next
/// rank begins.
///
/// # Panics
/// If there are fewer than 2 pages, or their number does not fit into 32 bits.
pub fn fill_ranks(table: &mut [u64]) {
    let pages = u32::try_from(table.len()).expect("32 bits count a trace's pages");
    assert!(pages >= 2, "a trace of {pages} pages");
    let n = f64::from(pages);
    let zeta: f64 = (1..=pages).fold(0.0, |sum, rank| sum + power(f64::from(rank), -THETA));
    let zeta2 = 1.0 + power(0.5, THETA);
    let eta = (1.0 - power(2.0 / n, 1.0 - THETA)) / (1.0 - zeta2 / zeta);
    let number = |u: f64| (u * (1_u64 << RANDOM_BITS) as f64) as u64;
    for rank in 0..pages {
        let end = match rank {
            0 => 1.0 / zeta,
            1 => zeta2 / zeta,
            // The rank is n * (eta * u - eta + 1) ^ (1 / (1 - theta)), rounded down.
            _ => (power(f64::from(rank + 1) / n, 1.0 - THETA) - 1.0 + eta) / eta,
        };
        table[rank as usize] = number(end);
    }
}

/// An endless trace.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    workload: Workload,
    pages: u32,
    ranks: &'a [u64],
    at: u64,
    state: u64,
}

impl<'a> Trace<'a> {
    /// Begins a trace over as many pages as `ranks` has words; the words must be
    /// [filled](fill_ranks).
    ///
    /// # Panics
    /// If the number of pages does not fit into 32 bits.
    pub fn new(workload: Workload, seed: u64, ranks: &'a [u64]) -> Self {
        let pages = u32::try_from(ranks.len()).expect("32 bits count a trace's pages");
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        Self { workload, pages, ranks, at: 0, state }
    }

    /// Returns the next random number (xorshift64*).
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> (64 - RANDOM_BITS)
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.random() % u64::from(end)) as u32
    }

    fn ranked(&mut self) -> u32 {
        let number = self.random();
        let rank =
            self.ranks.partition_point(|end| *end <= number).min(self.ranks.len() - 1) as u64;
        let hash = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((hash ^ hash >> 32) % u64::from(self.pages)) as u32
    }

    /// Returns the next access.
    pub fn step(&mut self) -> TraceStep {
        let at = self.at;
        self.at += 1;
        let pages = u64::from(self.pages);
        let hot = self.pages / 3;
        let page = match self.workload {
            Workload::Cyclic => return TraceStep { page: (at % pages) as u32, writes: false },
            Workload::Uniform => self.below(self.pages),
            Workload::Zipf => self.ranked(),
            Workload::Moving => {
                ((at / PERIOD * u64::from(hot) + u64::from(self.below(hot))) % pages) as u32
            }
        };
        TraceStep { page, writes: self.below(10) < 2 }
    }
}

/// Returns `base` to the power of `exponent`, for positive bases, with the same bits on every
/// machine.
fn power(base: f64, exponent: f64) -> f64 {
    exponential(exponent * logarithm(base))
}

/// ln(m * 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)), m within 1 and 2.
fn logarithm(x: f64) -> f64 {
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i64 - 1023;
    let m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    // (1/3)^35 is below a double's last bit.
    let series = (0..18).rev().fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    exponent as f64 * core::f64::consts::LN_2 + 2.0 * s * series
}

/// e^(k ln 2 + r) = 2^k e^r, r within half of ln 2.
fn exponential(x: f64) -> f64 {
    let k = (x / core::f64::consts::LN_2 + if x < 0.0 { -0.5 } else { 0.5 }) as i64;
    let r = x - k as f64 * core::f64::consts::LN_2;
    let series = (1..18).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    series * f64::from_bits(((k + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn table(pages: usize) -> Vec<u64> {
        let mut table = std::vec![0; pages];
        fill_ranks(&mut table);
        table
    }

    #[test]
    fn powers_are_those_of_the_host_to_the_last_digits() {
        for (base, exponent) in
            [(2.0_f64, 0.5), (49_152.0, -0.99), (0.5, 0.99), (1.0 / 49_152.0, 0.01), (1.0, 3.0)]
        {
            let (ours, theirs) = (power(base, exponent), base.powf(exponent));
            assert!((ours / theirs - 1.0).abs() < 1e-13, "{base}^{exponent}: {ours} {theirs}");
        }
    }

    /// Compares with the formula and the host's power function, for numbers of all sizes.
    #[test]
    fn ranks_are_those_of_the_formula() {
        let (pages, table) = (49_152_u32, table(49_152));
        let n = f64::from(pages);
        let zeta: f64 = (1..=pages).map(|i| f64::from(i).powf(-THETA)).sum();
        let zeta2 = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - zeta2 / zeta);
        let mut different = 0;
        for step in 0..100_000_u64 {
            let number = step * ((1 << RANDOM_BITS) / 100_000) + step;
            let u = number as f64 / (1_u64 << RANDOM_BITS) as f64;
            let rank = match u * zeta {
                uz if uz < 1.0 => 0,
                uz if uz < zeta2 => 1,
                _ => (n * (eta * u - eta + 1.0).powf(1.0 / (1.0 - THETA))) as usize,
            };
            different += usize::from(
                table.partition_point(|end| *end <= number) != rank.min(pages as usize - 1),
            );
        }
        assert!(different < 10, "{different} of 100000 ranks differ");
    }

    #[test]
    fn a_trace_repeats_itself_and_stays_within_its_pages() {
        let table = table(3000);
        for workload in Workload::ALL {
            let take = |seed| {
                let mut trace = Trace::new(workload, seed, &table);
                (0..5000).map(|_| trace.step()).collect::<Vec<_>>()
            };
            let steps = take(1);
            assert_eq!(steps, take(1));
            assert!(steps.iter().all(|step| step.page < 3000));
            let written = steps.iter().filter(|step| step.writes).count();
            assert_eq!(written == 0, workload == Workload::Cyclic, "{workload:?} writes {written}");
        }
    }

    #[test]
    fn each_workload_has_its_shape() {
        let table = table(3000);
        let pages = |workload, count: usize| {
            let mut trace = Trace::new(workload, 1, &table);
            (0..count).map(|_| trace.step().page).collect::<BTreeSet<_>>().len()
        };
        assert_eq!(pages(Workload::Cyclic, 3000), 3000);
        assert!((1800..2000).contains(&pages(Workload::Uniform, 3000)));
        assert!(pages(Workload::Zipf, 3000) < 1000);
        assert!(pages(Workload::Moving, 50_000) <= 1000);
    }

    #[test]
    fn workloads_have_the_numbers_of_the_benchmarks() {
        assert_eq!(Workload::numbered(1), Some(Workload::Cyclic));
        assert_eq!(Workload::numbered(3), Some(Workload::Zipf));
        assert_eq!((Workload::numbered(0), Workload::numbered(5)), (None, None));
    }
}
