//! Work that takes long and waits for disks, written as `async` functions: activating a space, draining a dump, releasing it.
//!
//! A task is polled by whichever CPU has nothing better to do; between two `await`s it does a bounded piece of work, and it holds
//! no lock across one. There is nothing to wake: what a task waits for is looked at when it is polled, and CPUs come by
//! after every interrupt.

use crate::sync::{Ranked, rank};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of a node.
pub struct Tasks {
    /// New ones, so that starting one never waits for a poll.
    inbox: Ranked<Vec<Task>, { rank::EVENTS }>,
    running: Ranked<Vec<Task>, { rank::SCHEDULER }>,
    any: AtomicBool,
}

impl Tasks {
    /// No tasks.
    pub const fn new() -> Self {
        Self { inbox: Ranked::new(Vec::new()), running: Ranked::new(Vec::new()), any: AtomicBool::new(false) }
    }

    /// Starts a task.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inbox.lock().push(Box::pin(task));
        self.any.store(true, Ordering::Release);
    }

    /// Returns whether no task is left.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Gives every task a turn, unless another CPU is just doing that.
    pub fn poll(&self) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let Some(mut running) = self.running.try_lock() else { return };
        running.append(&mut self.inbox.lock());
        let mut context = Context::from_waker(Waker::noop());
        running.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        self.any.store(!running.is_empty() || !self.inbox.lock().is_empty(), Ordering::Release);
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets everybody else have a turn.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    core::future::poll_fn(move |_| if core::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending })
}

/// Looks again at every turn until `ready` answers.
pub fn until<T>(mut ready: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    core::future::poll_fn(move |_| ready().map_or(Poll::Pending, Poll::Ready))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use core::sync::atomic::AtomicU32;

    #[test]
    fn a_task_goes_on_at_every_turn_until_it_ends() {
        let tasks = Tasks::new();
        let turns = Arc::new(AtomicU32::new(0));
        let counter = turns.clone();
        tasks.start(async move {
            for _ in 0..3 {
                counter.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        (0..10).for_each(|_| tasks.poll());
        assert_eq!(turns.load(Ordering::Relaxed), 3);
        assert!(!tasks.any.load(Ordering::Relaxed));
    }

    #[test]
    fn a_task_that_starts_another_does_not_wait_for_itself() {
        let tasks: &'static Tasks = Box::leak(Box::new(Tasks::new()));
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        tasks.start(async move { tasks.start(async move { flag.store(true, Ordering::Relaxed) }) });
        (0..2).for_each(|_| tasks.poll());
        assert!(done.load(Ordering::Relaxed));
    }
}
