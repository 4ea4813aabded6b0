//! Detects that a guest has stood still for so long that its own watchdogs would report a hang.
//!
//! ```text
//!   entered ── runs ── left ─┬─ wants to go on: time is lost until it is entered again
//!                            └─ halts until its timer: time is lost from then on
//! ```
//!
//! Waits for pages, other partitions on the CPU and a stopped machine cost a guest time that it
//! does not notice, while its clock goes on. Linux reports a soft lockup if its watchdog has no
//! turn for 20 s, unless the flag "the guest was stopped" is set in KVM's clock (Linux
//! `arch/x86/kernel/kvmclock.c`, `kvm_check_and_clear_guest_paused`). A guest that gets its share
//! of the CPU keeps its watchdogs: time counts only if nearly all of it was lost.

use crate::time::Ns;

/// The guest is told after it has lost this much in all.
const LONG_NS: Ns = Ns::from_secs(2);
/// Time counts if the guest had at most one of this many parts of it.
const PARTS: u64 = 5;

/// The time at which a guest wants to run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WakeTime {
    /// At once: its time was up, or a page was not resident.
    Now,
    /// At its timer's time.
    At(Ns),
    /// At no known time: it waits for an event.
    Nothing,
}

/// The time that a guest had and lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StallWatch {
    ran_ns: Ns,
    lost_ns: Ns,
    wanted_ns: Option<Ns>,
}

impl StallWatch {
    /// Begins anew, for a guest that has just started or has been told.
    pub const fn new() -> Self {
        Self { ran_ns: Ns::ZERO, lost_ns: Ns::ZERO, wanted_ns: None }
    }

    /// Begins anew, for a guest that was kept from running and has yet to be told.
    pub const fn untold() -> Self {
        Self { ran_ns: Ns::ZERO, lost_ns: LONG_NS, wanted_ns: None }
    }

    /// Notes that the guest is about to run; returns whether it was stopped for long.
    pub fn enter(&mut self, now_ns: Ns) -> bool {
        if let Some(wanted) = self.wanted_ns.take() {
            self.lost_ns = self.lost_ns.saturating_add(now_ns.saturating_sub(wanted));
            self.wanted_ns = Some(now_ns.max(wanted));
        }
        self.lost_ns >= LONG_NS && self.lost_ns >= self.ran_ns.saturating_mul(PARTS - 1)
    }

    /// Notes that the guest ran from `since_ns` on, and had to be left at `until_ns`.
    pub fn leave(&mut self, since_ns: Ns, until_ns: Ns, now_ns: Ns, wants: WakeTime) {
        self.ran_ns = self.ran_ns.saturating_add(now_ns.min(until_ns).saturating_sub(since_ns));
        self.lost_ns = self.lost_ns.saturating_add(now_ns.saturating_sub(until_ns.max(since_ns)));
        self.wanted_ns = match wants {
            WakeTime::Now => Some(now_ns),
            WakeTime::At(at) => Some(at.max(now_ns)),
            WakeTime::Nothing => None,
        };
        if self.ran_ns >= LONG_NS {
            (self.ran_ns, self.lost_ns) = (Ns::ZERO, Ns::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ns = Ns::from_ms(1);
    const S: Ns = Ns::from_secs(1);

    #[test]
    fn one_long_wait_is_told_once() {
        let mut watch = StallWatch::new();
        assert!(!watch.enter(Ns::ZERO));
        watch.leave(Ns::ZERO, 10 * MS, 5 * MS, WakeTime::Now);
        assert!(watch.enter(3 * S) && watch.enter(3 * S), "until it was told");
        watch = StallWatch::new();
        watch.leave(3 * S, 3 * S + 10 * MS, 3 * S + 5 * MS, WakeTime::Now);
        assert!(!watch.enter(3 * S + 6 * MS));
    }

    #[test]
    fn many_short_waits_with_hardly_any_progress_add_up() {
        let mut watch = StallWatch::new();
        let told = (0..100).position(|n| {
            let now = n * 50 * MS;
            let told = watch.enter(now);
            watch.leave(now, now + 10 * MS, now + MS, WakeTime::Now);
            told
        });
        assert_eq!(told, Some(41));
    }

    #[test]
    fn a_fair_share_of_the_cpu_is_no_stall() {
        let mut watch = StallWatch::new();
        for n in 0..10_000 {
            let now = n * 20 * MS;
            assert!(!watch.enter(now), "{n}");
            watch.leave(now, now + 10 * MS, now + 10 * MS, WakeTime::Now);
        }
    }

    #[test]
    fn idle_time_is_not_lost_but_a_late_timer_is() {
        let mut watch = StallWatch::new();
        watch.leave(Ns::ZERO, 10 * MS, MS, WakeTime::At(100 * S));
        assert!(!watch.enter(100 * S));
        watch.leave(100 * S, 101 * S, 100 * S, WakeTime::Nothing);
        assert!(!watch.enter(200 * S));
        watch.leave(200 * S, 201 * S, 200 * S, WakeTime::At(201 * S));
        assert!(watch.enter(204 * S));
    }

    #[test]
    fn a_machine_that_was_stopped_in_the_middle_of_a_stay_is_noticed() {
        let mut watch = StallWatch::new();
        watch.leave(Ns::ZERO, 10 * MS, 30 * S, WakeTime::Now);
        assert!(watch.enter(30 * S));
    }
}
