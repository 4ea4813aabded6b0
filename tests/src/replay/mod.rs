//! Traces of real nodes, replayed step by step: the same crate is told on the host what the nodes'
//! state machines were told, and has to answer and note the same.
//!
//! ```text
//!   node a ── words ──> player ──┐
//!   node b ── words ──> player ──┼── in the order of the server's answers ──> truth
//!   node c ── words ──> player ──┘
//!             the disk's server ── times of each step's requests ──┘
//! ```
//!
//! The simulation's own checks (`kernel/cluster/src/sim/truth.rs`) judge all nodes together, at the
//! times of the disk's server: no clock of a node is believed. A lease counts from the arrival of
//! its beat, which is later than its submission, so the check is stricter than the rule.

mod player;
mod steps;
#[cfg(test)]
mod tests;
#[path = "../../../kernel/cluster/src/sim/truth.rs"]
#[expect(dead_code, reason = "the simulation checks more")]
mod truth;
mod words;

pub use player::TracePlayer;
pub use steps::{StepTimes, TimedTrace};
pub use words::{AskedStep, TraceWord};

use anyhow::{Context, Result};
use cluster::node::ClusterEvent;
use cluster::superblock::Superblock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use truth::Truth;

/// How often something happened in a replay.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReplayCount {
    /// Words.
    pub words: usize,
    /// Steps that were done.
    pub steps: usize,
    /// Decrees.
    pub decided: usize,
    /// Leases that went on.
    pub extended: usize,
}

/// Replays the traces of all nodes of a cluster.
///
/// # Errors
/// Names the node and the word at which the replay differs, or the property that does not hold.
pub fn replay(superblock: Superblock, traces: &[TimedTrace]) -> Result<ReplayCount> {
    let mut players = Vec::new();
    for _ in traces {
        players.push((TracePlayer::new(superblock)?, 0));
    }
    let mut truth = Truth::new(superblock.state_bytes as usize);
    let mut count = ReplayCount::default();
    let next = |players: &[(TracePlayer, usize)]| {
        let open = traces.iter().zip(players).enumerate();
        let times = open.filter_map(|(n, (trace, (_, at)))| Some((trace.next(*at)?, n)));
        times.min().map(|(_, n)| n)
    };
    while let Some(n) = next(&players) {
        let (trace, (player, at)) = (&traces[n], &mut players[n]);
        let word = &trace.words[*at];
        let place = || format!("{}, word {at}: {word:?}", trace.node);
        let notes = player.tell(word).with_context(place)?;
        count.words += 1;
        if matches!(word, TraceWord::Drain(_)) {
            truth.leases.insert(player.me()?.slot, 0);
        }
        let times = trace.times(*at);
        for note in notes.into_iter().flatten() {
            let judged = catch_unwind(AssertUnwindSafe(|| judge(&mut truth, player, note, times)));
            let counts = judged.map_err(|why| anyhow::anyhow!("{}", words_of(&why)));
            let [decided, extended] = counts.and_then(|one| one).with_context(place)?;
            count.decided += decided;
            count.extended += extended;
        }
        count.steps += usize::from(matches!(word, TraceWord::Done { .. }));
        *at += 1;
    }
    Ok(count)
}

fn words_of(why: &Box<dyn std::any::Any + Send>) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Judges a note; returns how many decrees and extensions it is.
fn judge(
    truth: &mut Truth,
    player: &mut TracePlayer,
    note: ClusterEvent,
    times: StepTimes,
) -> Result<[usize; 2]> {
    let (me, now) = (player.me()?, nanos(times.ended));
    match note {
        ClusterEvent::Won(_) => truth.won(me),
        ClusterEvent::JoinFailed(_) => truth.failed(me.incarnation),
        ClusterEvent::Decided(number, decree, _) => {
            truth.decided(number, decree, player.state()?, now);
            return Ok([1, 0]);
        }
        ClusterEvent::Learned(number) => truth.learned(number, player.state()?),
        ClusterEvent::Extended(end) => {
            let length = end.saturating_sub(times.asked);
            truth.extended(me.slot, nanos(times.arrived) + length, now);
            return Ok([0, 1]);
        }
        ClusterEvent::Proposes(who, number) => truth.proposes(who.slot, number, now),
        ClusterEvent::Foreign => anyhow::bail!("a sector differs from what its writer wrote"),
        ClusterEvent::Restored { .. } => anyhow::bail!("the area has forgotten a decree"),
        _ => {}
    }
    Ok([0, 0])
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
