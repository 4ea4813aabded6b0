//! Suspend and resume: a test kernel whose memory is a chain of checked words stops between two of
//! them and goes on, on the same start of the hypervisor and on another one.

use crate::definitions::{Steps, of};
use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, BedMachine};
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::VolumeAccess;
use kernel::space::SpaceState;
use serde_json::json;
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "move_suspend_and_resume_on_one_node",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: suspend_and_resume,
}];

const ANSWER: Duration = Duration::from_secs(240);
/// Turns between two lines of the kernel's log.
pub(crate) const REPORT: u64 = 2_000;
/// Pages that the kernel writes and checks.
pub(crate) const PAGES: u64 = 600;

/// Two spaces, and a pool into which not all of the guest fits.
fn configuration(bed: Bed) -> Result<String> {
    let mut text = "[pool]\nmemory = \"20 MiB\"\n[machine]\ncpus = 2\n".to_owned();
    for index in 0..2 {
        text += &match bed {
            Bed::Bochs => "[[paging_device]]\nmemory = \"14 MiB\"\n".to_owned(),
            _ => format!("[[paging_device]]\nimage = \"{index}.img\"\nsize = \"14 MiB\"\n"),
        };
    }
    Ok(text
        + &format!(
            "[[partition]]\nname = \"guest\"\nmemory = \"8 MiB\"\nkernel = \"{}\"\ncmdline = \
             \"turns=100000000 report={REPORT} hot=32 cold={} stride=5\"\ndump = \"off\"\n",
            test_kernel("spin")?.display(),
            PAGES - 32
        ))
}

fn suspend_and_resume(bed: Bed) -> Result<()> {
    let name = format!("{}-suspend", bed.name());
    let folder = scenario_folder(&name)?;
    let machine = plan_machine(bed, &name, &configuration(bed)?, folder.path())?;
    let turn = first_start(&machine)?;
    if bed != Bed::Qemu {
        return Ok(());
    }
    // The disk alone, between two starts: an ELF core whose blocks are right.
    let dump = Dump::open(&machine.disks[0], VolumeAccess::Read)?;
    ensure!(dump.record().state == SpaceState::Suspended, "{:?}", dump.record().state);
    let verdict = dump.verify()?;
    ensure!(
        verdict.wrong == 0 && verdict.missing == 0 && verdict.header_current,
        "{} wrong, {} missing",
        verdict.wrong,
        verdict.missing
    );
    ensure!(u64::from(verdict.right) >= PAGES, "only {} blocks", verdict.right);
    drop(dump);
    second_start(&machine, turn)
}

/// Returns the turn that an event reports.
pub(crate) fn turn_of(event: &Event) -> Option<u64> {
    let is_log = event.name() == "guest" && event.0["kind"] == "log";
    let text = event.0["text"].as_str().filter(|_| is_log)?;
    text.strip_prefix("turn ")?.split(' ').next()?.parse().ok()
}

/// Returns the turns that the kernel has reported in this step, at least `count`. A page that is
/// wrong ends the kernel, so it reports no more.
fn turns(steps: &mut Steps<'_>, count: usize) -> Result<Vec<u64>> {
    loop {
        let all = steps.running.events.all().iter().skip(steps.past);
        let turns: Vec<_> = all.filter_map(turn_of).collect();
        if turns.len() >= count {
            return Ok(turns);
        }
        let is_turn = |event: &Event| turn_of(event).is_some();
        steps.running.events.wait_for(ANSWER, "the guest's next report", is_turn)?;
    }
}

/// Suspends the guest; returns the last turn that it has reported.
fn suspend(steps: &mut Steps<'_>) -> Result<u64> {
    steps.done(of("suspend", "guest"))?;
    let told = steps.hear(&json!({"event": "suspended", "partition": "guest"}))?;
    ensure!(told.number("bytes")? > 0, "{}", told.0);
    steps.done(json!({"command": "list"}))?;
    steps.hear(&json!({"event": "space", "state": "suspended", "partition": "guest"}))?;
    let all = steps.running.events.all();
    all.iter().rev().find_map(turn_of).context("no turn before the suspension")
}

/// Resumes the guest, and checks that its next two reports follow the last one without a gap.
fn resume(steps: &mut Steps<'_>, before: u64) -> Result<()> {
    steps.done(of("resume", "guest"))?;
    steps.hear(&json!({"event": "resumed", "partition": "guest", "incarnation": 1}))?;
    let turns = turns(steps, 3)?;
    for (n, turn) in (1..).zip(&turns) {
        ensure!(*turn == before + n * REPORT, "{turns:?} after {before}");
    }
    Ok(())
}

fn first_start(machine: &BedMachine) -> Result<u64> {
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let turn = {
        let mut steps = Steps { running: &mut running, past: 0 };
        let mut play = || {
            turns(&mut steps, 1)?;
            steps.refused(of("resume", "guest"), "guest is not suspended: it is running")?;
            let turn = suspend(&mut steps)?;
            steps.refused(of("start", "guest"), "it is suspended")?;
            resume(&mut steps, turn)?;
            suspend(&mut steps)
        };
        play().with_context(|| place.clone())?
    };
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, ANSWER).with_context(|| place)?;
    Ok(turn)
}

fn second_start(machine: &BedMachine, turn: u64) -> Result<()> {
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    {
        let mut steps = Steps { running: &mut running, past: 0 };
        let mut play = || {
            steps.hear(&json!({"event": "space", "state": "suspended", "partition": "guest"}))?;
            resume(&mut steps, turn)?;
            steps.done(of("kill", "guest"))?;
            steps.hear(&json!({"event": "stopped", "partition": "guest"}))
        };
        play().with_context(|| place.clone())?;
    }
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, ANSWER).with_context(|| place)
}
