//! The operator's commands on partitions: define, start, stop, set, undefine.
//!
//! ```text
//!   define ──> check ──> vCPU, slot ──> runner, stopped ── start ──> …
//!   undefine ──> request ──> the runner's last turn ──> `Registry::vacate`
//! ```
//!
//! Commands only check and ask; the runner acts in its next turn.

mod check;
mod choose;
pub mod clones;
mod error;
pub mod stored;
pub mod suspend;
mod trial;

pub use error::DefinitionError;

use super::Node;
use crate::addr::PAGE_SIZE;
use crate::arch::{heap, instr, time};
use crate::config::PartitionConfig;
use crate::console::definition::PolicyOptions;
use crate::console::event::ConsoleEvent;
use crate::console::{output, report};
use crate::host::Host;
use crate::mm::layout::RamLayout;
use crate::partition::cpuid;
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::lifecycle::LifecycleView;
use crate::partition::machine::VirtualMachine;
use crate::partition::runner::Runner;
use crate::partition::shared::{CrashPolicy, MoveMark, PartitionRequest, SharedPartition};
use crate::partition_id::PartitionId;
use crate::space::reserve::{SpaceNeed, own_spaces};
use crate::storage::spaces::{SpaceTenant, Suspension};
use crate::time::Ns;
use crate::virt::face::Vcpu;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Bytes of the heap that a partition needs beside its runner: names, command line, device buffers.
const BESIDE_RUNNER: usize = 64 << 10;

/// Returns a partition by its name.
///
/// # Errors
/// [`DefinitionError::Unknown`].
pub fn find(
    node: &Node,
    name: &str,
) -> Result<(PartitionId, Arc<SharedPartition>), DefinitionError> {
    let mut all = node.partitions();
    let found = all.find(|(_, shared)| shared.name() == name);
    found.ok_or_else(|| DefinitionError::Unknown(name.into()))
}

/// Defines a partition, stopped.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed then.
pub fn define(node: &'static Node, config: PartitionConfig) -> Result<(), DefinitionError> {
    refuse_new(node)?;
    let layout = check::check(node, &config)?;
    check::modules(node, &config, &layout)?;
    place(node, SharedPartition::stopped(config, None))
}

/// Puts a checked partition, stopped, into a slot.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed then.
fn place(node: &'static Node, shared: SharedPartition) -> Result<(), DefinitionError> {
    let (host, registry) = (node.host, &node.registry);
    let source = registry.source().ok_or(DefinitionError::Starting)?;
    refuse_at_end(node)?;
    let layout = check::check(node, &shared.config)?;
    if !heap::has_piece(size_of::<Runner>() + BESIDE_RUNNER) {
        return Err(DefinitionError::NoHeap);
    }
    let shared = Arc::new(shared);
    let no_slot = || DefinitionError::NoSlot(registry.slots());
    let vcpu = source.make(&shared).ok_or_else(no_slot)?;
    let Some(id) = registry.claim(&shared) else {
        source.take_back(vcpu);
        return Err(no_slot());
    };
    warn_unless(host.spaces.reserve_for(tenant(&shared).stopped()));
    registry.install(host, id, runner(host, &shared, layout, vcpu));
    report(&ConsoleEvent::Defined { partition: shared.name() });
    Ok(())
}

fn refuse_at_end(node: &Node) -> Result<(), DefinitionError> {
    if node.registry.is_ending() { Err(DefinitionError::Ending) } else { Ok(()) }
}

/// Refuses a partition that would begin here.
fn refuse_new(node: &Node) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    if node.moves.is_draining() { Err(DefinitionError::Draining) } else { Ok(()) }
}

/// Refuses a partition on its way to another node.
fn refuse_moving(shared: &SharedPartition) -> Result<(), DefinitionError> {
    let rests = matches!(shared.view(), LifecycleView::Suspended | LifecycleView::Stopped);
    match shared.move_mark() {
        MoveMark::Leaves if rests => Err(DefinitionError::IsMoving(shared.name().into())),
        _ => Ok(()),
    }
}

/// Starts a partition that has stopped, or that stops at present.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it runs.
pub fn start(node: &Node, name: &str) -> Result<(), DefinitionError> {
    refuse_new(node)?;
    let (id, shared) = find(node, name)?;
    refuse_moving(&shared)?;
    let view = shared.view();
    if view == LifecycleView::Sealed {
        return Err(DefinitionError::IsSealed(name.into()));
    }
    if !matches!(view, LifecycleView::Stopped | LifecycleView::Stopping) {
        return Err(DefinitionError::NotStopped(name.into(), view));
    }
    refuse_while_held(&shared)?;
    // Another boot beside its suspended state would be the same machine twice.
    if node.host.spaces.suspension_of(name) != Suspension::None {
        return Err(DefinitionError::IsSuspended(name.into()));
    }
    shared.ask(PartitionRequest::Start);
    node.host.poke(id);
    Ok(())
}

/// Stops a partition: the guest's power button is pressed, and it has `timeout` to end. Without a
/// time-out the partition is stopped at once, without asking the guest.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it has stopped.
pub fn stop(node: &Node, name: &str, timeout: Ns) -> Result<(), DefinitionError> {
    let (id, shared) = find(node, name)?;
    refuse_moving(&shared)?;
    // Only a kill gives a suspended state up.
    if shared.view() == LifecycleView::Suspended && timeout != Ns::ZERO {
        return Err(DefinitionError::IsSuspended(name.into()));
    }
    if shared.view() == LifecycleView::Sealed {
        if timeout != Ns::ZERO {
            return Err(DefinitionError::IsSealed(name.into()));
        }
        clones::refuse_while_held(node, name)?;
    }
    let was_to_start = shared.take(PartitionRequest::Start);
    if shared.view() == LifecycleView::Stopped && !was_to_start {
        return Err(DefinitionError::Stopped(name.into()));
    }
    shared.ask_to_stop(timeout);
    node.host.poke(id);
    Ok(())
}

/// Changes what the next crash of a partition leads to, on this node.
///
/// # Errors
/// [`DefinitionError`] if there is none.
pub fn set(node: &Node, name: &str, options: PolicyOptions) -> Result<(), DefinitionError> {
    let (_, shared) = find(node, name)?;
    let now = shared.policy();
    shared.set_policy(CrashPolicy {
        dump: options.dump.unwrap_or(now.dump),
        restart: options.restart.unwrap_or(now.restart),
    });
    warn_unless(node.host.spaces.reserve_for(tenant(&shared)));
    Ok(())
}

/// Removes the definition of a partition that has stopped, or that stops at present. Its dumps
/// stay. Name and slot can be used again after the event `undefined`.
///
/// # Errors
/// [`DefinitionError`] if there is none, or it has not stopped.
pub fn undefine(node: &Node, name: &str) -> Result<(), DefinitionError> {
    let (id, shared) = find_to_leave(node, name)?;
    leave_keys(node, id);
    shared.ask(PartitionRequest::Leave);
    node.host.poke(id);
    Ok(())
}

/// Gives the keys to another partition, because this one leaves.
pub(super) fn leave_keys(node: &Node, id: PartitionId) {
    if node.host.keys_to.get() == id {
        output::leave_raw();
        let mut others = node.partitions().map(|(other, _)| other).filter(|other| *other != id);
        node.host.keys_to.set(others.next().unwrap_or(PartitionId::FIRST));
    }
}

/// Returns a partition that may leave.
fn find_to_leave(
    node: &Node,
    name: &str,
) -> Result<(PartitionId, Arc<SharedPartition>), DefinitionError> {
    let (id, shared) = find(node, name)?;
    refuse_moving(&shared)?;
    let view = shared.view();
    if view == LifecycleView::Sealed {
        clones::refuse_while_held(node, name)?;
    } else if !matches!(
        view,
        LifecycleView::Stopped | LifecycleView::Stopping | LifecycleView::Suspended
    ) {
        return Err(DefinitionError::NotStopped(name.into(), view));
    }
    if shared.is_asked_to(PartitionRequest::Start) || shared.is_asked_to(PartitionRequest::Resume) {
        return Err(DefinitionError::AboutToStart(name.into()));
    }
    refuse_while_held(&shared)?;
    Ok((id, shared))
}

/// Refuses a partition that leaves, or whose definition is being written.
fn refuse_while_held(shared: &SharedPartition) -> Result<(), DefinitionError> {
    if shared.is_held() {
        return Err(DefinitionError::Held(shared.name().into()));
    }
    if shared.is_asked_to(PartitionRequest::Leave) {
        return Err(DefinitionError::Leaving(shared.name().into()));
    }
    Ok(())
}

/// Reserves spaces for all partitions of the configuration.
pub fn reserve(node: &Node) {
    let tenants: Vec<_> = node.partitions().map(|(_, shared)| tenant(&shared)).collect();
    warn_unless(node.host.spaces.reserve(tenants));
}

/// Returns a partition's need of spaces.
fn tenant(shared: &SharedPartition) -> SpaceTenant {
    let CrashPolicy { dump, restart } = shared.policy();
    let pages = u32::try_from(shared.config.memory_bytes / PAGE_SIZE).unwrap_or(u32::MAX);
    // A clone that crashes waits for a free space; there would be too few for all.
    let count = if shared.clone_of.is_some() { 1 } else { own_spaces(dump, restart) };
    SpaceTenant::new(shared.name(), SpaceNeed { pages, count })
}

fn warn_unless(is_enough: bool) {
    if !is_enough {
        log::warn!(
            "too few paging spaces to keep one for each partition's next incarnation: a crashed \
             partition may wait"
        );
    }
}

/// Makes the runner of a partition with this vCPU.
pub fn runner(
    host: &'static Host,
    shared: &Arc<SharedPartition>,
    layout: RamLayout,
    mut vcpu: Vcpu,
) -> Box<Runner> {
    let rate = TscRate::new(time::tsc_hz());
    let clock = GuestClock { rate, start: instr::rdtsc(), unix_ns_at_start: host.unix_ns() };
    vcpu.offer_cr4(cpuid::offered_cr4(&cpuid::host));
    let mut machine = VirtualMachine::new(vcpu, &layout, clock, &cpuid::host);
    machine.platform.plug(shared.config.devices);
    let tag = host.tags.lock().allocate();
    let needs_space = host.spaces.has_devices();
    Box::new(Runner::new(shared.clone(), layout, machine, tag, needs_space))
}
