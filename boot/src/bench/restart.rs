//! R1: the time until a crashed partition runs again, by the size of its memory.

use super::BenchImages;
use crate::bed::Bed;
use crate::report::TextTable;
use anyhow::{Result, bail};
use std::time::Duration;

/// Time limit to fill the memory, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
/// Memory sizes that are compared, in MiB.
pub const SIZES: [u64; 3] = [64, 256, 1024];
/// Maximum of additional instructions of a restart for each additional page.
pub const BAR: f64 = 0.05;

/// One restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restart {
    /// Pages that were resident when the partition crashed.
    pub pages: u64,
    /// Instructions from the crash's exit to the next incarnation's first entry.
    pub instructions: u64,
}

/// Crashes a partition of `mib` MiB whose memory is all resident and dirty.
///
/// # Errors
/// Names the step that did not finish in time, or the failure in the machine.
pub fn measure(bed: Bed, images: &BenchImages<'_>, mib: u64) -> Result<Restart> {
    let machine = images.machine(bed, &format!("restart-{mib}"), &configuration(images, mib))?;
    let mut running = machine.start()?;
    let crash = running.events.wait_named(LIMIT, "crash")?;
    let entered = running.events.wait_named(LIMIT, "entered")?;
    let restart = Restart {
        pages: crash.number("resident")?,
        instructions: entered.number("tsc")? - crash.number("tsc")?,
    };
    if restart.pages * 4096 < (mib << 20) / 10 * 9 {
        bail!(
            "only {} pages of {mib} MiB were resident; transcript in {}",
            restart.pages,
            running.folder().display()
        );
    }
    running.passed();
    Ok(restart)
}

/// The pool holds the whole memory and some frames more. Two devices: one for the dump, one for the
/// next incarnation.
fn configuration(images: &BenchImages<'_>, mib: u64) -> String {
    let device = mib + mib / 64 + 8;
    format!(
        "[pool]\nmemory = \"{} MiB\"\n[machine]\ncpus = 1\n[[paging_device]]\nmemory = \"{device} \
         MiB\"\n[[paging_device]]\nmemory = \"{device} MiB\"\n[[partition]]\nname = \
         \"guest\"\nmemory = \"{mib} MiB\"\nkernel = \"{}\"\ncmdline = \"crash=1\"\ndump = \
         \"aided\"\nrestart = \"immediate\"\n",
        mib + 16 + mib / 32,
        images.kernel.display()
    )
}

/// Returns the additional instructions of a restart for each additional page of memory: the
/// steepest slope of all pairs.
pub fn slope(restarts: &[Restart]) -> f64 {
    let pair = |(a, b): (&Restart, &Restart)| {
        (b.instructions as f64 - a.instructions as f64) / (b.pages as f64 - a.pages as f64)
    };
    let pairs = restarts
        .iter()
        .enumerate()
        .flat_map(|(n, a)| restarts[n + 1..].iter().map(move |b| (a, b)));
    pairs.map(pair).fold(f64::NEG_INFINITY, f64::max)
}

/// Returns the table to print.
pub fn table(restarts: &[Restart]) -> TextTable {
    let mut table = TextTable::new(&["MiB", "pages resident", "instructions from crash to entry"]);
    for (mib, restart) in SIZES.iter().zip(restarts) {
        table.row(&[mib.to_string(), restart.pages.to_string(), restart.instructions.to_string()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_pair_counts() {
        let at = |pages, instructions| Restart { pages, instructions };
        assert_eq!(slope(&[at(0, 100), at(100, 100), at(200, 300)]), 2.0);
        assert!(slope(&[at(0, 100), at(100, 90)]) < 0.0);
    }
}
