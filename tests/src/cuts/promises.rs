//! What the hypervisor has promised of the dump on each disk, by its events.
//!
//! ```text
//!   space … draining ──> DRAINING is durable: a start makes at least a partial dump of it
//!   dump_complete    ──> COMPLETE is durable: the dump is whole
//!   a release is asked for ──> nothing is promised any more
//! ```

use boot::events::Event;
use std::collections::BTreeMap;

/// How much of a dump is promised.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DumpPromise {
    /// That there is one.
    Begun,
    /// That it is whole.
    Whole,
}

/// The promises, by disk: which incarnation's dump, and how much of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DumpPromises(BTreeMap<u64, (u64, DumpPromise)>);

impl DumpPromises {
    /// Takes an event in.
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
        let before = self.0.get(&disk).filter(|(of, _)| *of == incarnation).map(|(_, promise)| *promise);
        self.0.insert(disk, (incarnation, before.map_or(promise, |before| before.max(promise))));
    }

    /// Takes the promise of an incarnation's dump back; call it before the release is asked for.
    pub fn release(&mut self, incarnation: u64) {
        self.0.retain(|_, (of, _)| *of != incarnation);
    }

    /// Returns the incarnations whose dumps are whole.
    pub fn whole(&self) -> Vec<u64> {
        self.0.values().filter(|(_, promise)| *promise == DumpPromise::Whole).map(|(of, _)| *of).collect()
    }

    /// Returns what is promised of a disk.
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
        // Progress of a drain is a record that says DRAINING once more; told late it takes nothing back.
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
