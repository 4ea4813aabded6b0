//! The tools with which people open a dump, each on a whole image and on a selected dump of a disk
//! with several spaces.
//!
//! The guest is Debian's kernel without an initrd, which panics by itself. Its first page is zero,
//! so the first segment has no bytes in the file. crash(8) refuses such a dump unless the segment
//! nevertheless has an offset.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::demo::readers::{Readers, Selection};
use boot::dump::{BootLoader, Dump, history, select};
use boot::events::Event;
use boot::setup::{Permission, SetupJob, debian, python};
use boot::volume::{VolumeAccess, VolumeDisk};
use serde_json::json;
use std::path::{Path, PathBuf};
use tests::scene::{LIMIT, Play};
use tests::{Case, plan_machine};

pub(crate) const CASES: &[Case] = &[Case {
    name: "crash_gdb_makedumpfile_drgn_and_readelf_open_whole_and_selected_dumps",
    beds: &[Bed::Qemu],
    needs: &[SetupJob::Guest, SetupJob::Readers],
    run: every_reader,
}];

/// The kernel's message when it finds no file system.
const PANIC: &str = "VFS: Unable to mount root fs";

fn every_reader(bed: Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let kernel = debian::kernel(Permission::Refuse)?;
    let places = crash_both(bed, folder.path(), &kernel.vmlinuz())?;
    let readers = Readers {
        vmlinux: debian::debug_symbols(&kernel, Permission::Refuse)?,
        python: python::drgn(Permission::Refuse)?,
    };
    let release = kernel.package.trim_start_matches("linux-image-");
    for (image, space) in places {
        if space > 0 {
            let left_out =
                select(&VolumeDisk::open(&image, VolumeAccess::Write)?, space, BootLoader::Keep)?;
            ensure!(left_out == 0, "{left_out} pages are in no run");
        }
        check(&readers, &image, space, release).with_context(|| format!("space {space}"))?;
    }
    Ok(())
}

/// Lets two kernels panic; returns the images with their dumps: a whole one, and one space of a
/// disk with two.
fn crash_both(bed: Bed, folder: &Path, kernel: &Path) -> Result<[(PathBuf, u32); 2]> {
    let mut text = "[pool]\nmemory = \"280 MiB\"\n[[paging_device]]\nimage = \"whole.img\"\nsize \
                    = \"136 MiB\"\n[[paging_device]]\nimage = \"shared.img\"\nspaces = [\"137 \
                    MiB\", \"137 MiB\"]\n"
        .to_owned();
    for name in ["a", "b"] {
        text += &format!(
            "[[partition]]\nname = \"{name}\"\nmemory = \"128 MiB\"\nrestart = \"never\"\nkernel \
             = \"{}\"\ncmdline = \"quiet\"\n",
            kernel.display()
        );
    }
    let mut play = Play::of(&plan_machine(bed, "readers", &text, folder)?)?;
    let mut whole = |disk: u64| {
        let complete = |e: &Event| e.name() == "dump_complete" && e.0["disk"] == disk;
        let earlier = play.running.events.all().iter().find(|e| complete(e)).cloned();
        earlier.map_or_else(|| play.running.events.wait_for(LIMIT, "a complete dump", complete), Ok)
    };
    ensure!(whole(0)?.number("space")? == 0);
    let space = u32::try_from(whole(1)?.number("space")?)?;
    play.running.events.send(json!({"command": "poweroff"}))?;
    tests::expect_success(play.running, LIMIT)?;
    Ok([(folder.join("whole.img"), 0), (folder.join("shared.img"), space)])
}

/// Returns the history in a dump, as the host command shows it.
fn history_of(image: &Path, space: u32) -> Result<String> {
    let disk = VolumeDisk::open(image, VolumeAccess::Read)?;
    let notes = Dump::of(disk.space(Some(space).filter(|space| *space > 0))?)?.notes()?;
    let history = history::find(&notes)?.context("no history in the notes")?;
    Ok(history::lines(&history))
}

fn check(readers: &Readers, image: &Path, space: u32, release: &str) -> Result<()> {
    let log = readers.kernel_log(image)?;
    ensure!(log.contains(PANIC), "makedumpfile found another log: {log}");
    ensure!(readers.compressed_size(image)? > 1 << 20, "makedumpfile left nothing of the memory");
    let found = readers.inspect(image)?;
    ensure!(found["release"] == release && found["panicked"] == "swapper/0", "drgn found {found}");
    let said = readers.crash(image, "sys\nbt\n")?;
    ensure!(said.contains(PANIC) && said.contains("mount_block_root"), "crash(8) found {said}");
    let tidepool =
        format!("'{}' {}", std::env::current_exe()?.display(), crate::interrupt::AS_TIDEPOOL);
    let said = readers.gdb(
        image,
        Selection::of(space),
        &tidepool,
        &["print init_uts_ns.name.release", "backtrace"],
    )?;
    ensure!(said.contains(release) && said.contains("mount_block_root"), "gdb found {said}");
    let history = history_of(image, space)?;
    ensure!(
        history.contains(" guest entered        incarnation=1\n")
            && history.contains(" crashed              reason=\"panic log by ERST\" incarnation=1"),
        "the history is {history}"
    );
    let said = readers.elf(image)?;
    ensure!(
        said.contains("CORE")
            && said.contains("TIDEPOOL")
            && said.contains(&format!("OSRELEASE={release}")),
        "readelf and eu-readelf found {said}"
    );
    Ok(())
}
