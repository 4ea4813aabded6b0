//! `tidepool bench`: path lengths in instructions, beside the reference and the bar.

use crate::bed::Bed;
use crate::bench::{Images, operations, restart};
use crate::cli::Common;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, Job};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Measures on the chosen bed; the status is 0 only where every figure is within its bar.
///
/// # Errors
/// What is missing, or did not happen.
pub fn run(common: &Common) -> Result<ExitCode> {
    let bed = common.bed.unwrap_or(Bed::Qemu);
    if bed == Bed::Kvm {
        bail!("KVM cannot count instructions: use --bed qemu or --bed bochs");
    }
    setup::prepare(&[Job::Boot(bed)], common.permission())?;
    let hypervisor = kernel_build::hypervisor(Variant::Ordinary)?;
    let kernel = kernel_build::test_kernels()?.join("bench");
    let images = Images { hypervisor: &hypervisor, kernel: &kernel };

    println!("path lengths in instructions, {}", bed.name());
    let figures = operations::measure(bed, &images)?;
    println!("{}", figures.table());
    println!("metadata: {:.2} bytes a guest page at overcommit 2 (bar 16)", figures.metadata_per_page);
    let mut within = figures.above_the_bar().is_empty();
    if bed == Bed::Qemu {
        let restarts = restart::SIZES.iter().map(|mib| restart::measure(bed, &images, *mib)).collect::<Result<Vec<_>>>()?;
        let slope = restart::slope(&restarts);
        println!(
            "\nR1, restart = \"immediate\"\n{}slope {slope:.4} instructions a page (bar {})",
            restart::table(&restarts),
            restart::BAR
        );
        within &= slope <= restart::BAR;
    }
    for id in figures.above_the_bar() {
        println!("above the bar: {id}");
    }
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
