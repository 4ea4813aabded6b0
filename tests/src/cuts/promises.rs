//! The hypervisor's promises about the dump on each disk, derived from its events.
//!
//! ```text
//!   space … draining ──> DRAINING is durable: the next start makes at least a partial dump of it
//!   dump_complete    ──> COMPLETE is durable: the dump is complete
//!   a release is requested ──> no promise any more
//! ```

use boot::events::Event;
use std::collections::BTreeMap;

/// The part of a dump that is promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DumpPromise {
    /// That the dump exists.
    Begun,
    /// That the dump is complete.
    Whole,
}

/// The promises by disk: the dump's incarnation, and the promised part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpPromises(BTreeMap<u64, (u64, DumpPromise)>);

impl DumpPromises {
    /// Takes an event.
    pub fn take(&mut self, event: &Event) {
        let number = |member: &str| event.0[member].as_u64();
        match event.name() {
            "space" if event.0["state"] == "draining" => {
                self.add(number("disk"), number("epoch"), DumpPromise::Begun);
            }
            "dump_complete" => self.add(number("disk"), number("incarnation"), DumpPromise::Whole),
            _ => {}
        }
    }

    fn add(&mut self, disk: Option<u64>, incarnation: Option<u64>, promise: DumpPromise) {
        let (Some(disk), Some(incarnation)) = (disk, incarnation) else { return };
        let before =
            self.0.get(&disk).filter(|(of, _)| *of == incarnation).map(|(_, promise)| *promise);
        self.0.insert(disk, (incarnation, before.map_or(promise, |before| before.max(promise))));
    }

    /// Withdraws the promise of an incarnation's dump; call it before the release is requested.
    pub fn release(&mut self, incarnation: u64) {
        self.0.retain(|_, (of, _)| *of != incarnation);
    }

    /// Returns the incarnations with complete dumps.
    pub fn whole(&self) -> Vec<u64> {
        self.0
            .values()
            .filter(|(_, promise)| *promise == DumpPromise::Whole)
            .map(|(of, _)| *of)
            .collect()
    }

    /// Returns the promise about a disk.
    pub fn of(&self, disk: u64) -> Option<(u64, DumpPromise)> {
        self.0.get(&disk).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn draining(disk: u64, epoch: u64) -> Event {
        Event(json!({"event": "space", "disk": disk, "state": "draining", "epoch": epoch}))
    }

    #[test]
    fn a_dump_is_promised_from_draining_to_its_release() {
        let mut promises = DumpPromises::default();
        promises.take(&Event(json!({"event": "space", "disk": 1, "state": "crashed", "epoch": 3})));
        assert_eq!(promises.of(1), None);
        promises.take(&draining(1, 3));
        assert_eq!(promises.of(1), Some((3, DumpPromise::Begun)));
        promises.take(&Event(json!({"event": "dump_complete", "disk": 1, "incarnation": 3})));
        // A drain's progress is another record with the state DRAINING; a late event of it
        // withdraws no promise.
        promises.take(&draining(1, 3));
        assert_eq!((promises.of(1), promises.whole()), (Some((3, DumpPromise::Whole)), vec![3]));
        promises.release(3);
        assert_eq!(promises.of(1), None);
    }

    #[test]
    fn each_disk_has_its_own() {
        let mut promises = DumpPromises::default();
        promises.take(&draining(0, 1));
        promises.take(&draining(1, 2));
        promises.release(1);
        assert_eq!((promises.of(0), promises.of(1)), (None, Some((2, DumpPromise::Begun))));
    }
}
