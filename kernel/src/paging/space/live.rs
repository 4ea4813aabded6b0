//! One space of the running hypervisor: changes its record and scrubs it, step by step, never waiting.
//!
//! An operation is a short script; each step is at most one request in flight:
//!
//! ```text
//!   activate    zero the old ELF header ─ flush ─ record ACTIVE ─ flush            page-outs only from here on
//!   drain       flush ─ record DRAINING ─ flush
//!   progress    flush ─ record DRAINING                                            durable with the next flush
//!   seal        flush ─ record COMPLETE or PARTIAL ─ flush
//!   release     record RELEASING ─ flush ─ scrub, piece by piece ─ flush ─ record FREE ─ flush
//! ```
//!
//! Who calls [`LiveSpace::advance`] often and hands every completion of its cookies to [`LiveSpace::complete`]
//! drives it. Everything it needs was allocated with it: one page for the record, one page of zeros.
//!
//! Invariants: [`LiveSpace::record`] is what is on the medium (once a flush followed). A step that fails ends its
//! operation: the state stays what it was, and nothing later is written.

use arrayvec::ArrayVec;

use super::copies::Side;
use super::layout::RECORD_SIZE;
use super::record::{Contents, Crash, Drain, Owner, Record, Residue};
use super::state::SpaceState;
use crate::addr::PAGE_SIZE;
use crate::block::dma::DmaRegion;
use crate::block::request::{MAX_RANGE_SECTORS, SECTOR_SIZE};
use crate::block::{Completion, Cookie, Disk, DiskError, Operation, Request, SectorRange, Segment, SubmitError};
use crate::mm::layout::RamLayout;
use crate::paging::blocks::BlockMap;
use crate::paging::cookie::{Class, Tag};

/// Bytes of DMA memory that a live space needs.
pub const BUFFER_BYTES: usize = 2 * PAGE_SIZE as usize;
const RECORD_AT: usize = 0;
const ZEROS_AT: usize = PAGE_SIZE as usize;
/// Most segments of one request of zeros: all are the one page of zeros.
const ZERO_SEGMENTS: usize = 64;
const SECTORS_PER_PAGE: u64 = PAGE_SIZE / SECTOR_SIZE;

/// Number of a space: that of its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub u8);

/// Why an operation was not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceError {
    /// Another operation is under way.
    Busy,
    /// An earlier operation failed so; see [`LiveSpace::retry`].
    Failed(DiskError),
    /// The table of states does not allow it.
    Transition {
        /// What it is.
        from: SpaceState,
        /// What was asked.
        to: SpaceState,
    },
    /// The memory does not fit.
    TooSmall,
    /// Somebody else's blocks lie in it: scrub first.
    Stale,
}

/// What an operation is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing is under way.
    Idle,
    /// Something is.
    Busy,
    /// The last operation failed.
    Failed(DiskError),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Zeros over these sectors, piece by piece.
    Zero(SectorRange),
    /// The record that is to follow.
    Record,
    Flush,
}

/// The steps that are left, last one first, and the record that they publish.
#[derive(Default)]
struct Script {
    steps: ArrayVec<Step, 4>,
    record: Option<Record>,
    in_flight: bool,
}

/// A space.
pub struct LiveSpace {
    id: SpaceId,
    disk: &'static dyn Disk,
    buffer: DmaRegion,
    record: Record,
    script: Script,
    failed: Option<DiskError>,
    /// Counts requests, so that a completion is only taken for the request it belongs to.
    ticket: u32,
}

impl LiveSpace {
    /// Takes over a space whose record was read at start-up. A space found RELEASING goes on being scrubbed.
    ///
    /// # Panics
    /// If the buffer is smaller than [`BUFFER_BYTES`] (our bug).
    pub fn new(disk: &'static dyn Disk, record: Record, buffer: DmaRegion) -> Self {
        assert!(buffer.len() >= BUFFER_BYTES, "a live space has two pages of its own");
        (0..PAGE_SIZE as usize).step_by(8).for_each(|at| buffer.write(ZEROS_AT + at, 0u64));
        let id = SpaceId(disk.info().index);
        Self { id, disk, buffer, record, script: Script::default(), failed: None, ticket: 0 }
    }

    /// Returns its number.
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// Returns its disk.
    pub fn disk(&self) -> &'static dyn Disk {
        self.disk
    }

    /// Returns the record as it was last published.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns its state.
    pub fn state(&self) -> SpaceState {
        self.record.state
    }

    /// Returns whether an operation is under way or failed.
    pub fn status(&self) -> Status {
        match self.failed {
            Some(error) => Status::Failed(error),
            None if self.script.steps.is_empty() => Status::Idle,
            None => Status::Busy,
        }
    }

    /// Returns whether page-outs may start: ACTIVE, and that is on the medium.
    pub fn ready(&self) -> bool {
        self.state() == SpaceState::Active && self.status() == Status::Idle
    }

    /// Returns where the blocks are; `None` in a space without contents.
    pub fn blocks(&self) -> Option<BlockMap> {
        let layout = &self.record.contents.as_ref()?.layout;
        Some(BlockMap { data_start: layout.blocks().start / SECTOR_SIZE, pages: layout.pages() })
    }

    /// Gives the space to an incarnation.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing has changed then.
    pub fn activate(&mut self, owner: Owner, ram: &RamLayout) -> Result<(), SpaceError> {
        if !self.open_to(&owner) {
            return Err(SpaceError::Stale);
        }
        let contents = Contents::new(self.record.capacity, ram).map_err(|_| SpaceError::TooSmall)?;
        let record = Record {
            residue: Residue::Stale, // from the first page-out on; nobody writes a record then
            owner: Some(owner),
            contents: Some(contents),
            drain: Drain::default(),
            crash: None,
            ..self.next(SpaceState::Active)
        };
        let header = SectorRange { first: 0, count: SECTORS_PER_PAGE };
        self.begin(record, &[Step::Zero(header), Step::Flush, Step::Record, Step::Flush])
    }

    /// Returns whether `owner` may have the space as it lies there: clean, or the blocks are its own.
    fn open_to(&self, owner: &Owner) -> bool {
        self.record.residue == Residue::Clean || self.record.owner.as_ref().is_some_and(|o| o.partition == owner.partition)
    }

    /// Notes that the owner crashed and its memory drains. Header, notes and bitmap were written before.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing has changed then.
    pub fn drain(&mut self, crash: Crash, drain: Drain) -> Result<(), SpaceError> {
        let record = Record { crash: Some(crash), drain, ..self.next(SpaceState::Draining) };
        self.begin(record, &[Step::Flush, Step::Record, Step::Flush])
    }

    /// Notes how far the drain has come. Blocks and bitmap were written before.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing has changed then.
    pub fn progress(&mut self, drain: Drain) -> Result<(), SpaceError> {
        let record = Record { drain, ..self.next(SpaceState::Draining) };
        self.begin(record, &[Step::Flush, Step::Record])
    }

    /// Notes that the dump is all there is: COMPLETE or PARTIAL. Everything else was written before.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing has changed then.
    pub fn seal(&mut self, as_what: SpaceState, drain: Drain) -> Result<(), SpaceError> {
        let record = Record { drain, ..self.next(as_what) };
        self.begin(record, &[Step::Flush, Step::Record, Step::Flush])
    }

    /// Gives the space up: it is scrubbed in the background, then FREE.
    ///
    /// # Errors
    /// [`SpaceError`]; nothing has changed then.
    pub fn release(&mut self) -> Result<(), SpaceError> {
        let record = self.next(SpaceState::Releasing);
        self.begin(record, &[Step::Record, Step::Flush])
    }

    /// Forgets a failure, so that the next operation is tried. A scrub that failed goes on.
    pub fn retry(&mut self) {
        self.failed = None;
    }

    /// Returns the record that would follow, with nothing changed but state and sequence.
    fn next(&self, state: SpaceState) -> Record {
        Record { state, sequence: self.record.sequence + 1, ..self.record.clone() }
    }

    fn begin(&mut self, record: Record, steps: &[Step]) -> Result<(), SpaceError> {
        match self.status() {
            Status::Idle => {}
            Status::Busy => return Err(SpaceError::Busy),
            Status::Failed(error) => return Err(SpaceError::Failed(error)),
        }
        let (from, to) = (self.state(), record.state);
        if !from.may_become(to) {
            return Err(SpaceError::Transition { from, to });
        }
        self.script = Script { steps: steps.iter().rev().copied().collect(), record: Some(record), in_flight: false };
        Ok(())
    }

    /// Submits what can be submitted now: at most one request.
    pub fn advance(&mut self) {
        if self.state() == SpaceState::Releasing && self.status() == Status::Idle {
            self.begin_scrub();
        }
        if self.failed.is_some() || self.script.in_flight {
            return;
        }
        let Some(step) = self.script.steps.last().copied() else { return };
        match self.submit(step) {
            Ok(()) => self.script.in_flight = true,
            Err(SubmitError::Full) => {}
            Err(SubmitError::Invalid | SubmitError::Failed) => self.fail(DiskError::Dead),
        }
    }

    /// Zeros over everything before the records, then FREE.
    fn begin_scrub(&mut self) {
        let Some(records) = Side::A.sectors(self.record.capacity) else { return };
        let all = SectorRange { first: 0, count: records.first };
        let free = Record {
            sequence: self.record.sequence + 1,
            ..Record::free(self.record.capacity, self.record.space, Residue::Clean)
        };
        let begun = self.begin(free, &[Step::Zero(all), Step::Flush, Step::Record, Step::Flush]);
        debug_assert_eq!(begun, Ok(()), "an idle RELEASING space may become FREE");
    }

    fn cookie(&self) -> Cookie {
        Tag { class: Class::Metadata, detail: self.ticket & 0x0fff_ffff, slot: self.id.0.into() }.cookie()
    }

    fn submit(&mut self, step: Step) -> Result<(), SubmitError> {
        let (sectors, cookie) = (self.piece(step), self.cookie());
        let mut segments = ArrayVec::<Segment, ZERO_SEGMENTS>::new();
        let operation = match step {
            Step::Flush => Operation::Flush,
            Step::Zero(_) if self.disk.info().write_zeroes => Operation::WriteZeroes,
            Step::Zero(_) => {
                self.gather_zeros(sectors, &mut segments);
                Operation::Write
            }
            Step::Record => {
                self.write_record_image();
                segments.push(Segment { base: self.buffer.hpa(RECORD_AT), len: RECORD_SIZE as u32 });
                Operation::Write
            }
        };
        self.disk.submit(&Request { operation, sectors, segments: &segments, cookie })
    }

    /// Returns the sectors of the next request of a step.
    fn piece(&self, step: Step) -> SectorRange {
        let info = self.disk.info();
        let most = if info.write_zeroes { MAX_RANGE_SECTORS } else { zero_segments(&info) as u64 * SECTORS_PER_PAGE };
        match step {
            Step::Flush => SectorRange { first: 0, count: 0 },
            Step::Zero(left) => SectorRange { count: left.count.min(most), ..left },
            Step::Record => {
                let sequence = self.script.record.as_ref().map_or(0, |record| record.sequence);
                Side::of(sequence).sectors(self.record.capacity).unwrap_or(SectorRange { first: 0, count: 0 })
            }
        }
    }

    /// Fills `segments` with the page of zeros as often as it takes.
    fn gather_zeros(&self, sectors: SectorRange, segments: &mut ArrayVec<Segment, ZERO_SEGMENTS>) {
        let mut left = sectors.count * SECTOR_SIZE;
        while left > 0 && !segments.is_full() {
            let len = left.min(PAGE_SIZE) as u32;
            segments.push(Segment { base: self.buffer.hpa(ZEROS_AT), len });
            left -= u64::from(len);
        }
    }

    fn write_record_image(&self) {
        if let Some(record) = &self.script.record {
            self.buffer.window().copy_in(RECORD_AT, &record.encode());
        }
    }

    /// Takes the completion of a request of this space; returns the state if it has just been published.
    pub fn complete(&mut self, completion: Completion) -> Option<SpaceState> {
        if !self.script.in_flight || completion.cookie != self.cookie() {
            return None;
        }
        self.script.in_flight = false;
        self.ticket = self.ticket.wrapping_add(1);
        if let Err(error) = completion.result {
            self.fail(error);
            return None;
        }
        let step = self.script.steps.pop()?;
        if let Step::Zero(left) = step {
            let done = self.piece(step).count;
            if left.count > done {
                self.script.steps.push(Step::Zero(SectorRange { first: left.first + done, count: left.count - done }));
            }
        }
        if !self.script.steps.is_empty() {
            return None;
        }
        self.record = self.script.record.take()?;
        Some(self.record.state)
    }

    fn fail(&mut self, error: DiskError) {
        self.script = Script::default();
        self.failed = Some(error);
    }
}

fn zero_segments(info: &crate::block::DiskInfo) -> usize {
    info.max_segments.min(ZERO_SEGMENTS)
}

#[cfg(test)]
#[path = "live_tests.rs"]
pub(super) mod tests;
