//! The first write of an owner: both records, with the epoch of its claim.
//!
//! From then on no record of an earlier owner can be the newest, however late it lands. An earlier
//! owner that wakes up does not take the space for its own.

use super::{SpaceId, Spaces};
use crate::arch::{instr, time};
use crate::block::{DiskError, QueueLane};
use crate::space::copies::RecordSequence;
use crate::space::holding::{BeatVerdict, SpaceHolding};
use crate::space::{DeviceContent, RecordSide, Residue, SpaceRecord, Uuid};

impl Spaces {
    /// Makes the space this node's; false if it must be claimed again.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn found(
        &'static self,
        id: SpaceId,
        mut holding: SpaceHolding,
    ) -> Result<bool, DiskError> {
        let disk = self.place(id).disk;
        {
            let _turn = self.beats.turn(disk).await;
            let BeatVerdict::Confirmed { .. } = self.beat_once(id, &mut holding).await? else {
                return Ok(false);
            };
        }
        // The class is read again: another node may have used the space until it was claimed.
        let epoch = holding.claim().epoch;
        let record = match self.class(id).await? {
            Some(DeviceContent::Space(record)) => record,
            Some(DeviceContent::Blank) => self.blank_record(id),
            // The space is left alone; `open` reports its class.
            _ => return Ok(true),
        };
        // A space that was not closed to programs outside the cluster is closed from now on.
        let cluster = self.cluster_of(id);
        let mut sequence = RecordSequence(record.sequence);
        for _ in 0..2 {
            sequence = sequence.next(epoch);
            self.write_record_in(
                id,
                QueueLane::Beat,
                &SpaceRecord { sequence: sequence.0, cluster, ..record.clone() },
            )
            .await?;
        }
        if !holding.found(time::now_ns()) {
            return Ok(false);
        }
        self.space(id).inner.lock().holding = Some(holding);
        self.beats.begin(disk);
        self.beat_disk(disk).await;
        Ok(true)
    }

    /// Makes the record of a space that was never written.
    pub(super) fn blank_record(&self, id: SpaceId) -> SpaceRecord {
        let name = Uuid::from_entropy(instr::rdtsc().as_u64(), id.0 as u64);
        SpaceRecord {
            sequence: 0,
            cluster: self.cluster_of(id),
            ..SpaceRecord::free(self.place(id).area.bytes(), name, Residue::Clean)
        }
    }

    pub(super) async fn write_record_in(
        &self,
        id: SpaceId,
        lane: QueueLane,
        record: &SpaceRecord,
    ) -> Result<(), DiskError> {
        let start =
            RecordSide::of(record.sequence).start(record.capacity).ok_or(DiskError::Unsupported)?;
        // On the heap: the future holds the bytes while it waits, and it is itself part of larger
        // futures that are moved over the stack.
        let bytes = record.encode().to_vec();
        self.write_in(id, lane, start, &bytes).await?;
        self.io.flush_in(self.disk(id), lane).await
    }
}
