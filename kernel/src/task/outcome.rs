//! Tasks with a result, for a caller that does not await it but looks for it from time to time.

use super::Tasks;
use crate::sync::{RankedLock, rank};
use alloc::sync::Arc;

/// The result of a task, once it is there. A caller that is not interested any more drops it; the
/// task ends all the same.
pub struct TaskOutcome<T>(RankedLock<Option<T>, { rank::EVENTS }>);

impl<T> TaskOutcome<T> {
    /// Takes the result; `None` if it is not there yet.
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl Tasks {
    /// Starts a task with a result.
    pub fn order<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Arc<TaskOutcome<T>> {
        let outcome = Arc::new(TaskOutcome(RankedLock::new(None)));
        let place = outcome.clone();
        self.start(async move {
            let result = task.await;
            *place.0.lock() = Some(result);
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::yield_now;

    #[test]
    fn a_result_is_taken_once_and_a_task_ends_without_its_caller() {
        let tasks = Tasks::new();
        let number = |n: u32| async move {
            yield_now().await;
            n
        };
        let (kept, dropped) = (tasks.order(number(7)), Arc::downgrade(&tasks.order(number(8))));
        assert_eq!(kept.take(), None);
        while !tasks.is_empty() {
            tasks.poll();
        }
        assert_eq!((kept.take(), kept.take()), (Some(7), None));
        assert!(dropped.upgrade().is_none());
    }
}
