//! A small generator (splitmix64), and clocks that drift.

/// The source of every event of a run.
pub(super) struct SimRandom(pub(super) u64);

impl SimRandom {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A node's clock: another start, another rate.
#[derive(Clone, Copy)]
pub(super) struct SimClock {
    offset: u64,
    /// Millionths that the clock gains in a millionth of true time, plus one million.
    rate: u64,
}

impl SimClock {
    pub(super) fn new(random: &mut SimRandom, drift_ppm: u64) -> Self {
        let rate = 1_000_000 - drift_ppm + random.below(2 * drift_ppm + 1);
        Self { offset: random.below(1 << 40), rate }
    }

    /// Returns the clock's time at a true time.
    pub(super) fn local(self, now: u64) -> u64 {
        self.offset + (u128::from(now) * u128::from(self.rate) / 1_000_000) as u64
    }

    /// Returns the true time at which the clock has reached `local`.
    pub(super) fn real(self, local: u64) -> u64 {
        let since = local.saturating_sub(self.offset);
        (u128::from(since) * 1_000_000).div_ceil(u128::from(self.rate)) as u64
    }
}
