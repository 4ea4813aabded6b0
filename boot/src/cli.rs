//! The command line of `tidepool`.

use crate::bed::Bed;
use crate::setup::Permission;
use crate::{commands, interrupt};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Boots Tidepool, a bare-metal hypervisor whose paging spaces become crash dumps.
///
/// Without a command it runs the demonstration: Debians share a pool of half their promised memory.
/// One of them panics, and runs again before its dump is complete.
#[derive(Parser)]
#[command(name = "tidepool", version)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<CliCommand>,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where the hypervisor runs [default: kvm where it offers VMX or SVM to guests, else qemu]
    #[arg(long, global = true)]
    pub bed: Option<Bed>,
    /// Refuse to install or download anything; say what is missing instead
    #[arg(long, global = true)]
    pub no_install: bool,
}

impl Common {
    /// Returns the chosen bed, or the best one of this machine.
    pub fn bed(&self) -> Bed {
        self.bed.unwrap_or_else(Bed::best)
    }

    /// Returns whether missing things may be downloaded and installed.
    pub fn permission(&self) -> Permission {
        if self.no_install { Permission::Refuse } else { Permission::Install }
    }
}

#[derive(Subcommand)]
pub enum CliCommand {
    /// Show one matter in a run of its own, with a verdict
    #[command(subcommand)]
    Demo(commands::demo::DemoAction),
    /// Boot a configuration and show its console; Ctrl-] opens the monitor, where `quit` ends the
    /// machine
    Boot(BootArguments),
    /// Make and look at the image files of paging devices
    #[command(subcommand)]
    Volume(commands::volume::VolumeAction),
    /// Make image stores, and put kernels, initrds and partitions into them
    #[command(subcommand)]
    Store(commands::store::StoreAction),
    /// Make, check and sweep the areas by which nodes that share disks know each other
    #[command(subcommand)]
    Cluster(commands::cluster::ClusterAction),
    /// List, verify and release crash dumps on paging devices
    #[command(subcommand)]
    Dump(commands::dump::DumpAction),
    /// Write the image of a stick that starts a configuration on BIOS and on UEFI machines
    Image(commands::image::ImageArguments),
    /// Count the instructions that exits, faults, page-ins and dumps take
    Bench(commands::bench::BenchArguments),
    /// Say what this machine offers, run one partition on its best bed, and print what to send with
    /// a report
    Doctor,
    /// Put the last demonstration's figures and picture into this tree's README
    Readme,
    /// Install and fetch everything that the demonstration and the tests need
    Setup,
}

#[derive(Args)]
pub struct BootArguments {
    /// The configuration; without one the hypervisor starts no partition
    pub file: Option<PathBuf>,
    /// Text for the hypervisor's own command line
    #[arg(long, default_value = "")]
    pub append: String,
    /// An ELF file to boot instead of the hypervisor built from this tree
    #[arg(long)]
    pub hypervisor: Option<PathBuf>,
    /// CPUs of the machine that run guests [default: as configured, else 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub cpus: Option<u32>,
    /// A Unix socket to make: events for programs, and commands from them, a JSON object a line
    /// (docs/events.md)
    #[arg(long, value_name = "PATH")]
    pub events: Option<PathBuf>,
    /// A Unix socket to make: the console of a partition, byte for byte
    #[arg(long, value_name = "NAME=PATH", value_parser = console_path)]
    pub console: Vec<(String, PathBuf)>,
    /// Show the console only, no lines about crashes, dumps and errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// Parses `NAME=PATH`.
fn console_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        _ => Err("must be NAME=PATH, a partition's name and where its socket is made".to_owned()),
    }
}

/// Runs the process's command line.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// Runs a command line that includes the program's name. Errors go to standard error; the status is
/// 0 only where everything succeeded.
pub fn main_from(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = Cli::parse_from(arguments);
    let result = run(&cli);
    interrupt::yield_to_end();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidepool: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    interrupt::install()?;
    match &cli.command {
        Some(CliCommand::Demo(action)) => commands::demo::run_one(&cli.common, action),
        Some(CliCommand::Boot(arguments)) => commands::boot::run(&cli.common, arguments),
        Some(CliCommand::Volume(action)) => commands::volume::run(action),
        Some(CliCommand::Store(action)) => commands::store::run(action),
        Some(CliCommand::Cluster(action)) => commands::cluster::run(action),
        Some(CliCommand::Dump(action)) => commands::dump::run(action),
        Some(CliCommand::Image(arguments)) => commands::image::run(&cli.common, arguments),
        Some(CliCommand::Bench(arguments)) => commands::bench::run(&cli.common, arguments),
        Some(CliCommand::Doctor) => commands::doctor::run(&cli.common),
        Some(CliCommand::Readme) => commands::readme::run(),
        Some(CliCommand::Setup) => commands::setup::run(&cli.common),
        None => commands::demo::run(&cli.common),
    }
}
