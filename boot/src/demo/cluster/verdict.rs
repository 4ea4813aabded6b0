//! The verdict on the demonstration of a cluster.

use super::story::{ClusterStory, PartitionTenure};
use super::writes::LateWrites;
use super::{ClusterRule, NODES, PARTITIONS};
use crate::demo::verdict::DemoVerdict;
use crate::report::TextTable;

/// Seconds in which a busy machine may find a death.
const FOUND_S: f64 = 30.0;

/// What was found beside the story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterReading {
    /// Writes of the first node that landed after it was fenced.
    pub late: LateWrites,
    /// What was left out.
    pub without: Option<ClusterRule>,
}

/// Returns who ran what when.
pub fn table(story: &ClusterStory) -> TextTable {
    let head =
        ["partition", "node", "incarnation", "from s", "to s", "end", "pages verified", "wrong"];
    let mut table = TextTable::new(&head);
    for (name, tenures) in &story.tenures {
        for tenure in tenures {
            let last = tenure.said.last().copied().unwrap_or(tenure.from);
            table.row(&[
                name.clone(),
                NODES[tenure.node].into(),
                tenure.incarnation.to_string(),
                format!("{:.1}", tenure.from),
                format!("{last:.1}"),
                tenure.end.as_ref().map_or("-", |(_, how)| how).into(),
                tenure.worker.verified.to_string(),
                tenure.worker.wrong.to_string(),
            ]);
        }
    }
    table
}

/// Judges the story.
pub fn judge(story: &ClusterStory, reading: ClusterReading) -> DemoVerdict {
    let mut verdict = DemoVerdict::default();
    let all = || story.tenures.values().flatten();
    let sum = |of: fn(&PartitionTenure) -> u64| all().map(of).sum::<u64>();
    let (verified, wrong) = (sum(|of| of.worker.verified), sum(|of| of.worker.wrong));
    verdict.claim(
        "pages verified by all workers",
        format!("{verified}, {wrong} wrong"),
        verified > 0 && wrong == 0,
    );
    let crashed: Vec<_> =
        story.crashes.iter().map(|(_, name, why)| format!("{name}: {why}")).collect();
    let text = if crashed.is_empty() { "none".into() } else { crashed.join(", ") };
    verdict.claim("crashes", text, crashed.is_empty());
    twice(story, &mut verdict);
    let LateWrites { all, foreign } = reading.late;
    verdict.claim(
        "writes of node-a that landed after its fence",
        format!("{all}, of them in spaces that others had by then {foreign}"),
        foreign == 0,
    );
    death(story, &mut verdict, 0);
    rejoin(story, &mut verdict);
    if reading.without.is_none() {
        death(story, &mut verdict, 1);
    }
    verdict
}

/// Judges that no partition ran on two nodes at a time.
fn twice(story: &ClusterStory, verdict: &mut DemoVerdict) {
    let longest = PARTITIONS
        .map(|name| (name, story.ran_twice(name)))
        .into_iter()
        .max_by(|one, other| one.1.total_cmp(&other.1));
    let Some((name, seconds)) = longest else { return };
    // Output that was on its way comes within a moment.
    let is_once = seconds < 1.0;
    let text = if is_once { "none".into() } else { format!("{name}, for {seconds:.1} s") };
    verdict.claim("partitions that ran on two nodes at once", text, is_once);
}

/// Judges that a node's death was found, and its partition started elsewhere.
fn death(story: &ClusterStory, verdict: &mut DemoVerdict, node: usize) {
    let name = NODES[node];
    let Some((died, fenced)) = story.away_since(node).zip(story.nodes[node].fenced.first()) else {
        return verdict.claim(&format!("{name} is fenced"), "no", false);
    };
    let found = fenced - died;
    verdict.claim(&format!("{name} is fenced after"), format!("{found:.1} s"), found < FOUND_S);
    let heir = story.tenures.get(PARTITIONS[node]).and_then(|tenures| {
        tenures.iter().find(|tenure| tenure.node != node && tenure.from > *fenced)
    });
    let entered = heir.and_then(|heir| Some((heir, heir.entered?)));
    let text = entered.map_or("nowhere".into(), |(heir, at)| {
        format!("{:.1} s, on {}", at - died, NODES[heir.node])
    });
    verdict.claim(&format!("{} runs again after", PARTITIONS[node]), text, entered.is_some());
}

/// Judges that the first node came back as another member.
fn rejoin(story: &ClusterStory, verdict: &mut DemoVerdict) {
    let slots: Vec<_> = story.nodes[0].joined.iter().map(|(_, slot)| *slot).collect();
    let text = slots.iter().map(u64::to_string).collect::<Vec<_>>().join(", then ");
    let has_changed = matches!(slots[..], [first, second, ..] if first != second);
    verdict.claim("slots of node-a", text, has_changed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::story::NodePhase;
    use crate::events::Event;
    use serde_json::{Value, json};

    fn told(story: &mut ClusterStory, node: usize, at: f64, event: Value) {
        story.event(node, at, &Event(event));
    }

    /// A good run.
    fn story() -> ClusterStory {
        let mut story = ClusterStory::default();
        let joined = |slot: usize| json!({"event": "joined", "slot": slot, "members": 3});
        for (node, partition) in PARTITIONS.iter().enumerate() {
            told(&mut story, node, 1.0, joined(node));
            start(&mut story, node, 2.0, partition);
        }
        story.phase(0, 10.0, NodePhase::Standing);
        fence(&mut story, 20.0, "node-a");
        start(&mut story, 2, 21.0, "debian-a");
        told(&mut story, 0, 71.0, json!({"event": "fenced", "slot": 0}));
        told(&mut story, 0, 75.0, joined(3));
        story.phase(1, 80.0, NodePhase::Dead);
        fence(&mut story, 90.0, "node-b");
        start(&mut story, 0, 91.0, "debian-b");
        story
    }

    fn start(story: &mut ClusterStory, node: usize, at: f64, partition: &str) {
        let of = json!({"event": "start", "partition": partition, "incarnation": 1});
        told(story, node, at, of);
        told(story, node, at + 0.5, json!({"event": "entered", "partition": partition}));
        let line = format!("[{partition}] worker: pass 1 pages 7 wrong 0");
        story.line(node, at + 5.0, &line);
    }

    fn fence(story: &mut ClusterStory, at: f64, node: &str) {
        let of = json!({"event": "member", "node": node, "state": "fenced", "id": null});
        told(story, 2, at, of);
    }

    fn broken(story: &ClusterStory, late: LateWrites) -> Vec<String> {
        judge(story, ClusterReading { late, without: None }).broken().to_vec()
    }

    #[test]
    fn a_good_run_breaks_no_claim() {
        let late = LateWrites { all: 40, foreign: 0 };
        let verdict = judge(&story(), ClusterReading { late, without: None });
        assert_eq!(verdict.broken(), Vec::<String>::new());
        let facts = verdict.facts().to_string();
        assert!(facts.contains("0, then 3") && facts.contains("11.5 s, on node-c"), "{facts}");
        let table = table(&story()).to_string();
        assert_eq!(table.lines().count(), 6, "{table}");
    }

    #[test]
    fn each_claim_can_break() {
        let none = LateWrites::default();
        let foreign = LateWrites { all: 40, foreign: 3 };
        assert_eq!(broken(&story(), foreign), ["writes of node-a that landed after its fence"]);
        let mut wrong = story();
        wrong.line(2, 99.0, "[debian-c] worker: pass 2 pages 7 wrong 1");
        assert_eq!(broken(&wrong, none), ["pages verified by all workers"]);
        let mut twice = story();
        for at in [40.0, 50.0] {
            twice.line(0, at, "[debian-a] worker: at 9");
        }
        assert_eq!(broken(&twice, none), ["partitions that ran on two nodes at once"]);
        let mut lost = story();
        let crash = json!({"event": "crash", "partition": "debian-a", "reason": "page lost"});
        told(&mut lost, 2, 76.0, crash);
        assert_eq!(broken(&lost, none), ["crashes"]);
        let mut late = story();
        late.nodes[1].fenced = vec![120.0];
        assert!(broken(&late, none).contains(&"node-b is fenced after".to_owned()));
        let mut same = story();
        same.nodes[0].joined[1].1 = 0;
        assert_eq!(broken(&same, none), ["slots of node-a"]);
        assert!(broken(&ClusterStory::default(), none).len() > 3);
    }
}
