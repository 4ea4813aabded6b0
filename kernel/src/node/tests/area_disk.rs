//! A disk that several simulated nodes see: common bytes, and a port for each node with requests,
//! delays and time-outs of its own.

use crate::block::dma::fake::device_view;
use crate::block::request::SECTOR_SIZE;
use crate::block::{
    Completion, Cookie, Disk, DiskError, DiskInfo, DiskOperation, DiskRequest, DmaSegment,
    SubmitError,
};
use crate::time::Ns;
use std::sync::{Arc, Mutex};

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
    state: Mutex<PortState>,
}

impl AreaPort {
    pub(super) fn new(index: u8, bytes: &CommonBytes) -> &'static Self {
        let state = Mutex::default();
        Box::leak(Box::new(Self { index, bytes: bytes.clone(), state }))
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
                    device_view(segment.base.as_u64(), len).copy_in(0, &bytes[at..at + len]);
                    at += len;
                }
            }
            DiskOperation::Write => {
                bytes[request.at..][..request.data.len()].copy_from_slice(&request.data);
                state.writes += 1;
                let recorded = state.recorded.as_mut();
                recorded.map(|all| all.push((request.at, request.data.clone())));
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
                device_view(segment.base.as_u64(), piece.len()).copy_out(0, &mut piece);
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
