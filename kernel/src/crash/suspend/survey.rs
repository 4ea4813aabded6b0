//! Looks at the memory of a partition whose vCPU has just stopped: which pages are left to write,
//! and which ones it has used last.

use super::SuspensionJob;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::dump::hot_list::HotList;
use crate::paging::{HOT_WINDOW, WindowUse};
use crate::task;
use core::ops::Range;

/// Windows that are looked at in one turn: 4096 pages.
const STEP: u32 = 4096 / HOT_WINDOW;

/// What was found.
#[derive(Debug, Default)]
struct SurveyResult {
    dirty: u64,
    used: HotList,
    idle: HotList,
}

impl SurveyResult {
    fn note(&mut self, window: u32, found: WindowUse) {
        self.dirty += u64::from(found.dirty.count_ones());
        self.used.push(window, found.used);
        self.idle.push(window, found.idle);
    }
}

impl SuspensionJob {
    /// Tells how many pages are left to write, and how long that will probably take; returns the
    /// list of the last used pages.
    pub(super) async fn survey(&self) -> HotList {
        let (pager, image) = (&self.host.pager, self.drain.image());
        let windows = image.layout().pages().div_ceil(HOT_WINDOW);
        let hand = pager.hand_window(image).min(windows);
        let mut result = SurveyResult::default();
        // The hand goes upwards, so it has visited the window before it last.
        for range in backwards(0..hand).chain(backwards(hand..windows)) {
            for window in range.rev() {
                pager.survey(image, window..window + 1, |window, found| result.note(window, found));
            }
            task::yield_now().await;
        }
        let counts = image.counts();
        report(&ConsoleEvent::Suspending {
            partition: &self.order.name,
            incarnation: self.order.incarnation,
            remaining: u64::from(counts.resident + counts.going_out + counts.coming_in),
            dirty: Some(result.dirty),
            expected_pause_ns: self
                .order
                .precopied
                .as_ref()
                .and_then(|precopied| precopied.expected_ns(result.dirty)),
        });
        let SurveyResult { used: mut hot, idle, .. } = result;
        hot.append(&idle);
        hot
    }
}

/// Splits a range into steps, the last one first.
fn backwards(range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let Range { start, end } = range;
    (start..end).step_by(STEP as usize).map(move |first| first..end.min(first + STEP)).rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_a_range_from_its_end() {
        let steps: Vec<_> = backwards(3..3 + 2 * STEP + 5).collect();
        let (second, third) = (3 + STEP, 3 + 2 * STEP);
        assert_eq!(steps, [third..third + 5, second..third, 3..second]);
        assert_eq!(backwards(4..4).count(), 0);
    }

    #[test]
    fn used_pages_stand_before_the_others() {
        let mut result = SurveyResult::default();
        result.note(9, WindowUse { used: 1, idle: 6, dirty: 5 });
        result.note(4, WindowUse { used: 2, idle: 0, dirty: 0 });
        result.used.append(&result.idle);
        assert_eq!(result.used.windows().collect::<Vec<_>>(), [(9, 1), (4, 2), (9, 6)]);
        assert_eq!(result.dirty, 2);
    }
}
