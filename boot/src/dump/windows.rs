//! A dump's bitmap and checksum table, read a window at a time: for 16 TiB the tables exceed a
//! host's memory.
//!
//! The hypervisor's code that describes a dump asks page by page and cannot handle errors. So a
//! window that cannot be read is handed out as zeros. The error is kept until the caller asks for
//! it with [`Window::check`].

use crate::volume::SpaceImage;
use anyhow::{Error, Result};
use kernel::space::layout::Extent;
use std::cell::{Cell, RefCell};

/// Bytes of a table that are held: bits of 8 Mi pages, or checksums of 256 Ki pages.
const WINDOW_BYTES: u64 = 1 << 20;

/// A table on an image, of which one piece is held in memory.
pub(super) struct Window {
    extent: Extent,
    /// Offset of `bytes` in the table, once a piece was read.
    start: Cell<Option<u64>>,
    bytes: RefCell<Vec<u8>>,
    failure: RefCell<Option<Error>>,
}

impl Window {
    /// Makes a window on the table in `extent` of an image. An empty extent means that there is no
    /// table.
    pub(super) fn new(extent: Extent) -> Self {
        Self {
            extent,
            start: Cell::new(None),
            bytes: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// Passes to `look` the held bytes around byte `at` of the table, and the position of `at` in
    /// them; empty beyond the table's end.
    pub(super) fn around<T>(
        &self,
        image: &SpaceImage,
        at: u64,
        look: impl FnOnce(&[u8], u64) -> T,
    ) -> T {
        if at >= self.extent.len {
            return look(&[], 0);
        }
        let start = at / WINDOW_BYTES * WINDOW_BYTES;
        if self.start.get() != Some(start) {
            self.load(image, start);
        }
        look(&self.bytes.borrow(), at - start)
    }

    fn load(&self, image: &SpaceImage, start: u64) {
        let len = WINDOW_BYTES.min(self.extent.len - start) as usize;
        let mut bytes = self.bytes.borrow_mut();
        bytes.clear();
        bytes.resize(len, 0);
        if let Err(error) = image.read(self.extent.start + start, &mut bytes) {
            self.failure.borrow_mut().get_or_insert(error);
        }
        self.start.set(Some(start));
    }

    /// Checks that all bytes handed out were really read.
    ///
    /// # Errors
    /// The first error, which names the image; it is returned only once.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }
}
