//! Several spaces on one disk: each partition gets its own space, and a dump can be opened through
//! the disk's header.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, BedMachine};
use boot::dump::{BootLoader, select};
use boot::events::Event;
use boot::volume::{VolumeAccess, VolumeDisk};
use kernel::space::{SpaceRecord, SpaceState};
use serde_json::json;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tests::Case;
use tests::core_file::{CoreFile, PageIn};
use tests::gpt::{Gpt, GptEntry};
use tests::scene::{LIMIT, Play};
use tests::{plan_machine, test_kernel};
use worker::PageIdentity;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "each_partition_gets_the_smallest_space_that_fits",
        beds: &[Bed::Qemu],
        needs: &[],
        run: best_fit,
    },
    Case {
        name: "a_dump_on_a_shared_disk_opens_directly_beside_its_neighbour",
        beds: &[Bed::Qemu],
        needs: &[],
        run: selected,
    },
    Case {
        name: "bad_partition_tables_are_named_and_left_alone",
        beds: &[Bed::Qemu],
        needs: &[],
        run: bad_tables,
    },
];

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The test kernel's key.
const KEY: u64 = 0x5747;
/// Pages that a partition fills.
const FILLED: u64 = 600;

/// A folder with a configuration and images, which is removed with its test.
struct Bench {
    folder: TempDir,
    bed: Bed,
    name: &'static str,
}

impl Bench {
    fn new(bed: Bed, name: &'static str) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, bed, name })
    }

    fn image(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("disk{number}.img"))
    }

    /// Describes a machine with disks of these spaces, in MiB, and partitions `a`, `b` and so on of
    /// these sizes.
    fn machine(&self, disks: &[&[u64]], partitions: &[u64]) -> Result<BedMachine> {
        let kernel = test_kernel("states")?;
        let mut text = "[pool]\nmemory = \"48 MiB\"\n".to_owned();
        for (n, spaces) in disks.iter().enumerate() {
            let spaces: Vec<_> = spaces.iter().map(|mib| format!("\"{mib} MiB\"")).collect();
            text += &format!(
                "[[paging_device]]\nimage = \"disk{n}.img\"\nspaces = [{}]\n",
                spaces.join(", ")
            );
        }
        for (name, mib) in ["a", "b", "c"].iter().zip(partitions) {
            text += &format!(
                "[[partition]]\nname = \"{name}\"\nmemory = \"{mib} MiB\"\nrestart = \"never\"\n"
            );
            text += &format!("kernel = \"{}\"\ncmdline = \"paged={FILLED}\"\n", kernel.display());
        }
        plan_machine(self.bed, self.name, &text, self.folder.path())
    }
}

/// Returns the first event of this name that `wanted` accepts, from earlier or later events:
/// partitions run in parallel.
fn told(play: &mut Play, name: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
    let earlier = play.running.events.all().iter().find(|e| e.name() == name && wanted(e)).cloned();
    earlier.map_or_else(|| play.event_with(name, wanted), Ok)
}

/// Waits until a partition's guest logs a line that begins with `start`; returns the rest.
fn line(play: &mut Play, partition: &str, start: &str) -> Result<String> {
    let event = told(play, "guest", |e| {
        e.0["partition"] == partition
            && e.0["text"].as_str().is_some_and(|text| text.starts_with(start))
    })?;
    Ok(event.text("text")?[start.len()..].to_owned())
}

fn command(play: &mut Play, word: &str, partition: &str) -> Result<()> {
    let mut command = json!({"command": word, "partition": partition});
    if word == "evict" {
        command["count"] = (1 << 20).into();
    }
    let reply = play.running.events.command(LIMIT, command)?;
    ensure!(reply.0["ok"] == true, "{word} was refused: {}", reply.0);
    Ok(())
}

/// Waits until a partition's space is in this state; returns its number.
fn space(play: &mut Play, partition: &str, state: &str) -> Result<u32> {
    let event = told(play, "space", |e| e.0["partition"] == partition && e.0["state"] == state)?;
    Ok(u32::try_from(event.number("space")?)?)
}

fn record(path: &Path, number: u32) -> Result<SpaceRecord> {
    VolumeDisk::open(path, VolumeAccess::Read)?.space(Some(number))?.record()
}

fn best_fit(bed: Bed) -> Result<()> {
    let bench = Bench::new(bed, "best-fit")?;
    let mut play = Play::of(&bench.machine(&[&[72, 24], &[40]], &[16, 32, 16])?)?;
    // Two partitions ask at the same time: either may get the smallest space, the other the next
    // free one.
    let mut taken = Vec::new();
    for name in ["a", "b", "c"] {
        let event =
            told(&mut play, "space", |e| e.0["partition"] == name && e.0["state"] == "active")?;
        taken.push((event.number("disk")?, event.number("space")?));
        line(&mut play, name, "filled ")?;
    }
    let small = |place: &(u64, u64)| *place == (0, 2);
    ensure!(
        [&taken[0], &taken[2]].into_iter().filter(|place| small(place)).count() == 1,
        "{taken:?}"
    );
    ensure!(!small(&taken[1]), "{taken:?}");
    let mut all = taken.clone();
    all.sort_unstable();
    ensure!(all == [(0, 1), (0, 2), (1, 1)], "{taken:?}");
    play.power_off()
}

fn selected(bed: Bed) -> Result<()> {
    let bench = Bench::new(bed, "selected")?;
    let machine = bench.machine(&[&[24, 24, 24]], &[16, 16])?;
    let entries = Gpt::open(&bench.image(0))?.check()?;
    ensure!(entries.len() == 3, "{entries:?}");
    let mut play = Play::of(&machine)?;
    let start = u64::from_str_radix(&line(&mut play, "b", "first page at 0x")?, 16)?;
    line(&mut play, "a", "filled ")?;
    line(&mut play, "b", "filled ")?;
    let neighbour = space(&mut play, "a", "active")?;
    let other = (1..=3).find(|&n| {
        n != neighbour && record(&bench.image(0), n).is_ok_and(|r| r.state == SpaceState::Free)
    });
    let other = other.context("a third space is free")?;
    let before = sum(&bench.image(0), &beside_claim(&entries[other as usize - 1]))?;
    // All pages of both are on the disk before the crash; the neighbour's later page-ins come from
    // there.
    command(&mut play, "evict", "a")?;
    command(&mut play, "evict", "b")?;
    command(&mut play, "crash", "b")?;
    let complete = play.event("dump_complete")?;
    let number = u32::try_from(complete.number("space")?)?;
    ensure!(
        complete.text("partition")? == "b" && ![neighbour, other].contains(&number),
        "{}",
        complete.0
    );
    command(&mut play, "evict", "a")?;
    play.key(b'.')?;
    line(&mut play, "a", "ready")?;
    play.key(b'v')?;
    ensure!(line(&mut play, "a", "wrong ")? == "0");
    play.power_off()?;
    ensure!(
        sum(&bench.image(0), &beside_claim(&entries[other as usize - 1]))? == before,
        "a space that nobody had was changed"
    );

    ensure!(
        select(&VolumeDisk::open(&bench.image(0), VolumeAccess::Write)?, number, BootLoader::Keep)?
            == 0
    );
    ensure!(Gpt::open(&bench.image(0))?.check()? == entries, "the partition table was changed");
    let core = CoreFile::open(&bench.image(0))?;
    for index in 0..FILLED {
        let page = core.page(start + index * PAGE)?;
        ensure!(
            matches!(&page, PageIn::Bytes(bytes) if is_page(bytes, index)),
            "page {index} of the dump is wrong"
        );
    }
    ensure!(
        core.page(16 * MIB - PAGE)? != PageIn::NoSegment
            && core.page(16 * MIB)? == PageIn::NoSegment
    );
    release(&bench, number, &entries)
}

/// Releases the dump through the hypervisor; its header in the boot code is removed as well.
fn release(bench: &Bench, number: u32, entries: &[GptEntry]) -> Result<()> {
    let mut play = Play::of(&bench.machine(&[&[24, 24, 24]], &[16, 16])?)?;
    line(&mut play, "b", "filled ")?;
    ensure!(
        Gpt::open(&bench.image(0))?.boot_code()?.starts_with(b"\x7fELF"),
        "a start took the header away"
    );
    ensure!(record(&bench.image(0), number)?.state == SpaceState::Complete);
    command(&mut play, "release", "b")?;
    let released = play.event("released")?;
    ensure!(released.number("space")? == u64::from(number), "{}", released.0);
    play.power_off()?;
    let gpt = Gpt::open(&bench.image(0))?;
    ensure!(
        gpt.check()? == entries && gpt.boot_code()?.iter().all(|byte| *byte == 0),
        "the header of a dump that is gone"
    );
    ensure!(record(&bench.image(0), number)?.state == SpaceState::Free);
    Ok(())
}

fn bad_tables(bed: Bed) -> Result<()> {
    let bench = Bench::new(bed, "bad-tables")?;
    let machine = bench.machine(&[&[24, 24, 24], &[24], &[24], &[24]], &[16])?;
    // After the host command's own check.
    let gpt = |n| Gpt::open(&bench.image(n));
    let sector = |mib: u64| (mib * MIB / 512).to_le_bytes();
    gpt(0)?.change_entry(2, |entry| entry[32..40].copy_from_slice(&sector(20)))?;
    gpt(1)?.change_entry(1, |entry| entry[0] ^= 1)?;
    gpt(2)?.spoil(true)?;
    gpt(2)?.spoil(false)?;
    gpt(3)?.change_entry(1, |entry| entry[40..48].copy_from_slice(&sector(64)))?;
    let bad = |n: usize| -> Result<u64> {
        let first = if n == 0 { 49 * MIB } else { std::fs::metadata(bench.image(n))?.len() };
        sum(&bench.image(n), &GptEntry { number: 0, start: 0, len: first, guids: [[0; 16]; 2] })
    };
    let before = [bad(0)?, bad(1)?, bad(2)?, bad(3)?];
    let mut play = Play::of(&machine)?;
    for (disk, message) in [
        (0, "GPT entry 1 overlaps GPT entry 2"),
        (0, "GPT entry 2 overlaps GPT entry 1"),
        (1, "a GPT without a paging space"),
        (
            2,
            "damaged GPT, nothing touches it: primary: the header's CRC is wrong; backup: the \
             header's CRC is wrong",
        ),
        (3, "GPT entry 1 lies outside"),
    ] {
        let place = format!("paging device {disk}");
        let says = |e: &Event| {
            e.0["place"] == *place && e.0["message"].as_str().is_some_and(|m| m.contains(message))
        };
        told(&mut play, "error", says).with_context(|| message.to_owned())?;
    }
    let active = told(&mut play, "space", |e| e.0["state"] == "active")?;
    ensure!((active.number("disk")?, active.number("space")?) == (0, 3), "{}", active.0);
    line(&mut play, "a", "filled ")?;
    command(&mut play, "crash", "a")?;
    play.event("dump_complete")?;
    play.power_off()?;
    ensure!(
        before == [bad(0)?, bad(1)?, bad(2)?, bad(3)?],
        "something that is not ours was changed"
    );
    Ok(())
}

/// Returns the part of a space that only its owner writes.
fn beside_claim(entry: &GptEntry) -> GptEntry {
    GptEntry { len: entry.len - 12288, ..*entry }
}

/// Returns a checksum over the bytes of an entry.
fn sum(path: &Path, entry: &GptEntry) -> Result<u64> {
    let mut bytes = vec![0; usize::try_from(entry.len)?];
    std::fs::File::open(path)?.read_exact_at(&mut bytes, entry.start)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Ok(hasher.finish())
}

fn is_page(bytes: &[u8], index: u64) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let mut page: worker::WorkerPage = [0; 512];
    page.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_le_bytes(*bytes));
    PageIdentity { key: KEY, index, generation: 0 }.check(&page).is_ok()
}
