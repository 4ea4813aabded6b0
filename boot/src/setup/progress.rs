//! Progress of long work: a progress bar on a terminal, a line every few seconds elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two lines where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// The progress of an operation with a known total of bytes.
pub(crate) struct ByteProgress {
    what: String,
    total: u64,
    bar: Option<ProgressBar>,
    next_line: Instant,
}

impl ByteProgress {
    /// Starts to show the progress of `what`.
    pub(crate) fn new(what: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        if bar.is_none() {
            eprintln!("tidepool: {what}, {} MiB", total >> 20);
        }
        Self { what: what.to_owned(), total, bar, next_line: Instant::now() + INTERVAL }
    }

    /// Shows that `done` bytes are complete.
    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if Instant::now() >= self.next_line {
            eprintln!("tidepool: {}: {} of {} MiB", self.what, done >> 20, self.total >> 20);
            self.next_line = Instant::now() + INTERVAL;
        }
    }
}

impl Drop for ByteProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    let style =
        ProgressStyle::with_template("{msg} [{bar:30}] {bytes} of {total_bytes}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
