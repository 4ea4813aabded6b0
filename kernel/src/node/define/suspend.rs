//! The operator's commands `suspend` and `resume`. They check and ask; the runner acts.

use super::{DefinitionError, find, refuse_at_end, refuse_moving, refuse_new};
use crate::node::Node;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::shared::PartitionRequest;
use crate::storage::spaces::Suspension;

/// Suspends a partition that runs.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it cannot be suspended.
pub fn suspend(node: &Node, name: &str) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    let (id, shared) = find(node, name)?;
    if !node.host.spaces.has_devices() {
        return Err(DefinitionError::NoPagingSpace);
    }
    let view = shared.view();
    if shared.clone_of.is_some() {
        return Err(DefinitionError::IsClone(name.into()));
    }
    if !matches!(view, LifecycleView::Loading | LifecycleView::Running) {
        return Err(DefinitionError::NotRunning(name.into(), view));
    }
    shared.ask(PartitionRequest::Suspend);
    node.host.poke(id);
    Ok(())
}

/// Lets a suspended partition go on, for the operator.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it is not suspended.
pub fn resume(node: &Node, name: &str) -> Result<(), DefinitionError> {
    refuse_new(node)?;
    let (_, shared) = find(node, name)?;
    refuse_moving(&shared)?;
    go_on(node, name)
}

/// Lets a suspended partition go on.
///
/// # Errors
/// As [`resume`].
pub fn go_on(node: &Node, name: &str) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    let (id, shared) = find(node, name)?;
    let view = shared.view();
    if shared.is_asked_to(PartitionRequest::Leave) {
        return Err(DefinitionError::Leaving(name.into()));
    }
    if view == LifecycleView::Sealed {
        return Err(DefinitionError::IsSealed(name.into()));
    }
    let is_ready = match view {
        LifecycleView::Suspending => true,
        // A partition that waits at a start has not found its suspended state yet.
        LifecycleView::Suspended
        | LifecycleView::Stopped
        | LifecycleView::Stopping
        | LifecycleView::Waiting => match node.host.spaces.suspension_of(name) {
            Suspension::One(_) => true,
            Suspension::None => false,
            Suspension::Several(names) => {
                return Err(DefinitionError::SuspendedTwice(name.into(), names));
            }
        },
        _ => false,
    };
    if !is_ready {
        return Err(DefinitionError::NotSuspended(name.into(), view));
    }
    shared.ask(PartitionRequest::Resume);
    node.host.poke(id);
    Ok(())
}
