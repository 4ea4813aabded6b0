//! A plan to load a kernel, and its execution in bounded steps.

use alloc::{string::String, vec::Vec};
use core::ops::Range;

use super::{ImageRole, ImageSource};
use crate::addr::{Gpa, PAGE_SIZE};
use crate::config::KernelModules;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::partition::devices::lapic::ApicMode;
use crate::virt::{CpuState, Regs};

/// The content of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CopyContent {
    /// A part of an image.
    Image {
        /// The image.
        role: ImageRole,
        /// The part's first byte.
        offset: usize,
        /// The part's length.
        bytes: usize,
    },
    /// Bytes that the loader made.
    Made(Vec<u8>),
}

/// One copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadCopy {
    /// The destination.
    pub to: Gpa,
    /// The content.
    pub content: CopyContent,
}

impl LoadCopy {
    /// Returns the addresses of its bytes in the partition's memory.
    pub fn range(&self) -> Range<u64> {
        let start = self.to.as_u64();
        start..start.saturating_add(self.content.len() as u64)
    }
}

/// The state in which a partition starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadPlan {
    /// The copies into its memory.
    pub copies: Vec<LoadCopy>,
    /// General registers at entry.
    pub regs: Regs,
    /// The rest of the vCPU's state at entry.
    pub state: CpuState,
    /// The local APIC's mode at entry.
    pub apic: ApicMode,
}

impl LoadPlan {
    /// Returns the number of bytes to copy.
    pub fn bytes(&self) -> u64 {
        self.copies.iter().map(|copy| copy.content.len() as u64).sum()
    }
}

impl CopyContent {
    fn len(&self) -> usize {
        match self {
            CopyContent::Image { bytes, .. } => *bytes,
            CopyContent::Made(bytes) => bytes.len(),
        }
    }
}

/// Whether loading is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadProgress {
    /// Call again.
    More,
    /// Call again when the source has the bytes of this image from this offset on. Never for a
    /// source whose images are whole.
    Unread(ImageRole, u64),
    /// The vCPU can start.
    Done,
}

/// A plan that is being carried out.
#[derive(Clone, Debug)]
pub struct LoadJob {
    plan: LoadPlan,
    kernel: String,
    initrd: Option<String>,
    copy: usize,
    /// Bytes of the current copy that are done.
    done: usize,
}

impl LoadJob {
    /// Begins; `kernel` names the images that the plan was made from.
    pub fn new(plan: LoadPlan, kernel: &KernelModules) -> Self {
        Self { plan, kernel: kernel.image.clone(), initrd: kernel.initrd.clone(), copy: 0, done: 0 }
    }

    /// Returns the plan.
    pub const fn plan(&self) -> &LoadPlan {
        &self.plan
    }

    /// Copies up to `max_bytes`, but at least one page's worth, so that loading makes progress.
    ///
    /// # Errors
    /// The error of guest memory; the next call goes on with the same page.
    pub fn step(
        &mut self,
        source: &dyn ImageSource,
        memory: &dyn GuestMemory,
        max_bytes: usize,
    ) -> Result<LoadProgress, GuestMemoryError> {
        let mut copied = 0;
        while let Some(copy) = self.plan.copies.get(self.copy) {
            let left = copy.content.len() - self.done;
            if left == 0 {
                (self.copy, self.done) = (self.copy + 1, 0);
                continue;
            }
            if copied > 0 && copied >= max_bytes {
                return Ok(LoadProgress::More);
            }
            let rest = match self.rest_of(&copy.content, source) {
                Ok(rest) => rest,
                Err((role, offset)) => return Ok(LoadProgress::Unread(role, offset)),
            };
            let to = Gpa::new(copy.to.as_u64() + self.done as u64);
            let page = (PAGE_SIZE - to.page_offset()) as usize;
            let chunk = &rest[..rest.len().min(left).min(page)];
            memory.write(to, chunk)?;
            copied += chunk.len();
            self.done += chunk.len();
        }
        Ok(LoadProgress::Done)
    }

    /// Returns the bytes of the current copy that come next, at least one; or where they are if the
    /// source does not have them.
    fn rest_of<'a>(
        &self,
        content: &'a CopyContent,
        source: &'a dyn ImageSource,
    ) -> Result<&'a [u8], (ImageRole, u64)> {
        let (role, offset) = match content {
            CopyContent::Made(bytes) => return Ok(&bytes[self.done..]),
            CopyContent::Image { role, offset, .. } => (*role, (offset + self.done) as u64),
        };
        let name = match role {
            ImageRole::Kernel => Some(&self.kernel),
            ImageRole::Initrd => self.initrd.as_ref(),
        };
        name.and_then(|name| source.bytes(name, offset)).ok_or((role, offset))
    }
}
