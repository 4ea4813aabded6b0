//! Lines for the monitor: a command means the same as text and as JSON, and keys are bounded.
#![no_main]

use kernel::console::command::{MonitorCommand, parse_json, parse_text};
use kernel::console::hex;
use kernel::space::DumpSelector;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let (_, Err(error)) = parse_json(bytes) {
        assert!(!error.to_string().is_empty());
    }
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Some(decoded) = hex::decode(text) {
        assert!(hex::encode(&decoded).eq_ignore_ascii_case(text));
    }
    if let Some(DumpSelector::Name { bits, digits }) = DumpSelector::parse(text) {
        assert!((8..=32).contains(&digits));
        assert!(digits == 32 || bits << (4 * digits) == 0);
    }
    let Some(typed) = parse_text(text) else { return };
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !words.iter().all(plain) {
        return;
    }
    let Ok(command) = typed else { return };
    let (word, name, last) = (words[0], words.get(1), words.get(2));
    let member = |key: &str, value: Option<&&str>| {
        value.map_or(String::new(), |value| format!(r#","{key}":"{value}""#))
    };
    let partition = member("partition", name);
    let rest = match command {
        MonitorCommand::Evict(_, count) => format!(r#","count":{count}{partition}"#),
        MonitorCommand::Type(..) => partition + &member("bytes", last),
        MonitorCommand::Release(_) if last.is_some() => partition + &member("dump", last),
        MonitorCommand::Release(kernel::console::command::DumpChoice::Named(_)) => {
            member("dump", name)
        }
        _ => partition,
    };
    let json = format!(r#"{{"id":7,"command":"{word}"{rest}}}"#);
    assert_eq!(parse_json(json.as_bytes()), (Some(7), Ok(command)), "{json}");
});
