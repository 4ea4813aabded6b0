//! Several hypervisors and one cluster area: slots of their own, one list of members, fences.

use anyhow::{Result, ensure};
use boot::bed::Bed;
use boot::cluster::local::describe;
use boot::cluster::{AreaReport, ClusterImages, create};
use boot::events::Event;
use boot::volume::VolumeAccess;
use cluster::timing::ClusterTiming;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tempfile::TempDir;
use tests::scenario::scenario_folder;
use tests::scene::{LIMIT, Play};
use tests::{Case, plan_machine};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "node_three_starts_join_one_area",
        beds: &[Bed::Qemu],
        needs: &[],
        run: three_starts,
    },
    Case {
        name: "node_that_stood_still_is_fenced_and_signs_off",
        beds: &[Bed::Qemu],
        needs: &[],
        run: stood_still,
    },
];

const SLOTS: u16 = 16;
/// A death is found in ten seconds; an emulator on a busy machine adds to it.
const FENCED_NS: u64 = 12_000_000_000;
const SLACK_NS: u64 = 8_000_000_000;

/// An area, and the folder of the machines that use it.
struct Site {
    folder: TempDir,
    bed: Bed,
}

impl Site {
    fn new(bed: Bed) -> Result<Self> {
        let site = Self { folder: scenario_folder("cluster")?, bed };
        create(&[site.area()], SLOTS, ClusterTiming::DEFAULT)?;
        Ok(site)
    }

    fn area(&self) -> PathBuf {
        self.folder.path().join("area.img")
    }

    fn start(&self, name: &str) -> Result<Play> {
        let text = format!(
            "pool.memory = \"8 MiB\"\nmachine.cpus = 1\n[cluster]\nname = \"{name}\"\nareas = \
             [\"area.img\"]\nlocal = \"{name}.img\"\n"
        );
        Play::of(&plan_machine(self.bed, name, &text, self.folder.path())?)
    }

    /// Returns what the host finds on the area.
    fn report(&self) -> Result<AreaReport> {
        AreaReport::of(&ClusterImages::open(&[self.area()], VolumeAccess::Read)?)
    }
}

/// Waits until the node has told that `name` is in this state.
fn told(play: &mut Play, name: &str, state: &str) -> Result<Event> {
    let is_it = |e: &Event| {
        e.name() == "member" && e.0["node"] == name && e.0["state"] == state && e.0["id"].is_null()
    };
    if let Some(event) = play.running.events.all().iter().find(|event| is_it(event)) {
        return Ok(event.clone());
    }
    play.event_with("member", is_it)
}

/// A member in the answer to `nodes`: slot, name, incarnation, state.
type MemberRow = (u64, String, String, String);

/// Returns the members that `nodes` lists, and the time of the answer.
fn nodes(play: &mut Play) -> Result<(BTreeSet<MemberRow>, u64)> {
    let id = play.running.events.send(json!({"command": "nodes"}))?;
    let reply = play.event_with("reply", |e| e.0["id"] == id)?;
    ensure!(reply.0["ok"] == true, "{}", reply.0);
    let all = play.running.events.all();
    let members = all.iter().filter(|e| e.name() == "member" && e.0["id"] == id);
    let row = |e: &Event| {
        let text = |member| Ok::<_, anyhow::Error>(e.text(member)?.to_owned());
        Ok((e.number("slot")?, text("node")?, text("incarnation")?, text("state")?))
    };
    Ok((members.map(row).collect::<Result<_>>()?, reply.number("t")?))
}

fn three_starts(bed: Bed) -> Result<()> {
    let site = Site::new(bed)?;
    let blank = std::fs::read(site.area())?;
    let names = ["node-a", "node-b", "node-c"];
    let mut plays = names.iter().map(|name| site.start(name)).collect::<Result<Vec<_>>>()?;
    let slots = plays.iter_mut().map(|play| play.event("joined")?.number("slot"));
    let slots = slots.collect::<Result<BTreeSet<_>>>()?;
    ensure!(slots.len() == names.len(), "slots {slots:?}");
    for play in &mut plays {
        names.iter().try_for_each(|name| told(play, name, "up").map(|_| ()))?;
    }
    let (list, _) = nodes(&mut plays[0])?;
    ensure!(list.len() == names.len(), "{list:?}");
    for play in &mut plays[1..] {
        let (other, _) = nodes(play)?;
        ensure!(list == other, "{list:?} and {other:?}");
    }
    let report = site.report()?;
    ensure!(report.faults.is_empty() && report.members.len() == 3, "{:?}", report.faults);
    let refused = ClusterImages::open(&[site.area()], VolumeAccess::Write).map(|_| ());
    ensure!(refused.is_err(), "an area in use was opened for a sweep");

    let before = nodes(&mut plays[0])?.1;
    plays.pop().expect("three").cut_power();
    let fenced = told(&mut plays[0], "node-c", "fenced")?;
    let took = fenced.number("t")? - before;
    println!("fenced {} ms after the last answer before the death", took / 1_000_000);
    ensure!(took <= FENCED_NS + SLACK_NS, "a dead node was fenced after {took} ns");
    told(&mut plays[1], "node-c", "fenced")?;
    let own = plays[0].asked(json!({"command": "fence confirm", "node": "node-a"}))?;
    ensure!(own.is_some_and(|error| error.contains("not fenced")), "an own fence was confirmed");
    ensure!(plays[0].asked(json!({"command": "fence confirm", "node": "node-c"}))?.is_none());
    told(&mut plays[1], "node-c", "gone")?;

    let mut last = plays.swap_remove(0);
    plays.remove(0).power_off()?;
    told(&mut last, "node-b", "gone")?;
    ensure!(
        !last.running.events.all().iter().any(|e| e.name() == "lease" || e.name() == "fenced"),
        "a node that stayed lost its lease"
    );
    last.power_off()?;
    let report = site.report()?;
    ensure!(report.faults.is_empty() && report.members.len() == 1, "{:?}", report.faults);
    ensure!(report.members[0].status == "leaving", "{}", report.members[0].status);
    let swept = ClusterImages::open(&[site.area()], VolumeAccess::Write)?.sweep()?;
    ensure!((swept.kept, swept.quieted) == (1, 1), "{swept:?}");

    // It knows its cluster, and the sweep has forgotten nothing.
    let mut again = site.start("node-a")?;
    again.event_with("local_copy", |e| e.0["state"] == "read")?;
    let joined = again.event("joined")?;
    ensure!(joined.number("members")? == 1, "{}", joined.0);
    again.power_off()?;
    let kept = describe(&site.folder.path().join("node-a.img"))?;
    ensure!(kept.contains("the local copy of node-a"), "{kept}");

    std::fs::write(site.area(), blank)?;
    let mut restored = site.start("node-a")?;
    let refused = restored.event("cluster_foreign")?;
    ensure!(refused.0["reason"] == "older than the local copy", "{}", refused.0);
    restored.power_off()
}

fn stood_still(bed: Bed) -> Result<()> {
    let site = Site::new(bed)?;
    let (mut one, mut two) = (site.start("node-a")?, site.start("node-b")?);
    for play in [&mut one, &mut two] {
        told(play, "node-a", "up")?;
        told(play, "node-b", "up")?;
    }
    two.running.freeze()?;
    told(&mut one, "node-b", "fenced")?;
    two.running.thaw()?;
    let fenced = two.running.events.wait_named(LIMIT, "fenced")?;
    two.event("left")?;
    let slot = fenced.number("slot")?;
    let gone = told(&mut one, "node-b", "gone")?;
    ensure!(gone.number("slot")? == slot, "{}", gone.0);
    let (list, _) = nodes(&mut one)?;
    ensure!(list.len() == 1, "{list:?}");
    one.power_off()?;
    two.power_off()
}
