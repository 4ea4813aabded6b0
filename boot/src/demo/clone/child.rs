//! What a child's console has said.

/// What Linux says where its host is busy, or its memory paged out, for as long as a timer counts:
/// no clock has jumped then, and nothing is wrong. A clocksource that is found wrong, a lockup or a
/// stall have other words. The thread that hears of the new generation ID is a real-time task, and
/// its code is on the base's disk.
const SLOWNESS: [&str; 3] = [
    "hrtimer: interrupt took",
    "sched: RT throttling activated",
    "clocksource: Long readout interval, skipping watchdog check",
];

/// One check of all pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageCheck {
    /// Pages checked.
    pub pages: u64,
    /// Pages with another content than they should have.
    pub wrong: u64,
    /// Those among them with the key of another child.
    pub foreign: u64,
}

/// What a child has said in its present incarnation, and over all of them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChildProgress {
    /// The present incarnation.
    pub incarnation: u64,
    /// Time of the first clone in nanoseconds.
    pub clone_ns: Option<u64>,
    /// Checks of the present incarnation.
    pub checks: Vec<PageCheck>,
    /// Pages that it has overwritten with its key, in the present incarnation.
    pub own: Option<u64>,
    /// Seconds of the host at its last check.
    pub checked_at: f64,
    /// The first wrong page of all incarnations, in the program's words.
    pub first_wrong: Option<String>,
    /// Wrong pages in the last check of pages that nothing had looked at.
    pub bait: Option<u64>,
    /// Lines of the kernel's log since the base was marked, without those of [`SLOWNESS`].
    pub log: Vec<String>,
    /// Lines that say only that the machine is slow.
    pub slow: usize,
    /// Ends of the log that it has shown.
    pub logs: usize,
    /// Lines of the command's output.
    pub said: Vec<String>,
    /// Commands that have ended with status 0.
    pub commands: usize,
}

impl ChildProgress {
    /// Notes that an incarnation has begun.
    pub fn begin(&mut self, incarnation: u64, clone_ns: u64) {
        self.incarnation = incarnation;
        self.clone_ns.get_or_insert(clone_ns);
        (self.checks, self.own) = (Vec::new(), None);
    }

    /// Takes a line; returns it if it is worth showing.
    pub fn line<'a>(&mut self, at: f64, line: &'a str) -> Option<&'a str> {
        if let Some(text) = behind(line, "child: ") {
            return self.program(at, text);
        }
        let text = behind(line, "init: ")?;
        if let Some(new) = text.strip_prefix("new in the log: ") {
            if SLOWNESS.iter().any(|words| new.contains(words)) {
                self.slow += 1;
            } else {
                self.log.push(new.to_owned());
            }
            return Some(text);
        }
        if text.starts_with("end of the log") {
            self.logs += 1;
        } else if text.starts_with("status 0 of") {
            self.commands += 1;
        } else if let Some(said) = text.strip_prefix("says ") {
            self.said.push(said.to_owned());
        } else {
            return Some(text);
        }
        None
    }

    fn program<'a>(&mut self, at: f64, text: &'a str) -> Option<&'a str> {
        let words: Vec<_> = text.split(' ').collect();
        let number = |word: &str| word.parse().unwrap_or(u64::MAX);
        match words.as_slice() {
            ["all", "pages", pages, "wrong", wrong, "foreign", foreign] => {
                let check = PageCheck {
                    pages: number(pages),
                    wrong: number(wrong),
                    foreign: number(foreign),
                };
                self.checks.push(check);
                self.checked_at = at;
                (check.wrong > 0).then_some(text)
            }
            ["own", "pages", pages, ..] => {
                self.own = Some(number(pages));
                None
            }
            ["bait", "pages", _, "wrong", wrong] => {
                self.bait = Some(number(wrong));
                Some(text)
            }
            ["wrong", "page", ..] => {
                self.first_wrong.get_or_insert_with(|| text.to_owned());
                Some(text)
            }
            _ => Some(text),
        }
    }

    /// Returns whether `checks` checks of the present incarnation have ended.
    pub fn has_checked(&self, checks: usize) -> bool {
        self.checks.len() >= checks
    }

    /// Returns the number of wrong pages in all checks of the present incarnation.
    pub fn wrong(&self) -> u64 {
        self.checks.iter().map(|check| check.wrong).sum()
    }

    /// Returns the number of pages with another child's key, likewise.
    pub fn foreign(&self) -> u64 {
        self.checks.iter().map(|check| check.foreign).sum()
    }
}

/// Returns the text behind `what`, without the line's end.
pub(super) fn behind<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.find(what).map(|at| line[at + what.len()..].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_for_the_incarnation_that_said_them() {
        let mut child = ChildProgress::default();
        child.begin(1, 7);
        assert_eq!(child.line(1.0, "child: all pages 90 wrong 0 foreign 0\r"), None);
        assert_eq!(child.line(2.0, "child: own pages 30 key 0x10101"), None);
        let wrong = "wrong page 3 of key 0x5eed: Magic";
        assert_eq!(child.line(3.0, &format!("child: {wrong}")), Some(wrong));
        assert!(child.line(3.0, "child: all pages 90 wrong 2 foreign 1").is_some());
        assert!(child.has_checked(2) && !child.has_checked(3));
        assert_eq!((child.own, child.wrong(), child.foreign()), (Some(30), 2, 1));
        child.begin(2, 9);
        assert_eq!((child.clone_ns, child.own, child.checks.len()), (Some(7), None, 0));
        assert_eq!(child.first_wrong.as_deref(), Some(wrong));
    }

    #[test]
    fn the_kernels_log_and_commands_are_told_apart() {
        let mut child = ChildProgress::default();
        for line in [
            "init: new in the log: [ 1.0] watchdog: BUG: soft lockup",
            "init: new in the log: [ 2.0] hrtimer: interrupt took 64622997 ns",
            "init: end of the log",
            "init: says I am child-1",
            "init: status 0 of uname",
            "init: status 1 of false",
        ] {
            child.line(0.0, line);
        }
        assert_eq!((child.log.len(), child.slow, child.logs, child.commands), (1, 1, 1, 1));
        assert_eq!(child.said, ["I am child-1"]);
    }
}
