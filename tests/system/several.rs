//! Several partitions on few CPUs and one pool: a busy loop, a wait for a page or a crash of one
//! partition does not stop the others.

use anyhow::{Context, Result, ensure};
use boot::bed::{Bed, RunningMachine};
use boot::events::Event;
use serde_json::json;
use std::time::{Duration, Instant};
use tests::several::{Member, Several};
use tests::{Case, expect_success};

const BOTH: &[Bed] = &[Bed::Qemu, Bed::Bochs];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "each_console_line_names_its_partition_and_keys_go_where_they_are_sent",
        beds: BOTH,
        needs: &[],
        run: consoles,
    },
    Case {
        name: "one_kernel_that_is_missing_stops_only_its_own_partition",
        beds: &[Bed::Qemu],
        needs: &[],
        run: missing,
    },
    Case {
        name: "a_threshold_restart_in_a_full_pool_lives_off_its_own_frames",
        beds: BOTH,
        needs: &[],
        run: full_pool,
    },
    Case {
        name: "three_on_two_cpus_neither_stop_nor_disturb_each_other",
        beds: BOTH,
        needs: &[],
        run: |bed| three(bed, 2),
    },
    Case {
        name: "three_on_one_cpu_neither_stop_nor_disturb_each_other",
        beds: BOTH,
        needs: &[],
        run: |bed| three(bed, 1),
    },
];

const LIMIT: Duration = Duration::from_secs(240);
const ANSWER: Duration = Duration::from_secs(90);

/// Three partitions: one never waits, one crashes and restarts, one works on more pages than it can
/// hold.
fn three(bed: Bed, cpus: u32) -> Result<()> {
    let several = Several {
        pool_mib: 10,
        cpus,
        devices_mib: vec![10; 4],
        members: vec![
            // Takes longer than the other partitions need.
            Member::new(
                "busy",
                "spin",
                8,
                "turns=100000000 report=20000 hot=32 cold=1000 stride=50",
            ),
            Member::new("crasher", "fill", 8, "key=0xc0 passes=2 crash=1"),
            Member::new("worker", "fill", 8, "key=0xa0 passes=6 rewrite=4"),
        ],
    };
    let mut started = several.start(bed, &format!("{}-three-on-{cpus}", bed.name()))?;
    judge_three(&mut started.running).with_context(|| started.place())?;
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, ANSWER)
}

fn judge_three(running: &mut RunningMachine) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut seen = Seen::default();
    while !seen.all() {
        let event = running.events.next(deadline)?.context("the machine stopped")?;
        seen.take(&event)?;
    }
    ensure!(seen.busy_lines > 0, "the busy one has not got on");
    Ok(())
}

fn consoles(bed: Bed) -> Result<()> {
    let member =
        |number: u32| Member::new(&format!("e{number}"), "echo", 4, &format!("name={number}"));
    let several = Several {
        pool_mib: 12,
        cpus: 2,
        devices_mib: vec![6; 3],
        members: (0..3).map(member).collect(),
    };
    let mut started = several.start(bed, &format!("{}-consoles", bed.name()))?;
    talk(&mut started.running).with_context(|| started.place())?;
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, ANSWER)
}

fn talk(running: &mut RunningMachine) -> Result<()> {
    for _ in 0..3 {
        running.events.wait_named(LIMIT, "entered")?;
    }
    running.console.send(b"one\r")?;
    running.console.wait_for(LIMIT, "[e0] #0> one")?;
    heard(running, "e0", "one")?;
    let chosen =
        running.events.command(ANSWER, json!({"command": "console", "partition": "e2"}))?;
    ensure!(chosen.0["ok"] == true, "{}", chosen.0);
    running.console.send(b"two\r")?;
    running.console.wait_for(LIMIT, "[e2] #2> two")?;
    heard(running, "e2", "two")?;
    // Switch the console at the monitor.
    running.console.send(b"\x1dconsole e1\rthree\r")?;
    heard(running, "e1", "three")?;
    // The prompt of the partition with the keyboard is shown although it is no complete line.
    let deadline = Instant::now() + LIMIT;
    while !running.console.text().ends_with("[e1] #1> ") {
        let refused =
            running.events.command(ANSWER, json!({"command": "console", "partition": "nobody"}))?;
        ensure!(refused.0["ok"] == false && Instant::now() < deadline, "{}", refused.0);
    }
    // No partition has received input for another one.
    let heard = |event: &Event| {
        Some(format!(
            "{}: {}",
            word(event, "partition"),
            word(event, "text").strip_prefix("heard ")?
        ))
    };
    let heard: Vec<_> = running.events.all().iter().filter_map(heard).collect();
    ensure!(heard == ["e0: one", "e2: two", "e1: three"], "{heard:?}");
    Ok(())
}

/// Waits until a guest reports on both serial lines that it received `what`; the two lines are not
/// synchronised.
fn heard(running: &mut RunningMachine, partition: &str, what: &str) -> Result<()> {
    let text = format!("heard {what}");
    running.console.wait_for(LIMIT, &format!("[{partition}] {text}"))?;
    let said = |event: &Event| event.0["partition"] == partition && word(event, "text") == text;
    running.events.wait_for(LIMIT, &text, said).map(drop)
}

fn missing(bed: Bed) -> Result<()> {
    let mut broken = Member::new("broken", "hello", 8, "");
    broken.lines = "initrd = \"nowhere\"";
    let several = Several {
        pool_mib: 16,
        cpus: 2,
        devices_mib: vec![10; 2],
        members: vec![broken, Member::new("fine", "fill", 8, "passes=1")],
    };
    let mut started = several.start(bed, "qemu-missing")?;
    let events = &mut started.running.events;
    let error = events.wait_named(LIMIT, "error")?;
    ensure!(
        error.text("place")? == "broken" && error.text("message")?.contains("boot archive"),
        "{}",
        error.0
    );
    let verdict = events.wait_for(LIMIT, "the other one's verdict", |e| {
        e.name() == "guest" && e.0["kind"] != "log"
    })?;
    ensure!(
        verdict.text("partition")? == "fine" && verdict.text("kind")? == "pass",
        "{}",
        verdict.0
    );
    events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, ANSWER)
}

/// The neighbour has more pages than the pool and never stops faulting. The crashed partition's
/// boot memory is half of its former frames.
fn full_pool(bed: Bed) -> Result<()> {
    const BOOT_PAGES: u64 = 512;
    let crasher = Member {
        lines: "restart = \"threshold\"\nboot_memory = \"2 MiB\"",
        ..Member::new("crasher", "fill", 8, "key=0xc0 passes=2 rewrite=1 crash=1")
    };
    let neighbour = Member::new("neighbour", "fill", 12, "key=0xa0 passes=1000000 rewrite=2");
    let several = Several {
        pool_mib: 8,
        cpus: 2,
        devices_mib: vec![14; 3],
        members: vec![crasher, neighbour],
    };
    let mut started = several.start(bed, &format!("{}-full-pool", bed.name()))?;
    judge_full_pool(&mut started.running, BOOT_PAGES).with_context(|| started.place())?;
    started.running.events.send(json!({"command": "poweroff"}))?;
    expect_success(started.running, ANSWER)
}

fn judge_full_pool(running: &mut RunningMachine, boot_pages: u64) -> Result<()> {
    let crash = running.events.wait_named(LIMIT, "crash")?;
    ensure!(
        crash.text("partition")? == "crasher" && crash.number("resident")? > boot_pages,
        "{}",
        crash.0
    );
    let restart = running.events.wait_named(LIMIT, "restart")?;
    println!("{}", restart.0);
    let number = |member| restart.number(member);
    ensure!(
        restart.text("gate")? == "threshold" && number("boot_memory")? == boot_pages,
        "{}",
        restart.0
    );
    ensure!(number("freed_from_image")? >= boot_pages, "too few frames of its own: {}", restart.0);
    ensure!(
        number("reserved")? == boot_pages,
        "the neighbour has taken what was promised: {}",
        restart.0
    );
    running.events.wait_named(LIMIT, "dump_complete")?;
    let verdict =
        |e: &Event| e.name() == "guest" && e.0["kind"] != "log" && e.0["partition"] == "crasher";
    let verdict = running.events.wait_for(LIMIT, "the second incarnation's verdict", verdict)?;
    ensure!(
        verdict.text("kind")? == "pass" && verdict.number("incarnation")? == 2,
        "{}",
        verdict.0
    );
    let neighbours =
        |e: &Event| e.0["partition"] == "neighbour" && word(e, "text").starts_with("pass");
    let pass = running.events.wait_for(LIMIT, "the neighbour to go on", neighbours)?;
    ensure!(pass.text("text")?.ends_with("wrong 0"), "{}", pass.0);
    Ok(())
}

/// The observations so far.
#[derive(Default, Debug)]
struct Seen {
    busy_lines: u32,
    crash: bool,
    dump: bool,
    crasher_passed: bool,
    worker_passed: bool,
}

impl Seen {
    fn all(&self) -> bool {
        self.crash && self.dump && self.crasher_passed && self.worker_passed && self.busy_lines > 0
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        let (partition, kind) = (word(event, "partition"), word(event, "kind"));
        match (event.name(), partition, kind) {
            ("guest", "busy", "log") => {
                ensure!(word(event, "text").ends_with("wrong 0"), "{}", event.0);
                self.busy_lines += 1;
            }
            ("guest", _, "log") => ensure!(!word(event, "text").contains("failed"), "{}", event.0),
            ("guest", "crasher", "pass") => self.crasher_passed = event.0["incarnation"] == 2,
            ("guest", "worker", "pass") => self.worker_passed = true,
            ("crash", "crasher", _) if event.0["incarnation"] == 1 => self.crash = true,
            ("dump_complete", "crasher", _) => self.dump = true,
            ("guest", _, "fail") | ("crash" | "error" | "panic" | "lost" | "dump_failed", ..) => {
                anyhow::bail!("{}", event.0)
            }
            _ => {}
        }
        Ok(())
    }
}

fn word<'e>(event: &'e Event, member: &str) -> &'e str {
    event.0[member].as_str().unwrap_or("")
}
