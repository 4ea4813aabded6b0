//! The screen of `tidepool boot`. A thread writes the console's output and our notices, so a
//! terminal that accepts no output holds up only the console, never events or commands.

mod notice;
pub mod painter;
mod tracker;

pub use notice::{Notice, NoticeWriter};
pub use painter::LineEnds;

use anyhow::Result;
use painter::{Due, ScreenPainter};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of output that may wait for the terminal before the console is held up.
const WAITING: usize = 64 << 10;
/// Maximum number of notices that wait for the terminal; later ones are only counted.
const NOTICES: usize = 256;
/// Time limit for the last output at the end.
const PATIENCE: Duration = Duration::from_secs(2);

enum Item {
    Output(Vec<u8>),
    Notice(Notice),
    LineEnds(LineEnds),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    notices: usize,
    left_out: u64,
    is_finishing: bool,
    is_finished: bool,
}

#[derive(Default)]
struct ScreenShared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A handle to the screen; clones write to the same screen.
#[derive(Clone)]
pub struct HostScreen(Arc<ScreenShared>);

impl std::fmt::Debug for HostScreen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostScreen")
    }
}

impl HostScreen {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(out: impl Write + Send + 'static) -> Result<Self> {
        let screen = Self(Arc::default());
        let theirs = screen.clone();
        std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || theirs.paint(ScreenPainter::new(out)))?;
        Ok(screen)
    }

    /// Shows output of the console; waits while the terminal accepts none.
    pub fn output(&self, bytes: &[u8]) {
        let mut queue = self.lock();
        while queue.bytes >= WAITING && !queue.is_finishing {
            queue = self.wait(queue);
        }
        queue.bytes += bytes.len();
        queue.items.push_back(Item::Output(bytes.to_vec()));
        self.0.changed.notify_all();
    }

    /// Shows a notice between the console's lines; never waits.
    pub fn notice(&self, notice: Notice) {
        let mut queue = self.lock();
        if queue.notices < NOTICES {
            queue.notices += 1;
            queue.items.push_back(Item::Notice(notice));
        } else {
            queue.left_out += 1;
        }
        self.0.changed.notify_all();
    }

    /// Sets how line ends reach the terminal from now on.
    pub fn set_line_ends(&self, ends: LineEnds) {
        self.lock().items.push_back(Item::LineEnds(ends));
        self.0.changed.notify_all();
    }

    /// Shows everything queued and ends. Output that the terminal does not accept within
    /// `PATIENCE` is dropped.
    pub fn finish(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut queue = self.lock();
        queue.is_finishing = true;
        self.0.changed.notify_all();
        while !queue.is_finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue =
                self.0.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    fn paint(&self, mut painter: ScreenPainter<impl Write>) {
        while let Some(item) = self.next(&mut painter) {
            match item {
                Item::Output(bytes) => painter.output(&bytes, Instant::now()),
                Item::Notice(notice) => {
                    painter.notice(notice.text);
                    if notice.ends_screen {
                        painter.leave_full_screen();
                    }
                }
                Item::LineEnds(ends) => painter.line_ends = ends,
            }
        }
        painter.finish();
        self.lock().is_finished = true;
        self.0.changed.notify_all();
    }

    /// Waits for an item, and meanwhile shows the notices that become due. Returns `None` when all
    /// is shown and the end was requested.
    fn next(&self, painter: &mut ScreenPainter<impl Write>) -> Option<Item> {
        let mut queue = self.lock();
        loop {
            if let Some(item) = queue.items.pop_front() {
                match &item {
                    Item::Output(bytes) => queue.bytes -= bytes.len(),
                    Item::Notice(_) => queue.notices -= 1,
                    Item::LineEnds(_) => {}
                }
                painter.left_out += std::mem::take(&mut queue.left_out);
                self.0.changed.notify_all();
                return Some(item);
            }
            if queue.is_finishing {
                return None;
            }
            let now = Instant::now();
            queue = match painter.due(now) {
                Due::NotBefore => self.wait(queue),
                Due::At(at) => {
                    self.0
                        .changed
                        .wait_timeout(queue, at - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Due::Now => {
                    drop(queue);
                    painter.show();
                    self.lock()
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct GateState {
        is_open: bool,
        bytes: Vec<u8>,
    }

    /// A writer that accepts nothing until it is opened.
    #[derive(Clone, Default)]
    struct Gate(Arc<(Mutex<GateState>, Condvar)>);

    impl Gate {
        fn open(&self) {
            self.0.0.lock().unwrap().is_open = true;
            self.0.1.notify_all();
        }
        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut state =
                self.0.1.wait_while(self.0.0.lock().unwrap(), |state| !state.is_open).unwrap();
            state.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_notice_does_not_wait_for_a_terminal_that_stands_still() {
        let gate = Gate::default();
        let screen = HostScreen::start(gate.clone()).unwrap();
        screen.output(b"before\r\nprompt");
        (0..3).for_each(|n| screen.notice(Notice::new(format!("notice {n}"))));
        gate.open();
        screen.finish();
        assert_eq!(
            gate.text(),
            "before\r\nprompt\r\ntidepool: notice 0\r\ntidepool: notice 1\r\ntidepool: notice \
             2\r\n"
        );
    }

    #[test]
    fn output_beyond_the_bound_waits_for_the_terminal() {
        let gate = Gate::default();
        let screen = HostScreen::start(gate.clone()).unwrap();
        let theirs = screen.clone();
        let writer = std::thread::spawn(move || (0..64).for_each(|_| theirs.output(&[b'x'; 4096])));
        while screen.lock().bytes < WAITING {
            std::thread::yield_now();
        }
        assert!(screen.lock().bytes <= WAITING + 4096 && !writer.is_finished());
        gate.open();
        writer.join().unwrap();
        screen.finish();
        assert_eq!(gate.text().trim_end().len(), 64 * 4096);
    }
}
