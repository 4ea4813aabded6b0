//! `tidepool boot FILE.toml`: a configuration and its console.

use crate::bed::{Ended, Machine};
use crate::cli::{BootArguments, Common};
use crate::config;
use crate::kernel_build::{self, Variant};
use crate::serial::Echo;
use crate::setup::{self, Job};
use crate::terminal::Terminal;
use anyhow::Result;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Boots and stays until the machine stops.
///
/// # Errors
/// What is wrong with the configuration, or missing on this machine.
pub fn run(common: &Common, arguments: &BootArguments) -> Result<ExitCode> {
    let bed = common.bed();
    setup::prepare(&[Job::Boot(bed)], common.permission())?;
    // The configuration first: its mistakes cost no build.
    let plan = arguments.file.as_deref().map_or_else(|| config::nothing(bed), |file| config::load(file, bed))?;
    plan.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let hypervisor = match &arguments.hypervisor {
        Some(file) => file.clone(),
        None => kernel_build::hypervisor(Variant::Ordinary)?,
    };
    let mut machine = Machine::new(bed, "boot", hypervisor);
    machine.append = arguments.append.clone();
    machine.echo = Echo::Stdout;
    machine.apply(plan);
    machine.cpus = arguments.cpus.unwrap_or(machine.cpus);
    let mut running = machine.start()?;
    let _terminal = Terminal::console();
    type_through(running.console.typist()?)?;
    let ended = loop {
        match running.wait_for_end(Duration::from_secs(3600))? {
            Ended::Not => {}
            ended => break ended,
        }
    };
    if ended == Ended::Success {
        running.passed();
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidepool: the hypervisor stopped with a failure; transcript in {}", running.folder().display());
    Ok(ExitCode::FAILURE)
}

/// Passes our standard input to the console; the thread ends with the input or the process.
fn type_through(mut console: std::net::TcpStream) -> Result<()> {
    std::thread::Builder::new().name("keyboard".into()).spawn(move || {
        let mut bytes = [0; 256];
        let mut input = std::io::stdin().lock();
        while let Ok(n @ 1..) = input.read(&mut bytes) {
            if console.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
    })?;
    Ok(())
}
