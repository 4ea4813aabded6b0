use super::*;
use crate::addr::{Gfn, PageIndex};
use crate::block::dma::fake;
use crate::block::{Completion, DiskInfo};
use crate::dump::describe::{CorePages, Headers};
use crate::dump::elf::Content;
use crate::paging::space::Layout;
use std::sync::Mutex;

/// Keeps what is written; refuses every second request at first.
struct FakeDisk {
    device: Mutex<DmaRegion>,
    bytes: Mutex<Vec<u8>>,
    full: Mutex<bool>,
}

impl Disk for FakeDisk {
    fn info(&self) -> DiskInfo {
        unreachable!("the writer needs no limits")
    }
    fn submit(&self, request: &Request<'_>) -> Result<(), SubmitError> {
        let full = &mut *self.full.lock().unwrap();
        *full = !*full;
        if *full {
            return Err(SubmitError::Full);
        }
        let (at, len) = (request.sectors.first as usize * 512, request.segments[0].len as usize);
        assert_eq!(len as u64, request.sectors.count * 512);
        let device = self.device.lock().unwrap();
        let disk = &mut *self.bytes.lock().unwrap();
        disk.resize(disk.len().max(at + len), 0xcc);
        (0..len).for_each(|n| disk[at + n] = device.read::<u8>(n));
        Ok(())
    }
    fn poll(&self, _: u64, _: &mut [Completion]) -> usize {
        0
    }
}

struct Alternating(u32);

impl CorePages for Alternating {
    fn pages(&self) -> u32 {
        self.0
    }
    fn gfn(&self, index: PageIndex) -> Gfn {
        Gfn::new(u64::from(index.0))
    }
    fn content(&self, index: PageIndex) -> (Content, u32) {
        (if index.0.is_multiple_of(2) { Content::Block } else { Content::Zero }, 0)
    }
}

fn write(pages: u32, fail_at: Option<u32>) -> (Result<u64, WriteError>, Vec<u8>) {
    let buffer = fake::region(PIECE / 4096);
    let disk = FakeDisk { device: Mutex::new(fake::device_side(&buffer)), bytes: Mutex::default(), full: Mutex::default() };
    let io = Io { disk: &disk, buffer: &buffer, cookie: Cookie(1) };
    let layout = Layout::for_pages(1 << 34, pages).unwrap();
    let phnum = 1 + pages / 2;
    let mut writer = Writer::new(Headers::new(&layout, phnum, 100), layout.header());
    for n in 0..1000 {
        let result = if Some(n) == fail_at { Err(DiskError::Io) } else { Ok(()) };
        match writer.step(&io, &Alternating(pages), Some(result)) {
            Ok(Progress::Busy) => {}
            Ok(Progress::Done { bytes }) => return (Ok(bytes), disk.bytes.into_inner().unwrap()),
            Err(error) => return (Err(error), vec![]),
        }
    }
    panic!("the writer never ends");
}

#[test]
fn a_stream_longer_than_the_buffer_arrives_without_gaps() {
    let pages = 10_000;
    let (bytes, disk) = write(pages, None);
    let len = 64 + 56 * (1 + pages as usize / 2);
    assert_eq!(bytes, Ok(len.next_multiple_of(512) as u64));
    for n in 0..pages as usize / 2 {
        let paddr = &disk[64 + 56 * (n + 1) + 24..][..8];
        assert_eq!(u64::from_le_bytes(paddr.try_into().unwrap()), n as u64 * 8192, "{n}");
    }
    assert!(disk[len..].iter().all(|b| *b == 0));
}

#[test]
fn a_failed_request_ends_it() {
    assert_eq!(write(10_000, Some(4)).0, Err(WriteError::Disk(DiskError::Io)));
}
