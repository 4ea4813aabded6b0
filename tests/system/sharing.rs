//! One disk and two hypervisors: a claim names the node that uses a space, and only that node
//! writes to the space.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, MachineEnd};
use boot::events::Event;
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::space::Uuid;
use kernel::space::claim::{ClaimSector, ClaimSectors, PAGE_LEN, SpaceClaim};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::Case;
use tests::scene::{LIMIT, Play, Scene, Setting};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_second_hypervisor_leaves_a_running_ones_disk_alone",
        beds: &[Bed::Qemu],
        needs: &[],
        run: second,
    },
    Case {
        name: "a_claim_that_a_power_cut_left_is_watched_and_then_taken",
        beds: &[Bed::Qemu],
        needs: &[],
        run: left_behind,
    },
    Case {
        name: "a_node_whose_claim_was_taken_gives_the_disk_up",
        beds: &[Bed::Qemu],
        needs: &[],
        run: taken,
    },
];

const SMALL: Setting = Setting {
    memory_mib: 16,
    pool_mib: 24,
    devices_mib: &[24],
    cmdline: "paged=200 dirty=1000",
    partition: "",
};

/// Returns the image's name for an emulator that takes no lock on it.
fn unlocked(image: &Path) -> PathBuf {
    let file =
        format!("{{\"driver\":\"file\",\"filename\":\"{}\",\"locking\":\"off\"}}", image.display());
    format!("json:{{\"driver\":\"raw\",\"file\":{file}}}").into()
}

fn claims(image: &Path) -> Result<ClaimSectors> {
    let mut page = [0; PAGE_LEN];
    let start = SpaceClaim::start(std::fs::metadata(image)?.len()).context("room for a claim")?;
    File::open(image)?.read_exact_at(&mut page, start)?;
    Ok(ClaimSectors::decode(&page))
}

fn claim(image: &Path) -> Result<Option<SpaceClaim>> {
    Ok(claims(image)?.owner())
}

/// Writes a claim as a node would, into that node's own sector.
fn put_claim(image: &Path, claim: &SpaceClaim) -> Result<()> {
    let file = File::options().write(true).open(image)?;
    let start = SpaceClaim::start(file.metadata()?.len()).context("room for a claim")?;
    file.write_all_at(&claim.encode(), start + SpaceClaim::offset(claim.epoch) as u64)?;
    Ok(file.sync_data()?)
}

fn second(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "shared", SMALL)?;
    let mut machine = scene.machine()?;
    machine.disks[0] = unlocked(&scene.image(0));
    let mut first = Play::of(&machine)?;
    first.get_ready()?;
    let owner = claim(&scene.image(0))?.context("the first has claimed its space")?.node;

    let mut other = Play::of(&machine)?;
    let watching = other.event("watching")?;
    ensure!(
        watching.text("node")? == owner.to_string() && watching.number("disk")? == 0,
        "{}",
        watching.0
    );
    let error = other.event_with("error", |e| e.0["place"] == "paging device 0")?;
    ensure!(error.text("message")?.contains("in use: node"), "{}", error.0);
    ensure!(other.event("error")?.text("message")?.contains("larger than every paging space"));
    ensure!(
        other.running.wait_for_end(LIMIT)? == MachineEnd::Failure,
        "it started without a space"
    );
    other.running.passed();

    first.key(b'v')?;
    ensure!(first.line("wrong ")? == "0");
    let record = SpaceImage::open(&scene.image(0), VolumeAccess::Read)?.record()?;
    ensure!(record.owner.is_some_and(|of| of.node == owner), "the space changed hands");
    first.power_off()
}

fn left_behind(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "left-behind", SMALL)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.cut_power();
    ensure!(claim(&scene.image(0))?.is_some(), "a power cut took the claim away");
    let mut play = scene.start()?;
    play.event("watching")?;
    play.space(0, "active")?;
    play.get_ready()?;
    play.power_off()?;
    ensure!(claim(&scene.image(0))?.is_none(), "an orderly stop left its claim");
    let mut play = scene.start()?;
    play.space(0, "active")?;
    ensure!(
        !play.running.events.all().iter().any(|e| e.name() == "watching"),
        "a space without a claim was watched"
    );
    play.power_off()
}

fn taken(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "taken", SMALL)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    // The guest's whole working set comes back from the disk.
    play.key(b'v')?;
    ensure!(play.line("wrong ")? == "0");
    let thief = Uuid([9; 16]);
    let own = claim(&scene.image(0))?.context("a claim")?;
    // A late claim write of an earlier owner overwrites the claim: the owner only writes its claim
    // again.
    for beat in 0..4 {
        put_claim(&scene.image(0), &SpaceClaim { node: thief, epoch: own.epoch - 2, beat })?;
        let deadline = Instant::now() + LIMIT;
        while !matches!(
            claims(&scene.image(0))?.at(own.epoch),
            ClaimSector::Claim(claim) if claim.node == own.node
        ) {
            ensure!(Instant::now() < deadline, "a late beat overwritten the claim for good");
            play.running.events.poll(Duration::from_millis(50));
        }
    }
    let tells = |e: &&Event| e.name() == "error" && e.0["place"] == "paging device 0";
    ensure!(
        !play.running.events.all().iter().any(|e| tells(&e)),
        "a late beat was taken for a new owner"
    );
    put_claim(&scene.image(0), &SpaceClaim { node: thief, epoch: own.epoch + 1, beat: 1 })?;
    let error = play.event_with("error", |e| e.0["place"] == "paging device 0")?;
    ensure!(error.text("message")?.contains(&format!("was taken by node {thief}")), "{}", error.0);
    // From now on the first node must not write to the disk. The pages in its memory stay: they are
    // the only copy.
    let before = play.running.disk_counters()?[0];
    for _ in 0..50 {
        play.command("evict", Some(4096))?;
        play.stats()?;
    }
    let is_told = |e: &Event| {
        e.0["place"] == "partition p on paging device 0"
            && e.0["message"].to_string().contains("takes no requests")
    };
    ensure!(
        play.running.events.all().iter().any(is_told),
        "nobody told that nothing leaves any more"
    );
    play.key(b'v')?;
    ensure!(play.line("wrong ")? == "0");
    let after = play.running.disk_counters()?[0];
    ensure!(before.bytes_written == after.bytes_written, "{before:?} {after:?}");
    play.cut_power();
    ensure!(claim(&scene.image(0))?.is_some_and(|claim| claim.node == thief));
    Ok(())
}
