//! A partition moves between two emulators on one disk, there and back; the first one is killed, it
//! crashes where it is, and the machine that it left takes it again. Its memory is a chain of
//! checked words, so a wrong page or a gap ends it.

use crate::definitions::{Steps, of};
use crate::moves::{PAGES, REPORT, turn_of};
use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::Event;
use boot::store::{self, ImageStore, NewImage};
use boot::volume::{self, BlankParts, VolumeAccess};
use cluster::timing::ClusterTiming;
use kernel::images::ImageKind;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "move_there_and_back_and_the_first_node_dies",
    beds: &[Bed::Qemu],
    needs: &[],
    run: there_and_back,
}];

const ANSWER: Duration = Duration::from_secs(120);

fn disks(folder: &Path) -> Result<()> {
    let shared = folder.join("shared.img");
    let area = BlankParts { cluster: Some(2 << 20), store: None };
    volume::create_parts(&shared, 52 << 20, &[14 << 20; 3], area)?;
    boot::cluster::create(&[shared], 16, ClusterTiming::DEFAULT)?;
    let image = folder.join("store.img");
    store::create(&image, 8 << 20)?;
    let mut store = ImageStore::open(&image, VolumeAccess::Write)?;
    let file = test_kernel("spin")?;
    store.add(NewImage { file: &file, label: "spin", kind: ImageKind::Kernel, is_kept: true })?;
    Ok(())
}

fn start(bed: Bed, name: &str, folder: &Path) -> Result<RunningMachine> {
    let text = format!(
        "[pool]\nmemory = \"16 MiB\"\n[machine]\ncpus = 1\n[spare]\npartitions = 2\nmemory = \
         \"16 MiB\"\n[[image_store]]\nimage = \"store.img\"\n[cluster]\nname = \"{name}\"\n\
         areas = [\"shared.img\"]\n"
    );
    plan_machine(bed, &format!("{}-move-{name}", bed.name()), &text, folder)?.start()
}

/// Returns the last turn that a node's guest has reported.
fn last_turn(steps: &Steps<'_>) -> Result<u64> {
    let all = steps.running.events.all();
    all.iter().rev().find_map(turn_of).context("no turn")
}

/// Waits until the guest has reported its next turn here, which follows `before` without a gap.
fn goes_on(steps: &mut Steps<'_>, before: u64) -> Result<()> {
    let is_turn = |event: &Event| turn_of(event).is_some();
    let past = steps.running.events.all().iter().skip(steps.past).find(|event| is_turn(event));
    let next = match past {
        Some(event) => event.clone(),
        None => steps.running.events.wait_for(ANSWER, "the guest's next report", is_turn)?,
    };
    ensure!(turn_of(&next) == Some(before + REPORT), "{:?} after {before}", turn_of(&next));
    Ok(())
}

/// Moves the guest from one node to the other.
fn go(from: &mut Steps<'_>, to: &mut Steps<'_>, target: &str) -> Result<()> {
    to.begin();
    from.done(json!({"command": "move", "partition": "guest", "node": target}))?;
    from.hear(&json!({"event": "move_begun", "partition": "guest", "node": target}))?;
    let suspended = from.guest("suspended")?;
    let arrived = to.guest("arrived")?;
    ensure!(arrived.number("incarnation")? == suspended.number("incarnation")?, "{}", arrived.0);
    let moved = from.guest("moved")?;
    ensure!(moved.0["confirmed"] == true, "{}", moved.0);
    println!(
        "to {target}: {} bytes, stopped {} ms, decree {} ms, away {} ms, resume {} ms",
        suspended.number("bytes")?,
        suspended.number("pause_ns")? / 1_000_000,
        moved.number("decree_ns")? / 1_000_000,
        moved.number("away_ns")? / 1_000_000,
        to.guest("resumed")?.number("resume_ns")? / 1_000_000,
    );
    from.guest("undefined")?;
    goes_on(to, last_turn(from)?)
}

fn there_and_back(bed: Bed) -> Result<()> {
    let folder = scenario_folder("moves")?;
    disks(folder.path())?;
    let mut one = start(bed, "one", folder.path())?;
    let mut other = start(bed, "other", folder.path())?;
    let place = format!("{} {}", one.folder().display(), other.folder().display());
    play(&mut one, &mut other).with_context(|| place)?;
    one.passed();
    other.events.send(json!({"command": "poweroff"}))?;
    expect_success(other, ANSWER)
}

fn play(one: &mut RunningMachine, other: &mut RunningMachine) -> Result<()> {
    let (mut here, mut there) =
        (Steps { running: one, past: 0 }, Steps { running: other, past: 0 });
    for steps in [&mut here, &mut there] {
        steps.hear(&json!({"event": "store", "store": 0}))?;
        steps.hear(&json!({"event": "joined"}))?;
    }
    here.hear(&json!({"event": "member", "node": "other", "state": "up"}))?;
    there.hear(&json!({"event": "member", "node": "one", "state": "up"}))?;
    messages(&mut here, &mut there)?;
    here.done(json!({"command": "define", "definition": {
        "name": "guest", "memory_bytes": 8 << 20, "kernel": {"image": "spin"}, "store": "0",
        "cmdline": format!("turns=100000000 report={REPORT} hot=32 cold={} stride=5", PAGES - 32),
    }}))?;
    here.done(of("start", "guest"))?;
    here.hear(&json!({"event": "guest", "partition": "guest", "kind": "log"}))?;
    let to = |target: &str| json!({"command": "move", "partition": "guest", "node": target});
    here.refused(to("nobody"), "no member has this name")?;
    here.refused(to("one"), "is on this node already")?;
    go(&mut here, &mut there, "other")?;
    go(&mut there, &mut here, "one")?;
    go(&mut here, &mut there, "other")?;
    here.running.cut_power();
    // It crashes, dumps and starts again at its new node.
    there.done(of("crash", "guest"))?;
    there.guest("dump_complete")?;
    there.guest("entered")?;
    there.done(of("kill", "guest"))?;
    there.guest("stopped").map(|_| ())
}

/// Each node writes to the other one.
fn messages(here: &mut Steps<'_>, there: &mut Steps<'_>) -> Result<()> {
    message(here, there, "other")?;
    message(there, here, "one")
}

fn message(from: &mut Steps<'_>, to: &mut Steps<'_>, name: &str) -> Result<()> {
    let text = format!("to {name}");
    from.done(json!({"command": "message", "node": name, "text": text}))?;
    to.hear(&json!({"event": "mail", "text": text}))?;
    let read = from.hear(&json!({"event": "mail_read", "node": name}))?;
    println!("a message {text}: {} ms", read.number("latency_ms")?);
    Ok(())
}
