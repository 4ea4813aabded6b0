//! Guests that hang, and guests that only seem to hang: `hang_timeout`.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::events::Event;
use std::time::Duration;
use tests::several::{Member, Several};
use tests::{Case, expect_success};

const LIMIT: Duration = Duration::from_secs(240);
const LINES: &str = "hang_timeout = \"2 s\"\ndump = \"off\"";
/// Guest 8 gets its NMI first and stays in its handler until the others have had theirs.
const FIRST_LINES: &str = "hang_timeout = \"1500 ms\"\ndump = \"off\"";

/// Ways of the test kernel `hang`, and the outcome of its first incarnation.
const HANGS: &[(u32, &str)] = &[
    (1, "watchdog"),
    (2, "watchdog"),
    (4, "watchdog"),
    (5, "pass"),
    (6, "halted for good"),
    (7, "panic"),
    (8, "watchdog"),
];
/// Ways without any exit. Bochs delivers no host interrupt while the guest has IF clear, so this
/// hang is not detected there.
const SILENT: &[(u32, &str)] = &[(3, "watchdog")];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_guest_that_hangs_crashes_and_no_other_does",
        beds: &[Bed::Qemu],
        needs: &[],
        run: |bed| hang(bed, &[HANGS, SILENT].concat()),
    },
    Case {
        name: "a_guest_that_hangs_crashes_and_no_other_does_on_vmx",
        beds: &[Bed::Bochs],
        needs: &[],
        run: |bed| hang(bed, HANGS),
    },
];

fn hang(bed: Bed, ways: &[(u32, &str)]) -> Result<()> {
    let member = |(how, _): &(u32, &str)| {
        let name = format!("g{how}");
        let lines = if *how == 8 { FIRST_LINES } else { LINES };
        Member { lines, ..Member::new(&name, "hang", 4, &format!("how={how}")) }
    };
    let several = Several {
        pool_mib: 4 * ways.len() as u64 + 4,
        cpus: 1,
        devices_mib: vec![8; ways.len()],
        members: ways.iter().map(member).collect(),
    };
    let mut started = several.start(bed, &format!("{}-hang", bed.name()))?;
    let mut left: Vec<_> = ways.to_vec();
    while !left.is_empty() {
        let event = started
            .running
            .events
            .wait_for(LIMIT, &format!("{left:?}"), |event| outcome(event).is_some())?;
        let (partition, found) = outcome(&event).context("such an event")?;
        // A guest that has passed halts for good, which is a second event.
        let Some(place) = left.iter().position(|(how, _)| partition == format!("g{how}")) else {
            continue;
        };
        let (how, expected) = left.remove(place);
        ensure!(found == expected, "{how}: {found} instead of {expected}; {}", started.place());
    }
    let events = started.running.events.all();
    for (how, expected) in ways {
        let of_it = |event: &&Event| event.0["partition"] == format!("g{how}");
        let had_nmi = events.iter().filter(of_it).any(|event| event.0["text"] == "nmi");
        let was_told = events.iter().filter(of_it).any(|event| event.name() == "hang");
        let hangs = matches!(*expected, "watchdog" | "panic");
        ensure!(
            (had_nmi, was_told) == (hangs, hangs),
            "{how}: NMI {had_nmi}, told {was_told}; {}",
            started.place()
        );
    }
    started.running.events.send(serde_json::json!({"command": "poweroff"}))?;
    expect_success(started.running, LIMIT)
}

/// Returns the outcome of a partition's first incarnation, if `event` reports it.
fn outcome(event: &Event) -> Option<(&str, &str)> {
    if event.0["incarnation"] != 1 {
        return None;
    }
    let word = match event.name() {
        "crash" => "reason",
        "stopped" if event.0["how"] == "halted for good" => "how",
        "guest" if event.0["kind"] == "pass" => "kind",
        _ => return None,
    };
    Some((event.0["partition"].as_str()?, event.0[word].as_str()?))
}
