//! Devices on a partition's PCI bus.
//!
//! The test kernel `random` drives the entropy device while its pages are evicted, and breaks every
//! rule of it.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use serde_json::json;
use std::time::Duration;
use tests::scenario::{PARTITION, Scenario};
use tests::{Case, expect_success};

pub(crate) const CASES: &[Case] = &[Case {
    name: "device_random_works_while_pages_leave_and_stops_where_rules_are_broken",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: test_kernel,
}];

const LIMIT: Duration = Duration::from_secs(300);
/// Pages that are evicted at each line of the guest's log.
const EVICTED: u32 = 4096;

fn test_kernel(bed: Bed) -> Result<()> {
    let scenario = Scenario {
        partition: "rng = \"on\"\ndump = \"off\"",
        ..Scenario::new("random", "requests=512 pages=200")
    };
    let mut started = scenario.start(bed, &format!("{}-device-random", bed.name()))?;
    let played = play(&mut started.running);
    played.with_context(|| started.place())?;
    expect_success(started.running, LIMIT)
}

/// Evicts the guest's pages at each line of its log until it has ended.
fn play(running: &mut RunningMachine) -> Result<()> {
    let mut lines = 0;
    loop {
        let event = running.events.wait_for(LIMIT, "the guest's next word", |event| {
            matches!(event.name(), "guest" | "crash" | "stopped" | "error")
        })?;
        let kind = event.0["kind"].as_str().unwrap_or_default();
        ensure!(event.name() == "guest" && kind != "fail", "{}", event.0);
        if kind == "pass" {
            ensure!(lines >= 16, "only {lines} lines");
            return Ok(());
        }
        lines += 1;
        let evict = json!({"command": "evict", "partition": PARTITION, "pages": EVICTED});
        running.events.send(evict)?;
    }
}
