//! The paging spaces of a node: one a disk, from what a start finds to what a release leaves.
//!
//! ```text
//!   open ──> Unusable (foreign, damaged, dead)      acquire            drain             seal
//!        ├─> Dump (of an earlier start) ──┐   Free ────────> Active ────────> Draining ────────> Dump
//!        └─> Free <───────────────────────┴─── release: scrub, then free <──────────────────────┘
//! ```
//!
//! Records are written by tasks; a space has one task at a time, because every one of them begins with a change of phase
//! that only one can make. What a record claims is durable before the record is.

use super::disk::NodeDisk;
use super::io::AsyncIo;
use super::report;
use crate::addr::PAGE_SIZE;
use crate::block::dma::DmaRegion;
use crate::block::{Disk, DiskError, Operation, SectorRange};
use crate::console::event::Event;
use crate::mm::layout::RamLayout;
use crate::paging::Store;
use crate::paging::blocks::BlockMap;
use crate::paging::space::classify::HEAD_LEN;
use crate::paging::space::copies::TAIL_LEN;
use crate::paging::space::layout::{RECORD_SIZE, usable};
use crate::paging::space::record::Contents;
use crate::paging::space::recovery::{Recovery, recovery};
use crate::paging::space::{Class, Drain, Layout, Owner, Record, Residue, Side, SpaceState, Uuid, classify};
use crate::sync::{Ranked, rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayString;

/// Bytes of the buffer that a space's task works with.
pub const BUFFER: usize = 80 << 10;
/// Sectors zeroed by a request of a scrub: 8 MiB.
const SCRUB_SECTORS: u64 = 16384;

/// A space, by the number of its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub usize);

/// What a space is doing, beyond what its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Unusable,
    Free,
    Activating,
    Active,
    Failed(DiskError),
    Dump,
    Releasing,
}

struct Inner {
    phase: Phase,
    record: Option<Record>,
    buffer: Option<DmaRegion>,
}

/// One space.
struct Space {
    disk: &'static NodeDisk,
    inner: Ranked<Inner, { rank::SPACE }>,
}

/// All spaces of a node.
pub struct Spaces {
    spaces: Vec<Space>,
    io: &'static AsyncIo,
    tasks: &'static super::task::Tasks,
    node: Uuid,
}

/// A line about a space for people.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its disk.
    pub disk: usize,
    /// State in words.
    pub state: &'static str,
    /// Its owner's name, and the incarnation.
    pub owner: Option<(ArrayString<64>, u64)>,
}

impl Spaces {
    /// Makes the spaces of `disks`, each with a buffer; [`Self::open`] looks at what they hold.
    pub fn new(
        disks: impl Iterator<Item = (&'static NodeDisk, DmaRegion)>,
        io: &'static AsyncIo,
        tasks: &'static super::task::Tasks,
        node: Uuid,
    ) -> Self {
        let space = |(disk, buffer)| Space {
            disk,
            inner: Ranked::new(Inner { phase: Phase::Unusable, record: None, buffer: Some(buffer) }),
        };
        Self { spaces: disks.map(space).collect(), io, tasks, node }
    }

    fn space(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0]
    }

    /// Looks at every disk and does what a start has to do. A task of its own, before the first partition.
    pub async fn open(&self) {
        for number in 0..self.spaces.len() {
            if let Err(error) = self.open_one(SpaceId(number)).await {
                self.trouble(number, &format!("cannot be read: {error:?}"));
            }
        }
    }

    async fn open_one(&self, id: SpaceId) -> Result<(), DiskError> {
        let space = self.space(id);
        let bytes = space.disk.info().capacity * 512;
        let Some(tail) = usable(bytes).checked_sub(TAIL_LEN as u64) else {
            self.trouble(id.0, "too small for a paging space");
            return Ok(());
        };
        let head_len = (HEAD_LEN as u64).min(usable(bytes)) as usize;
        let mut head = vec![0; head_len];
        self.read(id, 0, &mut head).await?;
        let mut tail_bytes = Box::new([0; TAIL_LEN]);
        self.read(id, tail, &mut tail_bytes[..]).await?;
        let class = classify(&head, &tail_bytes, bytes);
        match &class {
            Class::Foreign(what) => {
                self.trouble(id.0, &format!("holds {what}; `tidepool volume format` would make a paging space of it"))
            }
            Class::Damaged(damage) => self.trouble(id.0, &format!("damaged record: A: {}; B: {}", damage.a, damage.b)),
            _ => {}
        }
        let (phase, record) = match recovery(&class) {
            Recovery::Leave => return Ok(()),
            Recovery::Format => {
                let record = Record::free(bytes, Uuid::from_entropy(crate::arch::instr::rdtsc(), id.0 as u64), Residue::Clean);
                self.write_record(id, &record).await?;
                (Phase::Free, record)
            }
            Recovery::Reclaim(record) => {
                self.write_record(id, &record).await?;
                (Phase::Free, record)
            }
            Recovery::Use => (Phase::Free, known(class)),
            Recovery::Keep => (Phase::Dump, known(class)),
            // What was final is described by bitmap and progress; the host command brings the ELF header up to date.
            Recovery::Finish => {
                let record = next(known(class), |r| r.state = SpaceState::Partial);
                self.write_record(id, &record).await?;
                (Phase::Dump, record)
            }
            Recovery::Scrub => (Phase::Releasing, known(class)),
        };
        self.tell(id, &record);
        let mut inner = space.inner.lock();
        (inner.phase, inner.record) = (phase, Some(record));
        Ok(())
    }

    /// Goes on with releases that a power cut interrupted.
    pub fn resume(&'static self) {
        for (number, space) in self.spaces.iter().enumerate() {
            if space.inner.lock().phase == Phase::Releasing {
                self.tasks.start(async move { self.scrub(SpaceId(number)).await });
            }
        }
    }

    /// Returns whether any space could ever hold `pages` pages, and the largest number that one can.
    pub fn largest(&self) -> u32 {
        let usable = self.spaces.iter().filter(|s| s.inner.lock().phase != Phase::Unusable);
        usable.map(|s| Layout::most_pages(s.disk.info().capacity * 512)).max().unwrap_or(0)
    }

    /// Takes the smallest free space that fits and starts to activate it; `None` if there is none now.
    pub fn acquire(&'static self, owner: &str, ram: &RamLayout, epoch: u64) -> Option<SpaceId> {
        let fits = |space: &Space| Layout::for_pages(space.disk.info().capacity * 512, ram.pages()).is_ok();
        let mut free: Vec<_> = (0..self.spaces.len())
            .filter(|&n| fits(&self.spaces[n]) && self.spaces[n].inner.lock().phase == Phase::Free)
            .collect();
        free.sort_by_key(|&n| self.spaces[n].disk.info().capacity);
        for number in free {
            let id = SpaceId(number);
            let mut inner = self.space(id).inner.lock();
            if inner.phase != Phase::Free {
                continue;
            }
            let stranger = inner.record.as_ref().is_some_and(|r| {
                r.residue == Residue::Stale && r.owner.as_ref().is_none_or(|o| o.partition != Uuid::from_name(owner))
            });
            if stranger {
                // Somebody else's pages lie there: scrubbed first, and found clean at a later try.
                inner.phase = Phase::Releasing;
                drop(inner);
                self.tasks.start(async move { self.scrub(id).await });
                continue;
            }
            inner.phase = Phase::Activating;
            drop(inner);
            let name = ArrayString::from(owner).unwrap_or_default();
            let ram = *ram;
            self.tasks.start(async move {
                let result = self.activate(id, name, &ram, epoch).await;
                self.space(id).inner.lock().phase = result.map_or_else(Phase::Failed, |()| Phase::Active);
            });
            return Some(id);
        }
        None
    }

    async fn activate(&self, id: SpaceId, name: ArrayString<64>, ram: &RamLayout, epoch: u64) -> Result<(), DiskError> {
        let disk = self.space(id).disk;
        let contents = Contents::new(disk.info().capacity * 512, ram).map_err(|_| DiskError::Unsupported)?;
        // No reader may take the old header for that of what comes now.
        self.write(id, 0, &[0; PAGE_SIZE as usize]).await?;
        self.io.flush(disk).await?;
        let owner = Owner { name, partition: Uuid::from_name(&name), node: self.node, epoch };
        self.change(id, |record| {
            record.state = SpaceState::Active;
            record.residue = Residue::Stale;
            (record.owner, record.contents) = (Some(owner), Some(contents));
            (record.drain, record.crash) = (Drain::default(), None);
        })
        .await
    }

    /// Returns whether an acquired space can take pages: `None` while it is on the way.
    pub fn is_ready(&self, id: SpaceId) -> Option<Result<(), DiskError>> {
        match self.space(id).inner.lock().phase {
            Phase::Active => Some(Ok(())),
            Phase::Failed(error) => Some(Err(error)),
            _ => None,
        }
    }

    /// Returns where the pages of an active space go.
    pub fn store(&self, id: SpaceId) -> Option<Store> {
        let layout = self.layout(id)?;
        Some(Store { disk: id.0, blocks: BlockMap { data_start: layout.blocks().start / 512, pages: layout.pages() } })
    }

    /// Returns the layout of a space that has contents.
    pub fn layout(&self, id: SpaceId) -> Option<Layout> {
        self.space(id).inner.lock().record.as_ref()?.contents.as_ref().map(|contents| contents.layout)
    }

    /// Returns the disk of a space.
    pub fn disk(&self, id: SpaceId) -> &'static NodeDisk {
        self.space(id).disk
    }

    /// Returns where I/O of tasks goes through.
    pub const fn io(&self) -> &'static AsyncIo {
        self.io
    }

    /// Notes that a space holds a dump from now on.
    pub fn keep(&self, id: SpaceId) {
        self.space(id).inner.lock().phase = Phase::Dump;
    }

    /// Gives a space back: it is scrubbed in the background. Returns whether it was in use or held a dump.
    pub fn release(&'static self, id: SpaceId) -> bool {
        let mut inner = self.space(id).inner.lock();
        if !matches!(inner.phase, Phase::Active | Phase::Dump) {
            return false;
        }
        inner.phase = Phase::Releasing;
        drop(inner);
        self.tasks.start(async move { self.scrub(id).await });
        true
    }

    /// Releases all dumps of a partition; returns how many.
    pub fn release_dumps(&'static self, owner: &str) -> usize {
        let is_dump = |space: &Space| {
            let inner = space.inner.lock();
            let named = inner.record.as_ref().and_then(|r| r.owner.as_ref()).is_some_and(|o| &*o.name == owner);
            inner.phase == Phase::Dump && named
        };
        let dumps: Vec<_> = (0..self.spaces.len()).filter(|&n| is_dump(&self.spaces[n])).collect();
        dumps.iter().filter(|&&n| self.release(SpaceId(n))).count()
    }

    async fn scrub(&self, id: SpaceId) {
        let result = self.scrub_blocks(id).await;
        let mut inner = self.space(id).inner.lock();
        match result {
            Ok(()) => inner.phase = Phase::Free,
            Err(error) => {
                inner.phase = Phase::Failed(error);
                drop(inner);
                self.trouble(id.0, "cannot be scrubbed");
            }
        }
    }

    async fn scrub_blocks(&self, id: SpaceId) -> Result<(), DiskError> {
        let disk = self.space(id).disk;
        let owner = self.space(id).inner.lock().record.as_ref().and_then(|r| r.owner.clone());
        if self.state(id) != Some(SpaceState::Free) && self.state(id) != Some(SpaceState::Releasing) {
            self.change(id, |record| record.state = SpaceState::Releasing).await?;
        }
        let end = self.layout(id).map_or(0, |layout| layout.blocks().end() / 512);
        let mut at = 0;
        while at < end {
            let count = SCRUB_SECTORS.min(end - at);
            self.zero(id, SectorRange { first: at, count }).await?;
            at += count;
        }
        self.io.flush(disk).await?;
        self.change(id, |record| {
            (record.state, record.residue) = (SpaceState::Free, Residue::Clean);
            (record.owner, record.contents, record.crash) = (None, None, None);
            record.drain = Drain::default();
        })
        .await?;
        if let Some(owner) = owner {
            report(&Event::Released { disk: id.0 as u8, partition: &owner.name, incarnation: owner.epoch });
        }
        Ok(())
    }

    /// Makes a range read as zeros, by the device where it can.
    async fn zero(&self, id: SpaceId, range: SectorRange) -> Result<(), DiskError> {
        let disk = self.space(id).disk;
        if disk.info().write_zeroes {
            return self.io.run(disk, Operation::WriteZeroes, range, &[]).await;
        }
        let zeros = [0; 4096];
        let mut at = range.first * 512;
        while at < (range.first + range.count) * 512 {
            self.write(id, at, &zeros).await?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    fn state(&self, id: SpaceId) -> Option<SpaceState> {
        self.space(id).inner.lock().record.as_ref().map(|record| record.state)
    }

    /// Changes the record: writes the next version, flushes, and only then believes it.
    ///
    /// # Errors
    /// The disk's; the old record is valid then.
    pub async fn change(&self, id: SpaceId, change: impl FnOnce(&mut Record)) -> Result<(), DiskError> {
        let old = self.space(id).inner.lock().record.clone().ok_or(DiskError::Dead)?;
        let record = next(old, change);
        self.write_record(id, &record).await?;
        self.tell(id, &record);
        self.space(id).inner.lock().record = Some(record);
        Ok(())
    }

    async fn write_record(&self, id: SpaceId, record: &Record) -> Result<(), DiskError> {
        let start = Side::of(record.sequence).start(record.capacity).ok_or(DiskError::Unsupported)?;
        self.write(id, start, &record.encode()).await?;
        self.io.flush(self.space(id).disk).await
    }

    /// Writes `bytes` (whole sectors, at most [`BUFFER`]) through the space's buffer.
    ///
    /// # Errors
    /// The disk's.
    pub async fn write(&self, id: SpaceId, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let buffer = self.take_buffer(id).await;
        bytes.iter().enumerate().for_each(|(n, byte)| buffer.write(n, *byte));
        let at = buffer.hpa(0);
        let result = self.io.transfer(self.space(id).disk, Operation::Write, offset, at, bytes.len()).await;
        self.give_buffer(id, buffer);
        result
    }

    /// Reads `bytes` (whole sectors, at most [`BUFFER`]) through the space's buffer.
    ///
    /// # Errors
    /// The disk's.
    pub async fn read(&self, id: SpaceId, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let buffer = self.take_buffer(id).await;
        let at = buffer.hpa(0);
        let result = self.io.transfer(self.space(id).disk, Operation::Read, offset, at, bytes.len()).await;
        bytes.iter_mut().enumerate().for_each(|(n, byte)| *byte = buffer.read(n));
        self.give_buffer(id, buffer);
        result
    }

    async fn take_buffer(&self, id: SpaceId) -> DmaRegion {
        super::task::until(|| self.space(id).inner.lock().buffer.take()).await
    }

    fn give_buffer(&self, id: SpaceId, buffer: DmaRegion) {
        self.space(id).inner.lock().buffer = Some(buffer);
    }

    /// Returns how many there are, usable or not.
    pub const fn count(&self) -> usize {
        self.spaces.len()
    }

    /// Describes every space, for `list`.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |(disk, space): (usize, &Space)| {
            let inner = space.inner.lock();
            let record = inner.record.as_ref();
            let state = if inner.phase == Phase::Unusable { "unusable" } else { record.map_or("?", |r| r.state.name()) };
            Summary { disk, state, owner: record.and_then(|r| r.owner.as_ref()).map(|o| (o.name, o.epoch)) }
        };
        self.spaces.iter().enumerate().map(summary).collect()
    }

    fn tell(&self, id: SpaceId, record: &Record) {
        let (partition, epoch) = record.owner.as_ref().map_or(("", 0), |o| (&*o.name, o.epoch));
        report(&Event::Space { disk: id.0 as u8, state: record.state.name(), partition, epoch });
    }

    fn trouble(&self, disk: usize, message: &str) {
        report(&Event::Error { place: &format!("paging device {disk}"), message });
    }
}

/// Returns the next version of a record.
fn next(record: Record, change: impl FnOnce(&mut Record)) -> Record {
    let mut next = record;
    next.sequence += 1;
    change(&mut next);
    next
}

fn known(class: Class) -> Record {
    match class {
        Class::Space(record) => record,
        _ => unreachable!("only a space with a valid record is kept"),
    }
}

const _: () = assert!(BUFFER >= HEAD_LEN && BUFFER >= RECORD_SIZE as usize);
