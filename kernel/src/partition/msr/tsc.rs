//! The guest's time-stamp counter: the machine's counter plus an offset, which the guest moves by
//! WRMSR.
//!
//! Every part of a partition keeps time by the machine's counter. The guest sees its own counter
//! only at RDTSC, at these registers and in the paravirtual clock's page. SDM 3B "IA32_TSC_ADJUST
//! MSR", SDM 3A "TSC-Deadline Mode".

use crate::time::Ticks;
/// The offset, and IA32_TSC_ADJUST.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct TscShift {
    /// Guest's counter less the machine's, modulo 2^64.
    offset: u64,
    /// IA32_TSC_ADJUST: the sum of all changes.
    adjust: u64,
}

/// A moment, by the machine's counter and by the guest's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockMoment {
    /// The machine's counter.
    pub now: Ticks,
    /// The guest's counter.
    pub guest: u64,
}

impl TscShift {
    /// Returns the offset that is added to the machine's counter.
    pub(super) const fn offset(self) -> u64 {
        self.offset
    }

    /// Returns IA32_TSC_ADJUST.
    pub(super) const fn adjust(self) -> u64 {
        self.adjust
    }

    /// Returns the guest's counter.
    pub(super) const fn guest(self, now: Ticks) -> u64 {
        now.as_u64().wrapping_add(self.offset)
    }

    /// Returns a moment by both counters.
    pub(super) const fn moment(self, now: Ticks) -> ClockMoment {
        ClockMoment { now, guest: self.guest(now) }
    }

    /// Returns the shift with which the guest's counter goes on from `guest` at `now`.
    pub(super) const fn resumed(guest: u64, adjust: u64, now: Ticks) -> Self {
        Self { offset: guest.wrapping_sub(now.as_u64()), adjust }
    }

    /// Returns the shift after the guest wrote `value` to its counter.
    pub(super) const fn set_counter(self, value: u64, now: Ticks) -> Self {
        self.moved(value.wrapping_sub(self.guest(now)))
    }

    /// Returns the shift after the guest wrote `value` to IA32_TSC_ADJUST.
    pub(super) const fn set_adjust(self, value: u64) -> Self {
        self.moved(value.wrapping_sub(self.adjust))
    }

    const fn moved(self, by: u64) -> Self {
        Self { offset: self.offset.wrapping_add(by), adjust: self.adjust.wrapping_add(by) }
    }

    /// Returns the machine's counter at which the guest's counter reaches `deadline`. It is at
    /// least 1, because zero would disarm the timer; a deadline that the guest's counter has passed
    /// is due at once. It is at most the end of the machine's counter.
    pub(super) const fn machine(self, deadline: u64) -> Ticks {
        let at = deadline as i128 - self.offset as i64 as i128;
        if at < 1 {
            Ticks::new(1)
        } else if at > u64::MAX as i128 {
            Ticks::MAX
        } else {
            Ticks::new(at as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_is_written_goes_on_from_there() {
        for value in [0, 1, 5_000, u64::MAX, 1 << 63] {
            let shift = TscShift::default().set_counter(value, Ticks::new(1_000));
            assert_eq!(shift.guest(Ticks::new(1_000)), value);
            assert_eq!(shift.guest(Ticks::new(1_007)), value.wrapping_add(7));
            assert_eq!(shift.adjust(), shift.offset(), "both from the same beginning");
        }
    }

    #[test]
    fn adjust_moves_the_counter_by_the_difference() {
        let shift = TscShift::default().set_adjust(100).set_adjust(40);
        assert_eq!((shift.offset(), shift.adjust()), (40, 40));
        let shift = shift.set_counter(0, Ticks::new(1_040));
        assert_eq!(
            (shift.guest(Ticks::new(1_041)), shift.adjust()),
            (1, 0_u64.wrapping_sub(1_040))
        );
        assert_eq!(shift.set_adjust(0).offset(), 0);
    }

    #[test]
    fn a_deadline_comes_when_the_guests_counter_is_there() {
        let ahead = TscShift::default().set_counter(1_000_000, Ticks::new(1_000));
        assert_eq!(
            (ahead.machine(1_000_500), ahead.machine(500)),
            (Ticks::new(1_500), Ticks::new(1))
        );
        let behind = TscShift::default().set_counter(10, Ticks::new(1_000));
        assert_eq!((behind.machine(20), behind.machine(u64::MAX)), (Ticks::new(1_010), Ticks::MAX));
    }
}
