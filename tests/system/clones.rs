//! Seal and clone: a test kernel becomes the base of children in a pool that holds less than their
//! sum. Each checks the base's pages, writes a third of them with a key of its own, and finds no
//! other key; one crashes, and its dump stands alone.

use crate::definitions::{Steps, of};
use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::{VolumeAccess, VolumeDisk};
use kernel::space::SpaceState;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "clone_a_base_into_children_in_a_pool_that_is_too_small_for_them",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: children,
}];

const LIMIT: Duration = Duration::from_secs(240);
/// Pages that the kernel fills.
const PAGES: u64 = 450;

/// Returns how many children there are. On Bochs a disk has one space, and
/// each second counts.
fn count(bed: Bed) -> u64 {
    if bed == Bed::Bochs { 6 } else { 16 }
}

/// A space for the base, one for each child, and one for the next incarnation of a child.
fn configuration(bed: Bed) -> Result<String> {
    let pool = if bed == Bed::Bochs { 5 } else { 10 };
    let mut text = format!("[pool]\nmemory = \"{pool} MiB\"\n[machine]\ncpus = 2\n");
    text += &format!(
        "[spare]\npartitions = {}\nmemory = \"{} MiB\"\n",
        count(bed),
        4 * (count(bed) + 4)
    );
    if bed == Bed::Bochs {
        text += &"[[paging_device]]\nmemory = \"7 MiB\"\n".repeat(count(bed) as usize + 2);
    } else {
        let spaces = vec!["\"7 MiB\""; count(bed) as usize + 1].join(", ");
        text += "[[paging_device]]\nimage = \"base.img\"\nsize = \"7 MiB\"\n";
        text += &format!("[[paging_device]]\nimage = \"many.img\"\nspaces = [{spaces}]\n");
    }
    Ok(text
        + &format!(
            "[[partition]]\nname = \"base\"\nmemory = \"4 MiB\"\nkernel = \"{}\"\ncmdline = \
             \"pages={PAGES}\"\n",
            test_kernel("clones")?.display()
        ))
}

fn children(bed: Bed) -> Result<()> {
    let name = format!("{}-clones", bed.name());
    let folder = scenario_folder(&name)?;
    let machine = plan_machine(bed, &name, &configuration(bed)?, folder.path())?;
    let disks = machine.disks.clone();
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let dump = live(&mut running, count(bed)).with_context(|| place.clone())?;
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, LIMIT).with_context(|| place.clone())?;
    if bed == Bed::Qemu {
        verify(&disks[0], 0, SpaceState::Sealed).context("the base")?;
        let disk = &disks[usize::try_from(dump.number("disk")?)?];
        let space = u32::try_from(dump.number("space")?)?;
        verify(disk, space, SpaceState::Complete).with_context(|| place)?;
    }
    Ok(())
}

/// Checks every block and the header of a dump on a disk.
fn verify(image: &Path, space: u32, state: SpaceState) -> Result<()> {
    let disk = VolumeDisk::open(image, VolumeAccess::Read)?;
    let dump = Dump::of(disk.space((space > 0).then_some(space))?)?;
    ensure!(dump.record().state == state, "{:?}", dump.record().state);
    let verdict = dump.verify()?;
    ensure!(
        verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current,
        "{} wrong, {} missing",
        verdict.wrong,
        verdict.missing
    );
    ensure!(u64::from(verdict.right) >= PAGES, "only {} blocks", verdict.right);
    Ok(())
}

/// Types a letter at a clone.
fn wake(steps: &mut Steps<'_>, n: u64) -> Result<()> {
    let letter = format!("{:02x}", 0x40 + n);
    let name = format!("child-{n}");
    steps.done(json!({"command": "type", "partition": name, "bytes": letter}))
}

/// Waits until a clone has checked its pages.
fn right(steps: &mut Steps<'_>, n: u64) -> Result<()> {
    let (name, text) = (format!("child-{n}"), format!("clone {} pages {PAGES} wrong 0", 0x40 + n));
    let members = json!({"event": "guest", "partition": name, "kind": "log", "text": text});
    steps.hear(&members).map(|_| ())
}

/// Returns the event of the crashed child's dump.
fn live(running: &mut RunningMachine, count: u64) -> Result<Event> {
    let mut steps = Steps { running, past: 0 };
    let filled = json!({"event": "guest", "partition": "base", "kind": "log"});
    steps.hear(&filled)?;
    steps.refused(of("seal", "base"), "base is not suspended")?;
    steps.done(of("suspend", "base"))?;
    steps.hear(&json!({"event": "suspended", "partition": "base"}))?;
    steps.done(of("seal", "base"))?;
    steps.hear(&json!({"event": "sealed", "partition": "base"}))?;
    steps.refused(of("resume", "base"), "base is sealed")?;
    let clone = |count: u64| {
        let mut command = of("clone", "base");
        (command["name"], command["count"]) = (json!("child"), json!(count));
        command
    };
    steps.refused(clone(60), "this node has room for")?;
    steps.done(clone(count))?;
    for n in 1..=count {
        let members = json!({"event": "cloned", "partition": format!("child-{n}")});
        let cloned = steps.hear(&members)?;
        println!("child-{n}: {} ns", cloned.number("clone_ns")?);
    }
    // One at a time first, and all together at the end.
    for n in 1..=count {
        wake(&mut steps, n)?;
        right(&mut steps, n)?;
    }
    for n in 1..=count {
        wake(&mut steps, n)?;
    }
    steps.done(of("crash", "child-1"))?;
    let dump = steps.hear(&json!({"event": "dump_complete", "partition": "child-1"}))?;
    steps.hear(&json!({"event": "cloned", "partition": "child-1", "incarnation": 2}))?;
    for n in 1..=count {
        wake(&mut steps, n)?;
        right(&mut steps, n)?;
    }
    steps.refused(of("undefine", "base"), "base is the base of others")?;
    steps.done(json!({"command": "list"}))?;
    let base = steps.hear(&json!({"event": "base", "partition": "base"}))?;
    ensure!(base.number("children")? == count, "{}", base.0);
    Ok(dump)
}
