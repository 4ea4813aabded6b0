//! Who ran what when, as a drawing of characters.
//!
//! ```text
//!   seconds    0         30        60
//!   node-a     ..=======zzzzzzzzzz====
//!   node-b     ..=====================
//!   debian-a   ...aaaaaa     bbbbbbbbb
//! ```

use super::story::{ClusterStory, NodePhase, PartitionTenure};
use super::{NODES, PARTITIONS};
use std::fmt::Write;

/// Columns of the drawing.
const COLUMNS: usize = 96;
/// Columns of a name.
const NAME: usize = 10;
/// Distance of two times above the drawing.
const TICK: usize = 12;
/// The meaning of the characters.
const LEGEND: &str = "nodes: = member, . starts, z stands still, f its lease is over or it was \
                      fenced, x killed; partitions: the node that runs them";

/// Draws the story until `end`, in seconds.
pub fn draw(story: &ClusterStory, end: f64) -> String {
    let at = |column: usize| end * column as f64 / COLUMNS as f64;
    let mut text = format!("  {:NAME$} ", "seconds");
    for column in (0..COLUMNS).step_by(TICK) {
        let _ = write!(text, "{:<TICK$.0}", at(column));
    }
    text = text.trim_end().to_owned() + "\n";
    let mut row = |name: &str, mark: &dyn Fn(f64, f64) -> char| {
        let marks: String = (0..COLUMNS).map(|column| mark(at(column), at(column + 1))).collect();
        let _ = writeln!(text, "  {name:NAME$} {}", marks.trim_end());
    };
    for (node, name) in NODES.iter().enumerate() {
        row(name, &|_, until| phase_mark(story.phase_at(node, until)));
    }
    for name in PARTITIONS {
        let tenures = story.tenures.get(name).map_or(&[][..], Vec::as_slice);
        row(name, &|from, until| tenure_mark(tenures, from, until));
    }
    format!("{text}  {LEGEND}\n")
}

const fn phase_mark(phase: NodePhase) -> char {
    match phase {
        NodePhase::Joining => '.',
        NodePhase::Member => '=',
        NodePhase::Standing => 'z',
        NodePhase::Frozen | NodePhase::Fenced => 'f',
        NodePhase::Dead => 'x',
    }
}

/// Returns the node that ran a partition between two times: `?` where two did.
fn tenure_mark(tenures: &[PartitionTenure], from: f64, until: f64) -> char {
    let is_running = |tenure: &&PartitionTenure| {
        let first = tenure.entered.unwrap_or(f64::INFINITY);
        let last = tenure.said.last().copied().unwrap_or(first);
        first < until && from <= last
    };
    let mut running = tenures.iter().filter(is_running).map(|tenure| tenure.node);
    match (running.next(), running.next()) {
        (None, _) => ' ',
        (Some(one), Some(other)) if one != other => '?',
        (Some(node), _) => NODES[node].chars().next_back().unwrap_or('?'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Event;
    use serde_json::json;

    #[test]
    fn the_drawing_shows_nodes_and_where_partitions_ran() {
        let mut story = ClusterStory::default();
        for (node, at) in [(0, 10.0), (1, 60.0)] {
            let of = json!({"event": "start", "partition": "debian-a", "incarnation": 1});
            story.event(node, at, &Event(of));
            let of = json!({"event": "entered", "partition": "debian-a"});
            story.event(node, at, &Event(of));
            story.line(node, at + 20.0, "worker: at 1024");
        }
        story.phase(0, 5.0, NodePhase::Member);
        story.phase(0, 50.0, NodePhase::Standing);
        let drawn = draw(&story, 96.0);
        let lines: Vec<_> = drawn.lines().collect();
        assert!(lines[0].starts_with("  seconds    0           12 "), "{drawn}");
        assert_eq!(lines[1].trim_end(), {
            format!("  node-a     {}{}{}", ".".repeat(4), "=".repeat(45), "z".repeat(47))
        });
        let ran = format!("{}{}", "a".repeat(21), " ".repeat(29));
        assert_eq!(lines[4], format!("  debian-a   {}{ran}{}", " ".repeat(10), "b".repeat(21)));
        story.line(0, 70.0, "worker: at 2048");
        assert!(draw(&story, 96.0).contains('?'));
    }
}
