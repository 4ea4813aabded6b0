//! A dump's notes, and the history in them: each entry comes back the same, and each can be told.
#![no_main]

use boot::dump::gdb::notes::Notes;
use boot::dump::history::{find, lines};
use boot::dump::notes::ElfNote;
use kernel::dump::history_note::HistoryNote;
use kernel::log::history::HistoryEntry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((note, after)) = ElfNote::split(rest) {
        assert!(after.len() < rest.len() && note.descriptor.len() < rest.len());
        rest = after;
    }
    let found = find(bytes);
    assert!(!rest.is_empty() || found.is_ok() || bytes.windows(8).any(|name| name == b"TIDEPOOL"));
    if let Ok(Some(history)) = found {
        check(&history);
    }
    // The same bytes as a descriptor.
    if let Ok(history) = HistoryNote::read(bytes) {
        check(&history);
    }
    Notes::parse(bytes);
});

fn check(history: &HistoryNote<'_>) {
    for entry in history.entries() {
        assert_eq!(HistoryEntry::decode(&entry.encode()), entry);
    }
    assert_eq!(lines(history).lines().count(), 1 + history.entries().len());
}
