//! Errors of a store: each names its place on the disk, or what was asked for.

use super::digest::ImageDigest;
use super::side::StoreSide;

/// A place in a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StorePlace {
    /// A copy of the superblock.
    Superblock(StoreSide),
    /// A copy of the directory.
    Directory(StoreSide),
    /// A copy of a definition slot.
    Slot(u32, StoreSide),
    /// A block of an image's checksums: the image and the block's number in the store.
    Sums(ImageDigest, u64),
    /// A chunk of an image's content: the image, the chunk's number in it, and its first block in
    /// the store.
    Chunk(ImageDigest, u32, u64),
}

impl core::fmt::Display for StorePlace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Superblock(side) => write!(f, "superblock {side}"),
            Self::Directory(side) => write!(f, "directory {side}"),
            Self::Slot(slot, side) => write!(f, "definition slot {slot}, copy {side}"),
            Self::Sums(image, block) => {
                write!(f, "image {}, checksums in block {block}", image.short())
            }
            Self::Chunk(image, chunk, block) => {
                write!(f, "image {}, chunk {chunk} in block {block}", image.short())
            }
        }
    }
}

/// The fault of a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreFault {
    /// Zeros: never written.
    Empty,
    /// Not such a structure.
    Foreign,
    /// Half written or damaged: the checksum is wrong.
    Checksum,
    /// Of this version, which is newer.
    NewerVersion(u32),
    /// With these required features, which this program does not know.
    UnknownFeatures(u64),
    /// Of another store, from before a format.
    OtherStore,
    /// Of another image, which had the same chunks before or has them now.
    OtherImage,
    /// A field with this name has a value that is not possible.
    Impossible(&'static str),
    /// The store is larger than its disk or partition, which has this many blocks.
    CutOff(u64),
    /// No memory to read it.
    OutOfMemory,
}

impl StoreFault {
    /// Returns whether a newer program wrote this: then no other copy counts either.
    pub const fn is_newer(self) -> bool {
        matches!(self, Self::NewerVersion(_) | Self::UnknownFeatures(_))
    }
}

impl core::fmt::Display for StoreFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Empty => f.write_str("never written"),
            Self::Foreign => f.write_str("no part of an image store"),
            Self::Checksum => f.write_str("the checksum is wrong"),
            Self::NewerVersion(version) => write!(f, "version {version} of a newer program"),
            Self::UnknownFeatures(bits) => write!(f, "unknown required feature bits {bits:#x}"),
            Self::OtherStore => f.write_str("belongs to another store"),
            Self::OtherImage => f.write_str("belongs to another image"),
            Self::Impossible(field) => write!(f, "impossible value in the field {field}"),
            Self::CutOff(blocks) => write!(f, "the store is larger than its {blocks} blocks"),
            Self::OutOfMemory => f.write_str("no memory to read it"),
        }
    }
}

/// A place that cannot be used, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreContentError {
    /// The place.
    pub place: StorePlace,
    /// Its fault.
    pub fault: StoreFault,
}

impl core::fmt::Display for StoreContentError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

impl core::error::Error for StoreContentError {}

/// Why a sound store refuses a change. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRefusedError {
    /// No room for an image: chunks that it needs, and chunks that are free.
    Full {
        /// Chunks that the image needs.
        needs: u32,
        /// Chunks that are free.
        free: u32,
    },
    /// The free chunks lie in too many pieces for an image: chunks that it needs, and those of the
    /// eight largest pieces.
    Scattered {
        /// Chunks that the image needs.
        needs: u32,
        /// Chunks of the largest pieces.
        largest: u32,
    },
    /// As many images as a store can have.
    TooManyImages,
    /// Every definition slot is in use.
    NoSlot,
    /// An image of no bytes, or of more than a store can hold.
    Length(u64),
    /// A definition of more bytes than a slot has.
    DefinitionLength(usize),
    /// A partition's name that is empty or too long.
    Name,
    /// No such image, or it is being removed.
    NoImage(ImageDigest),
    /// No definition of this name.
    NoDefinition,
    /// Definitions name the image; this is the slot of the first.
    Named(u32),
    /// The store has a definition of this name: how often it was defined.
    Exists(u64),
    /// The store has another definition than this program knows.
    Changed,
    /// Another program defines a partition of the same name now.
    Busy,
    /// Another program has changed the same place meanwhile.
    Overtaken,
    /// Too slow for the rules of taking a slot.
    TooSlow,
}

impl core::fmt::Display for StoreRefusedError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full { needs, free } => {
                write!(f, "the store is full: {needs} chunks of 64 KiB are needed, {free} are free")
            }
            Self::Scattered { needs, largest } => write!(
                f,
                "the free room is scattered: {needs} chunks of 64 KiB are needed, the eight \
                 largest pieces have {largest}"
            ),
            Self::TooManyImages => f.write_str("the directory is full: 240 images"),
            Self::NoSlot => f.write_str("all definition slots are in use"),
            Self::Length(bytes) => write!(f, "an image has 1 to 1048576000 bytes, not {bytes}"),
            Self::DefinitionLength(bytes) => {
                write!(f, "a definition has at most 3884 bytes, not {bytes}")
            }
            Self::Name => f.write_str("the name is empty or too long"),
            Self::NoImage(image) => write!(f, "there is no image {}", image.short()),
            Self::NoDefinition => f.write_str("there is no such definition"),
            Self::Named(slot) => write!(f, "the definition in slot {slot} names the image"),
            Self::Exists(generation) => {
                write!(f, "the store has a partition of that name, generation {generation}")
            }
            Self::Changed => f.write_str(
                "the definition there is another one than this node knows; with the scope 'node' \
                 the command is for this node alone",
            ),
            Self::Busy => f.write_str("another program defines that partition now"),
            Self::Overtaken => f.write_str("another program has changed the store meanwhile"),
            Self::TooSlow => {
                f.write_str("this took too long to be safe beside other programs; try again")
            }
        }
    }
}

impl core::error::Error for StoreRefusedError {}

/// An error of an operation on a store whose disk reports errors of type `E`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreError<E> {
    /// The disk failed.
    Disk(E),
    /// A place cannot be used.
    Content(StoreContentError),
    /// The store refuses the change.
    Refused(StoreRefusedError),
}

impl<E> From<StoreContentError> for StoreError<E> {
    fn from(error: StoreContentError) -> Self {
        Self::Content(error)
    }
}

impl<E> From<StoreRefusedError> for StoreError<E> {
    fn from(error: StoreRefusedError) -> Self {
        Self::Refused(error)
    }
}

impl<E: core::fmt::Display> core::fmt::Display for StoreError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::Content(error) => error.fmt(f),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl<E: core::fmt::Display + core::fmt::Debug> core::error::Error for StoreError<E> {}
