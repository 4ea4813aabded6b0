//! Nanoseconds and ticks of the time-stamp counter, each unit its own type.
//!
//! | type | unit | zero |
//! |---|---|---|
//! | [`Ns`] | nanosecond | the start of the clock (`arch::time::calibrate`); of a span: none |
//! | [`Ticks`] | tick of this machine's time-stamp counter | the counter's own zero; of a span: none |
//!
//! A value of either type is a moment or a span; its place says which.
//!
//! Invariants: there is no conversion between the two here, because it needs the counter's
//! frequency. `arch::time` converts for the hypervisor, and a partition's `TscRate` for its
//! devices. The time of day (since 1970) is no [`Ns`], and a guest's own counter is no [`Ticks`]:
//! both stay plain integers. The operators panic on overflow like those of integers.

use core::ops::{Add, AddAssign, Div, Mul, Sub};
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! unit_of_time {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The zero of the clock, or no time at all.
            pub const ZERO: Self = Self(0);
            /// The end of time; as a deadline: never.
            pub const MAX: Self = Self(u64::MAX);

            /// Wraps a raw number.
            #[inline]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }
            /// Returns the raw number.
            #[inline]
            pub const fn as_u64(self) -> u64 {
                self.0
            }
            /// Adds a span, up to [`Self::MAX`].
            #[inline]
            pub const fn saturating_add(self, span: Self) -> Self {
                Self(self.0.saturating_add(span.0))
            }
            /// Subtracts a span or an earlier moment, down to [`Self::ZERO`].
            #[inline]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
            /// Returns a span `count` times, up to [`Self::MAX`].
            #[inline]
            pub const fn saturating_mul(self, count: u64) -> Self {
                Self(self.0.saturating_mul(count))
            }
        }

        impl Add for $name {
            type Output = Self;
            #[inline]
            fn add(self, span: Self) -> Self {
                Self(self.0 + span.0)
            }
        }

        impl AddAssign for $name {
            #[inline]
            fn add_assign(&mut self, span: Self) {
                self.0 += span.0;
            }
        }

        impl Sub for $name {
            type Output = Self;
            #[inline]
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl Mul<$name> for u64 {
            type Output = $name;
            #[inline]
            fn mul(self, span: $name) -> $name {
                $name(self * span.0)
            }
        }

        impl Div<u64> for $name {
            type Output = Self;
            /// Returns a part of a span, rounded down.
            #[inline]
            fn div(self, parts: u64) -> Self {
                Self(self.0 / parts)
            }
        }
    };
}

unit_of_time!(
    /// Nanoseconds: a span, or the time since the start of the clock.
    Ns
);
unit_of_time!(
    /// Ticks of this machine's time-stamp counter: a value of the counter, or a span.
    Ticks
);

impl Ticks {
    /// Returns the span since an earlier moment, zero if that moment is yet to come.
    ///
    /// A moment before the counter's start is one modulo 2^64: a guest that was resumed on another
    /// machine began to count before this machine did. So two moments lie less than 2^63 apart.
    #[inline]
    pub const fn since(self, earlier: Self) -> Self {
        let span = self.0.wrapping_sub(earlier.0);
        if span as i64 > 0 { Self(span) } else { Self::ZERO }
    }
}

impl Ns {
    /// Makes a span of microseconds.
    ///
    /// # Panics
    /// If it has more nanoseconds than 64 bits hold (584 years; so do the next two).
    #[inline]
    pub const fn from_us(us: u64) -> Self {
        Self(us * 1_000)
    }
    /// Makes a span of milliseconds.
    ///
    /// # Panics
    /// As [`Self::from_us`].
    #[inline]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }
    /// Makes a span of seconds.
    ///
    /// # Panics
    /// As [`Self::from_us`].
    #[inline]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }
}

/// Nanoseconds that several CPUs read and write.
#[derive(Debug)]
pub struct AtomicNs(AtomicU64);

impl AtomicNs {
    /// Makes one with a first value.
    pub const fn new(ns: Ns) -> Self {
        Self(AtomicU64::new(ns.0))
    }
    /// Returns the value.
    #[inline]
    pub fn load(&self, order: Ordering) -> Ns {
        Ns(self.0.load(order))
    }
    /// Replaces the value.
    #[inline]
    pub fn store(&self, ns: Ns, order: Ordering) {
        self.0.store(ns.0, order);
    }
    /// Replaces the value if `ns` is less.
    #[inline]
    pub fn lower(&self, ns: Ns, order: Ordering) {
        self.0.fetch_min(ns.0, order);
    }
    /// Replaces the value by what `next` makes of it. `next` may be called several times.
    ///
    /// # Errors
    /// The value, if `next` makes nothing of it.
    pub fn try_update(
        &self,
        set: Ordering,
        get: Ordering,
        mut next: impl FnMut(Ns) -> Option<Ns>,
    ) -> Result<Ns, Ns> {
        self.0.try_update(set, get, |ns| next(Ns(ns)).map(Ns::as_u64)).map(Ns).map_err(Ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_differences_end_at_the_edges() {
        assert_eq!(Ns::MAX.saturating_add(Ns::new(1)), Ns::MAX);
        assert_eq!(Ns::new(2).saturating_sub(Ns::new(3)), Ns::ZERO);
        assert_eq!(Ticks::new(u64::MAX - 1).saturating_add(Ticks::new(1)), Ticks::MAX);
        assert_eq!(Ticks::new(1 << 63).saturating_mul(2), Ticks::MAX);
        assert_eq!(Ticks::new(9) / 2, Ticks::new(4));
        assert_eq!(2 * Ns::new(5) - Ns::new(10), Ns::default());
    }

    #[test]
    fn a_moment_before_the_counters_start_is_in_the_past() {
        let before = Ticks::new(100_u64.wrapping_sub(300));
        assert_eq!(Ticks::new(100).since(before), Ticks::new(300));
        assert_eq!(Ticks::new(100).since(Ticks::new(40)), Ticks::new(60));
        assert_eq!(Ticks::new(40).since(Ticks::new(100)), Ticks::ZERO);
    }

    #[test]
    #[should_panic = "overflow"]
    fn a_sum_beyond_64_bits_panics() {
        let _ = Ns::MAX + Ns::new(1);
    }

    #[test]
    #[should_panic = "overflow"]
    fn a_difference_below_zero_panics() {
        let _ = Ticks::ZERO - Ticks::new(1);
    }

    #[test]
    fn a_shared_time_is_lowered_never_raised() {
        let due = AtomicNs::new(Ns::MAX);
        due.lower(Ns::new(5), Ordering::Relaxed);
        due.lower(Ns::new(7), Ordering::Relaxed);
        assert_eq!(due.load(Ordering::Relaxed), Ns::new(5));
        let order = Ordering::Relaxed;
        assert_eq!(due.try_update(order, order, |_| None), Err(Ns::new(5)));
        assert_eq!(due.try_update(order, order, |ns| Some(2 * ns)), Ok(Ns::new(5)));
        assert_eq!(due.load(order), Ns::new(10));
        due.store(Ns::ZERO, Ordering::Relaxed);
        assert_eq!(due.load(Ordering::Relaxed), Ns::ZERO);
    }

    #[test]
    fn units_are_multiples_of_a_nanosecond() {
        assert_eq!(Ns::from_us(1_000), Ns::from_ms(1));
        assert_eq!(Ns::from_ms(1_000), Ns::from_secs(1));
        assert_eq!(Ns::from_secs(1).as_u64(), 1_000_000_000);
        assert_eq!(Ns::from_secs(18_446_744_073).as_u64(), 18_446_744_073_000_000_000);
    }
}
