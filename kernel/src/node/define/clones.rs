//! The operator's commands `seal` and `clone`.
//!
//! ```text
//!   seal  ─> the space is taken ─> everything read and checked, the base in memory ─> SEALED on the disk
//!   clone ─> names, room ─> the base in memory ─> for each: slot, stopped ─> start
//! ```
//!
//! What can be refused without a disk is refused at once. The rest are tasks, whose ends are told
//! by events.

use super::{DefinitionError, check, find, place, refuse_at_end, start};
use crate::config::{self, PartitionConfig};
use crate::console::command::DumpChoice;
use crate::console::definition::ClonesWanted;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::bases::Base;
use crate::mm::layout::RamLayout;
use crate::node::{Node, capacity};
use crate::partition::clones::{CloneOrigin, CloneRestart, load};
use crate::partition::lifecycle::LifecycleView;
use crate::partition::resume::ResumeError;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use crate::pool::PoolTerms;
use crate::space::Uuid;
use crate::storage::spaces::{SpaceId, SpaceLocation, Suspension};
use crate::storage::stores::StoreOrigin;
use crate::task::until;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Makes a suspended partition a base.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it is not suspended.
pub fn seal(node: &'static Node, name: &str) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    let (id, shared) = find(node, name)?;
    let view = shared.view();
    if view == LifecycleView::Sealed {
        return Err(DefinitionError::IsSealed(name.into()));
    }
    let space = match node.host.spaces.suspension_of(name) {
        Suspension::One(space)
            if matches!(view, LifecycleView::Suspending | LifecycleView::Suspended) =>
        {
            space
        }
        Suspension::Several(names) => {
            return Err(DefinitionError::SuspendedTwice(name.into(), names));
        }
        _ => return Err(DefinitionError::NotSuspended(name.into(), view)),
    };
    if node.host.spaces.standing(space).is_some() {
        return Err(DefinitionError::BaseInCluster(name.into()));
    }
    if !node.host.spaces.begin_resume(space) {
        return Err(DefinitionError::NotSuspended(name.into(), view));
    }
    node.host.tasks.start(seal_space(node, id, shared, space));
    Ok(())
}

async fn seal_space(
    node: &'static Node,
    id: PartitionId,
    shared: Arc<SharedPartition>,
    space: SpaceId,
) {
    let (host, partition) = (node.host, shared.name());
    // Its memory is being taken apart.
    until(|| (shared.view() != LifecycleView::Suspending).then_some(())).await;
    let sealed = async {
        let base = load_base(node, id, &shared, space).await?;
        if let Err(error) = host.spaces.seal(space).await {
            let _ = host.reaper.reap(base.object);
            return Err(ResumeError::from(error));
        }
        Ok(host.bases.add(base))
    };
    match sealed.await {
        Ok(base) => {
            host.poke(id);
            // Told when it can be cloned.
            until(|| (shared.view() != LifecycleView::Suspended).then_some(())).await;
            let SpaceLocation { disk, number, .. } = host.spaces.place(space);
            let (incarnation, dump) = (base.sealed.generation, base.sealed.dump);
            let disk = disk as u8;
            report(&ConsoleEvent::Sealed { partition, incarnation, dump, disk, space: number });
        }
        Err(error) => {
            host.spaces.refuse_resume(space);
            let message = &format!("{error}");
            report(&ConsoleEvent::SealFailed { partition, message });
        }
    }
    host.poke(id);
}

async fn load_base(
    node: &'static Node,
    id: PartitionId,
    shared: &SharedPartition,
    space: SpaceId,
) -> Result<Base, ResumeError> {
    let bytes = shared.config.memory_bytes;
    let layout = RamLayout::new(bytes).ok_or(ResumeError::Memory(bytes, bytes))?;
    load::load(node.host, space, &layout, PoolTerms::of_partition(id)).await
}

/// Makes clones of a base, and starts them.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed then.
pub fn clone(node: &'static Node, wanted: &ClonesWanted<'_>) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    let (id, base) = find(node, wanted.base)?;
    let sealed = node.host.spaces.base_of(wanted.base);
    let (LifecycleView::Sealed, Some(space)) = (base.view(), sealed) else {
        return Err(DefinitionError::NotSealed(wanted.base.into(), base.view()));
    };
    let names = names(node, wanted)?;
    check_room(node, &base, &names)?;
    let restart = if wanted.boots { CloneRestart::Boot } else { CloneRestart::Base };
    node.host.tasks.start(async move {
        if node.host.bases.get(base.name()).is_none() {
            match load_base(node, id, &base, space).await {
                // Another command may have been faster.
                Ok(loaded) if node.host.bases.get(base.name()).is_some() => {
                    let _ = node.host.reaper.reap(loaded.object);
                }
                Ok(loaded) => {
                    node.host.bases.add(loaded);
                }
                Err(error) => {
                    let (partition, message) = (base.name(), &*format!("{error}"));
                    return report(&ConsoleEvent::CloneFailed { partition, message });
                }
            }
        }
        for name in names {
            if let Err(error) = make(node, &base, &name, restart) {
                let message = &format!("{error}");
                report(&ConsoleEvent::CloneFailed { partition: &name, message });
            }
        }
    });
    Ok(())
}

/// Returns the names of the clones.
fn names(node: &Node, wanted: &ClonesWanted<'_>) -> Result<Vec<String>, DefinitionError> {
    let Some(count) = wanted.count else { return Ok([wanted.name.to_string()].into()) };
    let taken = node.partitions().count();
    let limit = node.host.objects.room().min(node.registry.slots().saturating_sub(taken));
    if count > limit as u64 {
        return Err(DefinitionError::CloneCount(count, limit));
    }
    if count == 0 {
        return Err(DefinitionError::Value("count", "must be at least 1"));
    }
    Ok((1..=count).map(|n| format!("{}-{n}", wanted.name)).collect())
}

/// Checks names, and that the machine has room for all clones together.
fn check_room(
    node: &Node,
    base: &SharedPartition,
    names: &[String],
) -> Result<(), DefinitionError> {
    let present: Vec<_> = node.partitions().map(|(_, shared)| shared).collect();
    for name in names {
        if !config::is_valid_name(name) {
            return Err(DefinitionError::NameInvalid);
        }
        if present.iter().any(|shared| shared.name() == name) {
            return Err(DefinitionError::NameInUse(name.clone()));
        }
    }
    let limit = node.host.objects.room().min(node.registry.slots().saturating_sub(present.len()));
    if names.len() > limit {
        return Err(DefinitionError::CloneCount(names.len() as u64, limit));
    }
    let mut all: Vec<_> =
        present.iter().map(|shared| (shared.name(), shared.config.memory_bytes)).collect();
    all.extend(names.iter().map(|name| (&**name, base.config.memory_bytes)));
    capacity::check_together(node.host, &all)?;
    capacity::check_tables(node.host, &all)?;
    Ok(())
}

fn make(
    node: &'static Node,
    base: &SharedPartition,
    name: &str,
    restart: CloneRestart,
) -> Result<(), DefinitionError> {
    let config = PartitionConfig { name: name.into(), ..base.config.clone() };
    check::check(node, &config)?;
    let origin = CloneOrigin { base: base.name().into(), restart };
    // The definition in the store is the base's, not the clone's.
    let stored = base.stored.map(|stored| StoreOrigin { definition: None, ..stored });
    place(node, SharedPartition::cloned(config, stored, origin))?;
    start(node, name)
}

/// Returns the partitions that are clones of a base, and the owners of spaces that depend on it.
pub fn children(node: &Node, base: &str) -> (Vec<String>, Vec<String>) {
    let clones = node
        .partitions()
        .filter(|(_, shared)| shared.clone_of.as_ref().is_some_and(|origin| origin.base == base));
    let clones = clones.map(|(_, shared)| shared.name().to_string()).collect();
    let dump = node.host.spaces.base_of(base).and_then(|id| node.host.spaces.base_in(id));
    let holders = dump.map(|(dump, _): (Uuid, u64)| node.host.spaces.holders(dump));
    let holders = holders.unwrap_or_default().iter().map(ToString::to_string).collect();
    (clones, holders)
}

/// Refuses to give a base back while others depend on it.
///
/// # Errors
/// [`DefinitionError::HasChildren`].
pub fn refuse_while_held(node: &Node, base: &str) -> Result<(), DefinitionError> {
    let (mut names, holders) = children(node, base);
    names.extend(holders);
    if node.host.bases.get(base).is_some_and(|base| node.host.pager.mappers(base.object.id()) > 0)
        && names.is_empty()
    {
        names.push("memory that is being taken apart".into());
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    Err(DefinitionError::HasChildren(base.into(), names.join(", ")))
}

/// Refuses a release that would take away a base on which others depend.
///
/// # Errors
/// [`DefinitionError::HasChildren`].
pub fn refuse_release(node: &Node, choice: DumpChoice<'_>) -> Result<(), DefinitionError> {
    let chosen = node.host.spaces.chosen_bases(choice);
    chosen.iter().try_for_each(|base| refuse_while_held(node, &base.owner.name))
}
