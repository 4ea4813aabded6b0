//! Partitions that are defined, started and undefined while the machine runs, beside one of the
//! configuration that works all the time.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::dump::Dump;
use boot::events::Event;
use boot::volume::VolumeAccess;
use serde_json::{Value, json};
use std::time::Duration;
use tests::scenario::scenario_folder;
use tests::{Case, expect_success, plan_machine, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_partition_comes_and_goes_while_its_neighbour_works",
    beds: &[Bed::Qemu, Bed::Bochs],
    needs: &[],
    run: comes_and_goes,
}];

const LIMIT: Duration = Duration::from_secs(240);
const ANSWER: Duration = Duration::from_secs(240);

/// Three spaces: the neighbour's, one for an incarnation, one for a dump.
fn configuration(bed: Bed) -> Result<String> {
    let mut text = "[pool]\nmemory = \"20 MiB\"\n[machine]\ncpus = 2\n[spare]\npartitions = 1\n\
                    memory = \"16 MiB\"\n"
        .to_owned();
    for index in 0..3 {
        text += &match bed {
            Bed::Bochs => "[[paging_device]]\nmemory = \"14 MiB\"\n".to_owned(),
            _ => format!("[[paging_device]]\nimage = \"{index}.img\"\nsize = \"14 MiB\"\n"),
        };
    }
    for (name, kernel) in [("fill.kernel", "fill"), ("echo.kernel", "echo")] {
        let file = test_kernel(kernel)?;
        text += &format!("[[image]]\nname = \"{name}\"\nfile = \"{}\"\n", file.display());
    }
    Ok(text
        + &format!(
            "[[partition]]\nname = \"worker\"\nmemory = \"8 MiB\"\nkernel = \"{}\"\ncmdline = \
             \"turns=100000000 report=20000 hot=32 cold=1000 stride=50\"\ndump = \"off\"\n",
            test_kernel("spin")?.display()
        ))
}

fn comes_and_goes(bed: Bed) -> Result<()> {
    let name = format!("{}-comes-and-goes", bed.name());
    let folder = scenario_folder(&name)?;
    let machine = plan_machine(bed, &name, &configuration(bed)?, folder.path())?;
    let disks = machine.disks.clone();
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let dump = live(&mut running).with_context(|| place.clone())?;
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, ANSWER)?;
    if bed == Bed::Qemu {
        let image = &disks[usize::try_from(dump.number("disk")?)?];
        let read = Dump::open(image, VolumeAccess::Read)?;
        read.verify().with_context(|| place)?;
        let crash = read.record().crash.as_ref().context("no crash")?;
        ensure!(crash.name.to_string() == dump.text("dump")?, "another dump: {}", crash.name);
    }
    Ok(())
}

/// The machine, and how much of its events belongs to earlier steps.
pub(crate) struct Steps<'m> {
    pub(crate) running: &'m mut RunningMachine,
    pub(crate) past: usize,
}

impl Steps<'_> {
    /// Begins a step: events from now on belong to it.
    pub(crate) fn begin(&mut self) {
        self.past = self.running.events.all().len();
    }

    /// Begins a step with a command that must succeed.
    pub(crate) fn done(&mut self, command: Value) -> Result<()> {
        self.begin();
        let reply = self.running.events.command(ANSWER, command.clone())?;
        ensure!(reply.0["ok"] == true, "{command}: {}", reply.0);
        Ok(())
    }

    /// Gives a command that must be refused for this reason.
    pub(crate) fn refused(&mut self, command: Value, reason: &str) -> Result<()> {
        let reply = self.running.events.command(ANSWER, command.clone())?;
        ensure!(reply.text("error")?.contains(reason), "{command}: {}", reply.0);
        Ok(())
    }

    /// Waits for an event of this step that has all these members.
    pub(crate) fn hear(&mut self, members: &Value) -> Result<Event> {
        let members = members.as_object().context("members")?;
        let wanted = |event: &Event| members.iter().all(|(key, value)| event.0[key] == *value);
        let mut come = self.running.events.all().iter().skip(self.past);
        if let Some(event) = come.find(|event| wanted(event)) {
            return Ok(event.clone());
        }
        self.running.events.wait_for(LIMIT, &format!("{members:?}"), wanted)
    }

    /// Waits for an event of the partition that comes and goes.
    pub(crate) fn guest(&mut self, name: &str) -> Result<Event> {
        self.hear(&json!({"event": name, "partition": "guest"}))
    }

    /// Waits for the neighbour's next report of its work.
    fn neighbour_works(&mut self) -> Result<()> {
        self.begin();
        self.hear(&json!({"event": "guest", "partition": "worker", "kind": "log"})).map(|_| ())
    }
}

pub(crate) fn of(command: &str, partition: &str) -> Value {
    json!({"command": command, "partition": partition})
}

fn definition(name: &str, mib: u64, kernel: &str, cmdline: &str) -> Value {
    let kernel = json!({"image": kernel});
    json!({"command": "define", "definition": {
        "name": name, "memory_bytes": mib << 20, "kernel": kernel, "cmdline": cmdline,
    }})
}

/// Returns the event of the first dump.
fn live(running: &mut RunningMachine) -> Result<Event> {
    let mut steps = Steps { running, past: 0 };
    steps.hear(&json!({"event": "entered", "partition": "worker"}))?;
    steps.refused(definition("guest", 8, "none", ""), "no module 'none'")?;
    steps.refused(definition("worker", 8, "fill.kernel", ""), "worker is defined already")?;
    steps.refused(definition("guest", 64, "fill.kernel", ""), "larger than every paging space")?;
    steps.done(definition("guest", 8, "fill.kernel", "key=0xc0 passes=1 crash=1 spin=1"))?;
    steps.refused(definition("other", 8, "fill.kernel", ""), "2 places for partitions")?;
    steps.done(of("start", "guest"))?;
    steps.guest("crash")?;
    let dump = steps.guest("dump_complete")?;
    steps.refused(of("undefine", "guest"), "stop it first")?;
    steps.hear(&json!({"event": "guest", "partition": "guest", "text": "spinning"}))?;
    steps.neighbour_works()?;
    steps.done(json!({"command": "set", "partition": "guest", "dump": "off"}))?;
    steps.done(of("crash", "guest"))?;
    steps.hear(&json!({"event": "crash", "partition": "guest", "incarnation": 2}))?;
    steps.hear(&json!({"event": "entered", "partition": "guest", "incarnation": 3}))?;
    let is_second = |event: &Event| event.name() == "dump_complete" && event.0["incarnation"] == 2;
    ensure!(!steps.running.events.all().iter().any(is_second), "a dump in spite of dump=off");
    steps.done(of("kill", "guest"))?;
    steps.guest("stopped")?;
    steps.done(of("undefine", "guest"))?;
    steps.guest("undefined")?;
    steps.refused(of("start", "guest"), "no partition 'guest'")?;
    steps.neighbour_works()?;
    // The same name with another kernel and another size; at the monitor this time.
    steps.begin();
    let define = b"\x1ddefine guest memory=4M kernel=echo.kernel cmdline=\"name=7\"\r";
    steps.running.console.send(define)?;
    steps.guest("defined")?;
    steps.running.console.send(b"start guest\rconsole guest\r")?;
    steps.guest("entered")?;
    steps.guest("console")?;
    steps.running.console.send(b"hello\r")?;
    steps.running.console.wait_for(LIMIT, "[guest] #7> hello")?;
    steps.neighbour_works()?;
    Ok(dump)
}
