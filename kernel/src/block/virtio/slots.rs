//! Who is in flight: one slot a request, in place, with what its device may answer.

use super::plan::MAX_SLOTS;
use crate::block::Cookie;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// The submitter's word.
    pub cookie: Cookie,
    /// Data bytes that the device writes into memory if all goes well.
    pub incoming: u32,
    /// When it is overdue; `None` until the first poll after its submission says what time it is.
    pub deadline_ns: Option<u64>,
}

/// All slots.
pub struct Slots {
    /// Bit `s`: slot `s` is free.
    free: u64,
    /// Bit `s`: the request in slot `s` is done without its device.
    instant: u64,
    in_flight: [Option<InFlight>; MAX_SLOTS as usize],
}

impl Slots {
    /// Makes `count` free slots.
    pub fn new(count: u16) -> Self {
        let free = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        Self { free, instant: 0, in_flight: [None; MAX_SLOTS as usize] }
    }

    /// Returns the slot that [`Slots::occupy`] would take.
    pub fn next_free(&self) -> Option<u16> {
        (self.free != 0).then(|| self.free.trailing_zeros() as u16)
    }

    /// Puts a request into slot `slot`, which [`Slots::next_free`] named.
    pub fn occupy(&mut self, slot: u16, request: InFlight) {
        self.free &= !(1 << slot);
        self.in_flight[usize::from(slot)] = Some(request);
    }

    /// Notes that the request in slot `slot` never goes to the device and is done.
    pub fn complete_at_once(&mut self, slot: u16) {
        self.instant |= 1 << slot;
    }

    /// Takes out a request that is done without its device.
    pub fn take_instant(&mut self) -> Option<InFlight> {
        if self.instant == 0 {
            return None;
        }
        self.vacate(self.instant.trailing_zeros() as u16)
    }

    /// Returns the request in a slot.
    pub fn peek(&self, slot: u16) -> Option<InFlight> {
        *self.in_flight.get(usize::from(slot))?
    }

    /// Takes the request out of a slot; `None` if there is none.
    pub fn vacate(&mut self, slot: u16) -> Option<InFlight> {
        let request = self.in_flight.get_mut(usize::from(slot))?.take()?;
        self.free |= 1 << slot;
        self.instant &= !(1 << slot);
        Some(request)
    }

    /// Takes any request out.
    pub fn vacate_any(&mut self) -> Option<InFlight> {
        let slot = self.in_flight.iter().position(Option::is_some)?;
        self.vacate(slot as u16)
    }

    /// Gives new requests their deadline, and returns whether one is overdue.
    pub fn overdue(&mut self, now_ns: u64, limit_ns: u64) -> bool {
        let mut overdue = false;
        for request in self.in_flight.iter_mut().flatten() {
            let deadline = *request.deadline_ns.get_or_insert(now_ns.saturating_add(limit_ns));
            overdue |= deadline <= now_ns;
        }
        overdue
    }

    /// Returns how many requests are in flight.
    pub fn count(&self) -> usize {
        self.in_flight.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: u64) -> InFlight {
        InFlight { cookie: Cookie(cookie), incoming: 0, deadline_ns: None }
    }

    #[test]
    fn every_slot_is_used_once_and_again_after_it_was_vacated() {
        for count in [1, 16, 64] {
            let mut slots = Slots::new(count);
            for n in 0..count {
                let slot = slots.next_free().unwrap();
                slots.occupy(slot, request(u64::from(n)));
            }
            assert_eq!((slots.next_free(), slots.count()), (None, usize::from(count)));
            assert_eq!(slots.vacate(count - 1).map(|r| r.cookie), Some(Cookie(u64::from(count - 1))));
            assert_eq!(slots.vacate(count - 1).map(|r| r.cookie), None, "not twice");
            assert_eq!(slots.next_free(), Some(count - 1));
        }
    }

    #[test]
    fn the_clock_of_a_request_starts_at_the_first_poll() {
        let mut slots = Slots::new(2);
        slots.occupy(0, request(0));
        assert!(!slots.overdue(1000, 10));
        assert!(!slots.overdue(1009, 10));
        assert!(slots.overdue(1010, 10));
    }
}
