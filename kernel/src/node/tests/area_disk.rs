//! A disk that several simulated nodes see: common bytes, and a port for each node with requests,
//! delays and time-outs of its own.

use crate::addr::Hfn;
use crate::block::dma::fake::device_view;
use crate::block::request::SECTOR_SIZE;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskInfo, DiskOperation, DiskRequest, DmaSegment,
    SubmitError,
};
use crate::mm::phys::{DirectMap, FrameMemory};
use crate::time::Ns;
use std::sync::{Arc, Mutex};

/// Frames of a simulated pool lie below; no buffer of a test does.
const POOL_END: u64 = 1 << 32;

/// From or to memory.
#[derive(Clone, Copy)]
enum CopyWay {
    In,
    Out,
}

/// Time of a request.
const LATENCY_NS: Ns = Ns::from_ms(2);
/// Time-out of the simulated driver: that of the real one.
const TIMEOUT_NS: Ns = Ns::from_secs(30);

struct PortRequest {
    operation: DiskOperation,
    at: usize,
    data: Vec<u8>,
    segments: Vec<DmaSegment>,
    cookie: Cookie,
    since_ns: Option<Ns>,
    told: bool,
}

#[derive(Default)]
pub(super) struct PortState {
    flying: Vec<PortRequest>,
    /// Requests are not answered before.
    pub stalled_until: Ns,
    /// Requests that were submitted.
    pub requests: u64,
    /// Writes that have landed.
    pub writes: u64,
    /// These writes, if they are to be recorded: offset and bytes.
    pub recorded: Option<Vec<(usize, Vec<u8>)>>,
    written_off: bool,
}

/// The bytes that all ports have in common.
pub(super) type CommonBytes = Arc<Mutex<Vec<u8>>>;

pub(super) struct AreaPort {
    index: u8,
    bytes: CommonBytes,
    /// The pool's memory, of a node whose partitions run.
    pool: Option<DirectMap>,
    state: Mutex<PortState>,
}

impl AreaPort {
    pub(super) fn new(index: u8, bytes: &CommonBytes) -> &'static Self {
        Self::beside(index, bytes, None)
    }

    /// As [`Self::new`], for a node with this pool.
    pub(super) fn beside(index: u8, bytes: &CommonBytes, pool: Option<DirectMap>) -> &'static Self {
        let state = Mutex::default();
        Box::leak(Box::new(Self { index, bytes: bytes.clone(), pool, state }))
    }

    /// Copies between the disk's bytes and a segment, which is a frame of the pool or a buffer.
    fn copy(&self, segment: &DmaSegment, bytes: &mut [u8], way: CopyWay) {
        let base = segment.base.as_u64();
        if base >= POOL_END || self.pool.is_none() {
            let view = device_view(base, bytes.len());
            return match way {
                CopyWay::In => view.copy_in(0, bytes),
                CopyWay::Out => view.copy_out(0, bytes),
            };
        }
        let Some(pool) = &self.pool else { return };
        for (n, page) in (0..).zip(bytes.chunks_mut(4096)) {
            let hfn = Hfn::new(base / 4096 + n);
            match way {
                CopyWay::In => pool.copy_in(hfn, 0, page),
                CopyWay::Out => pool.copy_out(hfn, 0, page),
            }
        }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut PortState) -> T) -> T {
        f(&mut self.state.lock().expect("no test goes on after a panic"))
    }

    fn carry_out(&self, request: &PortRequest, state: &mut PortState) {
        let mut bytes = self.bytes.lock().expect("no test goes on after a panic");
        match request.operation {
            DiskOperation::Read => {
                let mut at = request.at;
                for segment in &request.segments {
                    let len = segment.len as usize;
                    self.copy(segment, &mut bytes[at..at + len], CopyWay::In);
                    at += len;
                }
            }
            DiskOperation::Write => {
                bytes[request.at..][..request.data.len()].copy_from_slice(&request.data);
                state.writes += 1;
                if let Some(all) = &mut state.recorded {
                    all.push((request.at, request.data.clone()));
                }
            }
            DiskOperation::Flush | DiskOperation::Discard | DiskOperation::WriteZeroes => {}
        }
    }
}

impl Disk for AreaPort {
    fn info(&self) -> DiskInfo {
        let len = self.bytes.lock().expect("bytes").len();
        DiskInfo {
            index: self.index,
            capacity: len as u64 / SECTOR_SIZE,
            max_segments: 4,
            // A disk that is only an area gets requests of several segments.
            max_segment_len: if len < 1 << 20 { 8 << 10 } else { 1 << 20 },
            depth: 16,
            write_cache: true,
            discard: false,
            write_zeroes: false,
            serial: [0; 20],
        }
    }

    fn submit(&self, request: &DiskRequest<'_>) -> Result<(), SubmitError> {
        request.check(&self.info())?;
        let mut data = Vec::new();
        if request.operation == DiskOperation::Write {
            for segment in request.segments {
                let mut piece = vec![0; segment.len as usize];
                self.copy(segment, &mut piece, CopyWay::Out);
                data.extend(piece);
            }
        }
        self.with(|state| {
            if state.written_off {
                return Err(SubmitError::Failed);
            }
            state.requests += 1;
            state.flying.push(PortRequest {
                operation: request.operation,
                at: (request.sectors.first * SECTOR_SIZE) as usize,
                data,
                segments: request.segments.to_vec(),
                cookie: request.cookie,
                since_ns: None,
                told: false,
            });
            Ok(())
        })
    }

    fn poll(&self, now_ns: Ns, out: &mut [Completion]) -> usize {
        self.with(|state| {
            let mut count = 0;
            for flying in &mut state.flying {
                let since = *flying.since_ns.get_or_insert(now_ns);
                state.written_off |= now_ns.saturating_sub(since) >= TIMEOUT_NS;
            }
            while count < out.len() {
                let is_off = state.written_off;
                if let Some(flying) = state.flying.iter_mut().find(|one| is_off && !one.told) {
                    flying.told = true;
                    let result = Err(DiskError::TimedOut);
                    out[count] = Completion { cookie: flying.cookie, result };
                    count += 1;
                    continue;
                }
                let is_due = |one: &PortRequest| {
                    let since = one.since_ns.unwrap_or(now_ns);
                    // Calls of the blocking start see no time pass.
                    now_ns >= state.stalled_until
                        && (now_ns >= since + LATENCY_NS || state.requests < 8)
                };
                let Some(n) = state.flying.iter().position(is_due) else { break };
                let request = state.flying.remove(n);
                self.carry_out(&request, state);
                out[count] = Completion { cookie: request.cookie, result: Ok(()) };
                count += 1;
            }
            state.written_off &= !state.flying.is_empty();
            count
        })
    }

    fn is_dead(&self) -> bool {
        self.with(|state| state.written_off)
    }
}
