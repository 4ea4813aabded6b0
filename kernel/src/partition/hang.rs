//! Detects a guest that hangs, as the option `hang_timeout` demands.
//!
//! ```text
//!              no sign of life: time-out            still none
//!   watched ───────────────────────────────> NMI ─────────────> crash
//!      ^                                      │
//!      └──────────── a sign of life ──────────┘
//! ```
//!
//! A sign of life is a timer interrupt that the guest takes, or a halt with interrupts on: an idle
//! guest is not watched. So a guest hangs if it keeps interrupts off for good, or if its timer
//! never starts, whatever it executes meanwhile. Only the guest's own time counts: waits for pages,
//! for the console or for a CPU do not.

use crate::time::Ns;

/// The grace after the NMI, in which a guest must show a sign of life or report a panic: the
/// time-out, within these bounds.
const GRACE_NS: [Ns; 2] = [Ns::from_secs(1), Ns::from_secs(10)];

/// One stay in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestStay {
    /// Its length.
    pub ran_ns: Ns,
    /// Timer interrupts that the guest has taken so far.
    pub ticks: u32,
}

/// What the caller has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HangFinding {
    /// Nothing.
    Alive,
    /// Send an NMI. Some guests panic at it, with a backtrace.
    Silent,
    /// The guest hangs.
    Hangs,
}

/// Watches a guest.
#[derive(Clone, Debug)]
pub struct HangWatch {
    timeout_ns: Ns,
    ticks: u32,
    /// Nanoseconds since the last sign of life.
    silent_ns: Ns,
    /// Nanoseconds left after the NMI.
    grace_ns: Option<Ns>,
}

impl HangWatch {
    /// Watches a guest that starts.
    pub const fn new(timeout_ns: Ns) -> Self {
        Self { timeout_ns, ticks: 0, silent_ns: Ns::ZERO, grace_ns: None }
    }

    /// Notes that the guest has halted with interrupts on.
    pub const fn halted(&mut self) {
        (self.silent_ns, self.grace_ns) = (Ns::ZERO, None);
    }

    /// Accounts for a stay.
    pub fn take(&mut self, stay: GuestStay) -> HangFinding {
        if stay.ticks != self.ticks {
            self.ticks = stay.ticks;
            (self.silent_ns, self.grace_ns) = (Ns::ZERO, None);
            return HangFinding::Alive;
        }
        self.silent_ns = self.silent_ns.saturating_add(stay.ran_ns);
        match &mut self.grace_ns {
            _ if self.silent_ns < self.timeout_ns => HangFinding::Alive,
            None => {
                self.grace_ns = Some(self.timeout_ns.clamp(GRACE_NS[0], GRACE_NS[1]));
                HangFinding::Silent
            }
            Some(left) => {
                *left = left.saturating_sub(stay.ran_ns);
                if *left == Ns::ZERO { HangFinding::Hangs } else { HangFinding::Alive }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ns = Ns::from_secs(1);

    /// Takes stays of a tenth of a second until there is a finding; returns the seconds and the
    /// finding.
    fn until_found(
        watch: &mut HangWatch,
        mut ticks: impl FnMut(u32) -> u32,
    ) -> Option<(u32, HangFinding)> {
        (1..1000).find_map(|n| match watch.take(GuestStay { ran_ns: S / 10, ticks: ticks(n) }) {
            HangFinding::Alive => None,
            found => Some((n / 10, found)),
        })
    }

    #[test]
    fn a_guest_without_ticks_gets_an_nmi_and_crashes() {
        for ticks in [0, 7] {
            let mut watch = HangWatch::new(5 * S);
            watch.take(GuestStay { ran_ns: Ns::ZERO, ticks });
            assert_eq!(until_found(&mut watch, |_| ticks), Some((5, HangFinding::Silent)));
            assert_eq!(until_found(&mut watch, |_| ticks), Some((5, HangFinding::Hangs)));
        }
    }

    #[test]
    fn a_tick_or_a_halt_after_the_nmi_is_a_sign_of_life() {
        let mut watch = HangWatch::new(S);
        assert_eq!(until_found(&mut watch, |_| 0), Some((1, HangFinding::Silent)));
        assert_eq!(watch.take(GuestStay { ran_ns: S, ticks: 1 }), HangFinding::Alive);
        assert_eq!(until_found(&mut watch, |_| 1), Some((1, HangFinding::Silent)));
        watch.halted();
        assert_eq!(until_found(&mut watch, |_| 1), Some((1, HangFinding::Silent)));
    }

    #[test]
    fn a_guest_that_ticks_or_idles_never_hangs() {
        let mut watch = HangWatch::new(S);
        assert_eq!(until_found(&mut watch, |n| n / 9), None);
        for _ in 0..1000 {
            watch.halted();
            assert_eq!(watch.take(GuestStay { ran_ns: S / 2, ticks: 7 }), HangFinding::Alive);
        }
    }

    #[test]
    fn the_time_after_the_nmi_is_bounded() {
        for (timeout, grace) in [(S / 2, 1), (3 * S, 3), (60 * S, 10)] {
            let mut watch = HangWatch::new(timeout);
            until_found(&mut watch, |_| 0);
            assert_eq!(until_found(&mut watch, |_| 0), Some((grace, HangFinding::Hangs)));
        }
    }
}
