//! The first serial line: no input or output is lost, however much comes at once.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use std::fmt::Write;
use std::time::Duration;
use tests::scenario::{Scenario, StartedScenario};
use tests::{Case, expect_success};

const LIMIT: Duration = Duration::from_secs(240);
/// Lines that are pasted, and that come back: several times the size of all queues, where the line
/// is fast.
const fn lines(bed: Bed) -> (u32, u32) {
    match bed {
        Bed::Bochs => (60, 100),
        _ => (400, 1500),
    }
}
/// The character End of Transmission.
const END: &[u8] = b"\x04";

pub(crate) const CASES: &[Case] = &[Case {
    name: "nothing_typed_or_printed_is_lost",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: nothing_is_lost,
}];

fn nothing_is_lost(bed: Bed) -> Result<()> {
    let scenario = Scenario::new("paste", &format!("flood={}", lines(bed).1));
    let mut started = scenario.start(bed, &format!("{}-paste", bed.name()))?;
    converse(&mut started, lines(bed)).with_context(|| started.place())?;
    expect_success(started.running, LIMIT)
}

fn converse(started: &mut StartedScenario, (typed, flood): (u32, u32)) -> Result<()> {
    let running = &mut started.running;
    let mut text = String::new();
    (0..typed).try_for_each(|n| {
        writeln!(text, "line {n:04} {}", "abcdefghijklmnopqrstuvwxyz0123456789".repeat(2))
    })?;
    running.events.wait_for(LIMIT, "the kernel to read", |event| event.0["text"] == "reads")?;
    running.console.send(text.as_bytes())?;
    running.console.send(END)?;
    let read = |event: &boot::events::Event| {
        event.0["text"].as_str().and_then(|text| text.strip_prefix("read ")).map(str::to_owned)
    };
    let event =
        running.events.wait_for(LIMIT, "all that was typed", |event| read(event).is_some())?;
    let expected = format!("{} {:x}", text.len(), fnv(text.as_bytes()));
    ensure!(read(&event).as_deref() == Some(&*expected), "{} instead of {expected}", event.0);
    running.events.wait_for(LIMIT, "the last line", |event| event.0["kind"] == "pass")?;
    running.console.wait_for(LIMIT, &format!("{:08}", flood - 1))?;
    let console = running.console.text();
    let lines: Vec<_> = console.lines().filter(|line| line.starts_with("....")).collect();
    let dots = ".".repeat(70);
    let wrong = (0..flood).zip(&lines).find(|(n, line)| ***line != format!("{dots}{n:08}"));
    ensure!(
        wrong.is_none() && lines.len() == flood as usize,
        "{} lines of {flood}, {wrong:?}",
        lines.len()
    );
    Ok(())
}

/// Fowler, Noll and Vo's hash 1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
