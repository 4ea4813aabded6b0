//! The expected content of each page in a dump of the test kernel `turmoil`, determined by seed and
//! incarnation.

use crate::core_file::{CoreFile, PageIn};
use anyhow::{Result, ensure};
use std::path::Path;
use worker::turmoil::Turmoil;
use worker::{PAGE_BYTES, PageIdentity, WorkerPage};

/// Keyed pages of the guest: most of its 6 MiB.
pub(super) const PAGES: u64 = 1100;

/// The guest of one run of the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestTruth {
    /// The key in its pages.
    pub key: u64,
    /// The seed of its writes.
    pub seed: u64,
    /// Least number of rewrites before it crashes.
    pub writes: u64,
}

/// Numbers of the guest's pages that a dump shows correctly, and that it does not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PagesShown {
    /// Pages with their content at the crash.
    pub right: u64,
    /// Pages in no segment.
    pub missing: u64,
}

impl GuestTruth {
    /// Returns the test kernel's command line.
    pub fn cmdline(&self) -> String {
        let Self { key, seed, writes } = self;
        format!("key={key} seed={seed} pages={PAGES} writes={writes}")
    }

    /// Returns the number of rewrites of each page before an incarnation's crash.
    fn generations(&self, incarnation: u64) -> Vec<u64> {
        let mut generations = vec![0; PAGES as usize];
        for page in Turmoil::new(self.seed, incarnation, PAGES, self.writes) {
            generations[page as usize] += 1;
        }
        generations
    }

    /// Checks the guest's pages, the first of which is at physical address `first`, through the ELF
    /// header alone.
    ///
    /// # Errors
    /// Names the first page with a content that it cannot have had at the crash.
    pub fn check(
        &self,
        image: &Path,
        first: u64,
        incarnation: u64,
        moment: CrashMoment,
    ) -> Result<PagesShown> {
        let (core, mut shown) = (CoreFile::open(image)?, PagesShown::default());
        for (index, last) in (0..).zip(self.generations(incarnation)) {
            let identity = |generation| PageIdentity { key: self.key, index, generation };
            match core.page(first + index * PAGE_BYTES as u64)? {
                PageIn::NoSegment => shown.missing += 1,
                PageIn::Zero => {
                    ensure!(moment == CrashMoment::OnTheWay, "page {index} is shown as zeros")
                }
                PageIn::Bytes(bytes) => {
                    let page = words(&bytes);
                    let is_earlier =
                        || (0..last).any(|generation| identity(generation).check(&page).is_ok());
                    let may_differ = moment == CrashMoment::OnTheWay
                        && (page.iter().all(|word| *word == 0) || is_earlier());
                    let checked = if may_differ { Ok(()) } else { identity(last).check(&page) };
                    checked.map_err(|wrong| anyhow::anyhow!("page {index}: {wrong:?}"))?;
                    shown.right += 1;
                }
            }
        }
        Ok(shown)
    }
}

/// The part of its work that an incarnation had done when it crashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashMoment {
    /// All: the crash is the guest's own, and each page has its last content.
    AtTheEnd,
    /// Some: each page has the content of some moment, or was not written yet.
    OnTheWay,
}

fn words(bytes: &[u8]) -> WorkerPage {
    let mut page: WorkerPage = [0; PAGE_BYTES / 8];
    for (word, bytes) in page.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    page
}
