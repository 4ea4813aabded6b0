//! Carrying out what the operator, or a harness, asks for.

use super::{Node, report, stats};
use crate::console::command::{Command, CommandError, HELP, parse_json, parse_text};
use crate::console::event::Event;
use crate::console::input::Then;
use crate::console::output::{print_switch, print_text};
use crate::partition::shared::{Phase, Request, Shared};
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Audience {
    People,
    Program(u64),
}

/// Carries out a line typed at the monitor; says where keys go then.
pub fn text(node: &'static Node, line: &str) -> Then {
    let done = match parse_text(line) {
        None => return Then::Stay,
        Some(Ok(Command::Console(name))) => match choose_console(node, name) {
            Ok(()) => return Then::Console,
            Err(error) => Err(error),
        },
        Some(Ok(command)) => carry_out(node, &command, Audience::People),
        Some(Err(error)) => Err(format!("{error}")),
    };
    if let Err(error) = done {
        print_text(format_args!("error: {error}\n"));
    }
    Then::Stay
}

/// Carries out a JSON line and answers it.
pub fn json(node: &'static Node, line: &[u8]) {
    let (id, parsed) = parse_json(line);
    let id = id.unwrap_or(0);
    let done = match parsed {
        Ok(command) => carry_out(node, &command, Audience::Program(id)),
        Err(error) => Err(format!("{error}")),
    };
    report(&Event::Reply { id, ok: done.is_ok(), error: done.as_ref().err().map(String::as_str) });
}

/// Answers a JSON line that was too long.
pub fn too_long() {
    report(&Event::Reply { id: 0, ok: false, error: Some("line too long") });
}

fn carry_out(node: &'static Node, command: &Command<'_>, audience: Audience) -> Result<(), String> {
    match *command {
        Command::Help => print_text(format_args!("{HELP}")),
        Command::List => list(node, audience),
        Command::Stats => show_stats(node, audience),
        Command::Crash(name) => crash(node, name)?,
        Command::Console(name) => choose_console(node, name)?,
        Command::Stop(name) => stop(node, name)?,
        Command::Release(name, incarnation) => release(node, name, incarnation)?,
        Command::Evict(name, pages) => evict(node, name, pages)?,
        Command::PowerOff => {
            node.ending.store(true, Ordering::Release);
            for (index, shared) in node.partitions.iter().enumerate() {
                shared.ask(Request::Stop);
                node.poke(index);
            }
        }
    }
    Ok(())
}

fn find<'a>(node: &'a Node, name: &str) -> Result<(usize, &'a Shared), String> {
    let found = node.partitions.iter().enumerate().find(|(_, shared)| shared.name() == name);
    found
        .map(|(index, shared)| (index, &**shared))
        .ok_or_else(|| format!("no partition '{name}': {}", CommandError::Unknown(name)))
}

fn crash(node: &Node, name: &str) -> Result<(), String> {
    let (index, shared) = find(node, name)?;
    if !matches!(shared.phase(), Phase::Loading | Phase::Running) {
        return Err(format!("{name} does not run: it is {}", shared.phase().as_str()));
    }
    shared.ask(Request::Crash);
    node.poke(index);
    Ok(())
}

fn stop(node: &Node, name: &str) -> Result<(), String> {
    let (index, shared) = find(node, name)?;
    if shared.phase() == Phase::Stopped {
        return Err(format!("{name} has stopped already"));
    }
    shared.ask(Request::Stop);
    node.poke(index);
    Ok(())
}

/// Sends the keys to a partition from now on.
fn choose_console(node: &Node, name: &str) -> Result<(), String> {
    let (index, shared) = find(node, name)?;
    node.console.store(index, Ordering::Relaxed);
    // Its prompt may be out already: what is typed then stands behind a new one.
    print_switch(format_args!("\n[console of {}]\n", shared.name()));
    Ok(())
}

fn release(node: &'static Node, name: &str, incarnation: Option<u64>) -> Result<(), String> {
    find(node, name)?;
    match node.spaces.release_dumps(name, incarnation) {
        0 if node.spaces.is_draining(name) => Err(format!("the dump of {name} is still being written")),
        0 => Err(format!("{name} has no dump")),
        _ => Ok(()),
    }
}

fn evict(node: &Node, name: &str, pages: u64) -> Result<(), String> {
    let (_, shared) = find(node, name)?;
    let object = stats::memory_of(node, shared).ok_or("it has no memory now")?;
    let pages = u32::try_from(pages).unwrap_or(u32::MAX);
    node.pager.ask_evict(object.id(), pages);
    // A CPU that idles does it while this one goes back to its guest.
    node.wake_others();
    Ok(())
}

fn list(node: &Node, audience: Audience) {
    for space in node.spaces.summaries() {
        let (partition, epoch) = space.owner.as_ref().map_or(("", 0), |(name, epoch)| (name.as_str(), *epoch));
        match audience {
            Audience::Program(_) => {
                let (disk, number) = (space.place.disk as u8, space.place.number);
                report(&Event::Space { disk, space: number, state: space.state, partition, epoch });
            }
            Audience::People if partition.is_empty() => print_text(format_args!("{}  {}\n", space.place, space.state)),
            Audience::People => {
                print_text(format_args!("{}  {}  {partition}, incarnation {epoch}\n", space.place, space.state));
            }
        }
    }
    if audience == Audience::People {
        for shared in &node.partitions {
            let (name, phase, incarnation) = (shared.name(), shared.phase().as_str(), shared.incarnation());
            print_text(format_args!("{name}  {phase}, incarnation {incarnation}, {} MiB\n", shared.config.memory_bytes >> 20));
        }
    }
}

fn show_stats(node: &Node, audience: Audience) {
    if let Audience::Program(id) = audience {
        return stats::report_all(node, Some(id));
    }
    let pool = stats::pool(node, None);
    print_text(format_args!(
        "pool {} pages, {} free, {} of dump images; metadata {} bytes, {}.{:03} a guest page\n",
        pool.pages,
        pool.free,
        pool.image,
        pool.metadata_bytes,
        pool.metadata_per_page_milli / 1000,
        pool.metadata_per_page_milli % 1000
    ));
    print_text(format_args!(
        "  page-ins {} (+{} read around) page-outs {} clean {} zero {} rescued {} demand-zero {} lost {}\n",
        pool.page_ins,
        pool.read_around,
        pool.page_outs,
        pool.clean_evictions,
        pool.zero_evictions,
        pool.rescues,
        pool.demand_zero,
        pool.lost
    ));
    stats::partitions(node, None, |s| {
        print_text(format_args!(
            "{}  {}: logical {} resident {} paged {} zero {} untouched {}; page-ins {} page-outs {} exits {}\n",
            s.partition, s.state, s.logical, s.resident, s.paged, s.zero, s.untouched, s.page_ins, s.page_outs, s.exits
        ));
    });
}
