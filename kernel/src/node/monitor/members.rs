//! `nodes` and `fence confirm`: the cluster as this node sees it.

use crate::arch::time;
use crate::console::event::{ConsoleEvent, MemberReport};
use crate::console::output::print_text;
use crate::console::report;
use crate::members::letters::LetterKind;
use crate::members::{LocalDevice, Members, RollStatus};
use crate::node::Node;
use crate::space::Uuid;
use alloc::format;
use alloc::string::String;
use cluster::local::{LocalRow, LocalStatus};

const NONE: &str = "there is no cluster area on this node's disks";

/// Shows the cluster and its members; `program` is the id of a program's command.
///
/// # Errors
/// A text for the operator.
pub(super) fn show(node: &Node, program: Option<u64>) -> Result<(), String> {
    let members = match node.members {
        Some(members) if members.view().decree > 0 => members,
        other => {
            let is_shown = node.local.is_some_and(|local| show_copy(node, local, program));
            match other {
                _ if is_shown => return Ok(()),
                Some(members) => members,
                None => return Err(NONE.into()),
            }
        }
    };
    let view = members.view();
    match program {
        Some(id) => report(&ConsoleEvent::Cluster {
            id,
            cluster: view.cluster,
            state: view.standing.as_str(),
            slot: view.slot,
            decree: view.decree,
            used: view.used,
            slots: view.slots,
            copy_age_ms: None,
        }),
        None => print_text(format_args!(
            "cluster {}: this node is {}, last decree {}, {} of {} slots were used\n",
            view.cluster,
            match view.standing.as_str() {
                "out" => "no member",
                word => word,
            },
            view.decree,
            view.used,
            view.slots
        )),
    }
    let now = time::now_ns();
    for row in members.rows() {
        match program {
            Some(id) => report(&ConsoleEvent::Member(row.report(Some(id), now))),
            None => line(&row.report(None, now)),
        }
    }
    Ok(())
}

fn line(told: &MemberReport<'_>) {
    let name = if told.node.is_empty() { "?" } else { told.node };
    let own = if told.own { ", this node" } else { "" };
    print_text(format_args!("{name}  {}, slot {}{own}", told.state, told.slot));
    if let (Some(age_ms), Some(decree)) = (told.age_ms, told.decree) {
        print_text(format_args!(
            "; beat {}.{} s ago, decree {decree}, {} MiB and {} spaces free",
            age_ms / 1000,
            age_ms % 1000 / 100,
            told.free_mib,
            told.free_spaces
        ));
    }
    if let Some(ms) = told.mail_ms {
        print_text(format_args!("; mail took {ms} ms"));
    }
    print_text(format_args!("; {}\n", told.incarnation));
}

/// Shows what this node knew last; returns whether there is a copy.
fn show_copy(node: &Node, local: &LocalDevice, program: Option<u64>) -> bool {
    let mut is_shown = false;
    let unix_ns = node.host.unix_ns();
    local.show(|copy, rows| {
        is_shown = true;
        let age_ms = unix_ns.saturating_sub(copy.written_ns) / 1_000_000;
        let cluster = Uuid(copy.cluster.to_be_bytes());
        match program {
            Some(id) => report(&ConsoleEvent::Cluster {
                id,
                cluster,
                state: "out",
                slot: None,
                decree: copy.decree,
                used: copy.used.into(),
                slots: copy.slots,
                copy_age_ms: Some(age_ms),
            }),
            None => print_text(format_args!(
                "cluster {cluster}: this node is no member now; as it was {} s ago: decree {}, {} \
                 of {} slots were used\n",
                age_ms / 1000,
                copy.decree,
                copy.used,
                copy.slots
            )),
        }
        for row in rows {
            show_row(&row, age_ms, program);
        }
    });
    is_shown
}

/// Shows a member of the local copy, which has this age.
fn show_row(row: &LocalRow, copy_age_ms: u64, program: Option<u64>) {
    let beat = row.beat;
    let told = MemberReport {
        id: program,
        node: row.text(),
        slot: row.id.slot,
        incarnation: Uuid(row.id.incarnation.0.to_be_bytes()),
        state: match row.status {
            LocalStatus::Up => RollStatus::Up,
            LocalStatus::Leaving => RollStatus::Leaving,
            LocalStatus::Fenced => RollStatus::Fenced,
            LocalStatus::Quiet => RollStatus::Quiet,
        }
        .as_str(),
        own: row.is_own,
        age_ms: beat.map(|beat| beat.age_ms + copy_age_ms),
        decree: beat.map(|beat| beat.decree),
        free_mib: beat.map_or(0, |beat| beat.free_mib),
        free_spaces: beat.map_or(0, |beat| beat.free_spaces),
        areas: 0,
        mail_ms: None,
    };
    match program {
        Some(_) => report(&ConsoleEvent::Member(told)),
        None => line(&told),
    }
}

/// Returns the name of the member in a slot, or the slot's number if its name is not known.
pub(super) fn name_of(node: &Node, slot: u16) -> String {
    let rows = node.members.map(Members::rows).unwrap_or_default();
    let name = rows.iter().find(|row| row.id.slot == slot).map_or("", |row| row.name());
    if name.is_empty() { format!("{slot}") } else { name.into() }
}

/// Sends a text to the operator of another member.
///
/// # Errors
/// A text for the operator.
pub(super) fn message(node: &Node, name: &str, text: &str) -> Result<(), String> {
    let members: &Members = node.members.ok_or(NONE)?;
    let named = |error: &dyn core::fmt::Display| format!("{name}: {error}");
    let row = members.target(name).map_err(|error| named(&error))?;
    if row.is_own {
        return Err(named(&"is this node"));
    }
    let sent = members.send(row.id.slot, LetterKind::Text, text.as_bytes());
    sent.map(drop).map_err(|error| named(&error))
}

/// Takes the operator's word that a fenced member's machine is off.
///
/// # Errors
/// A text for the operator.
pub(super) fn confirm(node: &Node, name: &str) -> Result<(), String> {
    let members: &Members = node.members.ok_or(NONE)?;
    members.confirm(name).map_err(|error| format!("{name}: {error}"))
}
