//! Drops the oldest dumps of a partition in favour of a newer one, if the configuration asks for
//! it.
//!
//! This happens only after the newer dump's record says DRAINING on the disk. Only COMPLETE or
//! PARTIAL dumps of the same partition that are not selected are dropped. An event names each dump
//! before it goes.

use super::bounds::may_go;
use super::{KeptDump, SpaceId, SpaceLocation, Spaces};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::space::Uuid;
use arrayvec::ArrayString;

impl Spaces {
    /// Drops the oldest dumps of `owner` until it has at most `most`, including `newer`.
    pub async fn drop_oldest(&'static self, owner: ArrayString<64>, newer: Uuid, most: u32) {
        while self.has_excess(&owner, most) {
            let Some(oldest) = self.oldest(&owner) else { return };
            match self.is_selected(oldest.id).await {
                Ok(false) => self.drop_dump(&oldest, newer),
                // If the selection cannot be read, the dump may be selected.
                Ok(true) | Err(_) => self.spare(oldest.id),
            }
        }
    }

    fn has_excess(&self, owner: &str, most: u32) -> bool {
        let census = self.dumps_of(owner, None);
        // A dump that is not promised yet makes its own drops.
        census.kept + census.promised > most
    }

    /// Returns the oldest dump of a partition that may be dropped.
    fn oldest(&self, owner: &str) -> Option<KeptDump> {
        let user = Uuid::from_name(owner);
        let mut dumps = self.kept_dumps();
        dumps.retain(|dump| {
            dump.owner.partition == user && may_go(&self.space(dump.id).inner.lock())
        });
        dumps.into_iter().min_by_key(|dump| (dump.crash.time_ns, dump.owner.epoch))
    }

    fn drop_dump(&'static self, oldest: &KeptDump, newer: Uuid) {
        // If a command has released it meanwhile, that command has reported it.
        if !self.release(oldest.id) {
            return;
        }
        let (SpaceLocation { disk, number, .. }, partition) = (oldest.place, &*oldest.owner.name);
        let (incarnation, dump, disk) = (oldest.owner.epoch, oldest.crash.name, disk as u8);
        report(&ConsoleEvent::DumpDropped {
            partition,
            incarnation,
            dump,
            disk,
            space: number,
            newer,
        });
    }

    fn spare(&self, id: SpaceId) {
        self.space(id).inner.lock().is_selected = true;
    }
}
