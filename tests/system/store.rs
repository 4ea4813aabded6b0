//! The command `tidepool store` as a process: what it prints, and its status.

use crate::interrupt::AS_TIDEPOOL;
use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use tests::Case;

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_damaged_byte_of_a_store_is_named_and_the_status_is_1",
    beds: &[Bed::Qemu],
    needs: &[],
    run: damaged,
}];

fn tidepool(arguments: &[&str], image: &Path, rest: &[&Path]) -> Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(AS_TIDEPOOL).arg("store").args(arguments).arg(image).args(rest);
    Ok(command.output()?)
}

fn succeeds(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "{text}{errors}");
    Ok(text)
}

fn damaged(_: Bed) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (image, initrd) = (folder.path().join("store.img"), folder.path().join("initrd"));
    fs::write(&initrd, [&b"070701"[..], &[0x5a; 200_000]].concat())?;
    succeeds(&tidepool(&["create", "--size", "16 MiB"], &image, &[])?)?;
    let added = succeeds(&tidepool(&["add"], &image, &[&initrd])?)?;
    ensure!(added.contains("initrd: initrd "), "{added}");
    let list: Value =
        serde_json::from_str(&succeeds(&tidepool(&["list", "--json"], &image, &[])?)?)?;
    let stored = &list["images"][0];
    ensure!(stored["name"] == "initrd" && stored["bytes"] == 200_006, "{list}");
    let sound = succeeds(&tidepool(&["check"], &image, &[])?)?;
    ensure!(sound.contains("1 images and 0 definitions are sound"), "{sound}");

    // The data begins at 3 MiB: the checksums' chunk, then the content.
    let at = (3 << 20) + 2 * 65_536 + 100;
    File::options().write(true).open(&image)?.write_all_at(&[0xa5], at)?;
    let check = tidepool(&["check"], &image, &[])?;
    ensure!(check.status.code() == Some(1), "{:?}", check.status);
    let errors = String::from_utf8_lossy(&check.stderr);
    let digest = stored["digest"].as_str().context("a digest")?;
    let place = format!("image {}, chunk 1 in block 800: the checksum is wrong", &digest[..12]);
    ensure!(errors.contains(&place), "{errors}");
    // Its other images, and the store itself, still serve.
    succeeds(&tidepool(&["list"], &image, &[])?)?;
    succeeds(&tidepool(&["remove"], &image, &[Path::new("initrd")])?)?;
    succeeds(&tidepool(&["check"], &image, &[])?)?;
    Ok(())
}
