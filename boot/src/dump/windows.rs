//! A dump's tables of bits and checksums, a window at a time: those of 16 TiB are larger than a host's memory.
//!
//! The hypervisor's code that describes a dump asks page by page and knows no failure. So a window that cannot be read is zeros, and
//! the failure is kept until the caller asks for it with [`Window::check`].

use crate::volume::Image;
use anyhow::{Error, Result};
use kernel::paging::space::layout::Extent;
use std::cell::{Cell, RefCell};

/// Bytes that are held of a table: the bits of 8 Mi pages, the checksums of 256 Ki.
const WINDOW_BYTES: u64 = 1 << 20;

/// A table on an image of which one piece is held.
pub(super) struct Window {
    extent: Extent,
    /// Where in the table `bytes` begin, once something was read.
    start: Cell<Option<u64>>,
    bytes: RefCell<Vec<u8>>,
    failure: RefCell<Option<Error>>,
}

impl Window {
    /// Looks at the table that `extent` of an image holds; one without bytes has none.
    pub(super) fn new(extent: Extent) -> Self {
        Self { extent, start: Cell::new(None), bytes: RefCell::default(), failure: RefCell::default() }
    }

    /// Hands out the bytes of the held piece around byte `at` of the table, and where in it that is; nothing beyond the table's end.
    pub(super) fn around<T>(&self, image: &Image, at: u64, look: impl FnOnce(&[u8], u64) -> T) -> T {
        if at >= self.extent.len {
            return look(&[], 0);
        }
        let start = at / WINDOW_BYTES * WINDOW_BYTES;
        if self.start.get() != Some(start) {
            self.load(image, start);
        }
        look(&self.bytes.borrow(), at - start)
    }

    fn load(&self, image: &Image, start: u64) {
        let len = WINDOW_BYTES.min(self.extent.len - start) as usize;
        let mut bytes = self.bytes.borrow_mut();
        bytes.clear();
        bytes.resize(len, 0);
        if let Err(error) = image.read(self.extent.start + start, &mut bytes) {
            self.failure.borrow_mut().get_or_insert(error);
        }
        self.start.set(Some(start));
    }

    /// Says whether all that was handed out was read.
    ///
    /// # Errors
    /// The first failure, which names the image; it is told once.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }
}
