//! From power-on to the first lines, and the end that nobody wants.

use anyhow::{Result, ensure};
use boot::bed::{Bed, Ended};
use boot::config;
use std::time::Duration;
use tests::{Case, expect_success, machine};

const LIMIT: Duration = Duration::from_secs(90);

pub const CASES: &[Case] = &[
    Case { name: "two_cpus_for_guests_come_up", beds: &[Bed::Qemu, Bed::Bochs, Bed::Kvm], needs: &[], run: two_cpus_come_up },
    Case { name: "a_panic_shows_a_symbolised_backtrace", beds: &[Bed::Qemu, Bed::Bochs], needs: &[], run: panic_backtrace },
];

fn two_cpus_come_up(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, "two-cpus")?;
    machine.apply(config::nothing(bed)?);
    let mut running = machine.start()?;
    running.console.wait_for(LIMIT, "INFO  Tidepool ")?;
    // One more where the boot CPU runs no guests.
    running.console.wait_for(LIMIT, if bed == Bed::Qemu { "3 CPUs" } else { "2 CPUs" })?;
    expect_success(running, LIMIT)
}

fn panic_backtrace(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, "panic")?;
    machine.append = "selftest=panic".to_owned();
    let mut running = machine.start()?;
    running.console.wait_for(LIMIT, "TIDEPOOL PANIC")?;
    running.console.wait_for(LIMIT, "backtrace:")?;
    running.console.wait_for(LIMIT, " kernel::")?;
    running.console.wait_for(LIMIT, "=== end ===")?;
    ensure!(running.wait_for_end(LIMIT)? == Ended::Failure, "a panic must not look like success");
    running.passed();
    Ok(())
}
