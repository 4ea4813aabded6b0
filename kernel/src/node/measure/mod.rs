//! Measures the raw disk's speed: the yardstick for the drain.
//!
//! Uses the same driver, the same shape of request (scatter-gather over single frames, as many
//! segments as the disk takes) and the same number in flight as a drain, but no pager. Zeros are
//! written in order to the blocks of a free space, before any partition runs. The first writes are
//! not timed: until its cache or its burst allowance is full, a disk is faster than it is in the
//! long run.

pub mod bench;

use super::Node;
use crate::addr::PAGE_SIZE;
use crate::arch::time;
use crate::block::{Disk, DiskError, DiskOperation, DmaSegment};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::mm::frames::Frame;
use crate::mm::phys::FrameMemory;
use crate::storage::spaces::SpaceId;
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::Poll;

/// Name of the measurement in the configuration's `self_tests`, and of its event.
pub const RAW_DISK: &str = crate::config::SELF_TESTS[1];
/// Bytes written before the measurement starts.
const WARM_UP: u64 = 16 << 20;
/// Bytes measured.
const BYTES: u64 = 64 << 20;
/// Requests in flight.
const DEPTH: usize = 8;
/// Offset of the blocks in the smallest space.
const START: u64 = 1 << 20;

type DiskFuture<'a> = Pin<Box<dyn Future<Output = Result<(), DiskError>> + 'a>>;

/// Measures every free space and reports bytes per second.
pub async fn raw_disks(node: &'static Node) {
    for number in 0..node.host.spaces.count() {
        let id = SpaceId(number);
        if !node.host.spaces.is_free(id) {
            continue;
        }
        let name = format!("{RAW_DISK} {number}");
        match write(node, id).await {
            Ok((bytes, ns)) => {
                let speed = bytes.saturating_mul(1_000_000_000) / ns.max(1);
                report(&ConsoleEvent::Bench {
                    id: &name,
                    minimum: speed,
                    average: speed,
                    count: bytes,
                    unit: "bytes/s",
                });
            }
            Err(error) => {
                report(&ConsoleEvent::Error { place: &name, message: &format!("{error}") })
            }
        }
    }
}

async fn write(node: &'static Node, id: SpaceId) -> Result<(u64, u64), DiskError> {
    let (disk, area) = (node.host.spaces.disk(id), node.host.spaces.place(id).area);
    let info = disk.info();
    let pages = info.max_segments.min(256);
    let frames: Vec<Frame> = core::iter::from_fn(|| node.host.frames.alloc()).take(pages).collect();
    frames.iter().for_each(|frame| node.host.memory.zero(frame.hfn()));
    let segment = |frame: &Frame| DmaSegment { base: frame.hfn().base(), len: PAGE_SIZE as u32 };
    let segments: Vec<DmaSegment> = frames.iter().map(segment).collect();
    let piece = frames.len() as u64 * PAGE_SIZE;
    let room = area.bytes().saturating_sub(2 * START);
    let whole = |bytes: u64| bytes.min(room) / piece.max(1) * piece;

    let mut result = in_order(node, id, whole(WARM_UP), piece, &segments).await;
    let start = time::now_ns();
    if result.is_ok() {
        result = in_order(node, id, whole(BYTES), piece, &segments).await;
    }
    let ns = time::now_ns() - start;
    frames.into_iter().for_each(|frame| node.host.frames.free(frame));
    result.map(|()| (whole(BYTES), ns.as_u64()))
}

/// Writes the first `total` bytes of the blocks, `piece` bytes at a time.
async fn in_order(
    node: &'static Node,
    id: SpaceId,
    total: u64,
    piece: u64,
    segments: &[DmaSegment],
) -> Result<(), DiskError> {
    let (disk, area) = (node.host.spaces.disk(id), node.host.spaces.place(id).area);
    let mut at = 0;
    let mut flying: Vec<DiskFuture<'_>> = Vec::new();
    let mut outcome = Ok(());
    core::future::poll_fn(|context| {
        while flying.len() < DEPTH && at < total && outcome.is_ok() {
            let sectors =
                area.locate(START + at, piece).expect("what is written lies inside the space");
            flying.push(Box::pin(node.host.io.run(disk, DiskOperation::Write, sectors, segments)));
            at += piece;
        }
        flying.retain_mut(|request| match request.as_mut().poll(context) {
            Poll::Ready(result) => {
                outcome = outcome.and(result);
                false
            }
            Poll::Pending => true,
        });
        let over = flying.is_empty() && (at >= total || outcome.is_err());
        if over { Poll::Ready(outcome) } else { Poll::Pending }
    })
    .await
}
