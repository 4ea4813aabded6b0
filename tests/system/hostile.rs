//! A guest that tries forbidden operations: its partition goes on or crashes with a reason, and
//! nothing else is affected.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::Bed;
use boot::events::{Event, Polled};
use serde_json::json;
use std::time::{Duration, Instant};
use tests::scenario::{PARTITION, Scenario, StartedScenario};
use tests::{Case, expect_success};

const LIMIT: Duration = Duration::from_secs(240);
/// A guest without an event for this long counts as looping.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_hostile_guest_harms_only_itself",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[],
        run: |bed| hostile(bed, 6),
    },
    Case {
        name: "a_hostile_guest_harms_only_itself_on_vmx",
        beds: &[Bed::Bochs],
        needs: &[],
        run: |bed| hostile(bed, 2),
    },
];

/// Returns the first seed. Seeds can be tried one by one:
/// `TIDEPOOL_SEED=7 cargo test --test system -- hostile`.
fn seed() -> Result<u64> {
    match std::env::var("TIDEPOOL_SEED") {
        Ok(text) => text.parse().context("TIDEPOOL_SEED is a number"),
        Err(_) => Ok(1),
    }
}

fn hostile(bed: Bed, incarnations: u64) -> Result<()> {
    let cmdline = format!("seed={} incarnations={incarnations}", seed()?);
    let scenario =
        Scenario { pool_mib: 8, partition: "dump = \"off\"", ..Scenario::new("hostile", &cmdline) };
    let mut started = scenario.start(bed, &format!("{}-hostile", bed.name()))?;
    let end = watch(&mut started)?;
    ensure!(end.number("status")? == 0, "{}; {}", end.0, started.place());
    expect_success(started.running, LIMIT)
}

/// Waits for the machine's end; the operator crashes a guest that hangs.
fn watch(started: &mut StartedScenario) -> Result<Event> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match started.running.events.poll(PATIENCE) {
            Polled::Event(event) if event.name() == "end" => return Ok(event),
            Polled::Event(_) => {}
            Polled::Nothing => {
                started.running.events.send(json!({"command": "crash", "partition": PARTITION}))?;
            }
            Polled::Ended => bail!("the machine stopped without a word; {}", started.place()),
        }
    }
    bail!("no end after {} s; {}", LIMIT.as_secs(), started.place())
}
