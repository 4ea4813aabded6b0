//! x87, SSE and AVX registers belong to the vCPU, however often its CPU runs other vCPUs.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use serde_json::json;
use std::time::Duration;
use tests::several::{Member, Several};
use tests::{Case, expect_success};

pub(crate) const CASES: &[Case] = &[Case {
    name: "partitions_on_one_cpu_keep_their_extended_state",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: extended_state,
}];

const LIMIT: Duration = Duration::from_secs(300);
const ANSWER: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["avx", "sse", "x87"];

/// Three partitions, each with different contents and another XCR0, and a pool of half their
/// memory.
fn extended_state(bed: Bed) -> Result<()> {
    let member = |(name, states): (&str, u32)| {
        Member::new(
            name,
            "fpu",
            4,
            &format!("key={:#x} states={states} rounds=400 pages=16", 0xa0 + states),
        )
    };
    let several = Several {
        pool_mib: 6,
        cpus: 1,
        devices_mib: vec![6; 3],
        members: NAMES.into_iter().zip([7, 3, 1]).map(member).collect(),
    };
    let mut started = several.start(bed, &format!("{}-fpu", bed.name()))?;
    judge(&mut started.running).with_context(|| started.place())?;
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, ANSWER)
}

fn judge(running: &mut RunningMachine) -> Result<()> {
    for _ in NAMES {
        let ready = |e: &boot::events::Event| {
            e.name() == "guest" && e.0["text"].as_str().is_some_and(|text| text.ends_with("ready"))
        };
        running.events.wait_for(LIMIT, "a kernel that is ready", ready)?;
    }
    for partition in NAMES {
        let key = json!({"command": "type", "partition": partition, "bytes": "0a"});
        running.events.command(ANSWER, key)?;
    }
    let mut passed = Vec::new();
    while passed.len() < NAMES.len() {
        let verdict = |e: &boot::events::Event| {
            matches!(e.name(), "crash" | "error" | "panic")
                || e.name() == "guest" && e.0["kind"] != "log"
        };
        let verdict = running.events.wait_for(LIMIT, "a verdict", verdict)?;
        ensure!(verdict.name() == "guest" && verdict.text("kind")? == "pass", "{}", verdict.0);
        passed.push(verdict.text("partition")?.to_owned());
    }
    running.events.command(ANSWER, json!({"command": "stats"}))?;
    let pool = running.events.newest("pool").context("no counters")?;
    let pages_read = pool.number("page_ins")? + pool.number("read_around")?;
    ensure!(pages_read > 1000, "too few pages were read: {}", pool.0);
    Ok(())
}
