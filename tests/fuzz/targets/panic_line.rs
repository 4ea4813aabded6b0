//! A panic's text in a guest's log: printable, bounded, and the same byte by byte as in one piece.
#![no_main]

use kernel::partition::devices::panic_line::last_in;
use kernel::partition::devices::uart::GuestUart;
use libfuzzer_sys::fuzz_target;

/// Bytes of a line that are examined.
const LINE: usize = 192;

fuzz_target!(|bytes: &[u8]| {
    let found = last_in(bytes);
    if let Some(text) = found {
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        // Without a reason, the blank at the end of the marker is cut off.
        assert!(text.starts_with("Kernel panic - not syncing") || text.starts_with("panic:"));
    }
    if bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= LINE) {
        let mut console = GuestUart::new();
        bytes.iter().for_each(|byte| console.write(0, *byte));
        assert_eq!(console.panic_text(), found);
    }
});
