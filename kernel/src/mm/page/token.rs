//! The tokens of a page between the steps of its way out; their types enforce the order.
//!
//! ```text
//!  begin_write_out ─> WriteOut ─settle(proof)─> Settled      ─> scan, checksum, write ─> finish_write_out, evict_zero
//!  begin_clean     ─> Cleaning ─settle(proof)─> SettledClean ─> checksum, write       ─> finish_clean
//!  evict_clean     ─> Unmapped ─reclaim(proof)─> Frame       ─> free
//! ```
//!
//! Only a settled token tells the frame's number. Tokens are small, so that the pager can keep them
//! in its batches.

use super::{FlushProof, Frame, Hfn, PageIndex};
use crate::mm::object::{MemoryObject, ObjectId};

/// A translation that was taken away, and its generation.
#[derive(Debug)]
pub(super) struct TakenTranslation {
    pub(super) object: ObjectId,
    /// Read after the leaf had changed; a ticket of a later generation was opened after that.
    pub(super) generation: u64,
}

impl TakenTranslation {
    #[inline]
    fn from(object: &MemoryObject) -> Self {
        Self { object: object.id(), generation: object.generation().current() }
    }

    fn check(&self, passed: &FlushProof) {
        passed.covers(self.object, self.generation);
    }
}

/// A page that left without a write; its frame waits for the flush.
#[must_use = "the frame is lost unless it is reclaimed"]
#[derive(Debug)]
pub struct UnmappedPage {
    taken: TakenTranslation,
    frame: Frame,
}

impl UnmappedPage {
    pub(super) fn new(object: &MemoryObject, frame: Frame) -> Self {
        Self { taken: TakenTranslation::from(object), frame }
    }

    /// Returns the frame, once the flush has passed.
    ///
    /// # Panics
    /// If the proof is of another object or of a ticket opened before (our bug).
    pub fn reclaim(self, passed: &FlushProof) -> Frame {
        self.taken.check(passed);
        self.frame
    }
}

/// A page and its frame.
#[derive(Debug)]
pub(super) struct FramedPage {
    pub(super) index: PageIndex,
    pub(super) hfn: Hfn,
}

macro_rules! waiting {
    ($(#[$doc:meta])* $name:ident settles to $settled:ident) => {
        $(#[$doc])*
        #[must_use = "the page stays claimed until this is settled and finished"]
        #[derive(Debug)]
        pub struct $name {
            pub(super) taken: TakenTranslation,
            pub(super) place: FramedPage,
        }

        impl $name {
            #[inline]
            pub(super) fn new(object: &MemoryObject, index: PageIndex, hfn: Hfn) -> Self {
                Self { taken: TakenTranslation::from(object), place: FramedPage { index, hfn } }
            }

            /// Returns the page's index.
            pub const fn index(&self) -> PageIndex {
                self.place.index
            }

            /// Makes the frame readable, once the flush has passed.
            ///
            /// # Panics
            /// If the proof is of another object or of a ticket opened before (our bug).
            pub fn settle(self, passed: &FlushProof) -> $settled {
                self.taken.check(passed);
                $settled { object: self.taken.object, place: self.place }
            }
        }
    };
}

macro_rules! settled {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[must_use = "the page stays claimed until this is finished or aborted"]
        #[derive(Debug)]
        pub struct $name {
            pub(super) object: ObjectId,
            pub(super) place: FramedPage,
        }

        impl $name {
            /// Returns the page's index.
            pub const fn index(&self) -> PageIndex {
                self.place.index
            }

            /// Returns the frame to read.
            pub const fn hfn(&self) -> Hfn {
                self.place.hfn
            }

            /// Returns the frame's number to the code that finishes this token on the right page.
            #[inline]
            pub(super) fn into_hfn(self, object: &MemoryObject, index: PageIndex) -> Hfn {
                assert!(
                    self.object == object.id() && self.place.index == index,
                    "a token is finished on its own page"
                );
                self.place.hfn
            }
        }
    };
}

waiting! {
    /// A page that goes out and waits for the flush; its frame must not be read before.
    WriteOut settles to Settled
}
settled! {
    /// A page that goes out. No CPU can write it any more, unless it is rescued.
    Settled
}
waiting! {
    /// A page that is cleaned in place and waits for the flush; until then a write may leave D
    /// clear.
    Cleaning settles to SettledClean
}
settled! {
    /// A page that is cleaned in place: a write from now on sets its D bit.
    SettledClean
}

/// The end of a write-out.
#[must_use = "the frame is lost unless it is freed"]
#[derive(Debug, PartialEq, Eq)]
pub enum WriteOutEnd {
    /// The frame is the caller's.
    Out(Frame),
    /// The guest needed the page meanwhile: it stays mapped, and the write's result is void.
    Rescued,
}
