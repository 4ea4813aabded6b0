//! Carries out the commands of the operator or of a harness.

use super::audience::{self, Audience};
use super::{members, moves, stats, stores};
use crate::console::command::{DumpChoice, HELP, MonitorCommand, parse_json, parse_text};
use crate::console::definition::DefinitionScope;
use crate::console::event::ConsoleEvent;
use crate::console::hex;
use crate::console::input::{ConsoleMode, KeyDestination};
use crate::console::output::{leave_raw, print_switch, print_text};
use crate::console::report;
use crate::console::utc::UtcTime;
use crate::node::Node;
use crate::node::define::stored::has_stored_definition;
use crate::node::define::{self, DefinitionError, clones, suspend};
use crate::partition::shared::{PartitionRequest, SharedPartition};
use crate::partition_id::PartitionId;
use crate::space::{PartialCause, SpaceState};
use crate::storage::spaces::{DumpReleaseError, KeptDump};
use crate::time::Ns;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Answer to `type` while the guest has not read the earlier input.
const BUSY: &str = "busy: the guest has not read what was typed before";

/// Carries out a line typed at the monitor; returns where keys go from then on.
pub fn text(node: &'static Node, line: &str) -> KeyDestination {
    let done = match parse_text(line) {
        None => return KeyDestination::Stay,
        Some(Ok(command)) => carry_out(node, &command, Audience::People),
        Some(Err(error)) => Err(format!("{error}")),
    };
    let keys = *done.as_ref().unwrap_or(&Some(KeyDestination::Stay));
    if keys.is_some() {
        audience::answer(Audience::People, done.map(|_| ()));
    }
    keys.unwrap_or(KeyDestination::Stay)
}

/// Carries out a JSON line and answers it; returns where keys go from then on.
pub fn json(node: &'static Node, line: &[u8]) -> KeyDestination {
    let (id, parsed) = parse_json(line);
    let id = id.unwrap_or(0);
    let done = match parsed {
        Ok(command) => carry_out(node, &command, Audience::Program(id)),
        Err(error) => Err(format!("{error}")),
    };
    let keys = *done.as_ref().unwrap_or(&Some(KeyDestination::Stay));
    if keys.is_some() {
        audience::answer(Audience::Program(id), done.map(|_| ()));
    }
    keys.unwrap_or(KeyDestination::Stay)
}

/// Answers a JSON line that exceeds the length limit.
pub fn too_long() {
    report(&ConsoleEvent::Reply { id: 0, ok: false, error: Some("line too long") });
}

/// Carries out a command; returns where keys go from then on, or `None` if a task answers it later.
fn carry_out(
    node: &'static Node,
    command: &MonitorCommand<'_>,
    audience: Audience,
) -> Result<Option<KeyDestination>, String> {
    match *command {
        MonitorCommand::Help => print_text(format_args!("{HELP}")),
        MonitorCommand::List => list(node, audience),
        MonitorCommand::Stats => show_stats(node, audience),
        MonitorCommand::Nodes => members::show(node, audience.program())?,
        MonitorCommand::FenceConfirm(name) => members::confirm(node, name)?,
        MonitorCommand::Message(name, text) => members::message(node, name, text)?,
        MonitorCommand::Move(name, to) => return moves::begin_move(node, name, to, audience),
        MonitorCommand::Drain(name, order) => moves::drain(node, name, order)?,
        MonitorCommand::Crash(name) => crash(node, name)?,
        MonitorCommand::Console(name) => {
            return choose_console(node, name, ConsoleMode::Lines).map(Some);
        }
        MonitorCommand::Raw(name) => {
            return choose_console(node, name, ConsoleMode::Raw).map(Some);
        }
        MonitorCommand::Store => return later(stores::list(node, audience)),
        MonitorCommand::Define(definition) if definition.store.is_some() => {
            return later(stores::define(node, &definition, audience));
        }
        MonitorCommand::Define(definition) => said(define::define(node, definition.to_config()))?,
        MonitorCommand::Start(name) if stores::has_to_look(node, name) => {
            return later(stores::start(node, name, audience));
        }
        MonitorCommand::Start(name) => said(define::start(node, name))?,
        MonitorCommand::Stop(name, timeout) => said(define::stop(node, name, timeout))?,
        MonitorCommand::Suspend(name) => said(suspend::suspend(node, name))?,
        MonitorCommand::Resume(name) if define::find(node, name).is_err() => {
            return Ok(moves::resume(node, name, audience));
        }
        MonitorCommand::Resume(name) => said(suspend::resume(node, name))?,
        MonitorCommand::Seal(name) => said(clones::seal(node, name))?,
        MonitorCommand::Clone(wanted) => said(clones::clone(node, &wanted))?,
        MonitorCommand::Set(name, options, DefinitionScope::Store)
            if said(has_stored_definition(node, name))? =>
        {
            return later(stores::set(node, (name, options), audience));
        }
        MonitorCommand::Set(name, options, _) => said(define::set(node, name, options))?,
        MonitorCommand::Undefine(name, DefinitionScope::Store)
            if said(has_stored_definition(node, name))? =>
        {
            return later(stores::undefine(node, name, audience));
        }
        MonitorCommand::Undefine(name, _) => said(define::undefine(node, name))?,
        MonitorCommand::Release(choice) => release(node, choice)?,
        MonitorCommand::Type(name, bytes) => type_at(node, name, bytes)?,
        MonitorCommand::Evict(name, pages) => evict(node, name, pages)?,
        MonitorCommand::PowerOff(timeout) => power_off(node, timeout),
    }
    Ok(Some(KeyDestination::Stay))
}

/// The answer comes later, unless the command was refused at once.
fn later(begun: Result<(), DefinitionError>) -> Result<Option<KeyDestination>, String> {
    said(begun).map(|()| None)
}

/// Ends all partitions, and then the machine.
fn power_off(node: &Node, timeout: Ns) {
    node.host.ending.store(true, Ordering::Release);
    node.registry.close();
    // Guests that end in order still need the disks.
    if timeout == Ns::ZERO {
        node.host.hurry_disks();
    }
    for (id, shared) in node.partitions() {
        shared.ask_to_stop(timeout);
        node.host.poke(id);
    }
}

fn said<T>(done: Result<T, DefinitionError>) -> Result<T, String> {
    done.map_err(|error| format!("{error}"))
}

fn find(node: &Node, name: &str) -> Result<(PartitionId, Arc<SharedPartition>), String> {
    said(define::find(node, name))
}

fn crash(node: &Node, name: &str) -> Result<(), String> {
    let (id, shared) = find(node, name)?;
    if !shared.view().is_alive() {
        return Err(format!("{name} does not run: it is {}", shared.view().as_str()));
    }
    shared.ask(PartitionRequest::Crash);
    node.host.poke(id);
    Ok(())
}

/// Directs the keys to a partition from now on.
fn choose_console(node: &Node, name: &str, mode: ConsoleMode) -> Result<KeyDestination, String> {
    let (id, shared) = find(node, name)?;
    // Output that another partition's raw mode has held back is printed first.
    leave_raw();
    node.host.keys_to.set(id);
    // The partition may have printed its prompt already; it is shown again after this heading.
    print_switch(format_args!("\n[console of {}]\n", shared.name()));
    report(&ConsoleEvent::Console { partition: shared.name(), mode: mode.as_str() });
    // A partition that was always alone has the raw line anyway.
    Ok(KeyDestination::Console(if node.registry.shares_line() { mode } else { ConsoleMode::Lines }))
}

/// Types bytes at a partition's console: all of them or none.
fn type_at(node: &Node, name: &str, bytes: &str) -> Result<(), String> {
    let (id, shared) = find(node, name)?;
    let bytes =
        hex::decode(bytes).ok_or("bytes: must be up to 64 bytes, two hexadecimal digits each")?;
    if !shared.type_all(&bytes) {
        return Err(BUSY.into());
    }
    node.host.poke(id);
    Ok(())
}

fn release(node: &'static Node, choice: DumpChoice<'_>) -> Result<(), String> {
    said(clones::refuse_release(node, choice))?;
    node.host.spaces.release_dumps(choice).map_err(|error| match (error, choice) {
        (DumpReleaseError::Ambiguous(names), _) => {
            format!("several dumps match, give the name of one: {names}")
        }
        (DumpReleaseError::Draining, DumpChoice::All(name) | DumpChoice::One(name, _)) => {
            format!("the dump of {name} is still being written")
        }
        (DumpReleaseError::Draining, _) => "that dump is still being written".into(),
        (DumpReleaseError::Quarantined(slot), _) => {
            let name = members::name_of(node, slot);
            format!(
                "node {name} has left it, and its writes may still land: `fence confirm {name}` \
                 when its machine is off"
            )
        }
        (DumpReleaseError::None, DumpChoice::All(name)) => match find(node, name) {
            Ok(_) => format!("{name} has no dump"),
            Err(error) => error,
        },
        (DumpReleaseError::None, DumpChoice::One(name, _)) => {
            format!("{name} has no such dump; 'list' shows them")
        }
        (DumpReleaseError::None, DumpChoice::Named(_)) => {
            "no dump has this name; 'list' shows them".into()
        }
    })
}

fn evict(node: &Node, name: &str, pages: u64) -> Result<(), String> {
    let (_, shared) = find(node, name)?;
    let object = stats::memory_of(node, &shared).ok_or("it has no memory now")?;
    let pages = u32::try_from(pages).unwrap_or(u32::MAX);
    node.host.pager.ask_evict(object.id(), pages);
    // An idle CPU evicts the pages while this CPU returns to its guest.
    node.host.wake_others();
    Ok(())
}

fn list(node: &Node, audience: Audience) {
    for space in node.host.spaces.summaries() {
        let (partition, epoch) =
            space.owner.as_ref().map_or(("", 0), |(name, epoch)| (name.as_str(), *epoch));
        let waits_for = space.waits_for.map(|slot| members::name_of(node, slot));
        match audience {
            Audience::Program(_) => {
                let (disk, number) = (space.place.disk as u8, space.place.number);
                report(&ConsoleEvent::Space {
                    disk,
                    space: number,
                    state: space.state,
                    partition,
                    epoch,
                    waits_for: waits_for.as_deref(),
                });
            }
            Audience::People if waits_for.is_some() => print_text(format_args!(
                "{}  {}, waits for node {}\n",
                space.place,
                space.state,
                waits_for.unwrap_or_default()
            )),
            Audience::People if partition.is_empty() => {
                print_text(format_args!("{}  {}\n", space.place, space.state))
            }
            Audience::People => {
                print_text(format_args!(
                    "{}  {}  {partition}, incarnation {epoch}\n",
                    space.place, space.state
                ));
            }
        }
    }
    let kept = node.host.spaces.kept_dumps();
    kept.iter().for_each(|dump| show_dump(node, dump, audience));
    node.host.spaces.remains().iter().for_each(|dump| show_dump(node, dump, audience));
    let bases = kept.iter().filter(|dump| dump.state == SpaceState::Sealed);
    bases.for_each(|base| show_base(node, base, audience));
    if audience == Audience::People {
        for (_, shared) in node.partitions() {
            let (name, phase, incarnation) =
                (shared.name(), shared.view().as_str(), shared.incarnation());
            print_text(format_args!(
                "{name}  {phase}, incarnation {incarnation}, {} MiB\n",
                shared.config.memory_bytes >> 20
            ));
        }
    }
}

/// Shows a base with the number of its children.
fn show_base(node: &Node, base: &KeptDump, audience: Audience) {
    let name = &*base.owner.name;
    let (children, holders) = clones::children(node, name);
    let loaded = node.host.bases.get(name);
    let resident = loaded.map_or(0, |base| base.object.counts().resident);
    if audience == Audience::People {
        return print_text(format_args!(
            "base {name}  {} clones, {} spaces depend on it, {resident} pages in memory\n",
            children.len(),
            holders.len()
        ));
    }
    report(&ConsoleEvent::Base {
        partition: name,
        incarnation: base.owner.epoch,
        dump: base.crash.name,
        disk: base.place.disk as u8,
        space: base.place.number,
        children: children.len() as u32,
        held_by: holders.len() as u32,
        resident,
    });
}

fn show_dump(node: &Node, dump: &KeptDump, audience: Audience) {
    let KeptDump { place, state, owner, crash, cause, .. } = dump;
    let (partition, incarnation) = (&*owner.name, owner.epoch);
    let waits_for = dump.waits_for.map(|slot| members::name_of(node, slot));
    if audience == Audience::People {
        if let Some(name) = &waits_for {
            print_text(format_args!("only read until nothing of node {name} lands any more:\n"));
        }
        let (time, cause) = (UtcTime(crash.time_ns), cause.map_or("", PartialCause::name));
        let comma = if cause.is_empty() { "" } else { ", " };
        print_text(format_args!(
            "dump {}  {partition}, incarnation {incarnation}, on {place}\n",
            crash.name
        ));
        print_text(format_args!(
            "  {}{comma}{cause}; {time}: {}",
            state.name(),
            crash.reason.name()
        ));
        return print_text(format_args!(" {:#x} ({})\n", crash.detail, crash.text));
    }
    report(&ConsoleEvent::Dump {
        dump: crash.name,
        partition,
        incarnation,
        disk: place.disk as u8,
        space: place.number,
        state: state.name(),
        reason: crash.reason.name(),
        detail: crash.detail,
        text: &crash.text,
        unix_ns: crash.time_ns,
        cause: cause.map(PartialCause::name),
        waits_for: waits_for.as_deref(),
    });
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
        "  page-ins {} (+{} read around) page-outs {} clean {} zero {} rescued {} demand-zero {} \
         zeros shown {} lost {}\n",
        pool.page_ins,
        pool.read_around,
        pool.page_outs,
        pool.clean_evictions,
        pool.zero_evictions,
        pool.rescues,
        pool.demand_zero,
        pool.zeros_shown,
        pool.lost
    ));
    print_text(format_args!(
        "  lock of the pager: taken {} waited for {} held {} us at most; turns {} without work {} \
         left to another CPU {}\n",
        pool.lock_taken,
        pool.lock_waits,
        pool.lock_longest_ns.div_ceil(1000),
        pool.turns,
        pool.turns_without_work,
        pool.polls_left
    ));
    print_text(format_args!(
        "  heap {} KiB, {} in use, {} at most\n",
        pool.heap_size >> 10,
        pool.heap_used >> 10,
        pool.heap_peak >> 10
    ));
    stats::partitions(node, None, |s| {
        print_text(format_args!(
            "{}  {}: logical {} resident {} paged {} zero {} untouched {} shared {}; page-ins {} \
             page-outs {} exits {} dumps skipped {}\n",
            s.partition,
            s.state,
            s.logical,
            s.resident,
            s.paged,
            s.zero,
            s.untouched,
            s.shared,
            s.page_ins,
            s.page_outs,
            s.exits,
            s.dumps_skipped
        ));
        let by = s.exits_by;
        print_text(format_args!(
            "  exits by reason: answered at once {} CPUID {} port {} MSR {} HLT {} page {} device \
             {} interrupt {} window {} other {}\n",
            by.quick,
            by.cpuid,
            by.port,
            by.msr,
            by.halt,
            by.page,
            by.device,
            by.interrupt,
            by.window,
            by.other
        ));
    });
}
