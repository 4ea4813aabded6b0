//! `tidepool bench`: path lengths in instructions, compared with the reference and the bar.

use crate::bed::Bed;
use crate::bench::{BenchImages, clone, operations, restart, scale, traces};
use crate::cli::Common;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, SetupJob};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The arguments of `tidepool bench`.
#[derive(Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// Compare one, two and four CPUs at paging: instructions, page-ins, work per tick (a quarter
    /// of an hour and more)
    Scale {
        /// Number of runs; their median counts
        #[arg(
            long, default_value_t = scale::ROUNDS,
            value_parser = clap::value_parser!(u32).range(1..=99)
        )]
        rounds: u32,
    },
    /// Replay the traces M1 to M4 in a guest whose memory does not fit (ten minutes)
    Traces {
        /// Page to image files of 100 MiB/s and measure times, instead of memory and instructions
        #[arg(long)]
        virtio: bool,
        /// Another hypervisor's ELF file, to compare with
        #[arg(long)]
        hypervisor: Option<PathBuf>,
    },
}

/// Measures on the chosen bed; the status is 0 only where every figure is within its bar.
///
/// # Errors
/// Names the missing thing, or the step that failed.
pub fn run(common: &Common, arguments: &BenchArguments) -> Result<ExitCode> {
    match &arguments.what {
        None => operations_and_restarts(common),
        Some(What::Scale { rounds }) => scale(common, *rounds),
        Some(What::Traces { virtio, hypervisor }) => {
            let disks =
                if *virtio { scale::DiskBacking::Virtio } else { scale::DiskBacking::Memory };
            replay(common, disks, hypervisor.as_deref())
        }
    }
}

fn operations_and_restarts(common: &Common) -> Result<ExitCode> {
    let bed = common.bed.unwrap_or(Bed::Qemu);
    if bed == Bed::Kvm {
        bail!("KVM cannot count instructions: use --bed qemu or --bed bochs");
    }
    setup::prepare(&[SetupJob::Boot(bed)], common.permission())?;
    let hypervisor = kernel_build::hypervisor(Variant::Ordinary)?;
    let kernel = kernel_build::test_kernels()?.join("bench");
    let images = BenchImages { hypervisor: &hypervisor, kernel: &kernel };

    println!("path lengths in instructions, {}", bed.name());
    let figures = operations::measure(bed, &images)?;
    println!("{}", figures.table());
    println!(
        "metadata: {:.2} bytes a guest page at overcommit 2 (bar 16)",
        figures.metadata_per_page
    );
    let mut within = figures.above_the_bar().is_empty();
    if bed == Bed::Qemu {
        let restarts = restart::SIZES
            .iter()
            .map(|mib| restart::measure(bed, &images, *mib))
            .collect::<Result<Vec<_>>>()?;
        let slope = restart::slope(&restarts);
        println!(
            "\nR1, restart = \"immediate\"\n{}slope {slope:.4} instructions a page (bar {})",
            restart::table(&restarts),
            restart::BAR
        );
        within &= slope <= restart::BAR;
        clones(bed, &hypervisor)?;
    }
    for id in figures.above_the_bar() {
        println!("above the bar: {id}");
    }
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures clones, and prints the table.
fn clones(bed: Bed, hypervisor: &Path) -> Result<()> {
    let kernel = kernel_build::test_kernels()?.join("clones");
    let images = BenchImages { hypervisor, kernel: &kernel };
    let costs = clone::SIZES
        .iter()
        .map(|mib| clone::measure(bed, &images, *mib))
        .collect::<Result<Vec<_>>>()?;
    println!(
        "\nC1, nanoseconds from the answer to `clone` (idle time included)\n{}",
        clone::table(&costs)
    );
    Ok(())
}

/// Compares one, two and four CPUs, on both beds unless one is chosen.
fn scale(common: &Common, rounds: u32) -> Result<ExitCode> {
    let beds = common.bed.map_or_else(|| vec![Bed::Qemu, Bed::Bochs], |bed| vec![bed]);
    if beds.iter().any(|bed| !matches!(bed, Bed::Qemu | Bed::Bochs)) {
        bail!("instructions and ticks are counted by the emulators: use --bed qemu or --bed bochs");
    }
    let jobs: Vec<_> = beds.iter().map(|bed| SetupJob::Boot(*bed)).collect();
    setup::prepare(&jobs, common.permission())?;
    let hypervisor = kernel_build::hypervisor(Variant::Ordinary)?;
    let kernel = kernel_build::test_kernels()?.join("fill");
    let images = BenchImages { hypervisor: &hypervisor, kernel: &kernel };
    let mut within = true;
    if beds.contains(&Bed::Qemu) {
        within &= scale_on_qemu(&images, rounds)?;
    }
    if beds.contains(&Bed::Bochs) {
        within &= scale_on_bochs(&images)?;
    }
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scale_on_qemu(images: &BenchImages<'_>, rounds: u32) -> Result<bool> {
    let mut within = true;
    for disks in scale::DiskBacking::ALL {
        println!("\nqemu, {} disks: instructions and pages, median of {rounds}", disks.name());
        let mut rows = Vec::new();
        for cpus in scale::CPUS {
            let costs = (0..rounds)
                .map(|_| scale::count(images, cpus, disks))
                .collect::<Result<Vec<_>>>()?;
            print_functions(cpus, &costs);
            rows.push((cpus, scale::medians(&costs)));
        }
        let (table, is_within) = scale::judge(&rows);
        println!("{table}");
        within &= is_within;
        for cpus in &scale::CPUS[1..] {
            let cost = scale::on_one_core(images, *cpus, disks)?;
            println!("{cpus} CPUs on one host core: done, {} page-ins", cost.page_ins);
        }
    }
    Ok(within)
}

/// Prints the hypervisor functions in which the instructions of the first run were spent.
fn print_functions(cpus: u32, costs: &[scale::ScaleCost]) {
    let Some(first) = costs.first() else { return };
    let mut functions: Vec<_> = first.instructions.functions.iter().collect();
    functions.sort_by_key(|(_, count)| core::cmp::Reverse(**count));
    println!(
        "  {cpus} CPUs, first run: guests {}, hypervisor by function",
        first.instructions.guests
    );
    for (name, count) in functions.into_iter().take(8) {
        println!("    {count:>12}  {name}");
    }
}

fn scale_on_bochs(images: &BenchImages<'_>) -> Result<bool> {
    println!(
        "\nbochs, memory disks: nanoseconds of its clock, of which each CPU has as many as the \
         machine"
    );
    let (one, two) = (scale::ticks(images, 1)?, scale::ticks(images, 2)?);
    let ratio = one.ns as f64 / two.ns as f64;
    println!(
        "one CPU {}, two CPUs {}: work per tick {ratio:.2} of one's (bar {})",
        one.ns,
        two.ns,
        scale::BAR_WORK
    );
    println!("page-ins {} and {}", one.page_ins, two.page_ins);
    Ok(ratio >= scale::BAR_WORK)
}

/// Replays the traces.
fn replay(
    common: &Common,
    disks: scale::DiskBacking,
    hypervisor: Option<&Path>,
) -> Result<ExitCode> {
    if common.bed.is_some_and(|bed| bed != Bed::Qemu) {
        bail!("the traces are replayed on QEMU: use --bed qemu");
    }
    setup::prepare(&[SetupJob::Boot(Bed::Qemu)], common.permission())?;
    let built = hypervisor
        .map_or_else(|| kernel_build::hypervisor(Variant::Ordinary), |file| Ok(file.to_owned()))?;
    let kernel = kernel_build::test_kernels()?.join("trace");
    let images = BenchImages { hypervisor: &built, kernel: &kernel };
    let mut costs = Vec::new();
    for job in traces::JOBS {
        let cost = traces::measure(&images, &job, disks)?;
        eprintln!("{}: {} pages read for {} faults", job.id, cost.read, cost.page_ins);
        costs.push((job, cost));
    }
    let (table, above) = traces::judge(&costs, disks);
    println!("{table}");
    above.iter().for_each(|what| println!("above the bar: {what}"));
    Ok(if above.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
