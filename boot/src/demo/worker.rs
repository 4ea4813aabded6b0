//! The output of a partition's worker, and its pace.

/// The progress of one partition's worker, over all its incarnations.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WorkerProgress {
    /// The current incarnation.
    pub incarnation: u64,
    /// Passes that this incarnation has completed.
    pub passes: u64,
    /// Pages of a pass.
    pub pages: u64,
    /// Pages of a pass of the first incarnation, whose memory is in the dump.
    pub first_pages: u64,
    /// Pages verified, all passes together.
    pub verified: u64,
    /// Pages found wrong.
    pub wrong: u64,
    /// Progress reports: time in seconds, and the pages verified since the start.
    marks: Vec<(f64, u64)>,
}

impl WorkerProgress {
    /// Notes that an incarnation has started.
    pub fn begin(&mut self, incarnation: u64) {
        (self.incarnation, self.passes) = (incarnation, 0);
        self.marks.clear();
    }

    /// Takes the text behind `worker: `; returns whether to show it to people.
    pub fn said(&mut self, at: f64, text: &str) -> bool {
        let words: Vec<_> = text.split(' ').collect();
        match words.as_slice() {
            ["at", seen] => {
                self.marks.extend(seen.parse().ok().map(|seen| (at, seen)));
                false
            }
            ["pass", pass, "pages", pages, "wrong", wrong] => {
                let number = |word: &str| word.parse().unwrap_or(0);
                (self.passes, self.pages) = (number(pass), number(pages));
                if self.incarnation <= 1 {
                    self.first_pages = self.pages;
                }
                self.verified += self.pages;
                self.wrong += number(wrong);
                true
            }
            _ => true,
        }
    }

    /// Returns the pages verified a second between two moments; `None` where too few reports lie
    /// between them.
    pub fn pace(&self, from: f64, to: f64) -> Option<f64> {
        let within: Vec<_> = self.marks.iter().filter(|(at, _)| (from..=to).contains(at)).collect();
        let (first, last) = (within.first()?, within.last()?);
        (last.0 > first.0).then(|| (last.1.saturating_sub(first.1)) as f64 / (last.0 - first.0))
    }

    /// Returns the longest time without a report between two moments.
    pub fn longest_pause(&self, from: f64, to: f64) -> f64 {
        let times = self.marks.iter().map(|mark| mark.0).filter(|at| (from..=to).contains(at));
        let (last, longest) =
            times.fold((from, 0.0), |(before, longest), at| (at, f64::max(longest, at - before)));
        f64::max(longest, to - last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_count_for_the_incarnation_that_made_them() {
        let mut worker = WorkerProgress::default();
        worker.begin(1);
        assert!(
            worker.said(1.0, "pass 1 pages 100 wrong 0")
                && worker.said(2.0, "pass 2 pages 100 wrong 3")
        );
        worker.begin(2);
        worker.said(3.0, "pass 1 pages 90 wrong 0");
        assert_eq!(
            (worker.passes, worker.first_pages, worker.verified, worker.wrong),
            (1, 100, 290, 3)
        );
    }

    #[test]
    fn the_pace_is_that_of_the_time_asked_for() {
        let mut worker = WorkerProgress::default();
        for (at, seen) in [(0.0, 0), (1.0, 1000), (2.0, 2000), (3.0, 2100), (4.0, 2200)] {
            assert!(!worker.said(at, &format!("at {seen}")));
        }
        assert_eq!(
            (worker.pace(0.0, 2.0), worker.pace(2.0, 4.0), worker.pace(4.5, 5.0)),
            (Some(1000.0), Some(100.0), None)
        );
        assert_eq!(worker.longest_pause(0.5, 7.0), 3.0);
    }
}
