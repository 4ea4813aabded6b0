//! Checks a new definition by the rules of a configuration, before anything is made.

use super::error::DefinitionError;
use super::trial;
use crate::config::{self, MAX_RESTARTS, PartitionConfig, RestartLimit, TIMES_NS};
use crate::mm::layout::RamLayout;
use crate::node::{Node, capacity};
use alloc::vec::Vec;

/// Checks a definition apart from its images; returns the layout of its memory.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn check(node: &Node, config: &PartitionConfig) -> Result<RamLayout, DefinitionError> {
    check_beside(node, config, &[])
}

/// The same beside partitions, with bytes of memory, that have been promised room.
///
/// # Errors
/// As [`check`].
pub(super) fn check_beside(
    node: &Node,
    config: &PartitionConfig,
    promised: &[(&str, u64)],
) -> Result<RamLayout, DefinitionError> {
    let name = &config.name;
    if !config::is_valid_name(name) {
        return Err(DefinitionError::NameInvalid);
    }
    let others: Vec<_> = node.partitions().map(|(_, shared)| shared).collect();
    if others.iter().any(|shared| shared.name() == name) {
        return Err(DefinitionError::NameInUse(name.clone()));
    }
    values(config)?;
    if others.len() + promised.len() >= node.registry.slots() {
        return Err(DefinitionError::NoSlot(node.registry.slots()));
    }
    let layout = capacity::check(node.host, config)?;
    let mut all: Vec<_> =
        others.iter().map(|shared| (shared.name(), shared.config.memory_bytes)).collect();
    all.push((name, config.memory_bytes));
    all.extend_from_slice(promised);
    capacity::check_together(node.host, &all)?;
    capacity::check_tables(node.host, &all)?;
    Ok(layout)
}

/// Checks that the boot archive has kernel and initrd, and that the kernel starts with them.
///
/// # Errors
/// The module that is missing, or why the kernel does not start.
pub(super) fn modules(
    node: &Node,
    config: &PartitionConfig,
    layout: &RamLayout,
) -> Result<(), DefinitionError> {
    let modules = [Some(&config.kernel.image), config.kernel.initrd.as_ref()];
    for module in modules.into_iter().flatten() {
        if node.host.archive.module(module).is_none() {
            return Err(DefinitionError::NoModule(module.clone()));
        }
    }
    trial::plan(&node.host.archive, config, layout).map_err(DefinitionError::Load)
}

/// Checks the values that no other part of the node checks.
fn values(config: &PartitionConfig) -> Result<(), DefinitionError> {
    let wrong = |key, rule| Err(DefinitionError::Value(key, rule));
    if config.cmdline.chars().any(char::is_control) {
        return wrong("cmdline", "holds a control character");
    }
    if config.dump_bound.is_some_and(|bound| bound.most == 0) {
        return wrong("dump_bound", "must allow at least one dump");
    }
    if config.boot_memory_bytes.is_some_and(|bytes| bytes > config.memory_bytes) {
        return wrong("boot_memory_bytes", "is more than the partition has");
    }
    if config.hang_timeout_ns.is_some_and(|ns| !TIMES_NS.contains(&ns)) {
        return wrong("hang_timeout_ns", "must be a second to a day");
    }
    let is_odd = |limit: RestartLimit| {
        !(1..=MAX_RESTARTS as u32).contains(&limit.restarts) || !TIMES_NS.contains(&limit.time_ns)
    };
    if config.restart_limit.is_some_and(is_odd) {
        return wrong("restart_limit", "must be 1 to 64 restarts in a second to a day");
    }
    Ok(())
}
