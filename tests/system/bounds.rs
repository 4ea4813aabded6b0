//! Limits for a partition that crashes again and again: bounds of dumps and restarts, reserved
//! spaces.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::dump::{BootLoader, select};
use boot::events::Event;
use boot::volume::{VolumeAccess, VolumeDisk, create_spaces};
use serde_json::json;
use std::path::Path;
use tests::scene::{PARTITION, Play, Scene, Setting};
use tests::{Case, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "at_the_bound_of_dumps_a_crash_leaves_none_and_says_so",
        beds: &[Bed::Qemu],
        needs: &[],
        run: skips,
    },
    Case {
        name: "the_oldest_dump_goes_for_a_newer_one_but_not_a_selected_one",
        beds: &[Bed::Qemu],
        needs: &[],
        run: drops,
    },
    Case {
        name: "a_partition_that_restarts_too_often_stops",
        beds: &[Bed::Qemu],
        needs: &[],
        run: stops,
    },
    Case {
        name: "a_crash_loop_leaves_its_neighbour_a_space",
        beds: &[Bed::Qemu],
        needs: &[],
        run: reserves,
    },
];

const SMALL: Setting = Setting {
    memory_mib: 8,
    pool_mib: 24,
    devices_mib: &[14, 14, 14],
    cmdline: "dirty=50",
    partition: "",
};
const MIB: u64 = 1 << 20;

/// Waits until incarnation `number` begins, and crashes it.
fn crash(play: &mut Play, number: u64) -> Result<()> {
    begin(play, number)?;
    play.key(b'c')?;
    play.event_with("crash", |event| event.0["incarnation"] == number).map(|_| ())
}

fn begin(play: &mut Play, number: u64) -> Result<()> {
    play.event_with("start", |event| event.0["incarnation"] == number)?;
    play.get_ready().map(|_| ())
}

/// Crashes incarnation `number`; returns the name of its complete dump.
fn dump(play: &mut Play, number: u64) -> Result<String> {
    crash(play, number)?;
    Ok(play
        .event_with("dump_complete", |event| event.0["incarnation"] == number)?
        .text("dump")?
        .to_owned())
}

/// Returns the names of the dumps on the spaces of an image.
fn names(image: &Path) -> Result<Vec<String>> {
    let spaces = VolumeDisk::open(image, VolumeAccess::Read)?.usable()?;
    let records =
        spaces.iter().map(boot::volume::SpaceImage::record).collect::<Result<Vec<_>>>()?;
    let dumps = records.into_iter().filter(|record| record.state.holds_dump());
    Ok(dumps.filter_map(|record| record.crash.map(|crash| crash.name.to_string())).collect())
}

/// Returns the first event of this name that `wanted` accepts, from earlier or later events.
fn seen(play: &mut Play, name: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
    let before = play
        .running
        .events
        .all()
        .iter()
        .find(|event| event.name() == name && wanted(event))
        .cloned();
    before.map_or_else(|| play.event_with(name, &wanted), Ok)
}

fn said(play: &Play, name: &str) -> usize {
    play.running.events.all().iter().filter(|event| event.name() == name).count()
}

fn skips(bed: Bed) -> Result<()> {
    let scene = Scene::new(bed, "dumps-skipped", Setting { partition: "dumps = 1", ..SMALL })?;
    let mut play = scene.start()?;
    let first = dump(&mut play, 1)?;
    crash(&mut play, 2)?;
    let skipped = play.event("dump_skipped")?;
    ensure!(skipped.number("incarnation")? == 2 && skipped.number("kept")? == 1, "{}", skipped.0);
    ensure!(skipped.number("bound")? == 1, "{}", skipped.0);
    begin(&mut play, 3)?;
    ensure!(play.stats()?.number("dumps_skipped")? == 1);
    // Without that dump there is room again.
    ensure!(play.asked(json!({"command": "release", "dump": first}))?.is_none());
    play.event("released")?;
    play.key(b'c')?;
    let newer = play
        .event_with("dump_complete", |event| event.0["incarnation"] == 3)?
        .text("dump")?
        .to_owned();
    begin(&mut play, 4)?;
    play.power_off()?;
    let kept =
        [0, 1, 2].map(|n| names(&scene.image(n))).into_iter().collect::<Result<Vec<_>>>()?.concat();
    ensure!(kept == [newer], "{kept:?}");
    Ok(())
}

fn drops(bed: Bed) -> Result<()> {
    const OLDEST: &str = "dumps = 1\nwhen_full = \"drop-oldest\"";
    let setting = Setting { devices_mib: &[48], partition: OLDEST, ..SMALL };
    let scene = Scene::new(bed, "dumps-dropped", setting)?;
    let image = scene.image(0);
    create_spaces(&image, 48 * MIB, &[14 * MIB, 14 * MIB, 14 * MIB])?;
    let mut play = scene.start()?;
    let first = dump(&mut play, 1)?;
    crash(&mut play, 2)?;
    begin(&mut play, 3)?;
    let dropped = seen(&mut play, "dump_dropped", |_| true)?;
    ensure!(dropped.text("dump")? == first, "{}", dropped.0);
    let second = dropped.text("newer")?.to_owned();
    ensure!(seen(&mut play, "released", |_| true)?.text("dump")? == first);
    play.power_off()?;
    ensure!(names(&image)? == [second.clone()], "{:?} instead of {second}", names(&image)?);

    // A selected dump stays. The next crash leaves no dump, because of the bound.
    let disk = VolumeDisk::open(&image, VolumeAccess::Write)?;
    let spaces = disk.usable()?;
    let holds = |space: &&boot::volume::SpaceImage| {
        space.record().is_ok_and(|record| record.state.holds_dump())
    };
    let number = spaces.iter().find(holds).context("no dump is there")?.number();
    select(&disk, number, BootLoader::Keep)?;
    drop((spaces, disk));
    let mut play = scene.start()?;
    crash(&mut play, 1)?;
    let skipped = play.event("dump_skipped")?;
    ensure!(skipped.number("kept")? == 1 && skipped.number("bound")? == 1, "{}", skipped.0);
    begin(&mut play, 2)?;
    // A release by name makes room, also of a selected dump.
    ensure!(play.asked(json!({"command": "release", "dump": second}))?.is_none());
    play.event("released")?;
    play.key(b'c')?;
    let third = play
        .event_with("dump_complete", |event| event.0["incarnation"] == 2)?
        .text("dump")?
        .to_owned();
    begin(&mut play, 3)?;
    play.power_off()?;
    ensure!(names(&image)? == [third.clone()], "{:?} instead of {third}", names(&image)?);
    Ok(())
}

fn stops(bed: Bed) -> Result<()> {
    let partition = "dump = \"off\"\nrestart_limit = \"2 in 10 min\"";
    let scene = Scene::new(bed, "restart-limit", Setting { partition, ..SMALL })?;
    let mut play = scene.start()?;
    for incarnation in 1..=3 {
        crash(&mut play, incarnation)?;
    }
    ensure!(play.event("restart_limit")?.number("restarts")? == 2);
    let stopped = play.event("stopped")?;
    ensure!(
        stopped.text("how")? == "restart limit" && stopped.number("incarnation")? == 3,
        "{}",
        stopped.0
    );
    ensure!(said(&play, "start") == 3);
    play.power_off()
}

/// Four spaces for two partitions: one for each while it runs, one for the looping partition's
/// dump, one for the neighbour's next incarnation.
fn reserves(bed: Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let device = |n| format!("[[paging_device]]\nimage = \"{n}.img\"\nsize = \"14 MiB\"\n");
    let kernel = test_kernel("states")?;
    let partition = |name| {
        format!(
            "[[partition]]\nname = \"{name}\"\nmemory = \"8 MiB\"\nkernel = \"{}\"\ncmdline = \
             \"dirty=50\"\n",
            kernel.display()
        )
    };
    let devices: String = (0..4).map(device).collect();
    let text = format!(
        "[pool]\nmemory = \"32 MiB\"\n{devices}{}{}",
        partition(PARTITION),
        partition("calm")
    );
    let mut play = Play::of(&plan_machine(bed, "reserves", &text, folder.path())?)?;
    let of = |partition: &'static str, number: u64| {
        move |event: &Event| event.0["partition"] == partition && event.0["incarnation"] == number
    };
    let crash = |partition: &str| json!({"command": "crash", "partition": partition});
    seen(&mut play, "entered", of("calm", 1))?;
    seen(&mut play, "entered", of(PARTITION, 1))?;
    ensure!(play.asked(crash(PARTITION))?.is_none());
    seen(&mut play, "dump_complete", of(PARTITION, 1))?;
    seen(&mut play, "entered", of(PARTITION, 2))?;
    ensure!(play.asked(crash(PARTITION))?.is_none());
    let gate = seen(&mut play, "restart", of(PARTITION, 3))?.number("t")?;
    let waits =
        |event: &Event| event.0["partition"] == PARTITION && event.0["t"].as_u64() >= Some(gate);
    let waiting = seen(&mut play, "waiting", waits)?;
    seen(&mut play, "dump_complete", of(PARTITION, 2))?;
    // The fourth space is free, and not available to the looping partition.
    ensure!(play.asked(crash("calm"))?.is_none());
    seen(&mut play, "start", of("calm", 2))?;
    let third = play
        .running
        .events
        .all()
        .iter()
        .any(|event| event.name() == "start" && of(PARTITION, 3)(event));
    ensure!(!third, "the loop took the last space; {}", waiting.0);
    play.power_off()
}
