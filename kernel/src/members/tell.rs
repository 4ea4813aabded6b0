//! What the state machine notes becomes events, and the disks' leases.

use super::find::{name_of, trouble_of};
use super::side::{MemberSide, MemberStanding};
use crate::block::Disk;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::time::Ns;
use alloc::format;
use cluster::join::JoinStep;
use cluster::node::ClusterEvent;
use cluster::round::{ResendPlan, RoundStep};

/// Tells that a request of the registration was sent again.
pub(super) fn resent(step: JoinStep, area: u8, request: RoundStep, resend: u8) {
    let (step, request) = (step.name(), request.name());
    report(&ConsoleEvent::Register { step, area, request, resend });
}

/// Tells that an area was given up during the registration.
pub(super) fn given_up(side: &MemberSide, step: JoinStep, area: u8) {
    let lane = side.lanes.iter().find(|lane| lane.area.number == area);
    if let Some(lane) = lane {
        report(&ConsoleEvent::Error {
            place: &format!("{}", lane.area.place),
            message: &format!(
                "the cluster area does not answer the registration (step {})",
                step.name()
            ),
        });
    }
}

/// Tells what became of the local copy.
pub(super) fn local(state: &str, decree: u64) {
    report(&ConsoleEvent::LocalCopy { state, decree });
}

/// Acts on a note of the state machine.
pub(super) fn event(side: &mut MemberSide, event: ClusterEvent) {
    match event {
        ClusterEvent::JoinFailed(JoinStep::NoSlot) => {
            report(&ConsoleEvent::NoSlot { slots: side.layout.slots() })
        }
        ClusterEvent::JoinFailed(step) => {
            let tries = ResendPlan::DEFAULT.times + 1;
            report(&ConsoleEvent::JoinFailed { step: step.name(), tries });
        }
        ClusterEvent::Joined(slot) => {
            let members = side.node.state().members().len() as u32;
            report(&ConsoleEvent::Joined { slot, members });
        }
        ClusterEvent::Extended(end) => side.extended = Some(end),
        ClusterEvent::Fenced => {
            side.is_fenced = true;
            report(&ConsoleEvent::Fenced { slot: side.node.me().slot });
        }
        ClusterEvent::Foreign => {
            report(&ConsoleEvent::ClusterForeign {
                cluster: name_of(side.cluster),
                reason: "own sector",
            });
        }
        ClusterEvent::Restored { known, expected } => {
            let reason = "older than the local copy";
            report(&ConsoleEvent::ClusterForeign { cluster: name_of(side.cluster), reason });
            let message = format!(
                "was restored from an old image: it knows decree {known}, and this node knew \
                 {expected}; it is not joined"
            );
            report(&ConsoleEvent::Error { place: "cluster area", message: &message });
        }
        ClusterEvent::MailRead { slot, number, took_ns } => {
            let latency_ms = took_ns / 1_000_000;
            let node = side.roll.note_mail(slot, latency_ms);
            report(&ConsoleEvent::MailRead { node: &node, slot, number, latency_ms });
        }
        ClusterEvent::MailLost { slot, number } => {
            let node = side.roll.name_of(slot);
            report(&ConsoleEvent::MailLost { node: &node, slot, number });
        }
        ClusterEvent::Won(_)
        | ClusterEvent::Burned(_)
        | ClusterEvent::Decided(..)
        | ClusterEvent::Learned(_)
        | ClusterEvent::Conflict
        | ClusterEvent::Suspected
        | ClusterEvent::Suspects(_)
        | ClusterEvent::Withdrew(_)
        | ClusterEvent::Proposes(..) => {}
    }
}

/// Extends the leases of the cluster's disks, and tells when slots run short.
pub(super) fn settle(side: &mut MemberSide) {
    if let Some(end) = side.extended.take() {
        side.disks.list().iter().for_each(|disk| disk.lease_until(Ns::new(end)));
    }
    let (used, slots) = (side.node.state().used_slots(), u32::from(side.layout.slots()));
    if side.node.is_member() && used * 10 >= slots * 9 && !side.has_told_slots {
        side.has_told_slots = true;
        report(&ConsoleEvent::SlotsLow { used, slots });
    }
}

/// Tells when the lease ends, and when it goes on.
pub(super) fn lease(side: &mut MemberSide, now: u64) {
    let is_open = side.node.may_submit(now);
    let (next, word) = match (side.standing, is_open) {
        (MemberStanding::Joining | MemberStanding::Frozen, true) => {
            (MemberStanding::Member, "thawed")
        }
        (MemberStanding::Member, false) => (MemberStanding::Frozen, "frozen"),
        _ => return,
    };
    if side.standing != MemberStanding::Joining {
        report(&ConsoleEvent::Lease { state: word });
    }
    side.standing = next;
}

/// Closes the disks: this incarnation submits nothing any more but its last beat.
pub(super) fn stop(side: &mut MemberSide) {
    if side.standing != MemberStanding::Leaving {
        side.standing = MemberStanding::Leaving;
        side.disks.list().iter().for_each(|disk| disk.end_lease());
    }
}

/// Gives the disks up: this incarnation has ended. A node that was fenced and has signed off is
/// followed by another one.
pub(super) fn gone(side: &mut MemberSide) {
    if matches!(side.standing, MemberStanding::Out | MemberStanding::Parted) {
        return;
    }
    let was_leaving = side.standing == MemberStanding::Leaving;
    let slot = side.node.me().slot;
    match (was_leaving, side.is_tainted) {
        (true, true) => stays_out(side),
        (true, false) => report(&ConsoleEvent::Left { slot }),
        (false, _) => {}
    }
    side.disks.list().iter().for_each(|disk| disk.give_up());
    side.standing = MemberStanding::Out;
    if was_leaving && side.is_fenced && !side.is_tainted && !side.is_ending {
        side.standing = MemberStanding::Parted;
    }
}

/// Tells that a fenced node cannot register anew.
fn stays_out(side: &MemberSide) {
    for disk in side.disks.list().iter().filter(|disk| disk.is_dead()) {
        let message = "does not answer, and its requests may still land: this node stays out of \
                       the cluster until it starts again";
        trouble_of(usize::from(disk.info().index), message);
    }
}
