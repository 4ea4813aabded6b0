//! `stop` and `poweroff timeout=`: guests that answer their power button, and guests that do not.
//! Linux is suspended before, and goes on on another start of the hypervisor.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::Event;
use boot::initramfs;
use boot::setup::{Permission, SetupJob, debian};
use serde_json::{Value, json};
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::several::{Member, Several};
use tests::{Case, expect_success, plan_machine};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "node_stop_presses_the_power_button",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: press,
    },
    Case {
        name: "linux_goes_on_after_a_suspension_and_powers_off_at_its_button",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[SetupJob::Guest],
        run: linux,
    },
];

const LIMIT: Duration = Duration::from_secs(240);
/// The time-out of a guest that ends in order: more than it needs on a busy machine.
const LONG_NS: u64 = 200_000_000_000;
/// The time-out of a guest that does not.
const SHORT_NS: u64 = 2_000_000_000;

/// Partitions of the test kernel `button`: name, command line, further lines.
const GUESTS: &[(&str, &str, &str)] = &[
    ("polite", "answer=1", "dump = \"off\""),
    ("late", "answer=1 late=1", "dump = \"off\""),
    ("reset", "answer=2", "dump = \"off\""),
    ("crash", "answer=3", ""),
    ("deaf", "", "dump = \"off\""),
    ("last", "answer=1", "dump = \"off\""),
];

fn press(bed: Bed) -> Result<()> {
    let member = |(name, cmdline, lines): &(&str, &str, &'static str)| Member {
        lines,
        ..Member::new(name, "button", 4, cmdline)
    };
    let several = Several {
        pool_mib: 4 * GUESTS.len() as u64 + 4,
        cpus: 1,
        devices_mib: vec![8; GUESTS.len() + 1],
        members: GUESTS.iter().map(member).collect(),
    };
    let mut started = several.start(bed, &format!("{}-button", bed.name()))?;
    play(&mut started.running).with_context(|| started.place())?;
    expect_success(started.running, LIMIT)
}

fn play(running: &mut RunningMachine) -> Result<()> {
    for (name, ..) in GUESTS {
        let text = if *name == "late" { "starts" } else { "waits" };
        hear(running, json!({"event": "guest", "partition": name, "text": text}))?;
    }
    for (name, how) in [("polite", "power button"), ("reset", "reset while stopping")] {
        stop(running, name, LONG_NS)?;
        hear(running, json!({"event": "stopped", "partition": name, "how": how}))?;
    }
    // The button is pressed before the guest has opened its input.
    stop(running, "late", LONG_NS)?;
    done(running, json!({"command": "type", "partition": "late", "bytes": "0d"}))?;
    hear(running, json!({"event": "stopped", "partition": "late", "how": "power button"}))?;

    stop(running, "crash", LONG_NS)?;
    hear(running, json!({"event": "crash", "partition": "crash", "reason": "triple fault"}))?;
    hear(running, json!({"event": "dump_complete", "partition": "crash"}))?;
    hear(running, json!({"event": "stopped", "partition": "crash", "how": "crashed"}))?;

    stop(running, "deaf", LONG_NS)?;
    hear(running, json!({"event": "guest", "partition": "deaf", "text": "press 1"}))?;
    let refused = running.events.command(LIMIT, of("start", "deaf"))?;
    ensure!(refused.text("error")?.contains("it is shutting down"), "{}", refused.0);
    stop(running, "deaf", SHORT_NS)?;
    hear(running, json!({"event": "guest", "partition": "deaf", "text": "press 2"}))?;
    hear(running, json!({"event": "stopped", "partition": "deaf", "how": "hard after time-out"}))?;

    // The whole machine, and in it a guest that has been started again.
    done(running, of("start", "deaf"))?;
    hear(
        running,
        json!({"event": "guest", "partition": "deaf", "incarnation": 2, "text": "waits"}),
    )?;
    done(running, json!({"command": "poweroff", "timeout_ns": 5_000_000_000_u64}))?;
    hear(running, json!({"event": "stopped", "partition": "last", "how": "power button"}))?;
    let hard = json!({"event": "stopped", "partition": "deaf", "incarnation": 2,
                      "how": "hard after time-out"});
    hear(running, hard)?;
    let is_second = |event: &&Event| event.name() == "start" && event.0["incarnation"] == 2;
    let started: Vec<_> = running.events.all().iter().filter(is_second).collect();
    ensure!(started.len() == 1 && started[0].0["partition"] == "deaf", "{started:?}");
    Ok(())
}

/// Debian's kernel and the demonstration's init script: the worker goes on after a suspension over
/// a new start of the hypervisor, and the power button still works.
fn linux(bed: Bed) -> Result<()> {
    let name = format!("{}-button-linux", bed.name());
    let folder = scenario_folder(&name)?;
    let kernel = debian::kernel(Permission::Refuse)?;
    let initrd = folder.path().join("initramfs.cpio");
    initramfs::make(&kernel, &initrd)?;
    let text = format!(
        "[pool]\nmemory = \"120 MiB\"\n[[paging_device]]\nimage = \"0.img\"\nsize = \"176 \
         MiB\"\n[[partition]]\nname = \"linux\"\nmemory = \"144 MiB\"\nkernel = \
         \"{}\"\ninitrd = \"{}\"\ndump = \"off\"\ncmdline = \"console=ttyS0 worker.mib=64\"\n",
        kernel.vmlinuz().display(),
        initrd.display()
    );
    let machine = plan_machine(bed, &name, &text, folder.path())?;
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let pass = suspend(&mut running).with_context(|| place.clone())?;
    expect_success(running, LIMIT).with_context(|| place)?;

    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    go_on(&mut running, pass).with_context(|| place.clone())?;
    expect_success(running, LIMIT).with_context(|| place)
}

/// Returns the number of the worker's next pass, all of whose pages were right.
fn pass(running: &mut RunningMachine) -> Result<u64> {
    let line = running.console.wait_for(LIMIT, "worker: pass ")?;
    ensure!(line.trim_end().ends_with("wrong 0"), "{line}");
    number_of(&line).with_context(|| line.clone())
}

/// Returns the number of the pass that a line reports.
fn number_of(line: &str) -> Option<u64> {
    line.split_once("worker: pass ")?.1.split(' ').next()?.parse().ok()
}

/// Suspends Linux under the worker's load; returns the last pass that was seen before.
fn suspend(running: &mut RunningMachine) -> Result<u64> {
    running.console.wait_for(LIMIT, "input: Power Button as")?;
    pass(running)?;
    let seen = pass(running)?;
    done(running, of("suspend", "linux"))?;
    let told = hear(running, json!({"event": "suspended", "partition": "linux"}))?;
    println!("{}", told.0);
    done(running, json!({"command": "poweroff"}))?;
    ensure!(running.console.wait_for_end(LIMIT), "the machine does not end");
    // It has worked while its pages were written.
    let console = running.console.text();
    let last = console.lines().rev().find_map(number_of).context("no pass on the console")?;
    ensure!(last >= seen, "pass {last} after {seen}");
    Ok(last)
}

/// Resumes it on another start of the hypervisor, and presses its power button.
fn go_on(running: &mut RunningMachine, before: u64) -> Result<()> {
    hear(running, json!({"event": "space", "state": "suspended", "partition": "linux"}))?;
    done(running, of("resume", "linux"))?;
    let told = hear(running, json!({"event": "resumed", "partition": "linux", "incarnation": 1}))?;
    println!("{}", told.0);
    let first = pass(running)?;
    ensure!(first == before + 1, "pass {first} after {before}");
    ensure!(pass(running)? == first + 1, "a pass is missing");
    stop(running, "linux", LONG_NS)?;
    running.console.wait_for(LIMIT, "init: power button")?;
    hear(running, json!({"event": "stopped", "partition": "linux", "how": "power button"}))?;
    let console = running.console.text();
    for word in ["clocksource", "lockup", "rcu:", "hung", "WARNING", "BUG"] {
        ensure!(!console.contains(word), "{word} on the console after the resume");
    }
    done(running, json!({"command": "poweroff"}))
}

/// Gives a command that must succeed.
fn done(running: &mut RunningMachine, command: Value) -> Result<()> {
    let reply = running.events.command(LIMIT, command.clone())?;
    ensure!(reply.0["ok"] == true, "{command}: {}", reply.0);
    Ok(())
}

/// Stops a partition whose guest runs; its button has been pressed then.
fn stop(running: &mut RunningMachine, partition: &str, timeout_ns: u64) -> Result<()> {
    done(running, json!({"command": "stop", "partition": partition, "timeout_ns": timeout_ns}))?;
    let told = json!({"event": "stopping", "partition": partition, "timeout_ns": timeout_ns});
    hear(running, told).map(|_| ())
}

/// Waits for an event with all these members, also an earlier one.
fn hear(running: &mut RunningMachine, members: Value) -> Result<Event> {
    let wanted = members.as_object().context("members")?;
    let is_it = |event: &Event| wanted.iter().all(|(key, value)| event.0[key] == *value);
    if let Some(event) = running.events.all().iter().find(|event| is_it(event)) {
        return Ok(event.clone());
    }
    running.events.wait_for(LIMIT, &members.to_string(), is_it)
}

fn of(command: &str, partition: &str) -> Value {
    json!({"command": command, "partition": partition})
}
