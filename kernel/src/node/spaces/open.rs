//! What a start does with the spaces it finds.

use super::{Phase, SpaceId, Spaces, next};
use crate::block::DiskError;
use crate::node::describe::{self, Recovered};
use crate::paging::space::classify::HEAD_LEN;
use crate::paging::space::copies::TAIL_LEN;
use crate::paging::space::layout::usable;
use crate::paging::space::recovery::{Recovery, recovery};
use crate::paging::space::{Class, Record, Residue, SpaceState, Uuid, classify};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

impl Spaces {
    /// Looks at every space and does what a start has to do. A task of its own, before the first partition.
    pub async fn open(&self) {
        let all = || (0..self.spaces.len()).map(SpaceId);
        let mut ours = Vec::new();
        for id in all().filter(|&id| self.disk(id).base().is_none()) {
            if matches!(self.class(id).await, Ok(Some(Class::Blank | Class::Space(_)))) {
                ours.push(id);
            }
        }
        self.claim_all(ours).await;
        for id in all() {
            if self.space(id).inner.lock().is_refused {
                continue;
            }
            // Looked at again: somebody may have been at it until it was claimed.
            if let Err(error) = self.open_one(id).await {
                self.trouble(id, &format!("cannot be read: {error:?}"));
            }
        }
    }

    /// Reads what a space holds; `None` where it is too small for one.
    async fn class(&self, id: SpaceId) -> Result<Option<Class>, DiskError> {
        let bytes = self.place(id).area.bytes();
        let Some(tail) = usable(bytes).checked_sub(TAIL_LEN as u64) else { return Ok(None) };
        let head_len = (HEAD_LEN as u64).min(usable(bytes)) as usize;
        let mut head = vec![0; head_len];
        self.read(id, 0, &mut head).await?;
        let mut tail_bytes = Box::new([0; TAIL_LEN]);
        self.read(id, tail, &mut tail_bytes[..]).await?;
        Ok(Some(classify(&head, &tail_bytes, bytes)))
    }

    async fn open_one(&self, id: SpaceId) -> Result<(), DiskError> {
        let space = self.space(id);
        let bytes = space.place.area.bytes();
        let Some(class) = self.class(id).await? else {
            self.trouble(id, "too small for a paging space");
            return Ok(());
        };
        match &class {
            Class::Foreign(what) => {
                self.trouble(id, &format!("holds {what}; `tidepool volume format` would make a paging space of it"))
            }
            Class::Damaged(damage) => self.trouble(id, &format!("damaged record: A: {}; B: {}", damage.a, damage.b)),
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
            Recovery::Finish => (Phase::Dump, self.finish(id, known(class)).await?),
            Recovery::Scrub => (Phase::Releasing, known(class)),
        };
        self.tell(id, &record);
        let mut inner = space.inner.lock();
        (inner.phase, inner.record) = (phase, Some(record));
        Ok(())
    }

    /// Makes a partial dump of a drain that was cut off: the header up to date, then the record.
    async fn finish(&self, id: SpaceId, cut: Record) -> Result<Record, DiskError> {
        let mut record = next(cut, |r| r.state = SpaceState::Partial);
        if let Some(contents) = record.contents.clone() {
            let mut bitmap = vec![0; contents.layout.bitmap_bytes()];
            self.read_all(id, contents.layout.bitmap().start, &mut bitmap).await?;
            let pages = Recovered { contents: &contents, bitmap: &bitmap, progress: record.drain.progress };
            record.drain.program_headers = describe::headers(self, id, &pages, record.drain.notes_len).await?.0;
            self.io.flush(self.disk(id)).await?;
        }
        self.write_record(id, &record).await?;
        Ok(record)
    }
}

fn known(class: Class) -> Record {
    match class {
        Class::Space(record) => record,
        _ => unreachable!("only a space with a valid record is kept"),
    }
}
