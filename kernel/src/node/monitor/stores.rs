//! Commands that wait for image stores: each is a task, which answers when it ends.

use super::audience::{Audience, answer};
use crate::config::PartitionConfig;
use crate::console::definition::{Definition, DefinitionScope, PolicyOptions};
use crate::console::event::ConsoleEvent;
use crate::console::output::print_text;
use crate::console::report;
use crate::images::layout::CHUNK;
use crate::images::{
    ImageState, OpenStore, StoreContentError, StorePlace, StoreSide, StoredDefinition, StoredImage,
    extents, find,
};
use crate::node::Node;
use crate::node::define::stored::{self, StoredWish};
use crate::node::define::{self, DefinitionError};
use crate::storage::stores::{StoreAtError, StoreId};
use crate::task::until;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

/// Starts a command as a task; it is refused if too many are under way.
fn begin(
    node: &'static Node,
    audience: Audience,
    success: String,
    command: impl Future<Output = Result<(), DefinitionError>> + Send + 'static,
) -> Result<(), DefinitionError> {
    let turn = node.host.stores.begin().ok_or(DefinitionError::StoresBusy)?;
    node.host.tasks.start(async move {
        let done = command.await;
        drop(turn);
        if done.is_ok() && audience == Audience::People {
            print_text(format_args!("{success}"));
        }
        answer(audience, done.map_err(|error| format!("{error}")));
    });
    Ok(())
}

/// Defines a partition with images from a store.
pub(super) fn define(
    node: &'static Node,
    definition: &Definition<'_>,
    audience: Audience,
) -> Result<(), DefinitionError> {
    let wish = StoredWish {
        store: definition.store.unwrap_or_default().into(),
        config: definition.to_config(),
        is_for_all: definition.scope == DefinitionScope::Store,
    };
    let success = format!("{}: defined\n", definition.name);
    begin(node, audience, success, stored::define_stored(node, wish))
}

/// Returns whether `start` has to look for a partition in the stores.
pub(super) fn has_to_look(node: &Node, name: &str) -> bool {
    define::find(node, name).is_err() && node.host.stores.all().next().is_some()
}

/// Starts a partition from its definition in a store.
pub(super) fn start(
    node: &'static Node,
    name: &str,
    audience: Audience,
) -> Result<(), DefinitionError> {
    let success = format!("{name}: starts from its definition in the image store\n");
    begin(node, audience, success, stored::start_stored(node, name.into()))
}

/// Changes what a crash of a partition leads to, in its store and on this node.
pub(super) fn set(
    node: &'static Node,
    (name, options): (&str, PolicyOptions),
    audience: Audience,
) -> Result<(), DefinitionError> {
    let success = format!("{name}: changed, in its image store too\n");
    begin(node, audience, success, stored::set_stored(node, name.into(), options))
}

/// Removes the definition of a partition from its store and from this node.
pub(super) fn undefine(
    node: &'static Node,
    name: &str,
    audience: Audience,
) -> Result<(), DefinitionError> {
    let success = format!("{name}: removed from its image store\n");
    begin(node, audience, success, stored::undefine_stored(node, name.into()))
}

/// Lists all stores.
pub(super) fn list(node: &'static Node, audience: Audience) -> Result<(), DefinitionError> {
    let none = if node.host.stores.all().next().is_none() { "no image store\n" } else { "" };
    begin(node, audience, none.into(), async move {
        let mut failure = None;
        for id in node.host.stores.all() {
            // The others are listed all the same.
            if let Err(error) = list_one(node, id, audience).await {
                failure = Some(error.into());
            }
        }
        failure.map_or(Ok(()), Err)
    })
}

/// Waits until more lines of an answer fit, or the machine ends.
async fn room(node: &Node, audience: Audience) {
    let is_ending = || node.host.ending.load(Ordering::Acquire);
    until(|| (audience.has_room() || is_ending()).then_some(())).await;
}

async fn list_one(
    node: &'static Node,
    id: StoreId,
    audience: Audience,
) -> Result<(), StoreAtError> {
    let stores = node.host.stores;
    let open = stores.open(id).await?;
    show_store(node, id, &open, audience)?;
    for image in &open.directory().images {
        room(node, audience).await;
        show_image(id, image, audience);
    }
    let mut disk = stores.disk(id);
    let at = |error| stores.at(id, error);
    for number in find::in_use(&mut disk, &open.superblock).await.map_err(at)? {
        let slot = find::slot(&mut disk, &open.superblock, number).await.map_err(at)?;
        room(node, audience).await;
        if let Some(definition) = slot.definition() {
            show_definition(id, number, definition, audience);
        }
    }
    Ok(())
}

/// Reports all stores at the start, or why they cannot be used. Nothing waits for that.
pub fn tell_all(node: &'static Node) {
    for id in node.host.stores.all() {
        node.host.tasks.start(tell(node, id));
    }
}

async fn tell(node: &'static Node, id: StoreId) {
    let told = match node.host.stores.open(id).await {
        Ok(open) => {
            if let Some(other) = open.found.other {
                let error = node.host.stores.at(id, other);
                let message = format!("{error}; the other copy is used");
                report(&ConsoleEvent::Error { place: "image store", message: &message });
            }
            tell_store(node, id, &open, None)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        report(&ConsoleEvent::Error { place: "image store", message: &format!("{error}") });
    }
}

fn free_bytes(node: &Node, id: StoreId, open: &OpenStore) -> Result<u64, StoreAtError> {
    let place = StorePlace::Directory(StoreSide::of(open.directory().sequence));
    let runs = extents::free(open.directory(), open.layout())
        .map_err(|fault| node.host.stores.at(id, StoreContentError { place, fault }))?;
    Ok(runs.iter().map(|run| u64::from(run.count) * CHUNK as u64).sum())
}

fn show_store(
    node: &Node,
    id: StoreId,
    open: &OpenStore,
    audience: Audience,
) -> Result<(), StoreAtError> {
    if let Audience::Program(number) = audience {
        return tell_store(node, id, open, Some(number));
    }
    let free = free_bytes(node, id, open)?;
    print_text(format_args!(
        "image store {}  {}, on {}, {} MiB, {} MiB free\n",
        id.0,
        open.uuid(),
        node.host.stores.place(id),
        (open.superblock.blocks * 4096) >> 20,
        free >> 20
    ));
    Ok(())
}

fn tell_store(
    node: &Node,
    id: StoreId,
    open: &OpenStore,
    number: Option<u64>,
) -> Result<(), StoreAtError> {
    let place = node.host.stores.place(id);
    report(&ConsoleEvent::Store {
        id: number,
        store: id.0 as u8,
        uuid: open.uuid(),
        disk: place.disk as u8,
        space: place.number,
        bytes: open.superblock.blocks * 4096,
        free_bytes: free_bytes(node, id, open)?,
        images: open.directory().images.len() as u32,
        slots: open.layout().slots(),
    });
    Ok(())
}

fn show_image(id: StoreId, image: &StoredImage, audience: Audience) {
    let (digest, short) = (image.digest.text(), image.digest.short());
    let state = match image.state {
        ImageState::Present => "present",
        ImageState::Leaving => "leaving",
    };
    let (kind, bytes, label) = (image.kind.name(), image.length, image.label.as_str());
    match audience {
        Audience::People => {
            let leaves = if image.state == ImageState::Leaving { ", is being removed" } else { "" };
            print_text(format_args!("  {kind} {short}  {bytes} bytes  {label}{leaves}\n"));
        }
        Audience::Program(number) => report(&ConsoleEvent::StoredImage {
            id: number,
            store: id.0 as u8,
            digest: &digest,
            kind,
            state,
            bytes,
            label,
            kept: image.is_kept,
        }),
    }
}

fn show_definition(id: StoreId, slot: u32, definition: &StoredDefinition, audience: Audience) {
    let config = PartitionConfig::from_definition(definition.encoding, &definition.bytes);
    let memory = config.as_ref().ok().map(|config| config.memory_bytes);
    let (name, generation) = (definition.name.as_str(), definition.generation);
    let initrd = definition.initrd.map(|initrd| initrd.text());
    match (audience, &config) {
        (Audience::People, Ok(config)) => print_text(format_args!(
            "  definition {name}  {} MiB, kernel {}, generation {generation}\n",
            config.memory_bytes >> 20,
            definition.kernel.short()
        )),
        (Audience::People, Err(error)) => {
            print_text(format_args!("  definition {name}  cannot be used: {error}\n"));
        }
        (Audience::Program(number), _) => report(&ConsoleEvent::StoredDefinition {
            id: number,
            store: id.0 as u8,
            slot,
            partition: name,
            generation,
            kernel: &definition.kernel.text(),
            initrd: initrd.as_ref().map(|digits| digits.as_str()),
            memory_bytes: memory,
        }),
    }
}
