//! Several programs on one store. Their operations are mixed at random, and each may stand still
//! for a second and a half between any two of them. What a program was told stays true.

use super::*;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;

/// A random number generator (xorshift), so that a seed gives one run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}

struct Shared {
    bytes: Vec<u8>,
    now_ns: u64,
}

/// One program's view of the disk.
struct View {
    shared: Rc<RefCell<Shared>>,
}

/// Waits for its turn, at least until a time.
struct Turn<'v> {
    view: &'v View,
    until_ns: u64,
    is_polled: bool,
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let was = core::mem::replace(&mut self.is_polled, true);
        let is_due = self.view.shared.borrow().now_ns >= self.until_ns;
        if was && is_due { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl View {
    fn turn(&self, until_ns: u64) -> Turn<'_> {
        Turn { view: self, until_ns, is_polled: false }
    }
}

impl StoreRead for View {
    type Error = core::convert::Infallible;

    fn blocks(&self) -> u64 {
        BLOCKS
    }

    async fn read(&mut self, first: u64, into: &mut [u8]) -> Result<(), Self::Error> {
        self.turn(0).await;
        into.copy_from_slice(&self.shared.borrow().bytes[first as usize * 4096..][..into.len()]);
        Ok(())
    }

    async fn pause(&mut self, ns: u64) {
        let until_ns = self.shared.borrow().now_ns + ns;
        self.turn(until_ns).await;
    }
}

impl StoreWrite for View {
    async fn write(&mut self, first: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        self.turn(0).await;
        fake::apply(&mut self.shared.borrow_mut().bytes, first, bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.turn(0).await;
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.shared.borrow().now_ns
    }
}

/// A program, and the time until which it stands still.
type Program<T> = (u64, Pin<Box<dyn Future<Output = T>>>);

/// Runs programs until all have ended; returns their results.
fn mixed<T>(
    random: &mut Random,
    shared: &Rc<RefCell<Shared>>,
    programs: Vec<Pin<Box<dyn Future<Output = T>>>>,
) -> Vec<T> {
    let mut programs: Vec<Option<Program<T>>> =
        programs.into_iter().map(|program| Some((0, program))).collect();
    let mut results: Vec<Option<T>> = programs.iter().map(|_| None).collect();
    let mut turns = 0;
    while results.iter().any(Option::is_none) {
        turns += 1;
        assert!(turns < 1_000_000, "the programs come to an end");
        let now_ns = {
            let mut shared = shared.borrow_mut();
            shared.now_ns += random.below(20) * 1_000_000;
            shared.now_ns
        };
        let n = random.below(programs.len() as u64) as usize;
        let Some((until, program)) = &mut programs[n] else { continue };
        if random.below(25) == 0 {
            *until = now_ns + random.below(1_500_000_000);
        }
        if now_ns < *until {
            continue;
        }
        if let Poll::Ready(result) = program.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            (results[n], programs[n]) = (Some(result), None);
        }
    }
    results.into_iter().flatten().collect()
}

fn seeds() -> impl Iterator<Item = u64> {
    (1..=150).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

#[test]
fn definitions_that_were_announced_are_there_once() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 100));
    let (mut announced, mut refused) = (0, 0);
    for seed in seeds() {
        let random = &mut Random(seed);
        let shared = Rc::new(RefCell::new(Shared { bytes: disk.bytes.clone(), now_ns: 0 }));
        // Names that begin at the same slot, and one name twice.
        let names = ["a", "i", "q", "a"];
        let define = |(n, name): (u8, &&'static str)| {
            let mut view = View { shared: shared.clone() };
            let wanted = definition(name, kernel);
            Box::pin(async move { definer(n + 2).define(&mut view, wanted).await })
                as Pin<Box<dyn Future<Output = Result<_, StoreError<_>>>>>
        };
        let programs: Vec<_> = (0..).zip(&names).map(define).collect();
        let results: Vec<Result<define::Defined, _>> = mixed(random, &shared, programs);
        let found = contents(&shared.borrow().bytes).definitions;
        for (name, result) in names.iter().zip(&results) {
            match result {
                Ok(defined) => {
                    announced += 1;
                    let there = found.get(*name).map(|(generation, _)| *generation);
                    assert!(
                        there >= Some(defined.generation),
                        "seed {seed}: {name} was announced: {defined:?}, there is {there:?}"
                    );
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(announced > 250 && refused > 10, "{announced} announced, {refused} refused");
}

#[test]
fn an_image_that_an_announced_definition_names_is_never_removed() {
    let disk = &mut formatted();
    let kernel = add_now(disk, &content(1, 100));
    let (mut kept, mut removed) = (0, 0);
    for seed in seeds() {
        let random = &mut Random(seed);
        let shared = Rc::new(RefCell::new(Shared { bytes: disk.bytes.clone(), now_ns: 0 }));
        let mut node = View { shared: shared.clone() };
        let mut command = View { shared: shared.clone() };
        let define =
            async move { definer(2).define(&mut node, definition("web", kernel)).await.is_ok() };
        let remove = async move {
            // The removal begins somewhere within the definition's time.
            command.pause(seed % 500_000_000).await;
            let store = open::open(&mut command).await.unwrap();
            let removed = change::remove(&mut command, &store, AUTHOR, &[kernel]).await;
            removed.is_ok_and(|(_, named)| named.is_empty())
        };
        let programs: Vec<Pin<Box<dyn Future<Output = bool>>>> =
            vec![Box::pin(define), Box::pin(remove)];
        let results = mixed(random, &shared, programs);
        let found = contents(&shared.borrow().bytes);
        let is_there = found.images.contains(&kernel);
        if results[0] {
            assert!(is_there && found.definitions.contains_key("web"), "seed {seed}");
            kept += 1;
        } else {
            assert!(found.definitions.is_empty(), "seed {seed}: it was withdrawn");
        }
        assert!(!results[1] || !is_there, "seed {seed}");
        removed += u32::from(results[1]);
    }
    assert!(kept > 10 && removed > 10, "{kept} kept, {removed} removed");
}

/// Returns a disk on which another command publishes before operation `at` of this one, and the
/// store as this command has read it.
fn overtaken_at(at: usize) -> (FakeStoreDisk, OpenStore) {
    let mut disk = formatted();
    add_now(&mut disk, &content(1, 100));
    let store = run(open::open(&mut disk)).unwrap().unwrap();
    let (at, other) = (disk.count + at, StoreAuthor { writer: Uuid([9; 16]), now_ns: 1 });
    let theirs = store.clone();
    disk.hook = Some(Box::new(move |count, bytes| {
        if count == at {
            let disk = &mut FakeStoreDisk::of(core::mem::take(bytes));
            let images = theirs.directory().images.clone();
            // Not `publish`, which would find this command's write and stop.
            let directory = StoreDirectory {
                sequence: theirs.directory().sequence + 1,
                writer: other.writer,
                written_ns: 1,
                images,
            };
            let block = StoreLayout::directory(StoreSide::of(directory.sequence));
            run(disk.write(block, &directory.encode(STORE).unwrap())).unwrap().unwrap();
            *bytes = core::mem::take(&mut disk.bytes);
        }
    }));
    (disk, store)
}

#[test]
fn a_command_that_was_overtaken_is_told_so() {
    // Two reads of the directory; twice: the write, the flush, two reads.
    for at in 0..10 {
        let (mut disk, store) = overtaken_at(at);
        let published = run(change::publish(&mut disk, &store, AUTHOR, vec![])).unwrap();
        let found = run(open::open(&mut disk)).unwrap().unwrap();
        let is_mine = found.directory().writer == AUTHOR.writer;
        // What the other command writes at another time is overwritten or older, and it reads that.
        let expected = !matches!(at, 0 | 3 | 4);
        assert_eq!((published.is_ok(), is_mine), (expected, expected), "{at}");
        if let Err(error) = published {
            assert_eq!(error, StoreRefusedError::Overtaken.into());
        }
    }
    let (mut disk, store) = overtaken_at(99);
    run(change::publish(&mut disk, &store, AUTHOR, vec![])).unwrap().unwrap();
    let again = run(change::publish(&mut disk, &store, AUTHOR, vec![])).unwrap();
    assert_eq!(again, Err(StoreRefusedError::Overtaken.into()), "its own earlier state");
}
