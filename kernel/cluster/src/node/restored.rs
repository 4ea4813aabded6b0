//! Tests: an area that was restored from an old image is not joined by a node that knows more.

use super::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use crate::id::Incarnation;
use crate::layout::AreaLayout;
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes};

const SLOTS: usize = 4;
const LIMIT: usize = 1024;
const TIMING: ClusterTiming = ClusterTiming { beat_ms: 1000, lease_ms: 8000, drift_ppm: 1000 };

type TestNode = ClusterNode<[Sighting; SLOTS]>;

fn layout() -> AreaLayout {
    AreaLayout::new(SLOTS as u16, LIMIT as u32).unwrap()
}

/// Starts a node that knows a decree.
fn start(number: u128, expected: u64) -> TestNode {
    let seen = [Sighting::NEVER; SLOTS];
    let mut node = ClusterNode::new(Incarnation(number), layout(), TIMING, LIMIT, 7, seen);
    node.expect_decree(expected);
    node
}

/// Drives a node on an area until it waits or has ended, and returns what it noted.
fn run(node: &mut TestNode, area: &mut [u8], now: u64) -> Vec<ClusterEvent> {
    let mut notes = Vec::new();
    let mut out = [0; LIMIT];
    while let NodeAsk::Step { write, read, .. } = node.ask(now, &mut out) {
        if let Some(part) = write {
            area[part.at as usize..][..part.len].copy_from_slice(&out[..part.len]);
        }
        let read = read.map(|part| &area[part.at as usize..][..part.len]);
        let times = TurnTimes { asked_ns: now, read_ns: now, seen_ns: now };
        let done = StepDone { areas: 1, times, reads: read.as_slice() };
        node.done(&done, &mut |event| notes.push(event));
    }
    notes
}

#[test]
pub(crate) fn an_area_that_forgot_an_announced_decree_is_not_joined() {
    let mut area = vec![0; layout().len() as usize];
    let mut first = start(1, 0);
    assert!(run(&mut first, &mut area, 0).contains(&ClusterEvent::Joined(0)));
    let old = area.clone();
    let mut second = start(2, 0);
    assert!(run(&mut second, &mut area, 0).contains(&ClusterEvent::Joined(1)));
    assert_eq!((first.announced(), second.announced()), (1, 2));

    let mut late = old.clone();
    let mut again = start(3, second.announced());
    let notes = run(&mut again, &mut late, 0);
    let told = ClusterEvent::Restored { known: 1, expected: 2 };
    assert_eq!(notes.last(), Some(&told), "{notes:?}");
    assert!(!again.is_member() && again.state().number() == 0);
    assert!(matches!(again.ask(0, &mut [0; LIMIT]), NodeAsk::Gone));

    let mut same = start(4, second.announced());
    assert!(run(&mut same, &mut area, 0).contains(&ClusterEvent::Joined(2)));
    let mut blank = vec![0; area.len()];
    let told = ClusterEvent::Restored { known: 0, expected: 1 };
    assert_eq!(run(&mut start(5, 1), &mut blank, 0).last(), Some(&told));
}

#[test]
pub(crate) fn what_was_announced_is_expected_for_ever() {
    let mut area = vec![0; layout().len() as usize];
    let blank = area.clone();
    let mut node = start(1, 0);
    assert!(run(&mut node, &mut area, 0).contains(&ClusterEvent::Joined(0)));
    node.begin_anew(Incarnation(2), 7);
    let told = ClusterEvent::Restored { known: 0, expected: 1 };
    assert_eq!(run(&mut node, &mut blank.clone(), 0).last(), Some(&told));
    node.begin_anew(Incarnation(3), 7);
    assert_eq!(run(&mut node, &mut blank.clone(), 0).last(), Some(&told), "and the next one too");
    node.begin_anew(Incarnation(4), 7);
    assert!(run(&mut node, &mut area, 0).contains(&ClusterEvent::Joined(1)));
}
