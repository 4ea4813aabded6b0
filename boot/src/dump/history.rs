//! The history in a dump's notes: the last events of the partition and of the machine up to the
//! crash.

use super::notes::ElfNote;
use anyhow::{Context, Result, bail};
use kernel::dump::history_note::{HistoryNote, NAME, TYPE};
use kernel::log::history::RelativeEntry;
use std::fmt::Write;

/// Finds the history among the notes; `None` where there is none, as in a dump of an earlier
/// version.
///
/// # Errors
/// Where the notes, or the history in them, are cut off or have another version.
pub fn find(mut notes: &[u8]) -> Result<Option<HistoryNote<'_>>> {
    while !notes.is_empty() {
        let Some((note, rest)) = ElfNote::split(notes) else {
            bail!("the notes are cut off: {} bytes at their end are no note", notes.len())
        };
        if note.kind == TYPE && note.name.strip_suffix(b"\0") == Some(NAME) {
            return HistoryNote::read(note.descriptor).map(Some).context("the dump's notes");
        }
        notes = rest;
    }
    Ok(None)
}

/// Returns the history as lines, oldest first, with times relative to the crash.
pub fn lines(history: &HistoryNote<'_>) -> String {
    let entries = history.entries();
    let mut text = format!(
        "{} entries, times relative to the crash ({} older ones are gone):\n",
        entries.len(),
        history.gone
    );
    for entry in entries {
        let line = RelativeEntry { entry: &entry, zero_ns: history.crash_ns };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::dump::history_note::note_size;
    use kernel::dump::notes::{
        VCPU_NOTES_SIZE, vmcoreinfo_note_size, write_vcpu, write_vmcoreinfo,
    };
    use kernel::log::history::{HistoryEntry, HistoryKind, HistorySubject};
    use kernel::virt::{CpuState, Regs};

    const TEXT: &[u8] = b"OSRELEASE=6.1\n";

    /// A descriptor with these kinds of entries, made without the product's writer.
    fn descriptor(kinds: &[u16]) -> Vec<u8> {
        let count = kinds.len() as u32;
        let mut bytes = [&[1, 0, 32, 0][..], &count.to_le_bytes(), &5_000_000_u64.to_le_bytes()];
        let mut bytes = [bytes.as_mut_slice().concat(), vec![7, 0, 0, 0, 0, 0, 0, 0]].concat();
        for kind in kinds {
            let of = HistorySubject::Partition(1);
            let entry =
                HistoryEntry { t_ns: 4_000_000, kind: *kind, of, cpu: 2, code: 1, numbers: [3, 4] };
            bytes.extend(entry.encode());
        }
        bytes
    }

    fn notes(descriptor: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; VCPU_NOTES_SIZE + vmcoreinfo_note_size(TEXT.len())];
        write_vcpu(&mut bytes, 0, &Regs::default(), &CpuState::default());
        write_vmcoreinfo(&mut bytes[VCPU_NOTES_SIZE..], TEXT);
        let len = (descriptor.len() as u32).to_le_bytes();
        bytes.extend([&[9, 0, 0, 0][..], &len, &TYPE.to_le_bytes(), b"TIDEPOOL\0\0\0\0"].concat());
        bytes.extend_from_slice(descriptor);
        bytes
    }

    #[test]
    fn the_history_is_found_behind_other_notes_and_told_in_lines() {
        let notes = notes(&descriptor(&[HistoryKind::Crashed as u16, 15]));
        let history = find(&notes).unwrap().unwrap();
        assert_eq!(note_size(2), 24 + 24 + 64);
        let text = lines(&history);
        assert_eq!(
            text,
            "2 entries, times relative to the crash (7 older ones are gone):\n  \
             -    0.001000 s  partition 1   CPU 2  crashed              reason=\"triple fault\" \
             incarnation=3 detail=0x4\n  \
             -    0.001000 s  partition 1   CPU 2  unknown kind 15: code=1 first=0x3 \
             second=0x4\n"
        );
    }

    #[test]
    fn a_dump_without_a_history_has_none() {
        let whole = notes(&[]);
        let without = &whole[..whole.len() - 24];
        assert_eq!(find(without).unwrap(), None);
        assert_eq!(find(&[]).unwrap(), None);
        let mut other = notes(&descriptor(&[]));
        let at = VCPU_NOTES_SIZE + vmcoreinfo_note_size(TEXT.len()) + 12;
        other[at] = b'X';
        assert_eq!(find(&other).unwrap(), None, "another owner's note of this type");
    }

    #[test]
    fn what_is_cut_off_or_newer_is_an_error_in_words() {
        let whole = notes(&descriptor(&[HistoryKind::Crashed as u16]));
        let error = |notes: &[u8]| format!("{:#}", find(notes).unwrap_err());
        assert!(error(&whole[..whole.len() - 1]).contains("cut off"));
        for len in 0..whole.len() {
            let _ = find(&whole[..len]);
        }
        let mut newer = descriptor(&[]);
        newer[0] = 9;
        assert!(error(&notes(&newer)).contains("version 9"));
        let mut more = descriptor(&[]);
        more[4] = 3;
        assert!(error(&notes(&more)).contains("24 bytes instead of 120"));
    }
}
