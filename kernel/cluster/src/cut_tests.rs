//! Power cuts: the writes of registrations and decrees are recorded and replayed up to each of
//! them, with none, all or a part of the bytes that no flush has covered. Two nodes that start on
//! the disk then agree on a state that is whole, old or new, and has lost nothing that was
//! announced.

use crate::beat::Beat;
use crate::block::LogBlock;
use crate::decree::{Decree, Owner, QuietProof};
use crate::id::Incarnation;
use crate::layout::AreaLayout;
use crate::node::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use crate::sector::SECTOR;
use crate::state::{ClusterState, MemberRow, MemberStatus, ThingRow};
use crate::timing::ClusterTiming;
use crate::watch::{Sighting, TurnTimes};

const SLOTS: usize = 8;
const LIMIT: usize = 1024;
const SECOND: u64 = 1_000_000_000;

type CutNode = ClusterNode<[Sighting; SLOTS]>;

/// An area in memory that records. Each write is followed by a flush.
struct CutArea {
    bytes: Vec<u8>,
    writes: Vec<(usize, Vec<u8>)>,
}

fn layout() -> AreaLayout {
    AreaLayout::new(SLOTS as u16, LIMIT as u32).unwrap()
}

fn start(number: u128, expected: u64) -> CutNode {
    let (me, seen) = (Incarnation(number), [Sighting::NEVER; SLOTS]);
    let mut node = ClusterNode::new(me, layout(), ClusterTiming::DEFAULT, LIMIT, 7, seen);
    node.expect_decree(expected);
    node
}

impl CutArea {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, writes: Vec::new() }
    }

    /// Drives a node until it waits, has ended, or has noted this; returns what it noted.
    fn run_to(
        &mut self,
        node: &mut CutNode,
        now: u64,
        end: impl Fn(&ClusterEvent) -> bool,
    ) -> Vec<ClusterEvent> {
        let mut notes = Vec::new();
        let mut out = [0; LIMIT];
        for _ in 0..100 {
            let (write, read) = match node.ask(now, &mut out) {
                NodeAsk::Step { write, read, .. } => (write, read),
                NodeAsk::Drain => {
                    node.drained(false);
                    continue;
                }
                NodeAsk::Wait(_) | NodeAsk::Gone => return notes,
            };
            if let Some(part) = write {
                let at = part.at as usize;
                self.bytes[at..at + part.len].copy_from_slice(&out[..part.len]);
                self.writes.push((at, out[..part.len].to_vec()));
            }
            let read = read.map(|part| &self.bytes[part.at as usize..][..part.len]);
            let times = TurnTimes { asked_ns: now, read_ns: now, seen_ns: now };
            let done = StepDone { areas: 1, times, reads: read.as_slice() };
            node.done(&done, &mut |event| notes.push(event));
            if notes.iter().any(&end) {
                return notes;
            }
        }
        panic!("a node does not come to rest: {notes:?}");
    }

    fn run(&mut self, node: &mut CutNode, now: u64) -> Vec<ClusterEvent> {
        self.run_to(node, now, |_| false)
    }
}

/// What a state says about members and owners.
type StateRows = (Vec<MemberRow>, Vec<ThingRow>);

fn rows(state: &ClusterState) -> StateRows {
    (state.members().to_vec(), state.things().to_vec())
}

/// The recorded run: the writes, and the state after each decree.
struct Recorded {
    writes: Vec<(usize, Vec<u8>)>,
    states: Vec<StateRows>,
}

/// Two nodes register; one gets a partition and a space, dies and is fenced; the other one takes
/// its name, is told that it is quiet, and gives its space back; then it leaves.
fn recorded() -> Recorded {
    let mut area = CutArea::of(vec![0; layout().len() as usize]);
    let mut nodes = [start(1, 0), start(2, 0)];
    let (one, two) = (Owner::Slot(0), Owner::Slot(1));
    let wishes = [
        (2, 0, Decree::Own { partition: 9, from: Owner::Unowned, to: one }),
        (4, 0, Decree::Take { partition: 9, space: 5, by: 0 }),
        (30, 1, Decree::Own { partition: 9, from: one, to: two }),
        (32, 1, Decree::Quiet { who: 0, proof: QuietProof::Confirmed }),
        (36, 1, Decree::Take { partition: 9, space: 5, by: 1 }),
    ];
    let mut states: Vec<StateRows> = vec![(Vec::new(), Vec::new())];
    let mut truth = ClusterState::new(LIMIT);
    for second in 0..42 {
        for (n, node) in nodes.iter_mut().enumerate() {
            if n == 0 && second > 10 {
                continue;
            }
            for (_, _, decree) in wishes.iter().filter(|(at, by, _)| (*at, *by) == (second, n)) {
                node.wish(*decree);
            }
            if second == 40 {
                node.leave();
            }
            for note in area.run(node, second * SECOND) {
                let ClusterEvent::Decided(number, decree, _) = note else { continue };
                if number > truth.number() {
                    truth.apply(&decree).unwrap();
                    states.push(rows(&truth));
                }
            }
        }
    }
    let last = nodes[1].state();
    assert_eq!((last.number(), states.len()), (9, 10), "{states:?}");
    assert_eq!(last.row(crate::state::Thing::Space(5)).owner, two);
    Recorded { writes: area.writes, states }
}

/// Which bytes of a write that no flush has covered are on the disk.
fn fates(len: usize) -> Vec<usize> {
    let sectors = (0..=len / SECTOR).map(|n| n * SECTOR);
    // A sector is written whole, as is assumed; a torn one must do no harm either.
    sectors.chain([SECTOR / 2, len - SECTOR / 2]).collect()
}

/// Returns the last decree that a flushed beat has announced, and the last decree that a block on
/// the disk may have decided.
fn bounds(durable: &[u8], image: &[u8]) -> (u64, u64) {
    let part = |bytes: &[u8], at: u64, len: usize| bytes[at as usize..][..len].to_vec();
    let (beats, logs) = (layout().beats(), layout().logs());
    let announced = part(durable, beats.at, beats.len);
    let beats = announced.chunks(SECTOR).filter_map(|sector| Beat::decode(sector).ok());
    let blocks = part(image, logs.at, logs.len);
    let blocks = blocks.chunks(SECTOR).filter_map(|sector| LogBlock::decode(sector).ok());
    let accepted = blocks.filter(|block| block.accepted.is_some());
    (
        beats.map(|beat| beat.known).max().unwrap_or(0),
        accepted.map(|block| block.number).max().unwrap_or(0),
    )
}

/// Starts two nodes on an image, and judges what they find.
fn judge(image: Vec<u8>, (announced, open): (u64, u64), states: &[StateRows]) {
    let mut area = CutArea::of(image);
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    for number in [101, 102] {
        let mut node = start(number, announced);
        let is_in = |note: &ClusterEvent| matches!(note, ClusterEvent::Joined(_));
        let mut notes = area.run_to(&mut node, 0, is_in);
        // A dead member's higher ballot, or a suspicion, costs a moment.
        for now in [SECOND, 2 * SECOND] {
            if !notes.iter().any(is_in) {
                notes.extend(area.run_to(&mut node, now, is_in));
            }
        }
        assert!(notes.iter().any(is_in), "{notes:?}");
        let (members, things) = rows(node.state());
        let old = members.into_iter().filter(|row| row.id.incarnation.0 < 100);
        seen.push((old.collect::<Vec<_>>(), things));
        found.push(node);
    }
    assert_ne!(found[0].me().slot, found[1].me().slot);
    assert_eq!(seen[0], seen[1], "one state");
    let last = open.max(announced) as usize;
    let is_whole = states[announced as usize..=last].contains(&seen[0]);
    assert!(is_whole, "{announced}..={last}: {:?}", seen[0]);
    // Those that died are fenced, and both go on.
    for second in 3..28 {
        found.iter_mut().for_each(|node| drop(area.run(node, second * SECOND)));
    }
    for node in &found {
        assert!(node.may_submit(28 * SECOND), "no lease: {:?}", node.state().members());
        let is_up = |row: &&MemberRow| row.status == MemberStatus::Up;
        assert_eq!(node.state().members().iter().filter(is_up).count(), 2);
    }
}

#[test]
pub(crate) fn a_cut_at_any_write_leaves_one_whole_state() {
    let Recorded { writes, states } = recorded();
    let (mut durable, mut cuts) = (vec![0; layout().len() as usize], 0);
    for (at, data) in &writes {
        for len in fates(data.len()) {
            let mut image = durable.clone();
            image[*at..at + len].copy_from_slice(&data[..len]);
            let bounds = bounds(&durable, &image);
            judge(image, bounds, &states);
            cuts += 1;
        }
        durable[*at..at + data.len()].copy_from_slice(data);
    }
    println!("{cuts} power cuts at {} writes", writes.len());
    assert!(cuts > 300, "{cuts}");
}
