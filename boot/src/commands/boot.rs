//! `tidepool boot FILE.toml`: boots a configuration, shows its console and the events of its
//! partitions.

use crate::bed::{BedMachine, MachineEnd, RunningMachine};
use crate::cli::{BootArguments, Common};
use crate::config::{self, BootPlan};
use crate::events::Polled;
use crate::interrupt::{self, OnSignal, Signalled};
use crate::kernel_build::{self, Variant};
use crate::keyboard;
use crate::screen::{HostScreen, LineEnds, NoticeWriter};
use crate::serial::Echo;
use crate::setup::{self, SetupJob};
use crate::sockets::{SocketHub, Sockets};
use crate::terminal::Terminal;
use anyhow::Result;
use std::process::ExitCode;
use std::time::Duration;

/// Time limit of one poll for events.
const LOOK: Duration = Duration::from_millis(250);
/// Limits of the events and console bytes kept in memory: a machine may run for months.
const EVENTS_KEPT: usize = 64;
const CONSOLE_KEPT: usize = 64 << 10;

/// Boots and stays until the machine stops.
///
/// # Errors
/// Names the mistake in the configuration, or the program missing on this machine.
pub fn run(common: &Common, arguments: &BootArguments) -> Result<ExitCode> {
    let bed = common.bed();
    setup::prepare(&[SetupJob::Boot(bed)], common.permission())?;
    // Read the configuration first: a mistake in it should not cost a build.
    let mut plan = arguments
        .file
        .as_deref()
        .map_or_else(|| config::nothing(bed), |file| config::load(file, bed))?;
    plan.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    plan.route_consoles(arguments.console.iter().map(|(name, _)| name.as_str()))?;
    let sockets = Sockets::bind(arguments.events.as_deref(), &arguments.console)?;
    let hypervisor = match &arguments.hypervisor {
        Some(file) => file.clone(),
        None => kernel_build::hypervisor(Variant::Ordinary)?,
    };
    let screen = HostScreen::start(std::io::stdout())?;
    let mut machine = BedMachine::new(bed, "boot", hypervisor);
    machine.append = arguments.append.clone();
    machine.echo = Echo::Screen(screen.clone());
    let notices = NoticeWriter::new(&plan.disks, only_partition(&plan));
    machine.apply(plan);
    machine.cpus = arguments.cpus.unwrap_or(machine.cpus);
    let running = machine.start()?;
    let hub = sockets.start(running.events.typist()?)?;
    let notices = (!arguments.quiet).then_some(notices);
    watch(running, &screen, &hub, notices)
}

/// Returns the name of the only partition, whose console has the screen to itself; `None` where
/// there are several.
fn only_partition(plan: &BootPlan) -> Option<String> {
    match plan.config.partitions.as_slice() {
        [only] => Some(only.name.clone()),
        _ => None,
    }
}

fn watch(
    mut running: RunningMachine,
    screen: &HostScreen,
    hub: &SocketHub,
    mut notices: Option<NoticeWriter>,
) -> Result<ExitCode> {
    let terminal = Terminal::console();
    if terminal.is_some() {
        screen.set_line_ends(LineEnds::Return);
    }
    let theirs = screen.clone();
    let _last_line = OnSignal::new(Signalled::End, move || theirs.finish());
    running.events.keep_last(EVENTS_KEPT);
    running.console.keep_last(CONSOLE_KEPT);
    keyboard::type_through(running.console.typist()?, screen.clone())?;
    let ended = wait(&mut running, |event| {
        hub.event(&event.0);
        let notice = notices.as_mut().and_then(|notices| notices.event(event));
        notice.into_iter().for_each(|notice| screen.notice(notice));
    })?;
    hub.finish();
    screen.finish();
    drop(terminal);
    interrupt::yield_to_end();
    if ended == MachineEnd::Success {
        running.passed();
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidepool: {}; transcript in {}", running.failure(), running.folder().display());
    Ok(ExitCode::FAILURE)
}

/// Passes every event to `take` until the machine has ended.
fn wait(
    running: &mut RunningMachine,
    mut take: impl FnMut(&crate::events::Event),
) -> Result<MachineEnd> {
    loop {
        let limit = match running.events.poll(LOOK) {
            Polled::Event(event) => {
                take(&event);
                continue;
            }
            Polled::Nothing => Duration::ZERO,
            Polled::Ended => LOOK,
        };
        match running.wait_for_end(limit)? {
            MachineEnd::Not => {}
            ended => {
                // Events that were in flight when the emulator ended.
                while let Polled::Event(event) = running.events.poll(Duration::ZERO) {
                    take(&event);
                }
                return Ok(ended);
            }
        }
    }
}
