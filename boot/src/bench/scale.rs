//! Cost and gain of more CPUs: four partitions that page, on machines with one, two and four CPUs
//! that run guests.
//!
//! ```text
//!  QEMU, plugin that counts ─> hypervisor instructions without lock waits; pages moved (median)
//!  QEMU on one host core ────> the same job completes
//!  Bochs ────────────────────> its ticks, of which each CPU has one at a time: work per tick
//! ```
//!
//! Every figure is compared with that of one CPU in the same run of the command, so it does not
//! depend on the build.

use super::BenchImages;
use super::counted::{self, Instructions};
use super::scratch::Scratch;
use crate::bed::{Bed, BedMachine, ClockBase, RunningMachine};
use crate::config;
use crate::events::Event;
use crate::report::TextTable;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Time limit for the whole job, on a busy machine of one core.
const LIMIT: Duration = Duration::from_secs(900);
/// Partitions, MiB of each, and passes over its memory.
const PARTITIONS: u32 = 4;
const MIB: u64 = 32;
const PASSES: u32 = 3;
/// MiB of the pool: half of the partitions' memory.
const POOL_MIB: u64 = 64;

/// The compared numbers of CPUs that run guests.
pub const CPUS: [u32; 3] = [1, 2, 4];
/// Number of runs for a median.
pub const ROUNDS: u32 = 5;
/// Maximum of hypervisor instructions, relative to one CPU.
pub const BAR_INSTRUCTIONS: f64 = 1.3;
/// Maximum of page-ins, relative to one CPU.
pub const BAR_PAGE_INS: f64 = 1.1;
/// Minimum of work per tick of two CPUs, relative to one CPU.
pub const BAR_WORK: f64 = 1.7;

/// The paging devices of the partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskBacking {
    /// Memory-backed paging devices.
    Memory,
    /// Image files behind virtio-blk.
    Virtio,
}

impl DiskBacking {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Virtio];

    /// Returns the name used in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Virtio => "virtio",
        }
    }
}

/// The cost of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScaleCost {
    /// Instructions, where they were counted.
    pub instructions: Instructions,
    /// Pages read on demand.
    pub page_ins: u64,
    /// Pages read in addition (read-around).
    pub read_around: u64,
    /// Pages written.
    pub page_outs: u64,
    /// Nanoseconds of the machine's clock from the first entry to the last verdict.
    pub ns: u64,
}

/// Runs the job under the plugin and counts.
///
/// # Errors
/// Names the step that did not finish in time, or the failure in the machine.
pub fn count(images: &BenchImages<'_>, cpus: u32, disks: DiskBacking) -> Result<ScaleCost> {
    let folder = Scratch::new("scale")?;
    let mut machine = machine(Bed::Qemu, images, folder.path(), (cpus, disks))?;
    let out = folder.path().join("instructions.txt");
    machine.plugin = Some(counted::argument(&counted::plugin()?, &out));
    let (mut running, mut cost) = work(&machine)?;
    running.quit()?;
    cost.instructions = counted::read(&out, images.hypervisor)?;
    running.passed();
    Ok(cost)
}

/// Runs the job with all of the emulator's threads on one core of this machine.
///
/// # Errors
/// As [`count`].
pub fn on_one_core(images: &BenchImages<'_>, cpus: u32, disks: DiskBacking) -> Result<ScaleCost> {
    let folder = Scratch::new("scale")?;
    let mut machine = machine(Bed::Qemu, images, folder.path(), (cpus, disks))?;
    machine.host_core = Some(0);
    let (running, cost) = work(&machine)?;
    running.passed();
    Ok(cost)
}

/// Runs the job on Bochs, where in one tick every CPU runs.
///
/// # Errors
/// As [`count`].
pub fn ticks(images: &BenchImages<'_>, cpus: u32) -> Result<ScaleCost> {
    let machine = machine(Bed::Bochs, images, Path::new(""), (cpus, DiskBacking::Memory))?;
    let (running, cost) = work(&machine)?;
    running.passed();
    Ok(cost)
}

fn machine(
    bed: Bed,
    images: &BenchImages<'_>,
    folder: &Path,
    (cpus, disks): (u32, DiskBacking),
) -> Result<BedMachine> {
    let name = format!("scale-{}-{cpus}", disks.name());
    let plan = config::read(&name, &configuration(images, cpus, disks), folder, bed)?;
    let mut machine = BedMachine::new(bed, &name, images.hypervisor.to_owned());
    machine.apply(plan);
    machine.clock = ClockBase::Host;
    Ok(machine)
}

fn configuration(images: &BenchImages<'_>, cpus: u32, disks: DiskBacking) -> String {
    let mut text = format!("[pool]\nmemory = \"{POOL_MIB} MiB\"\n[machine]\ncpus = {cpus}\n");
    for n in 0..PARTITIONS {
        let mib = MIB + 12;
        text += &match disks {
            DiskBacking::Memory => format!("[[paging_device]]\nmemory = \"{mib} MiB\"\n"),
            DiskBacking::Virtio => {
                format!("[[paging_device]]\nimage = \"{n}.img\"\nsize = \"{mib} MiB\"\n")
            }
        };
    }
    for n in 0..PARTITIONS {
        text += &format!(
            "[[partition]]\nname = \"p{n}\"\nmemory = \"{MIB} MiB\"\nkernel = \"{}\"\ncmdline = \
             \"passes={PASSES}\"\ndump = \"off\"\nrestart = \"never\"\n",
            images.kernel.display()
        );
    }
    text
}

/// Starts the machine and waits until all partitions have passed; the machine keeps running.
fn work(machine: &BedMachine) -> Result<(RunningMachine, ScaleCost)> {
    let mut running = machine.start()?;
    let first = running.events.wait_named(LIMIT, "entered")?.number("t")?;
    let mut last = first;
    for _ in 0..PARTITIONS {
        let verdict = running.events.wait_for(LIMIT, "a partition's verdict", is_verdict)?;
        if verdict.0["kind"] != "pass" {
            bail!("{}; transcript in {}", verdict.0, running.folder().display());
        }
        last = verdict.number("t")?;
    }
    running.events.command(LIMIT, json!({"command": "stats"}))?;
    let pool = running.events.newest("pool").context("no counters of the pool")?;
    let (page_ins, read_around, page_outs) =
        (pool.number("page_ins")?, pool.number("read_around")?, pool.number("page_outs")?);
    let cost = ScaleCost {
        instructions: Instructions::default(),
        page_ins,
        read_around,
        page_outs,
        ns: last - first,
    };
    Ok((running, cost))
}

fn is_verdict(event: &Event) -> bool {
    match event.name() {
        "error" | "crash" | "end" => true,
        "guest" => matches!(event.0["kind"].as_str(), Some("pass" | "fail")),
        _ => false,
    }
}

/// The medians of some runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Medians {
    /// See [`Instructions::hypervisor`].
    pub hypervisor: u64,
    /// See [`Instructions::waits`].
    pub waits: u64,
    /// See [`ScaleCost::page_ins`].
    pub page_ins: u64,
    /// Pages read, on demand or not.
    pub read: u64,
    /// See [`ScaleCost::page_outs`].
    pub page_outs: u64,
}

/// Returns the medians of `costs`.
///
/// # Panics
/// If `costs` is empty (our bug).
pub fn medians(costs: &[ScaleCost]) -> Medians {
    let of = |value: fn(&ScaleCost) -> u64| {
        let mut values: Vec<_> = costs.iter().map(value).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Medians {
        hypervisor: of(|cost| cost.instructions.hypervisor),
        waits: of(|cost| cost.instructions.waits),
        page_ins: of(|cost| cost.page_ins),
        read: of(|cost| cost.page_ins + cost.read_around),
        page_outs: of(|cost| cost.page_outs),
    }
}

/// Returns the table to print, and whether all figures are within the bars; `rows` begins with one
/// CPU.
pub fn judge(rows: &[(u32, Medians)]) -> (TextTable, bool) {
    let mut table = TextTable::new(&[
        "CPUs",
        "hypervisor",
        "of one",
        "bar",
        "lock waits",
        "page-ins",
        "of one",
        "bar",
        "read",
        "written",
    ]);
    let mut within = true;
    let one = rows[0].1;
    for (cpus, medians) in rows {
        let ratio = |value: u64, one: u64| value as f64 / one.max(1) as f64;
        let (hypervisor, page_ins) =
            (ratio(medians.hypervisor, one.hypervisor), ratio(medians.page_ins, one.page_ins));
        within &= hypervisor <= BAR_INSTRUCTIONS && page_ins <= BAR_PAGE_INS;
        table.row(&[
            cpus.to_string(),
            medians.hypervisor.to_string(),
            format!("{hypervisor:.2}"),
            BAR_INSTRUCTIONS.to_string(),
            medians.waits.to_string(),
            medians.page_ins.to_string(),
            format!("{page_ins:.2}"),
            BAR_PAGE_INS.to_string(),
            medians.read.to_string(),
            medians.page_outs.to_string(),
        ]);
    }
    (table, within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(hypervisor: u64, page_ins: u64) -> ScaleCost {
        let instructions = Instructions { hypervisor, ..Instructions::default() };
        ScaleCost { instructions, page_ins, read_around: 1, page_outs: 0, ns: 0 }
    }

    #[test]
    fn the_median_is_of_each_figure_by_itself() {
        let found = medians(&[cost(30, 1), cost(10, 3), cost(20, 2)]);
        assert_eq!((found.hypervisor, found.page_ins, found.read), (20, 2, 3));
    }

    #[test]
    fn what_is_above_a_bar_is_found() {
        let row = |cpus, hypervisor, page_ins| (cpus, medians(&[cost(hypervisor, page_ins)]));
        assert!(judge(&[row(1, 100, 100), row(2, 130, 110)]).1);
        assert!(!judge(&[row(1, 100, 100), row(2, 131, 100)]).1);
        assert!(!judge(&[row(1, 100, 100), row(2, 100, 111)]).1);
    }
}
