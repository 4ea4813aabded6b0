//! Writes and checks pages in turn without leaving guest mode by itself, so that it writes through
//! a stale translation if a TLB flush is missing: `turns=`, `hot=` pages in each turn, `cold=`
//! further pages of which one takes its turn after every `stride=` turns, `report=` turns between
//! two lines of the log, `key=`.
//!
//! ```text
//!  a page is a ring of 512 words; turn t checks those of t - 1 and t - 512, then writes that of t
//!
//!  63 ........ 48  47 ....... 24  23 ........ 0
//!    page            turn           hash of both and the key
//! ```
//!
//! A lost write leaves a word that is 512 turns old in place of the last turn's. A frame with two
//! owners has another page's words.
#![cfg_attr(target_os = "none", no_std, no_main)]

guests::kernel!(run);

#[cfg(target_os = "none")]
use guests::{Machine, TestVerdict, pages::FreePages};

#[cfg(target_os = "none")]
const RING: u64 = 512;

/// A word with its expected value.
#[cfg(target_os = "none")]
struct WrongWordError {
    position: u64,
    expected: u64,
    found: u64,
}

#[cfg(target_os = "none")]
struct Ring<'p> {
    words: &'p mut guests::worker::WorkerPage,
    page: u64,
    key: u64,
}

#[cfg(target_os = "none")]
impl Ring<'_> {
    fn word(&self, turn: u64) -> u64 {
        let place = self.page << 48 | (turn & 0xff_ffff) << 24;
        place | (place ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
    }

    /// Checks one position after `turns` turns: it holds the word of the last turn at this
    /// position, or is still zero.
    #[inline]
    fn check(&self, position: u64, turns: u64) -> Result<(), WrongWordError> {
        let expected = match turns.checked_sub(position + 1) {
            Some(since) => self.word(position + since / RING * RING),
            None => 0,
        };
        let found = self.words[position as usize];
        if found == expected { Ok(()) } else { Err(WrongWordError { position, expected, found }) }
    }

    /// Checks the word of the last turn and the word that this turn overwrites, then writes.
    #[inline]
    fn turn(&mut self, turn: u64) -> Result<(), WrongWordError> {
        self.check((turn + RING - 1) % RING, turn)?;
        self.check(turn % RING, turn)?;
        self.words[(turn % RING) as usize] = self.word(turn);
        Ok(())
    }

    fn check_all(&self, turns: u64) -> Result<(), WrongWordError> {
        (0..RING).try_for_each(|position| self.check(position, turns))
    }
}

/// The pages and the schedule of their turns.
#[cfg(target_os = "none")]
struct Work {
    pages: FreePages,
    key: u64,
    hot: u64,
    cold: u64,
    stride: u64,
}

#[cfg(target_os = "none")]
impl Work {
    fn ring(&mut self, page: u64) -> Ring<'_> {
        Ring { words: self.pages.page(page), page, key: self.key }
    }

    /// Returns the cold page that is due in `turn`, and the number of that page's own turn.
    fn cold_turn(&self, turn: u64) -> Option<(u64, u64)> {
        let visit = turn / self.stride;
        (self.cold > 0 && turn.is_multiple_of(self.stride))
            .then(|| (self.hot + visit % self.cold, visit / self.cold))
    }

    fn turn(&mut self, turn: u64) -> Result<(), (u64, WrongWordError)> {
        for page in 0..self.hot {
            self.ring(page).turn(turn).map_err(|wrong| (page, wrong))?;
        }
        match self.cold_turn(turn) {
            Some((page, visit)) => self.ring(page).turn(visit).map_err(|wrong| (page, wrong)),
            None => Ok(()),
        }
    }

    fn check_all(&mut self, turns: u64) -> Result<(), (u64, WrongWordError)> {
        let visits = turns.div_ceil(self.stride);
        for page in 0..self.hot + self.cold {
            let own = match page.checked_sub(self.hot) {
                None => turns,
                Some(cold) => visits.saturating_sub(cold).div_ceil(self.cold),
            };
            self.ring(page).check_all(own).map_err(|wrong| (page, wrong))?;
        }
        Ok(())
    }
}

#[cfg(target_os = "none")]
fn run(machine: &Machine) -> TestVerdict {
    let option = |name, default| machine.option(name).unwrap_or(default);
    let (turns, report) = (option("turns", 10_000), option("report", 1000));
    let (hot, cold, stride) = (option("hot", 64), option("cold", 0), option("stride", 64));
    let pages = FreePages::take(machine, hot + cold);
    guests::check!(pages.count() == hot + cold, "only {} pages", pages.count());
    let mut work = Work { pages, key: option("key", 0x5eed), hot, cold, stride };

    for turn in 0..turns {
        if let Err(wrong) = work.turn(turn) {
            return tell(turn, wrong);
        }
        if (turn + 1).is_multiple_of(report) {
            guests::log!("turn {} pages {} wrong 0", turn + 1, hot + cold);
        }
    }
    match work.check_all(turns) {
        Ok(()) => guests::pass(),
        Err(wrong) => tell(turns, wrong),
    }
}

#[cfg(target_os = "none")]
fn tell(
    turn: u64,
    (page, WrongWordError { position, expected, found }): (u64, WrongWordError),
) -> TestVerdict {
    guests::log!(
        "wrong page {page} in turn {turn}: word {position} is {found:#018x}, should be \
         {expected:#018x}"
    );
    guests::fail("a page is wrong")
}
