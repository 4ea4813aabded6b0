//! The hypervisor's own heap: configuration, names, tasks, tables of partitions. Never guest
//! memory.
//!
//! Its use does not grow with the pool, with a partition's memory or with the contents of a disk.
//! Allocations that are larger than a page or two, or that come and go while partitions run, use
//! [`zeroed`]. It fails with an error if the heap is short, and leaves the last [`RESERVE`] bytes
//! alone. So small allocations that cannot fail (a task, an event's text) still succeed then.
//!
//! The heap's size follows the machine's ([`bytes_for`]).
// UNSAFETY: is the global allocator, and takes over the memory that becomes the heap.
#![cfg_attr(target_os = "none", expect(unsafe_code))]

use alloc::vec::Vec;

/// Bytes that [`zeroed`] leaves for allocations that cannot fail.
pub const RESERVE: usize = 512 << 10;
/// Least size: 4 MiB that a node with the most partitions, spaces and disks uses at its start, and
/// the buffers of a dump in each space.
const LEAST_BYTES: u64 = 16 << 20;
/// Largest size: no configuration needs more.
const MOST_BYTES: u64 = 64 << 20;
/// Divisor of the machine's memory that gives the heap's size.
const SHARE: u64 = 32;

/// The heap is too full. The cause lies outside the hypervisor: the machine has too little memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapError;

/// Use of the heap, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeapUse {
    /// Size of the heap.
    pub size: u64,
    /// In use now.
    pub used: u64,
    /// Most bytes in use at one time since the start.
    pub peak: u64,
}

/// Returns the heap's size for a machine of `usable` bytes.
pub const fn bytes_for(usable: u64) -> u64 {
    let share = usable / SHARE / crate::addr::PAGE_SIZE * crate::addr::PAGE_SIZE;
    if share < LEAST_BYTES {
        LEAST_BYTES
    } else if share > MOST_BYTES {
        MOST_BYTES
    } else {
        share
    }
}

/// Returns `len` zero bytes.
///
/// # Errors
/// [`HeapError`] if the heap would have fewer than [`RESERVE`] bytes left, or has no piece that
/// large.
pub fn zeroed(len: usize) -> Result<Vec<u8>, HeapError> {
    if !leaves_reserve(usage(), len) {
        return Err(HeapError);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| HeapError)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Returns `count` zero values for an optional purpose; `None` if the heap would be more than three
/// eighths full.
pub fn spare<T: Copy + Default>(count: usize) -> Option<Vec<T>> {
    if !leaves_most(usage(), count.saturating_mul(size_of::<T>())) {
        return None;
    }
    let mut values = Vec::new();
    values.try_reserve_exact(count).ok()?;
    values.resize(count, T::default());
    Some(values)
}

const fn leaves_most(heap: HeapUse, len: usize) -> bool {
    heap.size == 0 || heap.used.saturating_add(len as u64) <= heap.size / 8 * 3
}

/// Returns whether [`zeroed`] has room for `len` bytes in total, in any number of pieces.
pub fn has_room(len: usize) -> bool {
    leaves_reserve(usage(), len)
}

/// Returns whether the heap has a piece of `len` bytes, and [`RESERVE`] bytes beside it.
pub fn has_piece(len: usize) -> bool {
    zeroed(len).is_ok()
}

const fn leaves_reserve(heap: HeapUse, len: usize) -> bool {
    // On the host the heap is not ours, and has size 0 here.
    heap.size == 0
        || heap.used.saturating_add(len as u64).saturating_add(RESERVE as u64) <= heap.size
}

/// Returns the use of the heap.
pub fn usage() -> HeapUse {
    #[cfg(target_os = "none")]
    return global::HEAP.usage();
    #[cfg(not(target_os = "none"))]
    HeapUse { size: 0, used: 0, peak: 0 }
}

#[cfg(target_os = "none")]
pub use global::init;

#[cfg(target_os = "none")]
mod global {
    use super::HeapUse;
    use core::alloc::{GlobalAlloc, Layout};
    use core::ptr::{self, NonNull};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use linked_list_allocator::LockedHeap;

    #[global_allocator]
    pub(super) static HEAP: CountedHeap =
        CountedHeap { heap: LockedHeap::empty(), peak: AtomicUsize::new(0) };

    /// The allocator, with the peak of its use.
    pub(super) struct CountedHeap {
        heap: LockedHeap,
        peak: AtomicUsize,
    }

    impl CountedHeap {
        pub(super) fn usage(&self) -> HeapUse {
            let heap = self.heap.lock();
            let peak = self.peak.load(Ordering::Relaxed);
            HeapUse { size: heap.size() as u64, used: heap.used() as u64, peak: peak as u64 }
        }
    }

    // SAFETY: every call goes to an allocator that upholds the contract of the trait.
    unsafe impl GlobalAlloc for CountedHeap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let mut heap = self.heap.lock();
            let Ok(bytes) = heap.allocate_first_fit(layout) else { return ptr::null_mut() };
            self.peak.fetch_max(heap.used(), Ordering::Relaxed);
            bytes.as_ptr()
        }

        unsafe fn dealloc(&self, bytes: *mut u8, layout: Layout) {
            let Some(bytes) = NonNull::new(bytes) else { return };
            // SAFETY: the caller returns memory from `alloc` with the same layout.
            unsafe { self.heap.lock().deallocate(bytes, layout) };
        }
    }

    /// Makes `len` bytes at `start` the heap; once.
    ///
    /// # Safety
    /// The bytes are mapped, and nothing else uses them from now on.
    pub unsafe fn init(start: *mut u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { HEAP.heap.lock().init(start, len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_grows_with_the_machine_within_bounds() {
        let mib = |usable: u64| bytes_for(usable << 20) >> 20;
        assert_eq!([mib(64), mib(256), mib(512), mib(1024), mib(17 << 10)], [16, 16, 16, 32, 64]);
        assert!(bytes_for((512 << 20) + 123_456).is_multiple_of(4096));
    }

    #[test]
    fn what_can_fail_leaves_room_for_what_cannot() {
        let heap = |used: usize| HeapUse { size: 8 << 20, used: used as u64, peak: 0 };
        let most = (8 << 20) - RESERVE;
        assert!(leaves_reserve(heap(0), most) && !leaves_reserve(heap(0), most + 1));
        assert!(leaves_reserve(heap(most - 10), 10) && !leaves_reserve(heap(most - 10), 11));
        assert!(!leaves_reserve(heap(8 << 20), usize::MAX));
    }

    #[test]
    fn what_can_be_done_without_leaves_most() {
        let heap = |used: u64| HeapUse { size: 16 << 20, used, peak: 0 };
        assert!(leaves_most(heap(0), 6 << 20) && !leaves_most(heap(0), (6 << 20) + 1));
        assert!(!leaves_most(heap(6 << 20), 1) && !leaves_most(heap(0), usize::MAX));
        assert_eq!((spare::<u64>(2), spare::<u64>(usize::MAX)), (Some(alloc::vec![0, 0]), None));
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(zeroed(usize::MAX), Err(HeapError));
        assert_eq!(zeroed(3), Ok(alloc::vec![0, 0, 0]));
    }
}
