//! Faults: any one of a disk's requests fails, and the neighbour on another disk goes on as before.
//!
//! `TIDEPOOL_FAULTS=60` sets the number of requests, each failing in four ways; `TIDEPOOL_SEED=N`
//! sets the first seed.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::Bed;
use boot::events::Event;
use boot::volume::{SpaceImage, VolumeAccess};
use kernel::space::DeviceContent;
use kernel::space::classify::HEAD_LEN;
use kernel::space::copies::TAIL_LEN;
use serde_json::json;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;
use tests::cuts::{CrashMoment, HeldDump};
use tests::faulty::{FaultyMachine, LIMIT, NEIGHBOUR, STEP, TimeBase, VICTIM, VICTIMS};
use tests::nbd::{Action, NbdDisk, NbdError, RequestKind, RequestLogEntry, Rule};
use tests::seeded_runs::SeededRuns;
use tests::seeds::Choices;
use tests::{Case, expect_success, pace};

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_fault_at_any_request_of_one_disk_harms_no_neighbour",
    beds: &[Bed::Qemu],
    needs: &[],
    run: faults,
}];

/// Requests that fail in a usual run.
const FAULTS: u64 = 2;
/// The disk that fails.
const DISK: u64 = 0;
/// Indices of the images that may hold dumps of the victim.
const VICTIMS_DISKS: [usize; 2] = [0, 2];
/// Requests of QEMU's own: it reads the first sector to guess a geometry (its `guess_disk_lchs`).
const EMULATORS: u64 = 1;
/// Time from the neighbour's first step to the last request that may be chosen, by the machine's
/// clock: two crashes, two dumps and a release.
const CYCLE_NS: u64 = 9_000_000_000;
/// Time for which a run is observed after the fault: three times the disk's time limit for an
/// answer.
const SPELL_NS: u64 = 6_000_000_000;
/// Number of slow runs of the neighbour that count as a failure.
const TRIES: usize = 3;
/// The first sectors, which a start reads.
const HEAD: u64 = HEAD_LEN as u64;
/// Both records, at a disk's end.
const RECORDS: u64 = TAIL_LEN as u64;
/// Length of the window in which the neighbour is slowest in a run without a fault.
const WINDOW_NS: u64 = 2_000_000_000;
/// Longest time without a step of the neighbour.
const PAUSE_NS: u64 = 1_000_000_000;

/// The fault of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RequestFault {
    ErrorOnce,
    ErrorForGood,
    NoAnswer,
    LateAnswer,
}

impl RequestFault {
    const ALL: [Self; 4] = [Self::ErrorOnce, Self::ErrorForGood, Self::NoAnswer, Self::LateAnswer];

    /// Returns the action for the request, and the action for all later ones.
    const fn actions(self) -> (Action, Option<Action>) {
        match self {
            Self::ErrorOnce => (Action::Fail(NbdError::Io), None),
            Self::ErrorForGood => (Action::Fail(NbdError::Io), Some(Action::Fail(NbdError::Io))),
            Self::NoAnswer => (Action::Keep, Some(Action::Keep)),
            Self::LateAnswer => (Action::Keep, None),
        }
    }
}

/// A class of a disk's requests, from which the failing one is chosen.
#[derive(Clone, Debug)]
struct RequestClass {
    kinds: &'static [RequestKind],
    bytes: Range<u64>,
    /// Number of these requests in a run without a fault, including QEMU's own.
    count: u64,
    /// Number of QEMU's own, which come first.
    emulators: u64,
}

/// A run without a fault.
#[derive(Clone, Debug)]
struct PlainRun {
    /// Steps of the neighbour in a spell, at the rate of its slowest window beside a working
    /// victim.
    slowest: usize,
    /// The classes of requests. Each is chosen equally often, because most requests are writes of
    /// pages.
    classes: Vec<RequestClass>,
}

impl PlainRun {
    /// Chooses a request of a class.
    fn choose(&self, seed: u64, fault: RequestFault) -> Rule {
        let mut choices = Choices::new(seed);
        let class = &self.classes[choices.number(0..self.classes.len() as u64) as usize];
        let (action, afterwards) = fault.actions();
        let skip = choices.number(class.emulators..class.count);
        Rule {
            node: None,
            kinds: class.kinds,
            bytes: class.bytes.clone(),
            skip,
            times: 1,
            action,
            afterwards,
        }
    }
}

fn faults(_: Bed) -> Result<()> {
    let plan = SeededRuns { at_a_time: 2, ..SeededRuns::plan("TIDEPOOL_FAULTS", FAULTS) };
    let plain = plain_run()?;
    // Each request has one run for each way to fail, with consecutive seeds.
    let ways = RequestFault::ALL.len() as u64;
    SeededRuns { count: plan.count * ways, ..plan }.each(|seed| {
        let kind = RequestFault::ALL[(seed % ways) as usize];
        fault(&plain.choose(seed / ways, kind), kind, &plain)
    })
}

fn plain_run() -> Result<PlainRun> {
    let mut machine = FaultyMachine::start("no-fault", TimeBase::Instructions, |_| {})?;
    let place = machine.place();
    let first = first_step(&mut machine).with_context(|| place.clone())?;
    let spell = first..first + CYCLE_NS;
    go_on(&mut machine, |_, now| now >= spell.end).with_context(|| place.clone())?;
    let log = machine.disks[0].log();
    are_emulators(&log[..EMULATORS as usize], &log[EMULATORS as usize..])?;
    let slowest = pace::slowest(&machine.steps, WINDOW_NS, spell).context("a pace")?
        * (SPELL_NS / WINDOW_NS) as usize;
    let classes = classes(&log, machine.disks[0].size());
    finish(machine, RequestFault::ErrorOnce).with_context(|| place)?;
    Ok(PlainRun { slowest, classes })
}

fn classes(log: &[RequestLogEntry], len: u64) -> Vec<RequestClass> {
    let records = len - RECORDS..len;
    let blocks = HEAD..len - RECORDS;
    [
        (&[][..], 0..u64::MAX),
        (&[RequestKind::Flush], 0..len),
        (&[RequestKind::Read], blocks),
        (&[RequestKind::Write], records),
    ]
    .into_iter()
    .map(|(kinds, bytes): (&'static [RequestKind], Range<u64>)| {
        let rule = Rule { kinds, bytes: bytes.clone(), ..Rule::all(Action::Keep) };
        let count = |log: &[RequestLogEntry]| {
            log.iter().filter(|entry| rule.fits_entry(entry)).count() as u64
        };
        RequestClass {
            kinds,
            bytes,
            count: count(log),
            emulators: count(&log[..EMULATORS as usize]),
        }
    })
    .collect()
}

/// Checks that the hypervisor's first request reads the partition table: earlier requests are
/// QEMU's.
fn are_emulators(emulators: &[RequestLogEntry], hypervisors: &[RequestLogEntry]) -> Result<()> {
    let sectors = |entries: &[RequestLogEntry]| {
        entries.iter().map(|entry| (entry.kind, entry.bytes.clone())).collect::<Vec<_>>()
    };
    let [first, second] = [(RequestKind::Read, 0..512), (RequestKind::Read, 512..1024)];
    let (emulators, begin) = (sectors(emulators), sectors(&hypervisors[..2]));
    ensure!(
        emulators == [first.clone()] && begin == [first, second],
        "first requests: {emulators:?}, {begin:?}"
    );
    Ok(())
}

fn fault(rule: &Rule, kind: RequestFault, plain: &PlainRun) -> Result<String> {
    let mut slow = String::new();
    // A busy host may slow the neighbour down once; a fault does so every time.
    for _ in 0..TRIES {
        match fault_once(rule, kind, plain)? {
            FaultOutcome::Well(word) => return Ok(word),
            FaultOutcome::Slow(why) => {
                println!("{why}");
                slow = why;
            }
        }
    }
    bail!("{TRIES} times in a row {slow}")
}

/// The outcome of a run.
enum FaultOutcome {
    Well(String),
    /// The neighbour, or a good disk, was too slow.
    Slow(String),
}

fn fault_once(rule: &Rule, kind: RequestFault, plain: &PlainRun) -> Result<FaultOutcome> {
    let prepare = |disks: &[NbdDisk]| disks[0].rule(rule.clone());
    let mut machine = FaultyMachine::start("fault", TimeBase::Instructions, prepare)?;
    let place = format!("{kind:?}, {rule:?}, {}", machine.place());
    let spell = match check_fault(&mut machine, kind) {
        Ok(spell) => spell,
        Err(error) if has_stalled(&machine) => {
            return Ok(FaultOutcome::Slow(format!("{error:#}; {place}")));
        }
        Err(error) => return Err(error.context(place)),
    };
    let met = machine.disks[0].first_met().context("no request met the rule")?;
    let steps = machine.steps.iter().filter(|step| spell.contains(step)).count();
    let has_paused = pace::slowest(&machine.steps, PAUSE_NS, spell) == Some(0);
    if has_paused || steps * 10 < plain.slowest * 8 {
        let slow = format!(
            "the neighbour did {steps} steps, {} without a fault, or none in a second; {place}",
            plain.slowest
        );
        return Ok(FaultOutcome::Slow(slow));
    }
    finish(machine, kind).with_context(|| place)?;
    Ok(FaultOutcome::Well(format!("{kind:?} of {:?}", met.kind)))
}

/// Returns whether the host kept a good disk from answering in time.
fn has_stalled(machine: &FaultyMachine) -> bool {
    machine.notices.iter().any(|(event, _)| is_written_off(event) && !is_trouble(event))
}

/// Checks that the neighbour goes on, and that events and screen report the fault. Returns the time
/// of the observation.
fn check_fault(machine: &mut FaultyMachine, kind: RequestFault) -> Result<Range<u64>> {
    first_step(machine)?;
    let mut begin = None;
    go_on(machine, |machine, now| {
        let is_met = begin.is_some() || machine.disks[0].first_met().is_some();
        begin = begin.or(is_met.then_some(now));
        if is_met
            && kind == RequestFault::LateAnswer
            && machine.notices.iter().any(|(event, _)| is_written_off(event))
        {
            machine.disks[0].let_go();
        }
        begin.is_some_and(|begin| now >= begin + SPELL_NS)
    })?;
    let begin = begin.context("a begin")?;
    let is_told = |machine: &FaultyMachine| {
        machine.notices.iter().any(|(event, notice)| is_trouble(event) && !notice.text.is_empty())
    };
    let deadline = Instant::now() + LIMIT;
    while !is_told(machine) {
        machine.next_event().context("waiting for an event that tells of the fault")?;
        ensure!(Instant::now() < deadline, "no event tells of the fault");
    }
    if kind == RequestFault::ErrorOnce {
        costs_nothing(machine)?;
    }
    Ok(begin..begin + SPELL_NS)
}

/// Checks that a single error costs no incarnation, no dump and no space: the request is retried.
fn costs_nothing(machine: &FaultyMachine) -> Result<()> {
    let is_lost = |event: &Event| match event.name() {
        "crash" => event.0["reason"] != "triple fault",
        "error" => event.0["message"].to_string().contains("later"),
        name => name == "dump_failed",
    };
    let is_others = |event: &Event| event.name() == "error" && !is_trouble(event);
    match machine.notices.iter().find(|(event, _)| is_lost(event) && !is_others(event)) {
        Some((event, _)) => bail!("a single error costs too much: {}", event.0),
        None => Ok(()),
    }
}

fn is_written_off(event: &Event) -> bool {
    event.name() == "error" && event.0["message"].to_string().contains("written off")
}

fn is_trouble(event: &Event) -> bool {
    match event.name() {
        "error" => event.0["place"].as_str().is_some_and(|place| place.contains("paging device 0")),
        "dump_failed" => event.0["disk"] == DISK,
        _ => false,
    }
}

/// Waits for the neighbour's first step; returns its time.
fn first_step(machine: &mut FaultyMachine) -> Result<u64> {
    let first = format!("writes {STEP} ");
    let is_step = |event: &Event| {
        event.0["partition"] == NEIGHBOUR && event.0["text"].to_string().contains(&first)
    };
    machine.until("the neighbour's first step", is_step)?.number("t")
}

/// Reads events until `is_over`, which gets the machine's clock; checks the victim's dumps and
/// releases them.
fn go_on(
    machine: &mut FaultyMachine,
    mut is_over: impl FnMut(&FaultyMachine, u64) -> bool,
) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let event = machine.next_event()?;
        if event.name() == "dump_complete" {
            check_dump(machine, &event)?;
            let command = json!({
                "command": "release", "partition": VICTIM, "count": event.number("incarnation")?
            });
            machine.running.events.send(command)?;
        }
        if event.0["t"].as_u64().is_some_and(|now| is_over(machine, now)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it takes too long; the last event was {}", event.0);
    }
}

fn check_dump(machine: &FaultyMachine, complete: &Event) -> Result<()> {
    let image = &machine.images[usize::try_from(complete.number("disk")?)?];
    let held = HeldDump::on(image)?.context("a dump that was announced")?;
    check_held(machine, image, &held).with_context(|| complete.0.to_string())
}

fn check_held(machine: &FaultyMachine, image: &Path, held: &HeldDump) -> Result<()> {
    let is_early = |event: &Event| event.name() == "crash" && event.0["reason"] != "triple fault";
    let is_it = |event: &Event| {
        event.0["partition"] == VICTIM && event.0["incarnation"] == held.incarnation
    };
    let was_early = machine.notices.iter().any(|(event, _)| is_early(event) && is_it(event));
    let moment = if was_early { CrashMoment::OnTheWay } else { CrashMoment::AtTheEnd };
    let first = machine.first_page.context("the guest said where its pages begin")?;
    held.check_at(image, &VICTIMS, first, moment).map(|_| ())
}

/// Switches the machine off, and checks the contents of its disks.
fn finish(mut machine: FaultyMachine, kind: RequestFault) -> Result<()> {
    machine.running.events.send(json!({"command": "poweroff"}))?;
    let deadline = Instant::now() + LIMIT;
    while let Some(event) = machine.running.events.next(deadline)? {
        ensure!(!matches!(event.name(), "panic" | "lost"), "{}", event.0);
    }
    for disk in VICTIMS_DISKS {
        check_image(&machine, &machine.images[disk])
            .with_context(|| format!("disk {disk} in the end"))?;
    }
    let claim = SpaceImage::open(&machine.images[0], VolumeAccess::Read)?.claim()?;
    ensure!(
        kind != RequestFault::ErrorOnce || claim.is_none(),
        "the claim is not given back: {claim:?}"
    );
    expect_success(machine.running, LIMIT)
}

fn check_image(machine: &FaultyMachine, image: &Path) -> Result<()> {
    // The fault may have prevented the disk's formatting.
    if SpaceImage::open(image, VolumeAccess::Read)?.class()? == DeviceContent::Blank {
        return Ok(());
    }
    match HeldDump::on(image)? {
        Some(held) => check_held(machine, image, &held),
        None => Ok(()),
    }
}
