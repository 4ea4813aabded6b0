//! How much of its memory an object uses.

/// Estimate of an object's use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UseEstimate {
    /// First page of the sample.
    pub offset: u32,
    /// Fraction of the resident pages that is touched in an interval, in 256ths, smoothed.
    pub used: u16,
    /// Pages that came in since the last sampling.
    pub fetched: u32,
}

impl Default for UseEstimate {
    /// New memory counts as used.
    fn default() -> Self {
        Self { offset: 0, used: 255, fetched: 0 }
    }
}
