//! Commands that wait for other members: each is a task, which answers when it ends.

use super::audience::{Audience, answer};
use crate::console::command::DrainOrder;
use crate::console::input::KeyDestination;
use crate::console::output::print_text;
use crate::node::Node;
use crate::node::moves::{self, MoveError, drain};
use alloc::format;
use alloc::string::String;

/// Starts a command as a task.
fn begin<E: core::fmt::Display + 'static>(
    node: &'static Node,
    audience: Audience,
    success: String,
    command: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    node.host.tasks.start(async move {
        let done = command.await.map_err(|error| format!("{error}"));
        if done.is_ok() && audience == Audience::People {
            print_text(format_args!("{success}"));
        }
        answer(audience, done);
    });
}

/// Moves a partition; answers when the target has said yes or no.
///
/// # Errors
/// A text for the operator.
pub(super) fn begin_move(
    node: &'static Node,
    name: &str,
    target: &str,
    audience: Audience,
) -> Result<Option<KeyDestination>, String> {
    let said = |error: MoveError| format!("{error}");
    let plan = moves::plan(node, name, target).map_err(said)?;
    let success = format!("{name}: moves to {target}\n");
    begin(node, audience, success, moves::begin(node, plan));
    Ok(None)
}

/// Resumes a partition that was suspended at another node, and has no owner.
pub(super) fn resume(
    node: &'static Node,
    name: &str,
    audience: Audience,
) -> Option<KeyDestination> {
    let success = format!("{name}: goes on here\n");
    begin(node, audience, success, moves::resume_cold(node, name.into()));
    None
}

/// Begins or ends a drain.
///
/// # Errors
/// A text for the operator.
pub(super) fn drain(node: &'static Node, target: &str, order: DrainOrder) -> Result<(), String> {
    drain::command(node, target, order).map_err(|error| format!("{error}"))
}
