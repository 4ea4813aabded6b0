//! A disk without an area that was brought under a cluster: its nodes run partitions there, and a
//! machine outside of the cluster leaves it alone.

use crate::definitions::{Steps, of};
use anyhow::{Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::cluster::ClusterSite;
use boot::store::{self, ImageStore, NewImage};
use boot::volume::{self, VolumeAccess};
use cluster::timing::ClusterTiming;
use kernel::images::ImageKind;
use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "node_outside_of_a_cluster_leaves_its_disk_alone",
    beds: &[Bed::Qemu],
    needs: &[],
    run: closed,
}];

const ANSWER: Duration = Duration::from_secs(90);
const SLOTS: u16 = 16;
const POOL: &str = "pool.memory = \"16 MiB\"\nmachine.cpus = 1\n";

/// Makes an area, a disk with two spaces, and a store with the kernel that fills its memory.
fn disks(folder: &Path) -> Result<()> {
    boot::cluster::create(&[folder.join("area.img")], SLOTS, ClusterTiming::DEFAULT)?;
    volume::create_spaces(&folder.join("pages.img"), 34 << 20, &[14 << 20; 2])?;
    let image = folder.join("store.img");
    store::create(&image, 8 << 20)?;
    let mut store = ImageStore::open(&image, VolumeAccess::Write)?;
    let file = test_kernel("fill")?;
    store.add(NewImage { file: &file, label: "fill", kind: ImageKind::Kernel, is_kept: true })?;
    Ok(())
}

fn member(bed: Bed, folder: &Path) -> Result<RunningMachine> {
    let text = format!(
        "{POOL}[spare]\npartitions = 1\nmemory = \"8 MiB\"\n[[image_store]]\nimage = \
         \"store.img\"\n[cluster]\nname = \"one\"\nareas = [\"area.img\"]\ndisks = \
         [\"pages.img\"]\n"
    );
    plan_machine(bed, &format!("{}-closed", bed.name()), &text, folder)?.start()
}

fn closed(bed: Bed) -> Result<()> {
    let folder = scenario_folder("closed")?;
    let path = folder.path();
    disks(path)?;
    let refused = member(bed, path).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("tidepool cluster add"), "{refused}");
    let images = [path.join("area.img"), path.join("pages.img")];
    ensure!(ClusterSite::open(&images, VolumeAccess::Write)?.add()? == 2);

    let mut inside = member(bed, path)?;
    runs(&mut inside)?;
    inside.events.send(json!({"command": "poweroff"}))?;
    expect_success(inside, ANSWER)?;

    let before = std::fs::read(&images[1])?;
    let mut machine = plan_machine(bed, &format!("{}-outside", bed.name()), POOL, path)?;
    machine.disks.push(images[1].clone());
    let mut outside = machine.start()?;
    let mut steps = Steps { running: &mut outside, past: 0 };
    for space in [1, 2] {
        steps.hear(&json!({"event": "space_closed", "disk": 0, "space": space}))?;
    }
    outside.events.send(json!({"command": "poweroff"}))?;
    expect_success(outside, ANSWER)?;
    ensure!(before == std::fs::read(&images[1])?, "a machine outside has written to the disk");
    Ok(())
}

/// Runs a partition on the cluster's disk.
fn runs(machine: &mut RunningMachine) -> Result<()> {
    let mut steps = Steps { running: machine, past: 0 };
    steps.hear(&json!({"event": "joined"}))?;
    steps.done(json!({"command": "define", "definition": {
        "name": "guest", "memory_bytes": 8 << 20, "kernel": {"image": "fill"}, "store": "0",
        "cmdline": "key=0xc0 passes=1 spin=1",
    }}))?;
    steps.done(of("start", "guest"))?;
    steps.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"}))?;
    steps.done(json!({"command": "list"}))?;
    steps.hear(&json!({"event": "space", "state": "active", "partition": "guest"}))?;
    steps.done(of("kill", "guest"))?;
    steps.done(of("undefine", "guest"))?;
    steps.guest("undefined").map(|_| ())
}
