//! A real server under load sees no fault that is not its own: redis, its benchmark and the worker,
//! in a Debian that has more memory than the pool.
//!
//! The case is short. `TIDEPOOL_SERVER_SECONDS=7200` makes it two hours long by the guest's clock;
//! `TIDEPOOL_SERVER_CLOCK=instructions` makes the machine's clock count instructions.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, ClockBase, RunningMachine};
use boot::events::{Event, Polled};
use boot::serial::LineError;
use boot::setup::{Permission, SetupJob, debian};
use boot::{initramfs, paths};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::{Case, expect_success, plan_machine};

const SERVER: Case = Case {
    name: "a_server_under_load_meets_no_fault_that_is_not_its_own",
    beds: &[Bed::Qemu, Bed::Kvm],
    needs: &[SetupJob::Guest, SetupJob::Server],
    run: serve,
};

/// The case, on Bochs too where a long run is asked for: the boot and two passes alone take minutes
/// there.
pub(crate) fn cases() -> &'static [Case] {
    if long().is_some() { &[SERVER, Case { beds: &[Bed::Bochs], ..SERVER }] } else { &[SERVER] }
}

/// Returns the seconds of the guest's clock of a long run, if one is asked for.
fn long() -> Option<f64> {
    std::env::var("TIDEPOOL_SERVER_SECONDS").ok()?.parse().ok()
}

/// Minimum seconds of service by the guest's clock.
const SHORT_S: f64 = 10.0;
/// Time limit for one line of the guest. On a busy machine an emulator needs a minute for a boot.
const PATIENCE: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(60);
/// Passes between two reports of the test.
const REPORT: u64 = 25;
/// The same rate as in the other long run.
const COUNTED: ClockBase = ClockBase::Instructions(5);

/// Words of a Linux, and of our own init script, that report a fault. A stalled machine shows as a
/// lockup, a lost timer as a stalled grace period or an unstable clock, a corrupt page as a wrong
/// one.
const FAULTS: &[&str] = &[
    "Oops",
    "BUG:",
    "WARNING:",
    "Kernel panic",
    "Call Trace",
    "stack guard page",
    "general protection",
    "segfault",
    "traps:",
    "double fault",
    "lockup",
    "rcu:",
    "rcu_",
    "blocked for more than",
    "unstable",
    "hrtimer: interrupt took",
    "unexpected",
    "spurious",
    "Bad page",
    "Out of memory",
    "worker: wrong",
    "server: wrong",
];
/// Words of the boot that look like some of them.
const HARMLESS: &[&str] =
    &["rcu: Hierarchical", "rcu: \tRCU", "rcu_tasks", "rcu: RCU calculated", "rcu: Adjusting"];

fn serve(bed: Bed) -> Result<()> {
    let counted = std::env::var("TIDEPOOL_SERVER_CLOCK").is_ok_and(|clock| clock == "instructions");
    let folder = paths::tidepool().join(format!("{}-server", bed.name()));
    std::fs::create_dir_all(&folder)?;
    let kernel = debian::kernel(Permission::Refuse)?;
    let initrd = folder.join("initramfs.cpio");
    initramfs::server::make(&kernel, &initrd)?;
    let text = configuration(bed, &kernel.vmlinuz(), &initrd);
    let mut machine = plan_machine(bed, "server", &text, &folder)?;
    machine.clock = if counted { COUNTED } else { ClockBase::Host };
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let mut watch = Watch {
        running: &mut running,
        faults: Vec::new(),
        passes: 0,
        guest_s: 0.0,
        begun: Instant::now(),
    };
    watch.until(long().unwrap_or(SHORT_S)).with_context(|| place.clone())?;
    watch.report()?;
    ensure!(watch.faults.is_empty(), "{:#?}; {place}", watch.faults);
    running.events.send(json!({"command": "poweroff"}))?;
    expect_success(running, LIMIT)?;
    Ok(std::fs::remove_dir_all(&folder)?)
}

fn configuration(bed: Bed, kernel: &Path, initrd: &Path) -> String {
    let device = match bed {
        Bed::Bochs => "memory = \"200 MiB\"",
        _ => "image = \"0.img\"\nsize = \"200 MiB\"",
    };
    format!(
        "at_end = \"power-off\"\n[pool]\nmemory = \"104 MiB\"\n[machine]\ncpus = \
         1\n[[paging_device]]\n{device}\n[[partition]]\nname = \"server\"\nmemory = \"192 \
         MiB\"\nkernel = \"{}\"\ninitrd = \"{}\"\ndump = \"off\"\nrestart = \
         \"never\"\nhang_timeout = \"60 s\"\ncmdline = \"console=ttyS0 quiet worker.mib=48 \
         server.requests=1000\"\n",
        kernel.display(),
        initrd.display()
    )
}

/// The observations of the guest.
struct Watch<'m> {
    running: &'m mut RunningMachine,
    faults: Vec<String>,
    passes: u64,
    /// The guest's uptime at its last pass.
    guest_s: f64,
    begun: Instant,
}

impl Watch<'_> {
    /// Reads the output until the guest has served for `seconds` of its clock, or has seen a fault.
    fn until(&mut self, seconds: f64) -> Result<()> {
        while self.faults.is_empty() && (self.guest_s < seconds || self.passes < 2) {
            match self.running.console.next_line(Instant::now() + PATIENCE) {
                Ok(line) => self.take(&line)?,
                Err(LineError::Ended) => {
                    bail!("the machine stopped after {:.0} s of the guest", self.guest_s)
                }
                Err(LineError::TimeOut) => {
                    let (guest_s, state) = (self.guest_s, self.state());
                    bail!("no line for {PATIENCE:?} after {guest_s:.0} s: {state}");
                }
            }
            self.look_at_events()?;
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let is_fault = |line: &str| FAULTS.iter().any(|word| line.contains(word));
        if is_fault(line) && !HARMLESS.iter().any(|word| line.contains(word)) {
            self.faults.push(format!("after {:.0} s: {line}", self.guest_s));
        }
        if let Some(rest) = line.strip_prefix("server: pass ") {
            let uptime = rest.split_whitespace().nth(2).context("an uptime")?;
            self.passes += 1;
            self.guest_s = uptime.parse().with_context(|| line.to_owned())?;
            if self.passes.is_multiple_of(REPORT) {
                self.report()?;
            }
        }
        Ok(())
    }

    fn look_at_events(&mut self) -> Result<()> {
        loop {
            match self.running.events.poll(Duration::ZERO) {
                Polled::Event(event) if is_bad(&event) => self.faults.push(event.0.to_string()),
                Polled::Event(_) => {}
                Polled::Nothing => return Ok(()),
                Polled::Ended => bail!("the machine stopped"),
            }
        }
    }

    /// Prints the progress and the hypervisor's counters.
    fn report(&mut self) -> Result<()> {
        self.running.events.send(json!({"command": "stats"}))?;
        let faults = &mut self.faults;
        let pool = self.running.events.wait_for(LIMIT, "the counters", |event| {
            if is_bad(event) {
                faults.push(event.0.to_string());
            }
            event.name() == "pool"
        })?;
        let counters = ["page_ins", "page_outs", "timers_late", "timers_repeated"]
            .map(|name| format!("{name} {}", pool.0[name]));
        let (passes, guest_s, wall_s) =
            (self.passes, self.guest_s, self.begun.elapsed().as_secs_f64());
        let (faults, counters) = (self.faults.len(), counters.join(" "));
        println!(
            "server: {passes} passes, {guest_s:.0} s of the guest, {wall_s:.0} s of ours, faults \
             {faults}, {counters}"
        );
        Ok(())
    }

    /// Returns the state of a stalled machine, for the failure's text.
    fn state(&mut self) -> String {
        let before = self.running.events.all().len();
        let answer = self.running.events.command(LIMIT, json!({"command": "stats"}));
        let mut stats: Vec<_> =
            self.running.events.all()[before..].iter().map(|event| event.0.to_string()).collect();
        stats.extend(answer.err().map(|error| format!("{error:#}")));
        let cpu = self
            .running
            .emulator_says("info registers")
            .unwrap_or_else(|error| format!("{error:#}"));
        let apic =
            self.running.emulator_says("info lapic").unwrap_or_else(|error| format!("{error:#}"));
        format!("{}\n{cpu}\n{apic}", stats.join("\n"))
    }
}

fn is_bad(event: &Event) -> bool {
    matches!(event.name(), "crash" | "error" | "panic" | "hang" | "lost" | "stopped" | "end")
}
