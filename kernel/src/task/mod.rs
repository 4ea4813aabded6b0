//! Long work that waits for disks, written as `async` functions: activating a space, draining a
//! dump, releasing it.
//!
//! A task is polled by a CPU that has no other work. Between two `await`s it does a bounded piece
//! of work, and it holds no lock across one. A task checks its condition when it is polled, and
//! CPUs poll after every interrupt. So only a task that could continue at once ([`yield_now`])
//! wakes itself, which keeps its CPU from idling.

pub mod io;
pub mod outcome;

use crate::sync::{RankedLock, rank};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Result of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskTurn {
    /// A task can continue at once, or another CPU was polling: do not idle.
    pub busy: bool,
    /// A task has ended: check for waits on its result.
    pub ended: bool,
}

/// Set by a task that could continue at once.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// The tasks of a node.
pub struct Tasks {
    /// New tasks, in a list of their own so that starting one never waits for a poll.
    inbox: RankedLock<Vec<Task>, { rank::EVENTS }>,
    running: RankedLock<Vec<Task>, { rank::SCHEDULER }>,
    /// Tasks that have started and not ended.
    count: AtomicUsize,
    again: Arc<Again>,
}

impl Tasks {
    /// Makes an empty list.
    pub fn new() -> Self {
        let (inbox, running) = (RankedLock::new(Vec::new()), RankedLock::new(Vec::new()));
        Self { inbox, running, count: AtomicUsize::new(0), again: Arc::default() }
    }

    /// Starts a task.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        // Counted first, before the task can end.
        self.count.fetch_add(1, Ordering::AcqRel);
        self.inbox.lock().push(task);
    }

    /// Returns whether no task is left.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Polls every task once, unless another CPU is doing that. That CPU may already have passed a
    /// task that could now continue, so the result is then busy.
    pub fn poll(&self) -> TaskTurn {
        if self.is_empty() {
            return TaskTurn::default();
        }
        let Some(mut running) = self.running.try_lock() else {
            return TaskTurn { busy: true, ended: false };
        };
        running.append(&mut self.inbox.lock());
        self.again.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.again.clone());
        let mut context = Context::from_waker(&waker);
        let before = running.len();
        running.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        let ended = before - running.len();
        self.count.fetch_sub(ended, Ordering::AcqRel);
        TaskTurn { busy: self.again.0.load(Ordering::Acquire), ended: ended > 0 }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// Yields to all other work, and continues at the next turn.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    core::future::poll_fn(move |context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Continues at the next turn, whenever that is: an awaited event may have happened by then.
pub fn next_turn() -> impl Future<Output = ()> {
    let mut waited = false;
    core::future::poll_fn(move |_| {
        if core::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
}

/// Calls `ready` at every turn until it returns a value.
pub fn until<T>(mut ready: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    core::future::poll_fn(move |_| ready().map_or(Poll::Pending, Poll::Ready))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for _ in 0..10 {
            tasks.poll();
        }
        assert_eq!(turns.load(Ordering::Relaxed), 3);
        assert!(tasks.is_empty());
    }

    #[test]
    fn only_a_task_that_could_go_on_keeps_its_cpu_busy() {
        let tasks = Tasks::new();
        tasks.start(async {
            yield_now().await;
            next_turn().await;
        });
        assert_eq!(tasks.poll(), TaskTurn { busy: true, ended: false });
        assert_eq!(tasks.poll(), TaskTurn { busy: false, ended: false });
        assert_eq!(tasks.poll(), TaskTurn { busy: false, ended: true });
    }

    #[test]
    fn a_turn_that_another_cpu_has_is_asked_for_again() {
        let tasks = Tasks::new();
        tasks.start(core::future::pending());
        let _another = tasks.running.try_lock();
        assert!(tasks.poll().busy && !tasks.is_empty());
    }

    #[test]
    fn a_task_that_starts_another_does_not_wait_for_itself() {
        let tasks: &'static Tasks = Box::leak(Box::new(Tasks::new()));
        let done = Arc::new(AtomicBool::new(false));
        let flag = done.clone();
        tasks.start(async move { tasks.start(async move { flag.store(true, Ordering::Relaxed) }) });
        for _ in 0..2 {
            tasks.poll();
        }
        assert!(done.load(Ordering::Relaxed) && tasks.is_empty());
    }
}
