//! Reports problems that the pager has met to the operator, as `error` events that name partition
//! and paging device.
//!
//! Only problems of live memory are reported here. A dump that cannot be written has its own event
//! (`dump_failed`), which gives the outcome.

use crate::arch::time;
use crate::block::{Disk, DiskIncident};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::mm::object::ObjectId;
use crate::node::Node;
use crate::paging::PagerNotice;
use crate::partition::shared::{PartitionRequest, SharedPartition};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

/// Reports all waiting notices.
#[cold]
pub fn report_all(node: &Node) {
    while let Some(notice) = node.host.pager.take_notice() {
        let (object, message) = match notice {
            PagerNotice::WriteFailed { object, first, count, error } => {
                let last = first.0.saturating_add(count.saturating_sub(1));
                let what = format!("pages {} to {last} could not be written ({error})", first.0);
                (object, format!("{what}: they stay in memory, and are tried again"))
            }
            PagerNotice::PageLost { object, index, loss } => {
                (object, format!("page {} cannot be read back ({loss})", index.0))
            }
            PagerNotice::Unwritable { object, error } => {
                let message = format!(
                    "its pages cannot be written ({error}), and other partitions need the frames"
                );
                (object, message)
            }
            PagerNotice::DiskDead { object } => (
                object,
                "the disk takes no requests any more: pages in memory stay there".to_string(),
            ),
        };
        if let Some(shared) = owner(node, object) {
            let shared = &*shared;
            if let PagerNotice::Unwritable { .. } = notice {
                shared.ask(PartitionRequest::GiveUp);
                node.host.wake();
            }
            report(&ConsoleEvent::Error { place: &place(node, shared), message: &message });
        }
    }
}

/// Reports incidents of disks that belong to no request.
pub fn report_disks(node: &Node) {
    for (number, disk) in node.host.pager.disks().iter().enumerate() {
        if let Some(failed) = disk.take_failed(time::now_ns()) {
            let requests =
                if failed == 1 { "a request".to_string() } else { format!("{failed} requests") };
            let message = format!("the disk reports an error for {requests}");
            report(&ConsoleEvent::Error {
                place: &format!("paging device {number}"),
                message: &message,
            });
        }
        while let Some(incident) = disk.take_incident() {
            let message = match incident {
                DiskIncident::WrittenOff { unanswered } => {
                    format!(
                        "no answer in time to {unanswered} requests: the disk is written off \
                         until they are answered"
                    )
                }
                DiskIncident::Back { away_ns } => {
                    format!(
                        "the disk has answered everything and is used again, after {} ms",
                        away_ns.as_u64() / 1_000_000
                    )
                }
                DiskIncident::Broken => "the device broke its protocol or needs a reset: it is \
                                         reset when nothing is in flight"
                    .to_string(),
                DiskIncident::Resized { from, to } => {
                    format!(
                        "the disk has {to} sectors now, {from} before: its spaces stay where they \
                         are"
                    )
                }
                DiskIncident::Dead => "the device came back from its reset as another one, or not \
                                       at all: it is not used any more"
                    .to_string(),
            };
            report(&ConsoleEvent::Error {
                place: &format!("paging device {number}"),
                message: &message,
            });
        }
    }
}

/// Returns the partition whose live memory `object` is.
fn owner(node: &Node, object: ObjectId) -> Option<Arc<SharedPartition>> {
    let is_owner = |shared: &Arc<SharedPartition>| {
        super::stats::memory_of(node, shared).is_some_and(|memory| memory.id() == object)
    };
    node.partitions().map(|(_, shared)| shared).find(is_owner)
}

/// Names a partition and the paging device of its pages.
fn place(node: &Node, shared: &SharedPartition) -> String {
    let (name, incarnation) = (shared.name(), shared.incarnation());
    let mut spaces = node.host.spaces.summaries().into_iter();
    let space = spaces.find(|space| {
        space.owner.as_ref().is_some_and(|(of, epoch)| of == name && *epoch == incarnation)
    });
    space.map_or_else(
        || format!("partition {name}"),
        |space| format!("partition {name} on {}", space.place),
    )
}
