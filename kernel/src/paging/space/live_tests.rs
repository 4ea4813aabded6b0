//! A live space on a disk that lies in memory and fails on command.

use super::super::copies::{TAIL_LEN, newest};
use super::super::record::CrashReason;
use super::super::uuid::Uuid;
use super::*;
use crate::addr::{Hpa, PageIndex};
use crate::block::dma::DmaMemory;
use crate::block::dma::fake::{device_view, region};
use crate::block::fault::{Effect, FaultDisk, Rule};
use crate::block::memory::MemoryDisk;
use arrayvec::ArrayString;

pub const CAPACITY: u64 = 4 << 20;

/// Memory whose physical addresses are the host's own, as those of `region`.
#[derive(Clone, Copy)]
pub struct Identity;

impl DmaMemory for Identity {
    fn copy(&self, from: Hpa, to: Hpa, len: u64) {
        let (from, to) = (device_view(from.as_u64(), len as usize), device_view(to.as_u64(), len as usize));
        (0..len as usize).step_by(8).for_each(|at| to.write(at, from.read::<u64>(at)));
    }
    fn fill_zero(&self, at: Hpa, len: u64) {
        let at_view = device_view(at.as_u64(), len as usize);
        (0..len as usize).step_by(8).for_each(|n| at_view.write(n, 0u64));
    }
}

pub type TestDisk = FaultDisk<WithoutZeroes>;

/// A memory disk that can be told to offer no write-zeroes.
pub struct WithoutZeroes {
    disk: MemoryDisk<Identity>,
    write_zeroes: bool,
}

impl Disk for WithoutZeroes {
    fn info(&self) -> crate::block::DiskInfo {
        crate::block::DiskInfo { write_zeroes: self.write_zeroes, ..self.disk.info() }
    }
    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError> {
        assert!(self.write_zeroes || request.operation != Operation::WriteZeroes, "not offered");
        self.disk.submit(request)
    }
    fn poll(&self, now_ns: u64, out: &mut [Completion]) -> usize {
        self.disk.poll(now_ns, out)
    }
}

/// A disk of `bytes` bytes, never freed.
pub fn disk(index: u8, bytes: u64, write_zeroes: bool) -> &'static TestDisk {
    let memory = region(bytes as usize / 4096);
    let disk = MemoryDisk::new(index, Identity, memory.hpa(0), bytes);
    Box::leak(Box::new(FaultDisk::new(WithoutZeroes { disk, write_zeroes }, 100)))
}

pub fn bytes_of(disk: &TestDisk, at: u64, len: usize) -> Vec<u8> {
    let base = disk.inner().disk.base().as_u64();
    let mut bytes = vec![0; len];
    device_view(base + at, len).copy_out(0, &mut bytes);
    bytes
}

pub fn put(disk: &TestDisk, at: u64, bytes: &[u8]) {
    device_view(disk.inner().disk.base().as_u64() + at, bytes.len()).copy_in(0, bytes);
}

pub fn on_medium(disk: &TestDisk) -> Record {
    let capacity = disk.info().capacity * 512;
    let tail: [u8; TAIL_LEN] = bytes_of(disk, capacity - TAIL_LEN as u64, TAIL_LEN).try_into().unwrap();
    newest(&tail, capacity).unwrap()
}

pub fn space_on(disk: &'static TestDisk, residue: Residue) -> LiveSpace {
    let record = Record::free(disk.info().capacity * 512, Uuid::from_entropy(1, disk.info().index.into()), residue);
    LiveSpace::new(disk, record, region(2))
}

pub fn owner(name: &str) -> Owner {
    Owner { name: ArrayString::from(name).unwrap(), partition: Uuid::from_name(name), node: Uuid::NIL, epoch: 1 }
}

/// Lets the space go on until nothing is left; returns the states that it published.
pub fn settle(space: &mut LiveSpace) -> Vec<SpaceState> {
    let (mut published, mut now) = (Vec::new(), 0);
    for _ in 0..1000 {
        space.advance();
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }; 4];
        now += 10;
        let n = space.disk().poll(now, &mut out);
        published.extend(out[..n].iter().filter_map(|c| space.complete(*c)));
        if space.status() != Status::Busy && space.state() != SpaceState::Releasing {
            return published;
        }
        if matches!(space.status(), Status::Failed(_)) {
            return published;
        }
    }
    panic!("the space never settles");
}

fn ram() -> RamLayout {
    RamLayout::new(64 << 12).unwrap()
}

fn crash() -> Crash {
    Crash { reason: CrashReason::PVPANIC, detail: 0, time_ns: 1, text: ArrayString::new() }
}

fn operations(disk: &TestDisk) -> (u64, u64, u64) {
    let requests = disk.counters().requests;
    (requests.write, requests.flush, requests.write_zeroes)
}

#[test]
fn activation_invalidates_the_old_header_before_the_record_says_active() {
    let disk = disk(0, CAPACITY, true);
    put(disk, 0, b"\x7fELF");
    let mut space = space_on(disk, Residue::Clean);
    space.activate(owner("web"), &ram()).unwrap();
    assert!(!space.ready());
    // Header zeroed, flushed; the record is not there yet.
    for _ in 0..2 {
        space.advance();
        let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
        assert_eq!(disk.poll(0, &mut out), 1);
        assert_eq!(space.complete(out[0]), None);
    }
    assert_eq!(bytes_of(disk, 0, 4), [0; 4]);
    assert_eq!(bytes_of(disk, CAPACITY - 8192, 8), [0; 8]);
    assert!(!space.ready());
    assert_eq!(settle(&mut space), [SpaceState::Active]);
    assert!(space.ready());
    assert_eq!(&on_medium(disk), space.record());
    assert_eq!(operations(disk), (1, 2, 1));
    let layout = space.record().contents.as_ref().unwrap().layout;
    let sectors = layout.block_sectors(PageIndex(5), 3).unwrap();
    assert_eq!(space.blocks().unwrap().sectors(PageIndex(5), 3), sectors, "the pager's map is the layout's");
}

#[test]
fn a_failed_activation_leaves_the_space_free_and_says_so() {
    for (operation, requests) in [(Operation::WriteZeroes, 1), (Operation::Flush, 2), (Operation::Write, 3)] {
        let disk = disk(0, CAPACITY, true);
        let mut space = space_on(disk, Residue::Clean);
        let effect = Effect::Fail(DiskError::Io);
        disk.inject(Rule { operation: Some(operation), sectors: None, effect, times: 1 });
        space.activate(owner("web"), &ram()).unwrap();
        assert_eq!(settle(&mut space), []);
        assert_eq!((space.status(), space.state()), (Status::Failed(DiskError::Io), SpaceState::Free));
        let (writes, flushes, zeroes) = operations(disk);
        assert_eq!(writes + flushes + zeroes, requests, "nothing after the failed step");
        assert_eq!(space.activate(owner("web"), &ram()), Err(SpaceError::Failed(DiskError::Io)));
        space.retry();
        space.activate(owner("web"), &ram()).unwrap();
        assert_eq!(settle(&mut space), [SpaceState::Active]);
    }
}

#[test]
fn a_life_from_activation_to_dump_to_free() {
    for write_zeroes in [true, false] {
        let disk = disk(0, CAPACITY, write_zeroes);
        let mut space = space_on(disk, Residue::Clean);
        space.activate(owner("web"), &ram()).unwrap();
        settle(&mut space);
        put(disk, 2 << 20, &[7; 4096]);
        space.drain(crash(), Drain::default()).unwrap();
        assert_eq!(space.progress(Drain::default()), Err(SpaceError::Busy));
        settle(&mut space);
        space.progress(Drain { progress: 32, ..Drain::default() }).unwrap();
        settle(&mut space);
        assert_eq!(on_medium(disk).drain.progress, 32);
        let done = Drain { progress: 64, program_headers: 3, notes_len: 10 };
        space.seal(SpaceState::Complete, done).unwrap();
        assert_eq!(settle(&mut space), [SpaceState::Complete]);
        assert_eq!((on_medium(disk).drain, on_medium(disk).crash), (done, Some(crash())));

        let refused = Err(SpaceError::Transition { from: SpaceState::Complete, to: SpaceState::Active });
        assert_eq!(space.activate(owner("web"), &ram()), refused);
        space.release().unwrap();
        assert_eq!(settle(&mut space), [SpaceState::Releasing, SpaceState::Free]);
        assert_eq!(bytes_of(disk, 0, (CAPACITY - 8192) as usize), vec![0; (CAPACITY - 8192) as usize]);
        let free = on_medium(disk);
        assert_eq!((free.state, free.residue, free.owner), (SpaceState::Free, Residue::Clean, None));
        space.activate(owner("db"), &ram()).unwrap();
        assert_eq!(settle(&mut space), [SpaceState::Active]);
    }
}

#[test]
fn a_scrub_without_write_zeroes_is_cut_into_pieces() {
    let disk = disk(0, CAPACITY, false);
    let mut space = space_on(disk, Residue::Stale);
    space.release().unwrap();
    settle(&mut space);
    let (writes, ..) = operations(disk);
    assert_eq!(writes, 2 + (CAPACITY - 8192).div_ceil(64 * 4096), "two records and the pieces");
}

#[test]
fn a_failed_scrub_stays_releasing_and_goes_on_when_told() {
    let disk = disk(0, CAPACITY, false);
    let mut space = space_on(disk, Residue::Stale);
    let sectors = Some(SectorRange { first: 3000, count: 1 });
    disk.inject(Rule { operation: None, sectors, effect: Effect::Fail(DiskError::Io), times: 1 });
    space.release().unwrap();
    assert_eq!(settle(&mut space), [SpaceState::Releasing]);
    assert_eq!(space.status(), Status::Failed(DiskError::Io));
    assert_eq!(on_medium(disk).state, SpaceState::Releasing);
    space.retry();
    assert_eq!(settle(&mut space), [SpaceState::Free]);
}

#[test]
fn somebody_elses_blocks_keep_a_space_closed_until_it_is_scrubbed() {
    let disk = disk(0, CAPACITY, true);
    let mut space = space_on(disk, Residue::Clean);
    space.activate(owner("web"), &ram()).unwrap();
    settle(&mut space);
    assert_eq!(space.activate(owner("db"), &ram()), Err(SpaceError::Stale));
    assert_eq!(space.activate(Owner { epoch: 2, ..owner("web") }, &ram()), Ok(()), "its own next incarnation");
    settle(&mut space);
    assert_eq!(on_medium(disk).owner.map(|o| o.epoch), Some(2));
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let mut space = space_on(disk(0, CAPACITY, true), Residue::Clean);
    let large = RamLayout::new(CAPACITY).unwrap();
    assert_eq!(space.activate(owner("web"), &large), Err(SpaceError::TooSmall));
}

#[test]
fn completions_of_other_requests_are_not_taken() {
    let disk = disk(0, CAPACITY, true);
    let mut space = space_on(disk, Residue::Clean);
    space.activate(owner("web"), &ram()).unwrap();
    space.advance();
    let mut out = [Completion { cookie: Cookie(0), result: Ok(()) }];
    disk.poll(0, &mut out);
    let foreign = Completion { cookie: Cookie(out[0].cookie.0 + (1 << 32)), result: Err(DiskError::Io) };
    assert_eq!(space.complete(foreign), None);
    assert_eq!(space.status(), Status::Busy);
    space.complete(out[0]);
    assert_eq!(space.complete(out[0]), None, "not twice");
    assert_eq!(settle(&mut space), [SpaceState::Active]);
}
