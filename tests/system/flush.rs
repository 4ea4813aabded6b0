//! A page that is paged out while a vCPU on another CPU writes it: no write is lost and no frame
//! has two owners. Without the TLB flush both happen.
//!
//! The guest (`spin`) stays in guest mode and writes its pages in turn. At each line of its log the
//! harness requests an eviction, so that pages leave while the guest writes them. Its cold pages
//! keep the pool short in addition. On these beds only such a vCPU reveals a missing flush: the
//! emulators flush by themselves at every entry.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::bochs::CPU_WITHOUT_AD;
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::events::Event;
use boot::kernel_build::{self, Variant};
use serde_json::json;
use std::time::{Duration, Instant};
use tests::{Case, plan_machine, test_kernel};

const BOTH: &[Bed] = &[Bed::Qemu, Bed::Bochs];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "two_cpus_evict_while_a_guest_writes",
        beds: BOTH,
        needs: &[],
        run: |bed| every_write_survives(bed, None),
    },
    Case {
        name: "without_the_flush_writes_are_lost",
        beds: BOTH,
        needs: &[],
        run: |bed| mutant_is_caught(bed, None),
    },
    Case {
        name: "two_cpus_without_dirty_bits_evict_while_a_guest_writes",
        beds: &[Bed::Bochs],
        needs: &[],
        run: |bed| every_write_survives(bed, Some(CPU_WITHOUT_AD)),
    },
    Case {
        name: "without_dirty_bits_and_without_the_flush_writes_are_lost",
        beds: &[Bed::Bochs],
        needs: &[],
        run: |bed| mutant_is_caught(bed, Some(CPU_WITHOUT_AD)),
    },
];

const LIMIT: Duration = Duration::from_secs(240);
const GRACE: Duration = Duration::from_secs(20);

/// The amount of work on a bed.
struct Measure {
    /// The guest's command line: more pages than the pool holds.
    cmdline: &'static str,
    /// MiB of the partition, of the pool and of the paging device.
    mib: [u32; 3],
    /// Pages to evict at each line of the guest's log.
    evict: u32,
    /// Minimum number of pages that have left by the end.
    least: u64,
}

/// Returns the amount of work. A write is lost only where the guest does not exit between a page's
/// checksum and the end of its write. That time is long on Bochs, so the cold pages come seldom
/// there: each is an exit.
const fn measure(bed: Bed) -> Measure {
    match bed {
        Bed::Bochs => Measure {
            cmdline: "turns=10000 report=100 hot=128 cold=1200 stride=200",
            mib: [8, 5, 12],
            evict: 128,
            least: 500,
        },
        _ => Measure {
            cmdline: "turns=200000 report=1000 hot=96 cold=1400 stride=100",
            mib: [8, 5, 12],
            evict: 128,
            least: 3000,
        },
    }
}

/// The guest's outcome.
#[derive(Debug)]
enum GuestOutcome {
    /// All turns are done, and every page was correct.
    Passed,
    /// The guest found a wrong page; its message.
    #[expect(dead_code, reason = "read by Debug")]
    Wrong(String),
    /// The hypervisor read a block that does not match its checksum.
    Lost,
}

fn every_write_survives(bed: Bed, cpu: Option<&str>) -> Result<()> {
    let measure = measure(bed);
    let machine = machine(bed, cpu, "flush", &measure)?;
    let _disks = Disks(machine.disks.clone());
    let mut running = machine.start()?;
    let folder = running.folder().display().to_string();
    judge(&mut running, &measure).with_context(|| folder)?;
    running.passed();
    Ok(())
}

fn judge(running: &mut RunningMachine, measure: &Measure) -> Result<()> {
    let outcome = drive(running, measure)?;
    ensure!(matches!(outcome, GuestOutcome::Passed), "{outcome:?}");
    running.events.command(GRACE, json!({"command": "stats"}))?;
    let stats = running.events.newest("pool").context("no counters came")?;
    let number = |member| stats.number(member);
    let evicted = number("page_outs")? + number("clean_evictions")? + number("rescues")?;
    println!("{}", stats.0);
    ensure!(
        evicted >= measure.least,
        "only {evicted} pages left, {} wanted: {}",
        measure.least,
        stats.0
    );
    ensure!(
        number("page_outs")? > 0 && number("rescues")? > 0 && number("page_ins")? > 0,
        "too little happened: {}",
        stats.0
    );
    ensure!(number("lost")? == 0, "pages were lost: {}", stats.0);
    Ok(())
}

fn mutant_is_caught(bed: Bed, cpu: Option<&str>) -> Result<()> {
    let mut measure = measure(bed);
    // The run ends at the first fault.
    measure.cmdline = match (bed, cpu) {
        // Here each access to an aged page faults, and so exits: only few pages are checksummed and
        // written between two exits.
        (Bed::Bochs, Some(_)) => "turns=400000 report=3000 hot=8 cold=1320 stride=1000",
        (Bed::Bochs, None) => measure.cmdline,
        // Usually the fault occurs within a second. A checksum is fast here, so the run gets more
        // turns.
        _ => "turns=2000000 report=1000 hot=96 cold=1400 stride=100",
    };
    let mut machine = machine(bed, cpu, "no-flush", &measure)?;
    machine.hypervisor = kernel_build::hypervisor(Variant::NoFlush)?;
    let _disks = Disks(machine.disks.clone());
    let mut running = machine.start()?;
    let folder = running.folder().display().to_string();
    match drive(&mut running, &measure).with_context(|| folder.clone())? {
        GuestOutcome::Passed => bail!("the guest noticed nothing; transcript in {folder}"),
        outcome => println!("caught: {outcome:?}"),
    }
    running.passed();
    Ok(())
}

fn machine(bed: Bed, cpu: Option<&str>, name: &str, measure: &Measure) -> Result<BedMachine> {
    let kernel = test_kernel("spin")?;
    let [memory, pool, device] = measure.mib;
    let image = std::env::temp_dir().join(format!(
        "tidepool-{}-{}-{name}.img",
        std::process::id(),
        bed.name()
    ));
    let device = match bed {
        Bed::Bochs => format!("memory = \"{device} MiB\""),
        _ => format!("image = \"{}\"\nsize = \"{device} MiB\"", image.display()),
    };
    let toml = format!(
        "[pool]\nmemory = \"{pool} MiB\"\n[[paging_device]]\n{device}\n[[partition]]\nname = \
         \"spin\"\nmemory = \"{memory} MiB\"\nkernel = \"{}\"\ncmdline = \"{}\"\n",
        kernel.display(),
        measure.cmdline
    );
    let _ = std::fs::remove_file(&image);
    let mut machine = plan_machine(bed, name, &toml, std::path::Path::new("/"))?;
    machine.cpu = cpu.map(str::to_owned);
    Ok(machine)
}

/// The machine's disks, which are removed with the test.
struct Disks(Vec<std::path::PathBuf>);

impl Drop for Disks {
    fn drop(&mut self) {
        self.0.iter().for_each(|disk| drop(std::fs::remove_file(disk)));
    }
}

/// Evicts pages at each line of the guest's log, until the guest ends.
fn drive(running: &mut RunningMachine, measure: &Measure) -> Result<GuestOutcome> {
    let deadline = Instant::now() + LIMIT;
    let (mut wrong, mut unanswered) = (None, None);
    while let Some(event) = running.events.next(deadline)? {
        match (event.name(), word(&event, "kind"), word(&event, "text")) {
            ("guest", "log", text) if text.starts_with("wrong page") => {
                wrong = Some(text.to_owned())
            }
            // The line is slow: a second command before the first answer would only queue.
            ("guest", "log", text) if text.starts_with("turn") && unanswered.is_none() => {
                let command =
                    json!({"command": "evict", "partition": "spin", "count": measure.evict});
                unanswered = Some(running.events.send(command)?);
            }
            ("reply", ..) if event.0["id"].as_u64() == unanswered => unanswered = None,
            ("guest", "pass", _) => return Ok(GuestOutcome::Passed),
            ("guest", "fail", _) => {
                return wrong.map(GuestOutcome::Wrong).context("the guest failed otherwise");
            }
            ("crash", ..) if word(&event, "reason") == "page lost" => {
                return Ok(GuestOutcome::Lost);
            }
            // This error belongs to that crash, before or after it.
            ("error", ..)
                if word(&event, "message")
                    .contains("cannot be read back (its block holds something else") => {}
            ("crash" | "error" | "panic" | "stopped", ..) => bail!("unexpected: {}", event.0),
            _ => {}
        }
    }
    bail!("the machine stopped")
}

fn word<'e>(event: &'e Event, member: &str) -> &'e str {
    event.0[member].as_str().unwrap_or("")
}
