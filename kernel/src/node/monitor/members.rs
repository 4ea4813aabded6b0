//! `nodes` and `fence confirm`: the cluster as this node sees it.

use crate::arch::time;
use crate::console::event::ConsoleEvent;
use crate::console::output::print_text;
use crate::console::report;
use crate::members::{Members, RollRow};
use crate::node::Node;
use alloc::format;
use alloc::string::String;

const NONE: &str = "there is no cluster area on this node's disks";

/// Shows the cluster and its members; `program` is the id of a program's command.
///
/// # Errors
/// A text for the operator.
pub(super) fn show(node: &Node, program: Option<u64>) -> Result<(), String> {
    let members = node.members.ok_or(NONE)?;
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
            None => line(&row),
        }
    }
    Ok(())
}

fn line(row: &RollRow) {
    let told = row.report(None, time::now_ns());
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
    print_text(format_args!("; {}\n", told.incarnation));
}

/// Takes the operator's word that a fenced member's machine is off.
///
/// # Errors
/// A text for the operator.
pub(super) fn confirm(node: &Node, name: &str) -> Result<(), String> {
    let members: &Members = node.members.ok_or(NONE)?;
    members.confirm(name).map_err(|error| format!("{name}: {error}"))
}
