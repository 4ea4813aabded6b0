//! Whether partitions fit the machine: each alone, and all of them together. The same rules hold
//! for the partitions of the configuration and for those that are defined later.

use crate::addr::PAGE_SIZE;
use crate::config::PartitionConfig;
use crate::host::Host;
use crate::mm::layout::RamLayout;
use crate::mm::table::TableReserve;
use crate::partition::cpuid;
use crate::pool::terms;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

/// The resource that is too small for a partition, or for all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CapacityError {
    /// No memory of this many bytes exists.
    NoLayout(u64),
    /// The memory ends beyond the physical address bits of this CPU.
    AddressBits {
        /// Bytes of the memory.
        bytes: u64,
        /// Bits of an address.
        bits: u32,
    },
    /// The memory fits no paging space.
    LargerThanSpaces {
        /// Bytes of the memory.
        bytes: u64,
        /// Pages of the largest space.
        largest: u32,
    },
    /// The memory is larger than the pool, and nothing can be paged out.
    LargerThanPool,
    /// The pool has too few frames for the minimum of each partition.
    Pool {
        /// Frames of the pool.
        frames: u32,
        /// Number of partitions.
        partitions: usize,
        /// Frames that they need.
        least: u32,
    },
    /// There are fewer spaces than partitions.
    TooFewSpaces {
        /// Number of partitions.
        partitions: usize,
        /// Number of spaces.
        spaces: usize,
    },
    /// The spaces that are large enough are needed by others.
    SpacesTaken {
        /// The partition without a space.
        name: String,
        /// Bytes of its memory.
        bytes: u64,
    },
    /// The pages for second-level tables, which were set apart at the start, are too few.
    Tables {
        /// Pages that the live memory of all partitions needs, and one more of the largest.
        needed: u64,
        /// Pages set apart.
        total: u32,
    },
}

impl CapacityError {
    /// Returns the place for an error: the partition called `name`, or the resource.
    pub fn place(&self, name: &str) -> String {
        match self {
            Self::Pool { .. } => "pool".into(),
            Self::TooFewSpaces { .. } => "paging devices".into(),
            Self::SpacesTaken { name, .. } => alloc::format!("partition {name}"),
            _ => alloc::format!("partition {name}"),
        }
    }
}

const fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

impl fmt::Display for CapacityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoLayout(bytes) => write!(f, "memory of {bytes} bytes"),
            Self::AddressBits { bytes, bits } => write!(
                f,
                "memory of {} MiB ends beyond the {bits} address bits of this CPU",
                mib(bytes)
            ),
            Self::LargerThanSpaces { bytes, largest } => write!(
                f,
                "memory of {} MiB is larger than every paging space (largest: {} MiB)",
                mib(bytes),
                mib(u64::from(largest) * PAGE_SIZE)
            ),
            Self::LargerThanPool => {
                f.write_str("memory is larger than the pool, and there is no paging device")
            }
            Self::Pool { frames, partitions, least } => write!(
                f,
                "{} MiB are too few for {partitions} partitions: they need at least {} MiB",
                frames / 256,
                least.div_ceil(256)
            ),
            Self::TooFewSpaces { partitions, spaces } => write!(
                f,
                "{partitions} partitions, but only {spaces} paging spaces that can be used: each \
                 needs one"
            ),
            Self::SpacesTaken { bytes, .. } => write!(
                f,
                "memory of {} MiB: the spaces that are large enough are needed by others",
                mib(bytes)
            ),
            Self::Tables { needed, total } => write!(
                f,
                "its second-level tables do not fit: all partitions need {needed} pages of them, \
                 and {total} were set apart at the start (`spare` in the configuration)"
            ),
        }
    }
}

/// Checks that a partition can run at all; returns the layout of its memory.
///
/// # Errors
/// The resource that is too small.
pub fn check(host: &Host, config: &PartitionConfig) -> Result<RamLayout, CapacityError> {
    let bytes = config.memory_bytes;
    let layout = RamLayout::new(bytes).ok_or(CapacityError::NoLayout(bytes))?;
    let bits = cpuid::physical_bits(&cpuid::host);
    if layout.ranges().any(|ram| (ram.first.as_u64() + ram.count) > (1 << bits) / PAGE_SIZE) {
        return Err(CapacityError::AddressBits { bytes, bits });
    }
    let largest = host.spaces.largest();
    let needs_space = host.spaces.has_devices();
    if needs_space && layout.pages() > largest {
        return Err(CapacityError::LargerThanSpaces { bytes, largest });
    }
    if !needs_space && layout.pages() > host.frames.total() {
        return Err(CapacityError::LargerThanPool);
    }
    Ok(layout)
}

/// Checks that partitions with these names and bytes of memory can run at the same time.
///
/// # Errors
/// The resource that is too small.
pub fn check_together(host: &Host, partitions: &[(&str, u64)]) -> Result<(), CapacityError> {
    let (frames, count) = (host.frames.total(), partitions.len());
    let least = terms::least_pool(count as u32, host.pager.watermarks().high);
    if frames < least {
        return Err(CapacityError::Pool { frames, partitions: count, least });
    }
    if !host.spaces.has_devices() {
        return Ok(());
    }
    // Largest first: if each memory fits the space at the same position of the list, they all fit
    // together.
    let mut wanted = partitions.to_vec();
    wanted.sort_by_key(|&(_, bytes)| Reverse(bytes));
    let mut spaces = host.spaces.sizes();
    spaces.sort_unstable_by_key(|&pages| Reverse(pages));
    if spaces.len() < count {
        return Err(CapacityError::TooFewSpaces { partitions: count, spaces: spaces.len() });
    }
    let fits = |&((_, bytes), pages): &((&str, u64), u32)| bytes <= u64::from(pages) * PAGE_SIZE;
    match wanted.into_iter().zip(spaces).find(|pair| !fits(pair)) {
        Some(((name, bytes), _)) => Err(CapacityError::SpacesTaken { name: name.into(), bytes }),
        None => Ok(()),
    }
}

/// Checks that the second-level tables of all these memories fit what was set apart at the start,
/// and one more of the largest beside them: memory that is being taken apart, or a dump.
///
/// # Errors
/// [`CapacityError::Tables`].
pub fn check_tables(host: &Host, partitions: &[(&str, u64)]) -> Result<(), CapacityError> {
    let of = |&(_, bytes): &(&str, u64)| TableReserve::pages_for(bytes / PAGE_SIZE);
    let pages: Vec<u64> = partitions.iter().map(of).collect();
    let largest = pages.iter().copied().max().unwrap_or(0);
    let needed = pages.into_iter().fold(largest, u64::saturating_add);
    let total = host.tables.total();
    if needed > u64::from(total) {
        return Err(CapacityError::Tables { needed, total });
    }
    Ok(())
}
