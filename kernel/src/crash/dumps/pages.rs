//! The pages of an image that is being drained, as a source of streams: the pages that are final
//! now, except those with wrong blocks.

use crate::addr::{Gfn, PageIndex};
use crate::block::DiskError;
use crate::dump::describe::CorePages;
use crate::dump::elf::{CorePage, DumpPageState};
use crate::host::Host;
use crate::paging::{ImageDrain, PageFinal};
use crate::space::{MissingPages, SpaceLayout};
use crate::storage::describe::PageSource;

/// The pages of the image that are final.
pub(in crate::crash) struct ImagePages<'a> {
    pub host: &'static Host,
    pub drain: &'a ImageDrain,
    pub layout: &'a SpaceLayout,
    pub missing: &'a MissingPages,
}

impl CorePages for ImagePages<'_> {
    fn pages(&self) -> u32 {
        self.layout.pages()
    }

    fn gfn(&self, index: PageIndex) -> Gfn {
        self.drain.image().layout().gfn_of(index).unwrap_or_default()
    }

    fn content(&self, index: PageIndex) -> (DumpPageState, u32) {
        match self.drain.final_kind(&self.host.pager, index) {
            _ if self.missing.holds(index) => (DumpPageState::Missing, 0),
            Some(PageFinal::Block(crc)) => (DumpPageState::Block, crc.0),
            Some(PageFinal::Zero) => (DumpPageState::Zero, 0),
            None => (DumpPageState::Missing, 0),
        }
    }

    fn run(&self, index: PageIndex) -> CorePage {
        let (kind, pages) = self.drain.final_run(&self.host.pager, index);
        let content = match kind {
            _ if self.missing.holds(index) => DumpPageState::Missing,
            Some(PageFinal::Block(_)) => DumpPageState::Block,
            Some(PageFinal::Zero) => DumpPageState::Zero,
            None => DumpPageState::Missing,
        };
        CorePage {
            gfn: self.gfn(index),
            index: index.0,
            pages: pages.min(self.missing.alike(index)),
            content,
        }
    }
}

impl PageSource for ImagePages<'_> {
    async fn load(&mut self, _: u32) -> Result<(), DiskError> {
        Ok(())
    }
}
