//! A kernel's command line: the parameters are one insertion into the configured text, which else
//! stays as it is, and stand before the first `--`.
#![no_main]

use kernel::partition::command_line::{Added, with_added};
use libfuzzer_sys::fuzz_target;

const ADDED: &str = "tidepool.incarnation=2";

fuzz_target!(|text: &str| {
    let line = with_added(text, Added { incarnation: 2, tsc_khz: 3 });
    let alike = |(a, b): &(u8, u8)| a == b;
    let from_start = line.bytes().zip(text.bytes()).take_while(alike).count();
    let from_end = line.bytes().rev().zip(text.bytes().rev()).take_while(alike).count();
    assert!(line.contains(ADDED) && from_start + from_end >= text.len(), "{line:?}");
    let configured = text.matches("tsc_early_khz=").count();
    assert!((configured..=configured + 1).contains(&line.matches("tsc_early_khz=").count()));
    if !text.contains(['"', '\x0b']) && !text.contains(ADDED) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let place = |wanted: &str| words.iter().position(|word| *word == wanted);
        let (added, arguments) = (place(ADDED), place("--"));
        assert!(added.is_some() && arguments.is_none_or(|at| added < Some(at)), "{line:?}");
    }
});
