//! A spin lock with a rank.

use super::rank::{self, held};
use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A spin lock of rank `RANK` (see [`rank`]).
#[derive(Default)]
pub struct RankedLock<T, const RANK: u8> {
    lock: SpinMutex<T>,
}

impl<T, const RANK: u8> RankedLock<T, RANK> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        const { assert!((RANK as usize) < rank::COUNT, "a rank of `sync::rank`") };
        Self { lock: SpinMutex::new(value) }
    }

    /// Takes the lock, waiting for it if necessary.
    ///
    /// # Panics
    /// In debug builds if this CPU holds a lock of the same or a higher rank (our bug: it could
    /// deadlock).
    pub fn lock(&self) -> RankedGuard<'_, T, RANK> {
        held::check(RANK);
        RankedGuard::new(self.lock.try_lock().unwrap_or_else(|| self.wait()))
    }

    /// Waits for a lock that another CPU holds. A function of its own, so that a profile separates
    /// waiting from work.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> SpinMutexGuard<'_, T> {
        self.lock.lock()
    }

    /// Takes the lock if it is free. Any rank is allowed, because a CPU that does not wait cannot
    /// deadlock.
    pub fn try_lock(&self) -> Option<RankedGuard<'_, T, RANK>> {
        self.lock.try_lock().map(RankedGuard::new)
    }

    /// Returns the value without locking: `&mut self` proves that no other reference exists.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }
}

/// The locked value; releases the lock when dropped.
pub struct RankedGuard<'a, T, const RANK: u8> {
    guard: SpinMutexGuard<'a, T>,
}

impl<'a, T, const RANK: u8> RankedGuard<'a, T, RANK> {
    fn new(guard: SpinMutexGuard<'a, T>) -> Self {
        held::note(RANK);
        Self { guard }
    }
}

impl<T, const RANK: u8> Drop for RankedGuard<'_, T, RANK> {
    fn drop(&mut self) {
        held::forget(RANK);
    }
}

impl<T, const RANK: u8> Deref for RankedGuard<'_, T, RANK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T, const RANK: u8> DerefMut for RankedGuard<'_, T, RANK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_ranks_are_taken_and_given_back() {
        let (object, frames) =
            (RankedLock::<_, { rank::OBJECT }>::new(1), RankedLock::<_, { rank::FRAMES }>::new(2));
        for _ in 0..2 {
            let (first, mut second) = (object.lock(), frames.lock());
            *second += *first;
        }
        assert_eq!(*frames.lock(), 4);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "ascending rank: 7 after 9")]
    fn a_lower_rank_after_a_higher_one_is_our_bug() {
        let (object, frames) = (
            RankedLock::<_, { rank::OBJECT }>::new(()),
            RankedLock::<_, { rank::FRAMES }>::new(()),
        );
        let _held = frames.lock();
        let _ = object.lock();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "ascending rank")]
    fn a_rank_forgets_nothing_while_one_of_two_locks_is_held() {
        let (a, b) =
            (RankedLock::<_, { rank::DISK }>::new(()), RankedLock::<_, { rank::DISK }>::new(()));
        let _held = a.lock();
        drop(b.try_lock());
        let _ = b.lock();
    }

    #[test]
    fn a_lock_that_is_held_is_not_taken_twice() {
        let lock = RankedLock::<_, { rank::DISK }>::new(());
        let held = lock.try_lock();
        assert!(held.is_some() && lock.try_lock().is_none());
    }
}
