//! Gates on path lengths: the clock counts instructions, so the results are exact on any machine.

use anyhow::{Result, ensure};
use boot::bed::Bed;
use boot::bench::{BenchImages, restart};
use boot::kernel_build::{self, Variant};
use tests::{Case, test_kernel};

pub(crate) const CASES: &[Case] = &[Case {
    name: "restart_does_not_wait_for_ram",
    beds: &[Bed::Qemu],
    needs: &[],
    run: restart_does_not_wait_for_ram,
}];

fn restart_does_not_wait_for_ram(bed: Bed) -> Result<()> {
    let (hypervisor, kernel) =
        (kernel_build::hypervisor(Variant::Ordinary)?, test_kernel("bench")?);
    let images = BenchImages { hypervisor: &hypervisor, kernel: &kernel };
    let restarts = restart::SIZES
        .iter()
        .map(|mib| restart::measure(bed, &images, *mib))
        .collect::<Result<Vec<_>>>()?;
    let slope = restart::slope(&restarts);
    ensure!(
        slope <= restart::BAR,
        "{slope} instructions more for a page more\n{}",
        restart::table(&restarts)
    );
    Ok(())
}
