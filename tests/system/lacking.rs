//! Machines without a required or useful CPU feature: they stop at once and name it, or report how
//! they do without.

use anyhow::{Result, ensure};
use boot::bed::bochs::CPU_WITHOUT_AD;
use boot::bed::{Bed, MachineEnd};
use boot::config;
use std::time::Duration;
use tests::{Case, expect_success, machine};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_cpu_without_xsave_is_refused", beds: &[Bed::Bochs], needs: &[], run: xsave },
    Case {
        name: "a_cpu_without_dirty_bits_is_taken_and_named",
        beds: &[Bed::Bochs],
        needs: &[],
        run: accessed_dirty,
    },
];

/// This CPU has no unrestricted guest either, but XSAVE is checked first: every CPU needs it, of
/// any vendor.
fn xsave(bed: Bed) -> Result<()> {
    refused(bed, "corei5_lynnfield_750", "XSAVE")
}

fn accessed_dirty(bed: Bed) -> Result<()> {
    let mut machine = machine(bed, CPU_WITHOUT_AD)?;
    machine.apply(config::nothing(bed)?);
    machine.cpu = Some(CPU_WITHOUT_AD.to_owned());
    let mut running = machine.start()?;
    running.console.wait_for(LIMIT, "keeps no accessed and dirty bits")?;
    let boot = running.events.wait_named(LIMIT, "boot")?;
    ensure!(boot.text("accessed_dirty")? == "software", "{}", boot.0);
    expect_success(running, LIMIT)
}

fn refused(bed: Bed, cpu: &str, what: &str) -> Result<()> {
    let mut machine = machine(bed, cpu)?;
    machine.apply(config::nothing(bed)?);
    machine.cpu = Some(cpu.to_owned());
    let mut running = machine.start()?;
    let line = running.console.wait_for(LIMIT, "ERROR")?;
    ensure!(line.contains(what), "it should name “{what}”: {line}");
    ensure!(
        running.wait_for_end(LIMIT)? == MachineEnd::Failure,
        "a machine that cannot work must not look like success"
    );
    running.passed();
    Ok(())
}
