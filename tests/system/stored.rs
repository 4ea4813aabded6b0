//! Two machines on one image store: a partition that one of them defines starts on the other.

use crate::definitions::{Steps, of};
use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::store::{self, ImageStore, NewImage};
use boot::volume::VolumeAccess;
use kernel::images::ImageKind;
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_definition_of_another_node_starts_here",
        beds: &[Bed::Qemu],
        needs: &[],
        run: starts_here,
    },
    Case {
        name: "a_kernel_in_a_store_starts_again_after_a_crash",
        beds: &[Bed::Qemu, Bed::Nested],
        needs: &[],
        run: starts_again,
    },
];

const ANSWER: Duration = Duration::from_secs(90);
/// Size of the store.
const STORE_BYTES: u64 = 8 << 20;

/// A machine without partitions: two spaces, and the store.
fn machine(bed: Bed, name: &str, folder: &Path) -> Result<BedMachine> {
    let mut text = "[pool]\nmemory = \"16 MiB\"\n[machine]\ncpus = 1\n[spare]\npartitions = 2\n\
                    memory = \"16 MiB\"\n[[image_store]]\nimage = \"store.img\"\n"
        .to_owned();
    for index in 0..2 {
        text += &format!("[[paging_device]]\nimage = \"{name}{index}.img\"\nsize = \"14 MiB\"\n");
    }
    plan_machine(bed, &format!("{}-stored-{name}", bed.name()), &text, folder)
}

/// Makes a store with the kernel that fills its memory and crashes.
fn new_store(folder: &Path) -> Result<()> {
    let image = folder.join("store.img");
    store::create(&image, STORE_BYTES)?;
    let mut store = ImageStore::open(&image, VolumeAccess::Write)?;
    let file = test_kernel("fill")?;
    store.add(NewImage { file: &file, label: "fill", kind: ImageKind::Kernel, is_kept: true })?;
    Ok(())
}

fn definition(kernel: &str) -> Value {
    json!({"command": "define", "definition": {
        "name": "guest", "memory_bytes": 8 << 20, "kernel": {"image": kernel}, "store": "0",
        "cmdline": "key=0xc0 passes=1 crash=1 spin=1",
    }})
}

/// Hears of the store, and begins the steps of a machine.
fn steps(running: &mut RunningMachine) -> Result<Steps<'_>> {
    let mut steps = Steps { running, past: 0 };
    let store = steps.hear(&json!({"event": "store", "store": 0, "images": 1}))?;
    ensure!(store.number("bytes")? == STORE_BYTES, "{}", store.0);
    Ok(steps)
}

fn end(mut running: RunningMachine) -> Result<()> {
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, ANSWER)
}

fn starts_here(bed: Bed) -> Result<()> {
    let folder = scenario_folder("stored")?;
    new_store(folder.path())?;
    // Both have the store at the same time.
    let mut one = machine(bed, "one", folder.path())?.start()?;
    let mut other = machine(bed, "other", folder.path())?.start()?;
    let place = format!("{} {}", one.folder().display(), other.folder().display());
    both(&mut one, &mut other, folder.path()).with_context(|| place)?;
    end(one)?;
    end(other)
}

fn both(one: &mut RunningMachine, other: &mut RunningMachine, folder: &Path) -> Result<()> {
    let (mut one, mut other) = (steps(one)?, steps(other)?);
    other.refused(of("start", "guest"), "no partition 'guest'")?;
    one.refused(definition("none"), "image store 0 has no image 'none'")?;
    one.done(definition("fill"))?;
    one.guest("defined")?;
    other.refused(definition("fill"), "image store 0 has a partition guest")?;
    other.done(json!({"command": "store"}))?;
    other.hear(&json!({"event": "stored_definition", "partition": "guest", "generation": 1}))?;
    other.hear(&json!({"event": "stored_image", "label": "fill", "kind": "kernel"}))?;
    other.done(of("start", "guest"))?;
    other.guest("crash")?;
    other.hear(&json!({"event": "entered", "partition": "guest", "incarnation": 2}))?;
    other.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"}))?;
    other.done(of("kill", "guest"))?;
    other.done(of("undefine", "guest"))?;
    other.guest("undefined")?;
    one.done(json!({"command": "undefine", "partition": "guest", "scope": "node"}))?;
    one.refused(of("start", "guest"), "no partition 'guest'")?;
    // A definition by the host's side of things: its kernel is damaged then.
    one.done(definition("fill"))?;
    let at = (3 << 20) + 65_536 + 4096;
    let image = File::options().read(true).write(true).open(folder.join("store.img"))?;
    let mut byte = [0];
    image.read_exact_at(&mut byte, at)?;
    image.write_all_at(&[!byte[0]], at)?;
    other.refused(of("start", "guest"), "chunk 0 in block 784: the checksum is wrong")?;
    one.done(of("start", "guest"))?;
    let error = one.hear(&json!({"event": "error", "place": "guest"}))?;
    ensure!(error.text("message")?.contains("image store 0 on paging device 2"), "{}", error.0);
    one.hear(&json!({"event": "stopped", "partition": "guest", "how": "cannot start"}))?;
    image.write_all_at(&byte, at)?;
    one.done(of("start", "guest"))?;
    one.guest("entered").map(|_| ())
}

fn starts_again(bed: Bed) -> Result<()> {
    let folder = scenario_folder("stored-again")?;
    new_store(folder.path())?;
    let mut running = machine(bed, "again", folder.path())?.start()?;
    let place = running.folder().display().to_string();
    crashes_and_spins(&mut running).with_context(|| place)?;
    end(running)
}

fn crashes_and_spins(running: &mut RunningMachine) -> Result<()> {
    let mut steps = steps(running)?;
    steps.done(definition("fill"))?;
    steps.done(of("start", "guest"))?;
    steps.guest("crash")?;
    steps.guest("dump_complete")?;
    steps.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"})).map(|_| ())
}
