//! What a Debian runs before it becomes a base, and then in each of its children (`worker child`).
//! It fills memory with [`worker::WorkerPage`]s of the base, and waits for a line:
//!
//! ```text
//! child: filled pages 47104 key 0x5eed
//! > check            checks all pages
//! child: all pages 47104 wrong 0 foreign 0
//! > key=0x101        overwrites some with this key, and checks all
//! child: own pages 21846 key 0x101
//! child: all pages 47104 wrong 0 foreign 0
//! > bait             checks pages that nothing has looked at since they were filled
//! child: bait pages 1024 wrong 0
//! ```
//!
//! `foreign` counts the wrong pages that carry another child's key. `/proc/cmdline` sets
//! `child.mib=`, `child.own_mib=` and `child.bait_mib=`.

use crate::array::{PageArray, available_mib, number};
use worker::{PageError, PageIdentity};

const BASE_KEY: u64 = 0x5eed;
const BAIT_KEY: u64 = 0xba17;
/// Their first index, by which readers of dumps know them.
const BAIT_INDEX: u64 = 1 << 32;
/// MiB left to the rest of the system where no size is given.
const RESERVE_MIB: u64 = 32;
/// Wrong pages that are named.
const NAMED: usize = 3;

struct ChildPages {
    pages: PageArray,
    bait: PageArray,
    /// Key and number of the pages that are this child's own.
    own: (u64, usize),
}

/// The result of a check.
#[derive(Default)]
struct WrongPages {
    wrong: usize,
    foreign: usize,
}

/// Fills the memory and obeys lines until there are no more.
pub(crate) fn run(cmdline: &str) {
    let option = |name| number(cmdline, name);
    let bait_mib = option("child.bait_mib=").unwrap_or(4);
    let spare = RESERVE_MIB + bait_mib;
    let mib = option("child.mib=").unwrap_or_else(|| available_mib().saturating_sub(spare));
    let own = usize::try_from(option("child.own_mib=").unwrap_or(mib / 3) * 256).unwrap_or(0);

    let mut child = ChildPages::new(mib, bait_mib);
    println!("child: filled pages {} key {BASE_KEY:#x}", child.pages.count());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.trim() {
            "check" => child.check_all(),
            "bait" => child.check_bait(),
            line => match number(line, "key=") {
                Some(key) => child.go(key, own),
                None => println!("child: no command: {line}"),
            },
        }
    }
}

impl ChildPages {
    fn new(mib: u64, bait_mib: u64) -> Self {
        let (pages, bait) = (PageArray::new(mib), PageArray::new(bait_mib));
        let mut child = Self { pages, bait, own: (0, 0) };
        for index in 0..child.pages.count() {
            child.identity(index).fill(child.pages.page(index));
        }
        for index in 0..child.bait.count() {
            identity_of_bait(index).fill(child.bait.page(index));
        }
        child
    }

    /// Every third page is the child's own, from the first on, then those behind, until there are
    /// enough: so they lie between pages of the base.
    fn is_own(&self, index: usize) -> bool {
        let (third, count) = (self.pages.count().div_ceil(3), self.own.1);
        let rank = index % 3 * third + index / 3;
        rank < count
    }

    fn identity(&self, index: usize) -> PageIdentity {
        let key = if self.is_own(index) { self.own.0 } else { BASE_KEY };
        PageIdentity { key, index: index as u64, generation: 0 }
    }

    fn go(&mut self, key: u64, own: usize) {
        self.own = (key, own);
        let mut written = 0;
        for index in 0..self.pages.count() {
            if self.is_own(index) {
                self.identity(index).fill(self.pages.page(index));
                written += 1;
            }
        }
        println!("child: own pages {written} key {key:#x}");
        self.check_all();
    }

    fn check_all(&mut self) {
        let WrongPages { wrong, foreign } = self.check();
        println!("child: all pages {} wrong {wrong} foreign {foreign}", self.pages.count());
    }

    fn check(&mut self) -> WrongPages {
        let mut found = WrongPages::default();
        for index in 0..self.pages.count() {
            let identity = self.identity(index);
            found.note(index, &identity, identity.check(self.pages.page(index)));
        }
        found
    }

    fn check_bait(&mut self) {
        let mut found = WrongPages::default();
        for index in 0..self.bait.count() {
            let wanted = identity_of_bait(index);
            found.note(index, &wanted, wanted.check(self.bait.page(index)));
        }
        println!("child: bait pages {} wrong {}", self.bait.count(), found.wrong);
    }
}

impl WrongPages {
    fn note(&mut self, index: usize, wanted: &PageIdentity, checked: Result<(), PageError>) {
        let Err(error) = checked else { return };
        if self.wrong < NAMED {
            println!("child: wrong page {index} of key {:#x}: {error:?}", wanted.key);
        }
        self.wrong += 1;
        let is_foreign = matches!(&error, PageError::Identity(found)
            if found.key != wanted.key && found.key != BASE_KEY);
        self.foreign += usize::from(is_foreign);
    }
}

fn identity_of_bait(index: usize) -> PageIdentity {
    PageIdentity { key: BAIT_KEY, index: BAIT_INDEX + index as u64, generation: 0 }
}
