//! A partition outlives its node: one of two machines dies, and the other one starts its partition,
//! which its own file never named.

use crate::definitions::{Steps, of};
use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::store::{self, ImageStore, NewImage};
use boot::volume::{self, BlankParts, VolumeAccess};
use cluster::timing::ClusterTiming;
use kernel::images::ImageKind;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "node_that_dies_leaves_its_partition_to_the_other",
    beds: &[Bed::Qemu],
    needs: &[],
    run: inherited,
}];

const ANSWER: Duration = Duration::from_secs(90);
const SLOTS: u16 = 16;
/// A death is found in 12 s and the partition starts in 15 s; a busy machine adds to it.
const STARTED: Duration = Duration::from_secs(15 + 10);

/// Makes a disk with three spaces and an area, and a store with the kernel that fills its memory.
fn disks(folder: &Path) -> Result<()> {
    let shared = folder.join("shared.img");
    let area = BlankParts { cluster: Some(2 << 20), store: None };
    volume::create_parts(&shared, 52 << 20, &[14 << 20; 3], area)?;
    boot::cluster::create(&[shared], SLOTS, ClusterTiming::DEFAULT)?;
    let image = folder.join("store.img");
    store::create(&image, 8 << 20)?;
    let mut store = ImageStore::open(&image, VolumeAccess::Write)?;
    let file = test_kernel("fill")?;
    store.add(NewImage { file: &file, label: "fill", kind: ImageKind::Kernel, is_kept: true })?;
    Ok(())
}

fn start(bed: Bed, name: &str, folder: &Path) -> Result<RunningMachine> {
    let text = format!(
        "[pool]\nmemory = \"16 MiB\"\n[machine]\ncpus = 1\n[spare]\npartitions = 2\nmemory = \
         \"16 MiB\"\n[[image_store]]\nimage = \"store.img\"\n[cluster]\nname = \"{name}\"\n\
         areas = [\"shared.img\"]\n"
    );
    plan_machine(bed, &format!("{}-heirs-{name}", bed.name()), &text, folder)?.start()
}

fn inherited(bed: Bed) -> Result<()> {
    let folder = scenario_folder("heirs")?;
    disks(folder.path())?;
    let mut one = start(bed, "one", folder.path())?;
    let mut other = start(bed, "other", folder.path())?;
    let place = format!("{} {}", one.folder().display(), other.folder().display());
    dies(&mut one, &mut other).with_context(|| place)?;
    one.passed();
    other.events.send(json!({"command": "poweroff"}))?;
    expect_success(other, ANSWER)
}

fn dies(one: &mut RunningMachine, other: &mut RunningMachine) -> Result<()> {
    let (mut here, mut there) =
        (Steps { running: one, past: 0 }, Steps { running: other, past: 0 });
    here.hear(&json!({"event": "store", "store": 0}))?;
    there.hear(&json!({"event": "store", "store": 0}))?;
    let dead = here.hear(&json!({"event": "joined"}))?.number("slot")?;
    there.hear(&json!({"event": "joined"}))?;
    here.done(json!({"command": "define", "definition": {
        "name": "guest", "memory_bytes": 8 << 20, "kernel": {"image": "fill"}, "store": "0",
        "cmdline": "key=0xc0 passes=1 spin=1",
    }}))?;
    here.done(of("start", "guest"))?;
    here.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"}))?;
    knows_as_much(&mut there, &mut here)?;
    there.refused(of("start", "guest"), "slot")?;

    there.begin();
    let died = Instant::now();
    here.running.cut_power();
    there.hear(&json!({"event": "inherited", "partition": "guest", "slot": dead}))?;
    there.guest("entered")?;
    let took = died.elapsed();
    println!("the other node entered the guest {} ms after the death", took.as_millis());
    ensure!(took <= STARTED, "the partition of a dead node started after {took:?}");
    there.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"}))?;
    there.done(json!({"command": "list"}))?;
    there.hear(&json!({"event": "space", "state": "quarantined"}))?;
    there.done(json!({"command": "fence confirm", "node": "one"}))?;
    there.hear(&json!({"event": "member", "node": "one", "state": "gone"}))?;
    there.done(of("kill", "guest"))?;
    there.done(of("undefine", "guest"))?;
    there.guest("undefined").map(|_| ())
}

/// Waits until a node knows all that another one knows: it learns a decree in its next turn.
fn knows_as_much(node: &mut Steps<'_>, other: &mut Steps<'_>) -> Result<()> {
    let wanted = decree(other)?;
    let end = Instant::now() + ANSWER;
    while decree(node)? < wanted {
        ensure!(Instant::now() < end, "decree {wanted} does not come");
    }
    Ok(())
}

/// Returns the last decree that a node knows.
fn decree(node: &mut Steps<'_>) -> Result<u64> {
    let events = &mut node.running.events;
    let id = events.send(json!({"command": "nodes"}))?;
    let is_it = |event: &boot::events::Event| event.name() == "cluster" && event.0["id"] == id;
    let cluster = events.wait_for(ANSWER, "an answer to nodes", is_it)?;
    events.wait_for(ANSWER, "its end", |event| event.name() == "reply" && event.0["id"] == id)?;
    cluster.number("decree")
}
