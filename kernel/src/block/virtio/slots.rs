//! Requests in flight: one slot per request, filled in place, with the limits of the device's
//! answer.

use super::plan::MAX_SLOTS;
use crate::block::{Cookie, QueueLane};
use crate::time::Ns;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightRequest {
    /// The submitter's identifier.
    pub cookie: Cookie,
    /// Data bytes that the device writes into memory if the request succeeds.
    pub incoming: u32,
    /// Time of submission, set by the first poll after it; `None` before.
    pub since_ns: Option<Ns>,
    /// Whether its submitter has been told of a time-out.
    pub told: TimeoutReport,
}

/// Whether the submitter of a request has been told that it timed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TimeoutReport {
    /// The submitter waits for the answer.
    No,
    /// The submitter has been told; the device still has the buffers.
    Yes,
}

/// All slots.
pub(super) struct RequestSlots {
    /// Bit `s`: slot `s` is free.
    free: u64,
    /// Bit `s`: slot `s` is for [`QueueLane::Beat`] alone.
    reserved: u64,
    /// Bit `s`: the request in slot `s` is complete without the device.
    instant: u64,
    in_flight: [Option<InFlightRequest>; MAX_SLOTS as usize],
}

impl RequestSlots {
    /// Makes `count` free slots.
    pub(super) fn new(count: u16) -> Self {
        let free = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        let reserved = if count > 1 { 1 << (count.min(MAX_SLOTS) - 1) } else { 0 };
        Self { free, reserved, instant: 0, in_flight: [None; MAX_SLOTS as usize] }
    }

    /// Returns the slot for the next request of that lane, to be passed to
    /// [`RequestSlots::occupy`].
    ///
    /// The highest slot is reserved for the beat, unless it is the only one.
    pub(super) fn next_free(&self, lane: QueueLane) -> Option<u16> {
        let open = match lane {
            QueueLane::Common | QueueLane::Store => self.free & !self.reserved,
            QueueLane::Beat => self.free,
        };
        (open != 0).then(|| open.trailing_zeros() as u16)
    }

    /// Puts a request into slot `slot`, which [`RequestSlots::next_free`] returned.
    pub(super) fn occupy(&mut self, slot: u16, request: InFlightRequest) {
        self.free &= !(1 << slot);
        self.in_flight[usize::from(slot)] = Some(request);
    }

    /// Marks the request in slot `slot` as complete; it never goes to the device.
    pub(super) fn complete_at_once(&mut self, slot: u16) {
        self.instant |= 1 << slot;
    }

    /// Takes a request that is complete without the device.
    pub(super) fn take_instant(&mut self) -> Option<InFlightRequest> {
        if self.instant == 0 {
            return None;
        }
        self.vacate(self.instant.trailing_zeros() as u16)
    }

    /// Takes the request out of a slot; `None` if there is none.
    pub(super) fn vacate(&mut self, slot: u16) -> Option<InFlightRequest> {
        let request = self.in_flight.get_mut(usize::from(slot))?.take()?;
        self.free |= 1 << slot;
        self.instant &= !(1 << slot);
        Some(request)
    }

    /// Returns the cookie of a request in flight whose submitter has not been told of the time-out,
    /// and marks it as told.
    pub(super) fn tell_one(&mut self) -> Option<Cookie> {
        let request = self
            .in_flight
            .iter_mut()
            .flatten()
            .find(|request| request.told == TimeoutReport::No)?;
        request.told = TimeoutReport::Yes;
        Some(request.cookie)
    }

    /// Sets the submission time of new requests, and returns whether a request has waited for
    /// `limit_ns`.
    pub(super) fn overdue(&mut self, now_ns: Ns, limit_ns: Ns) -> bool {
        let mut overdue = false;
        for request in self.in_flight.iter_mut().flatten() {
            let since = *request.since_ns.get_or_insert(now_ns);
            overdue |= now_ns.saturating_sub(since) >= limit_ns;
        }
        overdue
    }

    /// Returns the number of requests in flight.
    pub(super) fn count(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: u64) -> InFlightRequest {
        InFlightRequest {
            cookie: Cookie(cookie),
            incoming: 0,
            since_ns: None,
            told: TimeoutReport::No,
        }
    }

    #[test]
    fn every_slot_is_used_once_and_again_after_it_was_vacated() {
        for count in [1, 16, 64] {
            let mut slots = RequestSlots::new(count);
            for n in 0..count {
                let slot = slots.next_free(QueueLane::Beat).unwrap();
                slots.occupy(slot, request(u64::from(n)));
            }
            assert_eq!(
                (slots.next_free(QueueLane::Beat), slots.count()),
                (None, usize::from(count))
            );
            assert_eq!(
                slots.vacate(count - 1).map(|r| r.cookie),
                Some(Cookie(u64::from(count - 1)))
            );
            assert_eq!(slots.vacate(count - 1).map(|r| r.cookie), None, "not twice");
            assert_eq!(slots.next_free(QueueLane::Beat), Some(count - 1));
        }
    }

    #[test]
    fn the_last_slot_is_the_beats_unless_it_is_the_only_one() {
        for (count, common) in [(1, 1), (2, 1), (16, 15), (64, 63)] {
            let mut slots = RequestSlots::new(count);
            let mut taken = 0;
            while let Some(slot) = slots.next_free(QueueLane::Common) {
                slots.occupy(slot, request(0));
                taken += 1;
            }
            assert_eq!(taken, common, "of {count}");
            assert_eq!(slots.next_free(QueueLane::Beat), (count > 1).then(|| count - 1));
        }
    }

    #[test]
    fn the_clock_of_a_request_starts_at_the_first_poll() {
        let mut slots = RequestSlots::new(2);
        slots.occupy(0, request(0));
        assert!(!slots.overdue(Ns::from_us(1), Ns::new(10)));
        assert!(!slots.overdue(Ns::new(1_009), Ns::new(10)));
        assert!(slots.overdue(Ns::new(1_010), Ns::new(10)));
    }
}
