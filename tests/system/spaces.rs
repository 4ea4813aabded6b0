//! The life of a paging space: taken, sealed, released, and its treatment at the next start.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, BedMachine, MachineEnd};
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::space::{Residue, SpaceRecord, SpaceState};
use serde_json::json;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use tests::Case;
use tests::scene::{LIMIT, PARTITION, Play, Scene, Setting};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_partition_waits_until_the_only_dump_is_released",
        beds: &[Bed::Qemu],
        needs: &[],
        run: waits,
    },
    Case {
        name: "a_released_space_is_free_and_reads_as_zeros",
        beds: &[Bed::Qemu],
        needs: &[],
        run: scrubs,
    },
    Case {
        name: "a_second_crash_leaves_the_first_dump_alone",
        beds: &[Bed::Qemu],
        needs: &[],
        run: two_dumps,
    },
    Case {
        name: "two_dumps_of_one_number_are_told_apart_by_their_names",
        beds: &[Bed::Qemu],
        needs: &[],
        run: same_number,
    },
    Case {
        name: "a_reset_starts_the_next_incarnation_on_the_same_space",
        beds: &[Bed::Qemu],
        needs: &[],
        run: reset,
    },
    Case {
        name: "a_space_whose_owner_went_with_the_power_is_free_again",
        beds: &[Bed::Qemu],
        needs: &[],
        run: power_cut,
    },
    Case {
        name: "without_the_indication_a_crash_is_a_plain_restart",
        beds: &[Bed::Qemu],
        needs: &[],
        run: dump_off,
    },
    Case {
        name: "an_immediate_restart_does_not_wait_for_the_drain",
        beds: &[Bed::Qemu],
        needs: &[],
        run: immediate,
    },
    Case {
        name: "foreign_and_damaged_devices_are_named_and_left_alone",
        beds: &[Bed::Qemu],
        needs: &[],
        run: strangers,
    },
    Case {
        name: "a_machine_that_is_too_small_says_what_is_missing",
        beds: &[Bed::Qemu],
        needs: &[],
        run: too_small,
    },
];

const SMALL: Setting = Setting {
    memory_mib: 16,
    pool_mib: 24,
    devices_mib: &[24],
    cmdline: "paged=200 dirty=1000",
    partition: "",
};

fn record(path: &Path) -> Result<SpaceRecord> {
    SpaceImage::open(path, VolumeAccess::Read)?.record()
}

fn epoch(path: &Path) -> Result<u64> {
    Ok(record(path)?.owner.context("a space with an owner")?.epoch)
}

fn waits(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "waits", SMALL)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    ensure!(play.refused("release")?.contains("has no dump"));
    // The command's answer may come after the crash.
    play.running.events.send(json!({"command": "crash", "partition": PARTITION}))?;
    ensure!(play.event("crash")?.text("reason")? == "operator");
    play.event("dump_complete")?;
    play.event("waiting")?;
    ensure!(play.refused("crash")?.contains("waiting"));
    ensure!(epoch(&scene.image(0))? == 1);
    play.command("release", None)?;
    play.event("released")?;
    play.event_with("start", |e| e.0["incarnation"] == 2)?;
    play.get_ready()?;
    play.power_off()
}

fn scrubs(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "scrubs", Setting { partition: "restart = \"never\"", ..SMALL })?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.key(b'c')?;
    play.event("dump_complete")?;
    play.event("stopped")?;
    let allocated = || -> Result<u64> { Ok(std::fs::metadata(scene.image(0))?.blocks() * 512) };
    let before = allocated()?;
    play.command("release", None)?;
    play.event("released")?;
    play.power_off()?;
    ensure!(allocated()? <= before, "a scrub allocated: {} bytes, {before} before", allocated()?);
    let free = record(&scene.image(0))?;
    ensure!(
        (free.state, free.residue, free.owner.is_none())
            == (SpaceState::Free, Residue::Clean, true),
        "{free:?}"
    );
    let bytes = std::fs::read(scene.image(0))?;
    ensure!(bytes[..bytes.len() - 12288].iter().all(|byte| *byte == 0), "a block was not scrubbed");
    Ok(())
}

fn two_dumps(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "two-dumps", Setting { devices_mib: &[24, 24], ..SMALL })?;
    let mut play = scene.start()?;
    for incarnation in [1, 2] {
        play.event_with("start", |e| e.0["incarnation"] == incarnation)?;
        play.get_ready()?;
        play.key(b'c')?;
        play.event_with("dump_complete", |e| e.0["incarnation"] == incarnation)?;
    }
    play.event("waiting")?;
    let epochs = [epoch(&scene.image(0))?, epoch(&scene.image(1))?];
    ensure!(epochs == [1, 2] || epochs == [2, 1], "{epochs:?}");
    play.command("release", None)?;
    play.event_with("start", |e| e.0["incarnation"] == 3)?;
    play.get_ready()?;
    play.power_off()
}

/// Incarnations are numbered from 1 at every start, and so is that of the second dump.
fn same_number(bed: Bed) -> Result<()> {
    let setting = Setting { devices_mib: &[24, 24], partition: "restart = \"never\"", ..SMALL };
    let scene = Scene::new(bed, "same-number", setting)?;
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut play = scene.start()?;
        play.get_ready()?;
        play.key(b'c')?;
        names.push(play.event("dump_complete")?.text("dump")?.to_owned());
        play.event("stopped")?;
        play.power_off()?;
    }
    let mut play = scene.start()?;
    play.event("waiting")?;
    let refusal = play.asked(json!({"command": "release", "partition": PARTITION, "count": 1}))?;
    ensure!(
        refusal.is_some_and(|why| names.iter().all(|name| why.contains(name))),
        "the number did for a name"
    );
    play.running.events.send(json!({"command": "list"}))?;
    let listed = play.event_with("dump", |e| e.0["dump"] == names[0].as_str())?;
    ensure!(
        listed.text("reason")? == "triple fault" && listed.text("state")? == "complete",
        "{}",
        listed.0
    );
    ensure!(listed.number("incarnation")? == 1 && listed.number("unix_ns")? > 0, "{}", listed.0);
    ensure!(
        play.asked(json!({"command": "release", "dump": names[0][..8]}))?.is_none(),
        "the name was refused"
    );
    ensure!(play.event("released")?.text("dump")? == names[0]);
    play.event("start")?;
    play.power_off()?;
    let kept =
        [0, 1].map(|n| record(&scene.image(n)).ok()?.crash.map(|crash| crash.name.to_string()));
    ensure!(
        kept.contains(&Some(names[1].clone())) && !kept.contains(&Some(names[0].clone())),
        "{kept:?}"
    );
    Ok(())
}

fn reset(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "reset", SMALL)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.key(b'r')?;
    ensure!(play.event("stopped")?.text("how")? == "reset");
    play.event_with("start", |e| e.0["incarnation"] == 2)?;
    play.get_ready()?;
    let active = record(&scene.image(0))?;
    ensure!(
        active.state == SpaceState::Active && active.owner.is_some_and(|owner| owner.epoch == 2)
    );
    play.key(b'v')?;
    ensure!(play.line("wrong ")? == "0");
    play.power_off()
}

fn power_cut(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "active-cut", SMALL)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.cut_power();
    ensure!(record(&scene.image(0))?.state == SpaceState::Active);
    let mut play = scene.start()?;
    play.space(0, "free")?;
    play.space(0, "active")?;
    play.get_ready()?;
    play.power_off()
}

fn dump_off(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "dump-off", Setting { partition: "dump = \"off\"", ..SMALL })?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.key(b'c')?;
    ensure!(play.event("crash")?.text("reason")? == "triple fault");
    play.event_with("start", |e| e.0["incarnation"] == 2)?;
    play.get_ready()?;
    ensure!(record(&scene.image(0))?.state == SpaceState::Active);
    let dumped = play
        .running
        .events
        .all()
        .iter()
        .any(|e| e.name() == "dump_complete" || e.0["state"] == "draining");
    ensure!(!dumped, "there was a dump");
    play.power_off()
}

fn immediate(bed: Bed) -> Result<()> {
    let setting = Setting { devices_mib: &[24, 24], partition: "restart = \"immediate\"", ..SMALL };
    let scene = Scene::new(bed, "immediate", setting)?;
    let mut play = scene.start()?;
    play.get_ready()?;
    play.key(b'c')?;
    let restart = play.event("restart")?;
    ensure!(
        restart.text("gate")? == "immediate" && restart.number("drain_remaining")? > 900,
        "{}",
        restart.0
    );
    play.event("dump_complete")?;
    play.power_off()
}

fn strangers(bed: Bed) -> Result<()> {
    let scene =
        Scene::new(bed, "strangers", Setting { devices_mib: &[24, 24, 24, 24, 24], ..SMALL })?;
    let machine = scene.machine()?;
    // After the host command's own check.
    let file = |n| std::fs::File::options().write(true).open(scene.image(n));
    file(0)?.write_all_at(b"\x53\xef", 0x438)?;
    let size = std::fs::metadata(scene.image(1))?.len();
    file(1)?.write_all_at(b"x", size - 8192 + 300)?;
    file(1)?.write_all_at(b"x", size - 4096 + 300)?;
    // Both ends are zeros, and the data lies between them.
    file(3)?.write_all_at(&[0; 12288], size - 12288)?;
    file(3)?.write_all_at(&[0x5a; 1 << 20], 12 << 20)?;
    // A first format interrupted by a power cut: only the first sector of the record exists.
    let whole =
        record(&scene.image(4)).map(|record| SpaceRecord { sequence: 2, ..record }.encode())?;
    file(4)?.write_all_at(&[0; 12288], size - 12288)?;
    file(4)?.write_all_at(&whole[..512], size - 8192)?;
    let before = [0, 1, 3].map(|n| sum(&scene.image(n)).ok());
    let mut play = Play::of(&machine)?;
    let foreign = play.event_with("error", |e| e.0["place"] == "paging device 0")?;
    ensure!(foreign.text("message")?.contains("ext4"), "{}", foreign.0);
    let damaged = play.event_with("error", |e| e.0["place"] == "paging device 1")?;
    ensure!(damaged.text("message")?.contains("CRC32C"), "{}", damaged.0);
    let between = play.event_with("error", |e| e.0["place"] == "paging device 3")?;
    ensure!(between.text("message")?.contains("data of unknown format at byte "), "{}", between.0);
    play.space(4, "free")?;
    play.space(2, "active")?;
    play.get_ready()?;
    play.key(b'c')?;
    play.event("dump_complete")?;
    play.power_off()?;
    ensure!(
        before == [0, 1, 3].map(|n| sum(&scene.image(n)).ok()),
        "a device that is not ours was changed"
    );
    Ok(())
}

fn sum(path: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&std::fs::read(path)?);
    Ok(hasher.finish())
}

fn too_small(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "too-small", Setting { pool_mib: 8, ..SMALL })?;
    let mut machine = scene.machine()?;
    machine.disks.clear();
    refuses(&machine, "partition p", "there is no paging device")?;

    let large = Scene::new(bed, "small-machine", Setting { pool_mib: 256, ..SMALL })?;
    let mut machine = large.machine()?;
    machine.memory_mib = 128;
    refuses(&machine, "pool", "256 MiB and 1 MiB for their frame table are more than the")?;

    let mut machine = scene.machine()?;
    let small = scene.image(1);
    boot::volume::create(&small, 8 << 20)?;
    machine.disks = vec![small];
    refuses(&machine, "partition p", "memory of 16 MiB is larger than every paging space")
}

/// Checks that the machine reports this message and stops.
fn refuses(machine: &BedMachine, place: &str, message: &str) -> Result<()> {
    let mut running = machine.start()?;
    let error = running.events.wait_named(LIMIT, "error")?;
    ensure!(
        error.text("place")? == place && error.text("message")?.contains(message),
        "{}",
        error.0
    );
    ensure!(running.wait_for_end(LIMIT)? == MachineEnd::Failure, "the machine did not fail");
    running.passed();
    Ok(())
}
