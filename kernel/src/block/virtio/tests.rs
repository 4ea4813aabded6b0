//! The driver against a working device and against a misbehaving one.

use std::sync::{Arc, Mutex};

use super::fake::{DeviceMisbehaviour, FakeDevice, FakePort};
use super::geometry::feature;
use super::plan::REGION_BYTES;
use super::*;
use crate::block::dma::DmaRegion;
use crate::block::dma::fake::region;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskIncident, DiskOperation, DiskRequest, DmaSegment,
    QueueLane, SectorRange, SubmitError,
};
use crate::time::Ns;

const SECTORS: u32 = 4096;
const LIMITS: DriverTimeouts = DriverTimeouts { request_ns: Ns::new(100), reset_ns: Ns::new(50) };

struct VirtioBed {
    device: Arc<Mutex<FakeDevice>>,
    disk: VirtioDisk<FakePort>,
    buffer: DmaRegion,
}

type VirtioAnswer = (u64, Result<(), DiskError>);

impl VirtioBed {
    fn new(change: impl FnOnce(&mut FakeDevice)) -> Self {
        Self::try_new(change).unwrap_or_else(|e| panic!("{e:?}"))
    }

    fn try_new(change: impl FnOnce(&mut FakeDevice)) -> Result<Self, VirtioInitError> {
        let device = Arc::new(Mutex::new(FakeDevice::new(SECTORS)));
        change(&mut device.lock().unwrap());
        let worker = device.clone();
        let clock = move || {
            worker.lock().unwrap().work();
            Ns::ZERO
        };
        let disk = VirtioDisk::new(
            1,
            FakePort(device.clone()),
            region(REGION_BYTES / 4096),
            LIMITS,
            clock,
        )?;
        device.lock().unwrap().log.clear();
        Ok(Self { device, disk, buffer: region(16) })
    }

    fn device(&self) -> std::sync::MutexGuard<'_, FakeDevice> {
        self.device.lock().unwrap()
    }

    fn wrong(&self, wrong: DeviceMisbehaviour) {
        self.device().wrong.push(wrong);
    }

    /// Returns a segment for each page of the buffer, from `page` on.
    fn segments(&self, page: usize, count: usize) -> Vec<DmaSegment> {
        (page..page + count)
            .map(|p| DmaSegment { base: self.buffer.hpa(p * 4096), len: 4096 })
            .collect()
    }

    fn submit(
        &self,
        operation: DiskOperation,
        first: u64,
        segments: &[DmaSegment],
        cookie: u64,
    ) -> Result<(), SubmitError> {
        let count = segments.iter().map(|s| u64::from(s.len) / 512).sum();
        self.disk.submit(&DiskRequest {
            operation,
            sectors: SectorRange { first, count },
            segments,
            lane: QueueLane::Common,
            cookie: Cookie(cookie),
        })
    }

    fn submit_in(&self, lane: QueueLane, cookie: u64) -> Result<(), SubmitError> {
        let sectors = SectorRange { first: cookie * 8, count: 8 };
        let segments = self.segments(0, 1);
        self.disk.submit(&DiskRequest {
            operation: DiskOperation::Write,
            sectors,
            segments: &segments,
            lane,
            cookie: Cookie(cookie),
        })
    }

    fn write(&self, cookie: u64) {
        self.submit(DiskOperation::Write, cookie * 8, &self.segments(0, 1), cookie).unwrap();
    }

    fn work(&self) {
        self.device().work();
    }

    fn poll(&self, now_ns: u64) -> Vec<VirtioAnswer> {
        let mut out = [Completion { cookie: Cookie(99), result: Ok(()) }; 128];
        let n = self.disk.poll(Ns::new(now_ns), &mut out);
        out[..n].iter().map(|c| (c.cookie.0, c.result)).collect()
    }

    /// Checks that the device still works, whatever happened before.
    fn assert_works(&self, now_ns: u64) {
        self.write(7);
        self.work();
        assert_eq!(self.poll(now_ns), [(7, Ok(()))]);
    }
}

#[test]
fn a_disk_knows_its_limits_and_its_name() {
    let info = VirtioBed::new(|_| ()).disk.info();
    assert_eq!((info.index, info.capacity, info.max_segments, info.depth), (1, 4096, 126, 63));
    assert!(info.write_cache && info.discard && info.write_zeroes);
    assert_eq!(&info.serial[..12], b"fake-serial\0");
}

#[test]
fn segments_are_gathered_and_scattered_with_and_without_indirect_tables() {
    for without in [0, feature::INDIRECT] {
        let bed = VirtioBed::new(|d| d.features &= !without);
        (0..4 * 4096).for_each(|n| bed.buffer.write(n, (n / 4096 + 1) as u8));
        let mut scattered = bed.segments(0, 4);
        scattered.reverse();
        bed.submit(DiskOperation::Write, 16, &scattered, 1).unwrap();
        bed.submit(DiskOperation::Flush, 0, &[], 2).unwrap();
        bed.work();
        assert_eq!(bed.poll(0), [(1, Ok(())), (2, Ok(()))]);
        assert_eq!(bed.device().disk[16 * 512], 4);
        assert_eq!(bed.device().log, [(1, 16), (4, 0)]);
        bed.submit(DiskOperation::Read, 16, &bed.segments(8, 4), 3).unwrap();
        bed.work();
        assert_eq!(bed.poll(0), [(3, Ok(()))]);
        assert_eq!([8, 9, 10, 11].map(|p| bed.buffer.read::<u8>(p * 4096 + 4095)), [4, 3, 2, 1]);
    }
}

#[test]
fn discard_and_write_zeroes_carry_their_range() {
    let bed = VirtioBed::new(|d| d.disk.fill(1));
    for (operation, cookie) in [(DiskOperation::Discard, 1), (DiskOperation::WriteZeroes, 2)] {
        let sectors = SectorRange { first: 3, count: 2 };
        bed.disk
            .submit(&DiskRequest {
                operation,
                sectors,
                segments: &[],
                lane: QueueLane::Common,
                cookie: Cookie(cookie),
            })
            .unwrap();
    }
    bed.work();
    assert_eq!(bed.poll(0), [(1, Ok(())), (2, Ok(()))]);
    let device = bed.device();
    assert_eq!([2, 3, 4, 5].map(|s| device.disk[s * 512]), [1, 0, 0, 1]);
    assert_eq!(device.log, [(11, 0), (13, 0)]);
}

#[test]
fn all_slots_fly_at_once_come_back_in_any_order_and_are_used_again() {
    let bed = VirtioBed::new(|_| ());
    for round in 0..3u64 {
        (0..63).for_each(|n| bed.write(n));
        assert_eq!(
            bed.submit(DiskOperation::Write, 0, &bed.segments(0, 1), 64),
            Err(SubmitError::Full)
        );
        // The beat of a claim waits for none of them.
        assert_eq!(bed.submit_in(QueueLane::Beat, 63), Ok(()));
        assert_eq!(bed.submit_in(QueueLane::Beat, 64), Err(SubmitError::Full));
        bed.work();
        let mut answers = bed.poll(round);
        answers.sort_unstable_by_key(|a| a.0);
        assert_eq!(answers, (0..64).map(|n| (n, Ok(()))).collect::<Vec<_>>());
    }
    assert_eq!(bed.disk.counters().requests.write, 192);
    assert_eq!(bed.disk.counters().bytes.write, 192 * 4096);
}

#[test]
fn the_device_is_told_of_every_request_unless_it_is_busy() {
    let bed = VirtioBed::new(|_| ());
    let before = bed.device().notifications;
    bed.write(1);
    assert_eq!(bed.device().notifications, before + 1);
}

#[test]
fn a_flush_without_a_cache_is_done_at_once() {
    let bed = VirtioBed::new(|d| d.features &= !feature::FLUSH);
    assert!(!bed.disk.info().write_cache);
    bed.submit(DiskOperation::Flush, 0, &[], 5).unwrap();
    assert_eq!(bed.poll(0), [(5, Ok(()))]);
    assert_eq!(bed.device().log, []);
    bed.assert_works(0);
}

#[test]
fn errors_of_the_device_are_surfaced() {
    let bed = VirtioBed::new(|_| ());
    for (wrong, error) in [
        (DeviceMisbehaviour::Status(1), DiskError::Io),
        (DeviceMisbehaviour::Status(2), DiskError::Unsupported),
        (DeviceMisbehaviour::Status(77), DiskError::Io),
        (DeviceMisbehaviour::NoStatus, DiskError::Io),
    ] {
        bed.wrong(wrong);
        bed.write(1);
        bed.work();
        assert_eq!(bed.poll(0), [(1, Err(error))], "{wrong:?}");
    }
    assert_eq!((bed.disk.counters().errors, bed.disk.counters().resets), (4, 0));
    bed.assert_works(0);
}

#[test]
fn a_read_that_is_not_whole_is_an_error() {
    let bed = VirtioBed::new(|_| ());
    bed.wrong(DeviceMisbehaviour::Len(4096));
    bed.submit(DiskOperation::Read, 0, &bed.segments(0, 1), 1).unwrap();
    bed.work();
    assert_eq!(bed.poll(0), [(1, Err(DiskError::Io))]);
}

#[test]
fn a_device_that_breaks_the_protocol_is_reset_once_nothing_is_in_flight() {
    let bed = VirtioBed::new(|_| ());
    let resets = bed.device().resets;
    bed.wrong(DeviceMisbehaviour::Len(2));
    bed.wrong(DeviceMisbehaviour::Silent);
    (1..3).for_each(|n| bed.write(n));
    bed.work();
    assert_eq!(bed.poll(0), [(1, Err(DiskError::Io))], "it was answered");
    assert_eq!(bed.disk.last_violation(), Some(DeviceProtocolError::TooLong(2)));
    assert_eq!(
        bed.submit(DiskOperation::Flush, 0, &[], 3),
        Err(SubmitError::Full),
        "until it has been reset"
    );
    assert_eq!(bed.device().resets, resets, "a request is in flight");
    bed.device().answer_late();
    assert_eq!(bed.poll(1), [(2, Ok(()))]);
    assert_eq!(bed.device().resets, resets + 1);
    assert_eq!(bed.disk.take_incident(), Some(DiskIncident::Broken));
    bed.assert_works(2);
}

#[test]
fn an_answer_that_names_no_request_leaves_the_buffers_with_the_device() {
    for (wrong, violation) in [
        (DeviceMisbehaviour::Id(64), DeviceProtocolError::UnknownId(64)),
        (DeviceMisbehaviour::Id(0x1_0000), DeviceProtocolError::UnknownId(0x1_0000)),
        (DeviceMisbehaviour::Id(u32::MAX), DeviceProtocolError::UnknownId(u32::MAX)),
        (DeviceMisbehaviour::Id(5), DeviceProtocolError::UnknownId(5)),
        (DeviceMisbehaviour::Index(2), DeviceProtocolError::IndexJump),
        (DeviceMisbehaviour::Index(u16::MAX), DeviceProtocolError::IndexJump),
    ] {
        let bed = VirtioBed::new(|_| ());
        let resets = bed.device().resets;
        bed.wrong(wrong);
        bed.write(1);
        bed.work();
        assert_eq!(bed.poll(0), [], "{wrong:?}");
        assert_eq!(bed.disk.last_violation(), Some(violation));
        assert_eq!(bed.poll(100), [(1, Err(DiskError::TimedOut))], "{wrong:?}");
        assert_eq!(bed.submit(DiskOperation::Flush, 0, &[], 2), Err(SubmitError::Failed));
        assert_eq!(
            (bed.poll(100_000), bed.device().resets),
            (vec![], resets),
            "never reset: it may still write"
        );
    }
}

#[test]
fn an_answer_given_twice_completes_once() {
    let bed = VirtioBed::new(|_| ());
    bed.wrong(DeviceMisbehaviour::Twice);
    bed.wrong(DeviceMisbehaviour::Silent);
    bed.write(1);
    bed.write(2);
    bed.work();
    assert_eq!(bed.poll(0), [(1, Ok(()))]);
    assert_eq!(bed.disk.last_violation(), Some(DeviceProtocolError::UnknownId(0)));
    assert_eq!(
        (bed.poll(100), bed.disk.counters().resets),
        (vec![(2, Err(DiskError::TimedOut))], 0)
    );
}

#[test]
fn a_device_that_asks_for_a_reset_gets_one() {
    let bed = VirtioBed::new(|_| ());
    bed.poll(0);
    bed.device().needs_reset = true;
    assert_eq!(
        (bed.poll(999_999_999), bed.disk.counters().resets),
        (vec![], 0),
        "the status is looked at once a second"
    );
    assert_eq!((bed.poll(1_000_000_000), bed.disk.counters().resets), (vec![], 1));
    assert_eq!(incidents(&bed), [DiskIncident::Broken]);
    bed.assert_works(1_000_000_000);
}

fn incidents(bed: &VirtioBed) -> Vec<DiskIncident> {
    std::iter::from_fn(|| bed.disk.take_incident()).collect()
}

#[test]
fn a_disk_that_does_not_answer_is_written_off_without_a_reset_and_late_answers_bring_it_back() {
    let bed = VirtioBed::new(|_| ());
    let resets = bed.device().resets;
    bed.wrong(DeviceMisbehaviour::Silent);
    bed.write(1);
    bed.write(2);
    bed.work();
    assert_eq!(bed.poll(1000), [(2, Ok(()))]);
    bed.wrong(DeviceMisbehaviour::Silent);
    bed.write(3);
    bed.work();
    assert_eq!((bed.poll(1099), bed.disk.is_dead()), (vec![], false));
    // All requests in flight are completed with a time-out: the disk is written off as a whole.
    assert_eq!(bed.poll(1100), [(1, Err(DiskError::TimedOut)), (3, Err(DiskError::TimedOut))]);
    assert!(bed.disk.is_dead());
    assert_eq!(
        bed.submit(DiskOperation::Write, 0, &bed.segments(0, 1), 4),
        Err(SubmitError::Failed)
    );
    assert_eq!(bed.submit_in(QueueLane::Beat, 4), Err(SubmitError::Failed));
    assert_eq!(
        (bed.poll(100_000), bed.device().resets),
        (vec![], resets),
        "told once, and never reset"
    );
    assert_eq!(incidents(&bed), [DiskIncident::WrittenOff { unanswered: 2 }]);
    bed.device().answer_one_late();
    assert_eq!(bed.poll(100_050), [(1, Ok(()))]);
    assert_eq!(
        bed.submit(DiskOperation::Write, 0, &bed.segments(0, 1), 4),
        Err(SubmitError::Failed),
        "one is still away"
    );
    bed.device().answer_late();
    assert_eq!(bed.poll(101_100), [(3, Ok(()))]);
    assert_eq!(incidents(&bed), [DiskIncident::Back { away_ns: Ns::from_us(100) }]);
    assert_eq!(
        (bed.disk.is_dead(), bed.disk.counters().timeouts, bed.disk.counters().resets),
        (false, 2, 0)
    );
    bed.assert_works(101_101);
}

#[test]
fn lateness_is_told_in_pieces_where_there_is_little_room() {
    let bed = VirtioBed::new(|_| ());
    (0..3).for_each(|n| bed.write(n));
    bed.poll(0);
    let mut told = Vec::new();
    let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
    for now in 100..110 {
        let count = bed.disk.poll(Ns::new(now), &mut out);
        told.extend(out[..count].iter().map(|c| (c.cookie.0, c.result)));
    }
    assert_eq!(told, [0, 1, 2].map(|n| (n, Err(DiskError::TimedOut))));
    bed.work();
    assert_eq!(bed.poll(120).len(), 3, "late answers");
    bed.assert_works(200);
}

#[test]
fn a_machine_that_ends_waits_less_long_also_for_what_is_in_flight() {
    let bed = VirtioBed::new(|_| ());
    bed.write(1);
    bed.poll(0);
    assert_eq!(bed.poll(50), []);
    bed.disk.hurry(Ns::new(50));
    assert_eq!(bed.poll(50), [(1, Err(DiskError::TimedOut))]);
}

#[test]
fn a_device_that_ignores_its_reset_is_cut_off_and_dead() {
    let bed = VirtioBed::new(|_| ());
    bed.device().reset_reads = u32::MAX;
    bed.wrong(DeviceMisbehaviour::Len(2));
    bed.write(1);
    bed.work();
    assert_eq!(bed.poll(100), [(1, Err(DiskError::Io))]);
    assert_eq!(bed.poll(149), []);
    assert!(!bed.device().cut_off);
    assert_eq!(bed.poll(150), []);
    assert!(bed.device().cut_off && bed.disk.is_dead());
    assert_eq!(bed.submit(DiskOperation::Flush, 0, &[], 2), Err(SubmitError::Failed));
    assert_eq!(incidents(&bed), [DiskIncident::Broken, DiskIncident::Dead]);
    assert_eq!(bed.poll(1000), []);
}

#[test]
fn a_disk_that_grew_or_shrank_goes_on_at_its_recorded_size() {
    for capacity in [SECTORS + 8, SECTORS - 8] {
        let bed = VirtioBed::new(|_| ());
        bed.poll(0);
        bed.device().config[0] = capacity;
        bed.poll(1_000_000_000);
        assert_eq!(
            incidents(&bed),
            [DiskIncident::Resized { from: SECTORS.into(), to: capacity.into() }]
        );
        assert_eq!(bed.disk.info().capacity, u64::from(SECTORS));
        // Neither the time-out nor the reset that follow find another disk.
        bed.wrong(DeviceMisbehaviour::Silent);
        bed.write(1);
        bed.work();
        bed.poll(1_000_000_000);
        assert_eq!(bed.poll(1_000_000_100), [(1, Err(DiskError::TimedOut))]);
        bed.device().needs_reset = true;
        bed.poll(2_000_000_000);
        bed.device().answer_late();
        assert_eq!(bed.poll(2_000_000_001), [(1, Ok(()))]);
        assert_eq!(bed.disk.counters().resets, 1);
        bed.assert_works(2_000_000_002);
    }
}

#[test]
fn another_disk_after_a_reset_is_dead() {
    let bed = VirtioBed::new(|_| ());
    bed.poll(0);
    bed.device().config[3] = 3;
    bed.device().needs_reset = true;
    bed.poll(1_000_000_000);
    assert!(bed.disk.is_dead());
    assert_eq!(incidents(&bed), [DiskIncident::Broken, DiskIncident::Dead]);
    assert_eq!(bed.submit(DiskOperation::Flush, 0, &[], 2), Err(SubmitError::Failed));
}

#[test]
fn a_device_that_breaks_the_protocol_again_and_again_is_given_up() {
    let bed = VirtioBed::new(|_| ());
    let mut resets = 0;
    while !bed.disk.is_dead() {
        bed.wrong(DeviceMisbehaviour::Len(2));
        bed.write(1);
        bed.work();
        assert_eq!(bed.poll(0), [(1, Err(DiskError::Io))]);
        resets += 1;
        assert!(resets < 10, "never given up");
    }
    assert_eq!(resets, 4);
}

#[test]
fn devices_that_are_of_no_use_are_refused_with_the_reason() {
    let refused = |change: fn(&mut FakeDevice)| match VirtioBed::try_new(change) {
        Err(reason) => reason,
        Ok(_) => panic!("not refused"),
    };
    assert_eq!(refused(|d| d.features &= !feature::VERSION_1), VirtioInitError::Legacy);
    assert_eq!(
        refused(|d| d.features |= feature::RO),
        VirtioInitError::Config(VirtioConfigError::ReadOnly)
    );
    assert_eq!(refused(|d| d.config[0] = 0), VirtioInitError::Config(VirtioConfigError::Empty));
    assert_eq!(refused(|d| d.config[3] = 0), VirtioInitError::Config(VirtioConfigError::Segments));
    assert_eq!(refused(|d| d.queue_max = 0), VirtioInitError::Queue);
    assert_eq!(refused(|d| d.refuse_features = true), VirtioInitError::Features);
}

#[test]
fn small_limits_of_a_device_are_kept() {
    let bed = VirtioBed::new(|d| {
        d.config[12] = 100;
        d.config[9] = 100;
        d.config[3] = 2;
        d.queue_max = 8;
    });
    let info = bed.disk.info();
    assert_eq!(
        (info.max_segments, info.depth, info.discard, info.write_zeroes),
        (2, 7, false, false)
    );
    assert_eq!(
        bed.submit(DiskOperation::Write, 0, &bed.segments(0, 3), 1),
        Err(SubmitError::Invalid)
    );
    bed.assert_works(0);
}
