//! A disk that is full, fails for a while, or does not answer: the other partition goes on, and
//! afterwards the disk is used again.

use anyhow::{Context, Result, ensure};
use boot::bed::Bed;
use boot::events::Event;
use kernel::space::claim::PAGE_LEN;
use kernel::space::copies::TAIL_LEN;
use serde_json::json;
use std::time::{Duration, Instant};
use tests::cuts::HeldDump;
use tests::faulty::{FaultyMachine, LIMIT, TimeBase, VICTIM, VICTIMS};
use tests::nbd::{Action, NbdDisk, NbdError, RequestKind, Rule};
use tests::{Case, expect_success};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_full_host_disk_stops_nothing_but_its_own_partition",
        beds: &[Bed::Qemu],
        needs: &[],
        run: full,
    },
    Case {
        name: "a_dump_is_sealed_when_its_disk_takes_writes_again",
        beds: &[Bed::Qemu],
        needs: &[],
        run: for_a_while,
    },
    Case {
        name: "power_off_does_not_wait_for_a_dead_disk",
        beds: &[Bed::Qemu],
        needs: &[],
        run: dead,
    },
];

/// Minimum time until a failed space is tried again.
const AGAIN_NS: u64 = 10_000_000_000;
/// The blocks begin at this offset or later.
const HEAD: u64 = 1 << 20;
/// Bytes of the records, behind the claims.
const RECORDS: u64 = TAIL_LEN as u64;
/// Bytes of claims and records, at the end of a space.
const CLAIMS_AND_RECORDS: u64 = PAGE_LEN as u64 + RECORDS;
/// Steps of the neighbour that prove its progress.
const STEPS: usize = 20;

/// Starts the machine; the victim pages to its first disk.
fn start(name: &str) -> Result<FaultyMachine> {
    let mut machine = FaultyMachine::start(name, TimeBase::Host, |_| {})?;
    machine.until("the neighbour's first step", |event| is_line(event, "q", "writes 32 "))?;
    Ok(machine)
}

fn is_line(event: &Event, partition: &str, start: &str) -> bool {
    event.0["partition"] == partition
        && event.0["text"].as_str().is_some_and(|text| text.starts_with(start))
}

fn is_error_of_the_disk(event: &Event) -> bool {
    event.name() == "error"
        && event.0["place"].as_str().is_some_and(|place| place.contains("paging device 0"))
}

fn goes_on(machine: &mut FaultyMachine) -> Result<()> {
    let wanted = machine.steps.len() + STEPS;
    while machine.steps.len() < wanted {
        machine.next_event().context("waiting for the neighbour")?;
    }
    Ok(())
}

fn end(mut machine: FaultyMachine, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    machine.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(machine.running, LIMIT)?;
    ensure!(begin.elapsed() <= limit, "it took {:?} to the end", begin.elapsed());
    Ok(())
}

fn full(_: Bed) -> Result<()> {
    let mut machine = start("full")?;
    let place = machine.place();
    let writes = Rule {
        kinds: &[RequestKind::Write, RequestKind::WriteZeroes],
        ..Rule::all(Action::Fail(NbdError::NoSpace))
    };
    machine.disks[0].rule(writes);
    let run = |machine: &mut FaultyMachine| -> Result<()> {
        machine.until("an error that names the disk", is_error_of_the_disk)?;
        goes_on(machine)?;
        ensure!(
            machine.disks[0].log().iter().any(|entry| entry.failure == Some(NbdError::NoSpace)),
            "no write failed"
        );
        machine
            .until("an incarnation on the other disk", |event| is_line(event, VICTIM, "filled"))?;
        // From here on the host has room again.
        machine.disks[0].let_go();
        goes_on(machine)
    };
    run(&mut machine).with_context(|| place.clone())?;
    end(machine, LIMIT).with_context(|| place)
}

/// Fails all writes except those of claims. With failed claims the hypervisor would write nothing
/// to the disk, and the dump would wait.
fn refuse_all_but_claims(disk: &NbdDisk) {
    let refused = Rule {
        kinds: &[RequestKind::Write, RequestKind::WriteZeroes, RequestKind::Flush],
        ..Rule::all(Action::Fail(NbdError::Io))
    };
    let claims = disk.size() - CLAIMS_AND_RECORDS..disk.size() - RECORDS;
    disk.rule(Rule { bytes: 0..claims.start, ..refused.clone() });
    disk.rule(Rule { bytes: claims.end..disk.size(), ..refused });
}

fn for_a_while(_: Bed) -> Result<()> {
    let mut machine = start("for-a-while")?;
    let place = machine.place();
    let run = |machine: &mut FaultyMachine| -> Result<()> {
        let draining = machine.until("a drain to disk 0", |event| {
            event.name() == "space" && event.0["disk"] == 0 && event.0["state"] == "draining"
        })?;
        refuse_all_but_claims(&machine.disks[0]);
        let incarnation = draining.number("epoch")?;
        let failed =
            machine.until("the end of the drain", |event| event.name() == "dump_failed")?;
        ensure!(failed.number("incarnation")? == incarnation, "{}", failed.0);
        machine.disks[0].let_go();
        let sealed = machine.until("the dump's seal", |event| {
            event.name() == "space" && event.0["disk"] == 0 && event.0["state"] == "partial"
        })?;
        ensure!(sealed.number("epoch")? == incarnation, "{}", sealed.0);
        ensure!(
            sealed.number("t")? >= failed.number("t")? + AGAIN_NS,
            "at once: {} {}",
            failed.0,
            sealed.0
        );
        let held = HeldDump::on(&machine.images[0])?.context("a partial dump")?;
        held.check(&machine.images[0], &VICTIMS, machine.first_page.context("pages")?)?;
        // After its release the space is usable again and takes an incarnation.
        machine.running.events.send(json!({"command": "release", "dump": held.name}))?;
        machine.until("the release", |event| event.name() == "released" && event.0["disk"] == 0)?;
        goes_on(machine)
    };
    run(&mut machine).with_context(|| place.clone())?;
    end(machine, LIMIT).with_context(|| place)
}

fn dead(_: Bed) -> Result<()> {
    /// Five seconds for each disk, and the time that the machine needs for its healthy disks.
    const ORDERLY: Duration = Duration::from_secs(20);
    let mut machine = FaultyMachine::start("dead", TimeBase::Host, |disks| {
        // From the first write of a page on, so that the disk holds memory of the partition that it
        // does not give back.
        let bytes = HEAD..disks[0].size() - CLAIMS_AND_RECORDS;
        let keep = Rule { kinds: &[RequestKind::Write], bytes, ..Rule::all(Action::Keep) };
        disks[0].rule(Rule { afterwards: Some(Action::Keep), ..keep });
    })?;
    let place = machine.place();
    let written_off = |event: &Event| {
        is_error_of_the_disk(event) && event.0["message"].to_string().contains("written off")
    };
    let run = |machine: &mut FaultyMachine| {
        machine.until("the disk to be written off", written_off)?;
        goes_on(machine)
    };
    run(&mut machine).with_context(|| place.clone())?;
    end(machine, ORDERLY).with_context(|| place)
}
