//! A node's local copy in a file: made before the machine starts, and shown by `cluster check`.

use super::name_of;
use crate::report::TextTable;
use ::cluster::layout::Half;
use ::cluster::local::{
    LOCAL_BYTES, LOCAL_MAGIC, LocalCopy, LocalFound, LocalStatus, check_header, found, header,
    place, text,
};
use anyhow::{Context, Result, bail, ensure};
use kernel::console::utc::UtcTime;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::Path;

/// Bytes of a new file: a whole number of sectors and pages.
const FILE: u64 = LOCAL_BYTES.next_multiple_of(4096);

/// Returns whether a file begins as one with a local copy.
pub fn is_local(path: &Path) -> bool {
    let mut start = [0; LOCAL_MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start == *LOCAL_MAGIC
}

/// Checks that a file is one for a local copy, or is missing and can be made.
///
/// # Errors
/// Names the file and the reason.
pub fn check_file(path: &Path) -> Result<()> {
    if path.exists() {
        return read(path).map(|_| ());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    ensure!(folder.is_none_or(Path::is_dir), "{}: its folder is missing", path.display());
    Ok(())
}

/// Makes the file if it is missing.
///
/// # Errors
/// Where it cannot be made, or is another file.
pub fn prepare(path: &Path) -> Result<()> {
    if path.exists() {
        return read(path).map(|_| ());
    }
    crate::atomic::write(path, |file| {
        file.set_len(FILE)?;
        Ok(file.write_all(&header())?)
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    crate::regular::check(path)?;
    let context = || path.display().to_string();
    let mut file = File::open(path).with_context(context)?;
    // The size in the metadata of a block device is 0.
    let length = file.seek(SeekFrom::End(0)).with_context(context)?;
    ensure!(
        length >= LOCAL_BYTES,
        "{}: has {length} bytes; a file for a local copy has {LOCAL_BYTES} or more",
        path.display()
    );
    let mut bytes = vec![0; LOCAL_BYTES as usize];
    file.rewind().and_then(|()| file.read_exact(&mut bytes)).with_context(context)?;
    check_header(&bytes).map_err(|error| {
        anyhow::anyhow!("{}: is no file for a local copy: {error}", path.display())
    })?;
    Ok(bytes)
}

/// Describes the copy in a file.
///
/// # Errors
/// Where it is of a newer version, or no copy is whole.
pub fn describe(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let part = |half| &bytes[place(half).at as usize..][..place(half).len];
    let (copy, half, note) = match found([part(Half::A), part(Half::B)]) {
        LocalFound::Copy { copy, half, is_mended: false } => (copy, half, ""),
        LocalFound::Copy { copy, half, .. } => (copy, half, "the other copy is damaged\n"),
        LocalFound::Blank => return Ok(format!("{}: a local copy, blank\n", path.display())),
        LocalFound::Torn => bail!("{}: no local copy is whole", path.display()),
        LocalFound::Newer(version) => {
            bail!("{}: its local copy has version {version}, this program knows 1", path.display())
        }
    };
    let mut said = format!(
        "{}: the local copy of {}: cluster {}, decree {}, written {} ({} of {} slots used)\n{note}",
        path.display(),
        text(&copy.name),
        name_of(copy.cluster),
        copy.decree,
        UtcTime(copy.written_ns),
        copy.used,
        copy.slots
    );
    let mut table = TextTable::new(&["slot", "incarnation", "name", "state", "beat", "decree"]);
    let rows: Vec<_> = LocalCopy::rows(part(half)).collect();
    for row in &rows {
        let state = match row.status {
            LocalStatus::Up => "up",
            LocalStatus::Leaving => "leaving",
            LocalStatus::Fenced => "fenced",
            LocalStatus::Quiet => "quiet",
        };
        let age = |age_ms: u64| format!("{}.{} s before", age_ms / 1000, age_ms % 1000 / 100);
        table.row(&[
            row.id.slot.to_string(),
            name_of(row.id.incarnation.0).to_string(),
            row.text().to_owned(),
            state.to_owned(),
            row.beat.map_or(String::new(), |beat| age(beat.age_ms)),
            row.beat.map_or(String::new(), |beat| beat.decree.to_string()),
        ]);
    }
    if !rows.is_empty() {
        write!(said, "{table}")?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cluster::id::{Incarnation, MemberId};
    use ::cluster::local::{LocalBeat, LocalRow};
    use std::fs;

    #[test]
    fn a_missing_file_is_made_and_another_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node1.img");
        check_file(&path).unwrap();
        assert!(!is_local(&path) && !path.exists());
        prepare(&path).unwrap();
        assert!(is_local(&path) && describe(&path).unwrap().ends_with("blank\n"));
        let made = fs::read(&path).unwrap();
        prepare(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), made);
        let other = folder.path().join("other");
        fs::write(&other, vec![7; FILE as usize]).unwrap();
        for wrong in [check_file(&other), prepare(&other)] {
            let error = wrong.unwrap_err().to_string();
            assert!(error.contains("other: is no file for a local copy"), "{error}");
        }
        fs::write(&other, header()).unwrap();
        assert!(check_file(&other).unwrap_err().to_string().contains("has 512 bytes"));
        let nowhere = folder.path().join("none/file");
        assert!(check_file(&nowhere).unwrap_err().to_string().contains("folder is missing"));
        assert!(check_file(folder.path()).is_err());
    }

    #[test]
    fn a_copy_is_shown_with_its_members() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node1.img");
        prepare(&path).unwrap();
        let mut name = [0; 32];
        name[..6].copy_from_slice(b"node-a");
        let id = MemberId { slot: 4, incarnation: Incarnation(9) };
        let copy = LocalCopy {
            member: id,
            sequence: 2,
            cluster: 5,
            decree: 17,
            written_ns: 1_700_000_000_000_000_000,
            is_member: true,
            name,
            used: 5,
            slots: 64,
        };
        let beat = LocalBeat { age_ms: 1234, decree: 16, free_mib: 1, free_spaces: 2 };
        let row = LocalRow { id, status: LocalStatus::Up, is_own: true, name, beat: Some(beat) };
        let mut bytes = fs::read(&path).unwrap();
        let at = place(Half::A);
        copy.encode([row].into_iter(), &[], &mut bytes[at.at as usize..][..at.len]);
        fs::write(&path, &bytes).unwrap();
        let said = describe(&path).unwrap();
        assert!(said.contains("local copy of node-a") && said.contains("decree 17"), "{said}");
        assert!(said.contains("5 of 64 slots") && said.contains("1.2 s before"), "{said}");
        bytes[at.at as usize + 50] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(describe(&path).unwrap_err().to_string().contains("no local copy is whole"));
    }
}
