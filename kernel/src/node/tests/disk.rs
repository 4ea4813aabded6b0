//! A disk in the host's memory with a volatile cache: until a flush is answered, any written sector
//! may be lost.

use super::Dice;
use crate::addr::{Hfn, Hpa, PAGE_SIZE};
use crate::block::dma::fake::device_view;
use crate::block::request::SECTOR_SIZE;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskIncident, DiskInfo, DiskOperation, DiskRequest,
    DmaSegment, SubmitError,
};
use crate::mm::phys::{DirectMap, FrameMemory};
use crate::pci::window::DeviceWindow;
use crate::time::Ns;
use core::ops::Range;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

/// Addresses below this one are frames of the simulated pool; those above are buffers of the host.
const FRAMES_END: u64 = 1 << 40;

/// Events at the disk, in order.
#[derive(Clone, Debug)]
pub(super) enum DiskLogEntry {
    /// A write was submitted: from then on any of its sectors may be on the medium.
    Write { id: u64, at: usize, data: Vec<u8> },
    /// A write was answered: a flush that is submitted after that covers it.
    Written(u64),
    /// A flush was submitted.
    FlushBegins(u64),
    /// A flush was answered.
    FlushEnds(u64),
    /// An expectation of the test changed.
    Mark(DumpExpectation),
}

/// An expectation that the reader of the log checks against the medium.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DumpExpectation {
    /// A dump was announced as complete: owner and incarnation.
    Promised(String, u64),
    /// The dump may disappear from now on.
    Released(String, u64),
}

/// How a disk fails, from one request on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FaultKind {
    /// That request ends in an I/O error.
    ErrorOnce,
    /// That request and all later ones end in an I/O error.
    ErrorForGood,
    /// That request and all later ones are not answered.
    NoAnswer,
    /// As `NoAnswer`, but all are answered some seconds later.
    LateAnswer,
}

/// A fault at the request with this number.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultPlan {
    pub request: u64,
    pub kind: FaultKind,
}

struct Flying {
    number: u64,
    operation: DiskOperation,
    at: usize,
    data: Vec<u8>,
    segments: Vec<DmaSegment>,
    cookie: Cookie,
    /// Time of submission; set by the first poll after it.
    since_ns: Option<Ns>,
    /// When a disk of limited speed has finished it.
    due_ns: Ns,
    told: bool,
}

pub(super) struct DiskState {
    pub content: Vec<u8>,
    pub log: Vec<DiskLogEntry>,
    /// Whether the log is kept.
    pub records: bool,
    pub requests: u64,
    pub fault: Option<FaultPlan>,
    /// Bytes that cannot be written.
    pub bad_bytes: Range<usize>,
    /// Bytes per second, if the disk serves its requests in turn.
    pub speed: Option<u64>,
    /// When the disk has finished the requests it has.
    busy_until_ns: Ns,
    /// Whether answers to reads come late, so that later requests overtake them.
    pub reads_are_late: bool,
    /// When the first request went unanswered.
    pub silent_since: Option<Ns>,
    flying: Vec<Flying>,
    incidents: VecDeque<DiskIncident>,
    written_off: bool,
    now_ns: Ns,
    timeout_ns: Ns,
    dice: Dice,
}

pub(super) struct SimDisk {
    index: u8,
    map: DirectMap,
    state: Mutex<DiskState>,
}

/// Delay of a late disk's answers.
pub(super) const LATE_NS: Ns = Ns::from_secs(5);
/// Time-out of the simulated driver.
pub(super) const TIMEOUT_NS: Ns = Ns::from_secs(2);

impl SimDisk {
    pub(super) fn new(index: u8, bytes: usize, map: DirectMap, seed: u64) -> Self {
        let state = DiskState {
            content: vec![0; bytes],
            log: Vec::new(),
            records: false,
            requests: 0,
            fault: None,
            bad_bytes: 0..0,
            speed: None,
            busy_until_ns: Ns::ZERO,
            reads_are_late: false,
            silent_since: None,
            flying: Vec::new(),
            incidents: VecDeque::new(),
            written_off: false,
            now_ns: Ns::ZERO,
            timeout_ns: TIMEOUT_NS,
            dice: Dice::new(seed + u64::from(index)),
        };
        Self { index, map, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().expect("no test goes on after a panic")
    }

    fn fetch(&self, segments: &[DmaSegment]) -> Vec<u8> {
        let mut data = Vec::new();
        for segment in segments {
            let from = data.len();
            data.resize(from + segment.len as usize, 0);
            self.each_piece(segment, |hfn, view, range| match view {
                None => self.map.copy_out(hfn, 0, &mut data[from..][range]),
                Some(view) => range.for_each(|n| data[from + n] = view.read(n)),
            });
        }
        data
    }

    fn deliver(&self, segments: &[DmaSegment], mut data: &[u8]) {
        for segment in segments {
            let (here, rest) = data.split_at(segment.len as usize);
            self.each_piece(segment, |hfn, view, range| match view {
                None => self.map.copy_in(hfn, 0, &here[range]),
                Some(view) => range.for_each(|n| view.write(n, here[n])),
            });
            data = rest;
        }
    }

    /// Calls `piece` for each part of a segment: page by page in the pool, all at once elsewhere.
    fn each_piece(
        &self,
        segment: &DmaSegment,
        mut piece: impl FnMut(Hfn, Option<DeviceWindow>, Range<usize>),
    ) {
        let (base, len) = (segment.base.as_u64(), segment.len as usize);
        if base >= FRAMES_END {
            return piece(Hfn::new(0), Some(device_view(base, len)), 0..len);
        }
        for at in (0..len).step_by(PAGE_SIZE as usize) {
            piece(Hpa::new(base + at as u64).number(), None, at..len.min(at + PAGE_SIZE as usize));
        }
    }
}

impl DiskState {
    fn note(&mut self, entry: DiskLogEntry) {
        if self.records {
            self.log.push(entry);
        }
    }

    fn is_silent(&self, number: u64) -> bool {
        let Some(FaultPlan { request, kind: FaultKind::NoAnswer | FaultKind::LateAnswer }) =
            self.fault
        else {
            return false;
        };
        number >= request && !self.late_is_over()
    }

    fn late_is_over(&self) -> bool {
        let late = self.fault.is_some_and(|fault| fault.kind == FaultKind::LateAnswer);
        late && self.silent_since.is_some_and(|since| self.now_ns >= since + LATE_NS)
    }

    fn fails(&self, number: u64) -> bool {
        match self.fault {
            Some(FaultPlan { request, kind: FaultKind::ErrorOnce }) => number == request,
            Some(FaultPlan { request, kind: FaultKind::ErrorForGood }) => number >= request,
            _ => false,
        }
    }

    fn is_bad(&self, at: usize, len: usize) -> bool {
        at < self.bad_bytes.end && self.bad_bytes.start < at + len
    }

    /// Returns when a request submitted now is finished.
    fn due_ns(&mut self, bytes: u64) -> Ns {
        let Some(speed) = self.speed else { return Ns::ZERO };
        self.busy_until_ns = self.busy_until_ns.max(self.now_ns) + bytes * Ns::from_secs(1) / speed;
        self.busy_until_ns
    }

    fn write_off_if_late(&mut self) {
        let now = self.now_ns;
        self.flying.iter_mut().for_each(|flying| {
            flying.since_ns.get_or_insert(now);
        });
        let overdue =
            |flying: &Flying| flying.since_ns.is_some_and(|since| now - since >= self.timeout_ns);
        if !self.written_off && self.flying.iter().any(overdue) {
            self.written_off = true;
            self.incidents
                .push_back(DiskIncident::WrittenOff { unanswered: self.flying.len() as u16 });
        }
    }
}

impl Disk for SimDisk {
    fn info(&self) -> DiskInfo {
        DiskInfo {
            index: self.index,
            capacity: self.state().content.len() as u64 / SECTOR_SIZE,
            max_segments: 32,
            max_segment_len: 1 << 20,
            depth: 16,
            write_cache: true,
            discard: false,
            write_zeroes: true,
            serial: [0; 20],
        }
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        request.check(&self.info())?;
        let mut state = self.state();
        if state.written_off {
            return Err(SubmitError::Failed);
        }
        if state.flying.len() >= 17 {
            return Err(SubmitError::Full);
        }
        let number = state.requests;
        state.requests += 1;
        let at = (request.sectors.first * SECTOR_SIZE) as usize;
        let data = match request.operation {
            DiskOperation::Write => self.fetch(request.segments),
            DiskOperation::WriteZeroes => vec![0; (request.sectors.count * SECTOR_SIZE) as usize],
            // A disk may read at any time from now on; its answer may come much later.
            DiskOperation::Read if state.dice.one_in(2) => {
                state.content[at..][..(request.sectors.count * SECTOR_SIZE) as usize].to_vec()
            }
            _ => Vec::new(),
        };
        if !state.fails(number) {
            match request.operation {
                DiskOperation::Write | DiskOperation::WriteZeroes => {
                    let data = data.clone();
                    state.note(DiskLogEntry::Write { id: number, at, data });
                }
                DiskOperation::Flush => state.note(DiskLogEntry::FlushBegins(number)),
                _ => {}
            }
        }
        if state.is_silent(number) && state.silent_since.is_none() {
            state.silent_since = Some(state.now_ns);
        }
        let (segments, since_ns) = (request.segments.to_vec(), None);
        let (operation, cookie) = (request.operation, request.cookie);
        let due_ns = state.due_ns(if operation == DiskOperation::Flush {
            0
        } else {
            request.sectors.count * SECTOR_SIZE
        });
        state.flying.push(Flying {
            number,
            operation,
            at,
            data,
            segments,
            cookie,
            since_ns,
            due_ns,
            told: false,
        });
        Ok(())
    }

    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        let mut state = self.state();
        state.now_ns = now_ns;
        state.write_off_if_late();
        let mut count = 0;
        while count < out.len() {
            if state.written_off
                && let Some(flying) = state.flying.iter_mut().find(|flying| !flying.told)
            {
                flying.told = true;
                out[count] = Completion { cookie: flying.cookie, result: Err(DiskError::TimedOut) };
                count += 1;
                continue;
            }
            // Answers a random one of the requests that are due, and leaves some of them for later.
            let is_late = state.reads_are_late && !state.dice.one_in(1024);
            let is_due = |flying: &Flying| {
                flying.due_ns <= now_ns && !(is_late && flying.operation == DiskOperation::Read)
            };
            let may_go = |flying: &Flying| !state.is_silent(flying.number) && is_due(flying);
            let ready: Vec<_> =
                (0..state.flying.len()).filter(|&n| may_go(&state.flying[n])).collect();
            if ready.is_empty() || state.dice.one_in(4) {
                break;
            }
            let n = ready[state.dice.below(ready.len() as u32) as usize];
            let flying = state.flying.remove(n);
            let is_bad = flying.operation != DiskOperation::Read
                && state.is_bad(flying.at, flying.data.len());
            let result =
                if is_bad || state.fails(flying.number) { Err(DiskError::Io) } else { Ok(()) };
            if result.is_ok() {
                self.carry_out(&mut state, &flying);
            }
            out[count] = Completion { cookie: flying.cookie, result };
            count += 1;
        }
        if state.written_off && state.flying.is_empty() {
            state.written_off = false;
            state.incidents.push_back(DiskIncident::Back { away_ns: Ns::ZERO });
        }
        count
    }

    fn is_dead(&self) -> bool {
        self.state().written_off
    }

    fn take_incident(&self) -> Option<DiskIncident> {
        self.state().incidents.pop_front()
    }

    fn hurry(&self, request_ns: Ns) {
        let mut state = self.state();
        state.timeout_ns = state.timeout_ns.min(request_ns);
    }
}

impl SimDisk {
    fn carry_out(&self, state: &mut DiskState, flying: &Flying) {
        match flying.operation {
            DiskOperation::Read if !flying.data.is_empty() => {
                self.deliver(&flying.segments, &flying.data)
            }
            DiskOperation::Read => {
                let len: usize = flying.segments.iter().map(|segment| segment.len as usize).sum();
                self.deliver(&flying.segments, &state.content[flying.at..][..len]);
            }
            DiskOperation::Write | DiskOperation::WriteZeroes => {
                state.content[flying.at..][..flying.data.len()].copy_from_slice(&flying.data);
                state.note(DiskLogEntry::Written(flying.number));
            }
            DiskOperation::Flush => state.note(DiskLogEntry::FlushEnds(flying.number)),
            DiskOperation::Discard => {}
        }
    }
}
