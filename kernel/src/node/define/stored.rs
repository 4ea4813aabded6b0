//! Definitions in image stores: tasks, because they wait for disks.
//!
//! ```text
//!   define   ─> store, images ─> kernel on trial ─> into the store ─> slot, stopped
//!   start    ─> definition of any node ─> kernel on trial ─> slot ─> start
//!   set      ─> into the store ─> this node
//!   undefine ─> out of the store ─> the runner leaves
//! ```
//!
//! Each begins with the checks that need no disk, so that most mistakes are told at once, and
//! repeats them at its end: other commands are carried out meanwhile.

use super::error::DefinitionError;
use super::{
    check, choose, find, find_to_leave, place, refuse_at_end, refuse_new, set, start, trial,
    undefine,
};
use crate::config::{DEFINITION_VERSION, KernelModules, PartitionConfig};
use crate::console::definition::PolicyOptions;
use crate::images::define::{Definer, KnownDefinition};
use crate::images::slot::DefinitionName;
use crate::images::{
    OpenStore, StoreError, StoreRefusedError, StoredDefinition, find as definitions,
};
use crate::node::Node;
use crate::partition::shared::SharedPartition;
use crate::space::Uuid;
use crate::storage::spaces::number_of;
use crate::storage::stores::{StoreId, StoreOrigin};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

/// A partition to define with images from a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredWish {
    /// The word for the store.
    pub store: String,
    /// Its configuration; kernel and initrd are words for images.
    pub config: PartitionConfig,
    /// Whether the definition goes into the store, for all nodes.
    pub is_for_all: bool,
}

/// Keeps a partition from starting and leaving, until it is dropped.
struct PartitionHold(Arc<SharedPartition>);

impl PartitionHold {
    fn take(shared: Arc<SharedPartition>) -> Result<Self, DefinitionError> {
        if shared.hold() {
            Ok(Self(shared))
        } else {
            Err(DefinitionError::Held(shared.name().into()))
        }
    }
}

impl Drop for PartitionHold {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Defines a partition in a store and on this node, stopped.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed then, except after
/// [`DefinitionError::OnlyInStore`].
pub async fn define_stored(node: &'static Node, wish: StoredWish) -> Result<(), DefinitionError> {
    let StoredWish { store, mut config, is_for_all } = wish;
    refuse_new(node)?;
    let layout = check::check(node, &config)?;
    let (id, open) = choose::store(node, &store).await?;
    let kernel = choose::image(id, &open, &config.kernel.image)?;
    let initrd = config.kernel.initrd.as_deref();
    let initrd = initrd.map(|word| choose::image(id, &open, word)).transpose()?;
    let text = |digest: crate::images::ImageDigest| digest.text().to_string();
    config.kernel = KernelModules { image: text(kernel), initrd: initrd.map(text) };
    let mut origin = StoreOrigin { store: id, uuid: open.uuid(), kernel, initrd, definition: None };
    let images = node.host.stores.find_images(origin).await?;
    trial::plan_stored(node, id, images, &config, &layout).await?;
    if !is_for_all {
        return place(node, SharedPartition::stopped(config, Some(origin)));
    }
    let KnownDefinition { partition, generation } = put(node, &open, &origin, &config).await?;
    origin.definition = Some(partition);
    let name = config.name.clone();
    let only_there = |error| DefinitionError::OnlyInStore(name, Box::new(error));
    place(node, defined(config, origin, generation)).map_err(only_there)
}

/// Makes the shared part of a partition whose definition lies in a store.
fn defined(config: PartitionConfig, origin: StoreOrigin, generation: u64) -> SharedPartition {
    let shared = SharedPartition::stopped(config, Some(origin));
    shared.set_generation(generation);
    shared
}

/// Writes a new definition into its store.
async fn put(
    node: &'static Node,
    open: &OpenStore,
    origin: &StoreOrigin,
    config: &PartitionConfig,
) -> Result<KnownDefinition, DefinitionError> {
    let stores = node.host.stores;
    let definition = StoredDefinition {
        name: DefinitionName::from(&config.name).map_err(|_| DefinitionError::NameInvalid)?,
        partition: Uuid::from_name(&config.name),
        generation: 0,
        kernel: origin.kernel,
        initrd: origin.initrd,
        encoding: DEFINITION_VERSION,
        bytes: config.to_definition(),
    };
    let definer = Definer { superblock: open.superblock, writer: stores.writer() };
    let partition = definition.partition;
    let done = definer.define_new(&mut stores.disk(origin.store), definition).await;
    match done {
        Ok(defined) => Ok(KnownDefinition { partition, generation: defined.generation }),
        Err(StoreError::Refused(StoreRefusedError::Exists(_))) => {
            Err(DefinitionError::NameInStore(config.name.clone(), origin.store))
        }
        Err(error) => Err(stores.at(origin.store, error).into()),
    }
}

/// Starts a partition that no slot has, from its definition in a store.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed then.
pub async fn start_stored(node: &'static Node, name: String) -> Result<(), DefinitionError> {
    refuse_new(node)?;
    if let Some(slot) = node.host.spaces.other_owner(&name) {
        return Err(DefinitionError::OfMember(name, slot));
    }
    if node.host.spaces.cold_space_of(number_of(&name)).is_some() {
        return Err(DefinitionError::IsSuspended(name));
    }
    place_stored(node, &name).await?;
    start(node, &name)
}

/// Puts a partition, stopped, into a slot, from its definition in a store.
///
/// # Errors
/// As [`start_stored`].
pub async fn place_stored(node: &'static Node, name: &str) -> Result<(), DefinitionError> {
    refuse_at_end(node)?;
    let (id, open, definition) = definition(node, name).await?;
    let config = config_of(&definition, name, id)?;
    let layout = check::check(node, &config)?;
    let origin = StoreOrigin {
        store: id,
        uuid: open.uuid(),
        kernel: definition.kernel,
        initrd: definition.initrd,
        definition: Some(definition.partition),
    };
    let images = node.host.stores.find_images(origin).await?;
    trial::plan_stored(node, id, images, &config, &layout).await?;
    place(node, defined(config, origin, definition.generation))
}

/// Checks whether a partition could be put into a slot from its definition in a store, beside
/// others that have been promised room.
///
/// # Errors
/// As [`start_stored`].
pub async fn check_stored(
    node: &'static Node,
    name: &str,
    promised: &[(&str, u64)],
) -> Result<(), DefinitionError> {
    refuse_new(node)?;
    let (id, _, definition) = definition(node, name).await?;
    let config = config_of(&definition, name, id)?;
    check::check_beside(node, &config, promised).map(drop)
}

fn config_of(
    definition: &StoredDefinition,
    name: &str,
    id: StoreId,
) -> Result<PartitionConfig, DefinitionError> {
    let config = PartitionConfig::from_definition(definition.encoding, &definition.bytes)
        .map_err(|error| DefinitionError::Undecodable(name.into(), id, error))?;
    let digits = |digest: crate::images::ImageDigest| digest.text().to_string();
    let named =
        KernelModules { image: digits(definition.kernel), initrd: definition.initrd.map(digits) };
    if config.name != name || config.kernel != named {
        return Err(DefinitionError::OtherDefinition(name.into(), id));
    }
    Ok(config)
}

/// Finds the definition of a partition in the stores of this node.
async fn definition(
    node: &'static Node,
    name: &str,
) -> Result<(StoreId, OpenStore, StoredDefinition), DefinitionError> {
    let stores = node.host.stores;
    let mut found: Option<(StoreId, OpenStore, StoredDefinition)> = None;
    let mut failure = None;
    for id in stores.all() {
        let open = match stores.open(id).await {
            Ok(open) => open,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let there = definitions::definition(&mut stores.disk(id), &open.superblock, name).await;
        let Some(there) = there.map_err(|error| stores.at(id, error))? else { continue };
        if let Some((earlier, ..)) = found {
            return Err(DefinitionError::SeveralStores(name.into(), earlier, id));
        }
        found = Some((id, open, there));
    }
    match (found, failure) {
        (Some(found), _) => Ok(found),
        // The store that cannot be read may have it.
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(DefinitionError::Unknown(name.into())),
    }
}

/// Changes what a crash of a partition leads to, in its store and on this node. Nodes that take the
/// partition over find it there.
///
/// # Errors
/// [`DefinitionError`]; nothing has changed on this node then.
pub async fn set_stored(
    node: &'static Node,
    name: String,
    options: PolicyOptions,
) -> Result<(), DefinitionError> {
    let (_, shared) = find(node, &name)?;
    let hold = PartitionHold::take(shared)?;
    if let Some((origin, known)) = hold.0.known_definition() {
        hold.0.set_generation(rewrite(node, &origin, (&name, known), options).await?);
    }
    set(node, &name, options)
}

/// Writes these options into a definition; returns its generation.
async fn rewrite(
    node: &'static Node,
    origin: &StoreOrigin,
    (name, known): (&str, KnownDefinition),
    options: PolicyOptions,
) -> Result<u64, DefinitionError> {
    let (stores, id) = (node.host.stores, origin.store);
    let definer = definer(node, origin, name).await?;
    let mut disk = stores.disk(id);
    let there = definitions::definition(&mut disk, &definer.superblock, name).await;
    let there = there.map_err(|error| stores.at(id, error))?;
    let there = there.ok_or_else(|| stores.at(id, StoreRefusedError::NoDefinition))?;
    let mut config = PartitionConfig::from_definition(there.encoding, &there.bytes)
        .map_err(|error| DefinitionError::Undecodable(name.into(), id, error))?;
    config.dump = options.dump.unwrap_or(config.dump);
    config.restart = options.restart.unwrap_or(config.restart);
    let changed =
        StoredDefinition { encoding: DEFINITION_VERSION, bytes: config.to_definition(), ..there };
    let done = definer.change(&mut disk, changed, known).await;
    Ok(done.map_err(|error| stores.at(id, error))?.generation)
}

/// Returns the writer of definitions in a partition's store.
async fn definer(
    node: &'static Node,
    origin: &StoreOrigin,
    name: &str,
) -> Result<Definer, DefinitionError> {
    let stores = node.host.stores;
    let open = stores.open(origin.store).await?;
    if open.uuid() != origin.uuid {
        return Err(DefinitionError::OtherStore(name.into(), origin.store));
    }
    Ok(Definer { superblock: open.superblock, writer: stores.writer() })
}

/// Removes the definition of a partition that has stopped, from its store and from this node.
///
/// # Errors
/// [`DefinitionError`]; if its store cannot be written, nothing has changed.
pub async fn undefine_stored(node: &'static Node, name: String) -> Result<(), DefinitionError> {
    let (_, shared) = find_to_leave(node, &name)?;
    let hold = PartitionHold::take(shared)?;
    if let Some((origin, known)) = hold.0.known_definition() {
        remove(node, &origin, (&name, known)).await?;
    }
    drop(hold);
    undefine(node, &name)
}

/// Takes a definition out of its store; that another program has done so is no error.
async fn remove(
    node: &'static Node,
    origin: &StoreOrigin,
    (name, known): (&str, KnownDefinition),
) -> Result<(), DefinitionError> {
    let stores = node.host.stores;
    let definer = definer(node, origin, name).await?;
    match definer.undefine(&mut stores.disk(origin.store), name, Some(known)).await {
        Ok(()) | Err(StoreError::Refused(StoreRefusedError::NoDefinition)) => Ok(()),
        Err(error) => Err(stores.at(origin.store, error).into()),
    }
}

/// Returns whether a partition has a definition in a store, which `set` and `undefine` change.
///
/// # Errors
/// [`DefinitionError::Unknown`].
pub fn has_stored_definition(node: &Node, name: &str) -> Result<bool, DefinitionError> {
    let (_, shared) = find(node, name)?;
    Ok(shared.known_definition().is_some())
}
