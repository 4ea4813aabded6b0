//! C1: the time from the command `clone` until the child's own first line, with the base's pages in
//! memory and with all of them on the disk.

use super::BenchImages;
use crate::bed::{Bed, RunningMachine};
use crate::events::Event;
use crate::report::TextTable;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Time limit of a step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
/// Memory sizes that are compared, in MiB.
pub const SIZES: [u64; 2] = [16, 256];
/// MiB of the kernel and its tables, which are not filled.
const KERNEL_MIB: u64 = 4;
const BASE: &str = "base";

/// Nanoseconds from the answer to `clone` until three moments. An instruction takes one; while all
/// CPUs are idle, time leaps to the next timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneMoments {
    /// The child has its vCPU and its memory.
    pub cloned: u64,
    /// Its vCPU is entered for the first time.
    pub entered: u64,
    /// The guest has said its first line.
    pub awake: u64,
}

/// The clones of one base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CloneCost {
    /// MiB of the base.
    pub mib: u64,
    /// The first clone: all of the base is on its disk.
    pub cold: CloneMoments,
    /// A later one, whose base is in memory.
    pub resident: CloneMoments,
    /// Frames of the base then.
    pub frames: u64,
}

/// Clones a base of `mib` MiB twice.
///
/// # Errors
/// Names the step that did not finish in time, or the failure in the machine.
pub fn measure(bed: Bed, images: &BenchImages<'_>, mib: u64) -> Result<CloneCost> {
    let machine = images.machine(bed, &format!("clone-{mib}"), &configuration(images, mib))?;
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let cost = clone_twice(&mut running, mib).context(place)?;
    running.passed();
    Ok(cost)
}

fn clone_twice(running: &mut RunningMachine, mib: u64) -> Result<CloneCost> {
    let hear = |running: &mut RunningMachine, name: &str, of: &str, text: &str| {
        let what = format!("{of}: {name} {text}");
        running.events.wait_for(LIMIT, &what, |event| {
            let said = event.0["text"].as_str().unwrap_or("");
            event.name() == name && event.0["partition"] == of && said.contains(text)
        })
    };
    hear(running, "guest", BASE, "filled pages")?;
    done(running, json!({"command": "suspend", "partition": BASE}))?;
    hear(running, "suspended", BASE, "")?;
    done(running, json!({"command": "seal", "partition": BASE}))?;
    hear(running, "sealed", BASE, "")?;
    let mut clone = |name: &str| {
        let asked = done(running, json!({"command": "clone", "partition": BASE, "name": name}))?;
        let since =
            |event: &Event| Ok::<_, anyhow::Error>(event.number("t")?.saturating_sub(asked));
        let moments = CloneMoments {
            cloned: since(&hear(running, "cloned", name, "")?)?,
            entered: since(&hear(running, "entered", name, "")?)?,
            awake: since(&hear(running, "guest", name, "awake")?)?,
        };
        // The child reads all pages of the base.
        done(running, json!({"command": "type", "partition": name, "bytes": "41"}))?;
        hear(running, "guest", name, "wrong 0")?;
        running.events.command(LIMIT, json!({"command": "stats"}))?;
        let of_base = |event: &&Event| event.0["partition"] == BASE;
        let stats = running.events.all().iter().rev().filter(|e| e.name() == "stats");
        let frames = stats.into_iter().find(of_base).context("no counters of the base")?;
        let frames = frames.number("resident")?;
        // It must not run beside the next one.
        done(running, json!({"command": "kill", "partition": name}))?;
        hear(running, "stopped", name, "")?;
        Ok::<_, anyhow::Error>((moments, frames))
    };
    let ((cold, frames), (resident, after)) = (clone("cold")?, clone("warm")?);
    ensure!(frames == after && frames > 0, "{frames} and {after} frames of the base");
    Ok(CloneCost { mib, cold, resident, frames })
}

/// Gives a command that must succeed; returns the time of its answer.
fn done(running: &mut RunningMachine, command: Value) -> Result<u64> {
    let reply = running.events.command(LIMIT, command.clone())?;
    ensure!(reply.0["ok"] == true, "{command}: {}", reply.0["error"]);
    reply.number("t")
}

/// The pool holds the base and a child.
fn configuration(images: &BenchImages<'_>, mib: u64) -> String {
    let device = mib + mib / 64 + 8;
    let devices = format!("[[paging_device]]\nmemory = \"{device} MiB\"\n").repeat(3);
    format!(
        "[pool]\nmemory = \"{} MiB\"\n[machine]\ncpus = 1\n[spare]\npartitions = 2\nmemory = \"{} \
         MiB\"\n{devices}[[partition]]\nname = \"{BASE}\"\nmemory = \"{mib} MiB\"\nkernel = \
         \"{}\"\ncmdline = \"pages={}\"\ndump = \"off\"\nrestart = \"never\"\n",
        2 * mib + 16,
        3 * mib,
        images.kernel.display(),
        (mib - KERNEL_MIB) * 256,
    )
}

/// Returns the table to print.
pub fn table(costs: &[CloneCost]) -> TextTable {
    let mut table =
        TextTable::new(&["MiB", "base", "the base's frames", "cloned", "entered", "its line"]);
    for cost in costs {
        let frames = cost.frames.to_string();
        for (place, frames, moments) in
            [("on its disk", "0".to_owned(), cost.cold), ("in memory", frames, cost.resident)]
        {
            let CloneMoments { cloned, entered, awake } = moments;
            let [cloned, entered, awake] = [cloned, entered, awake].map(|n| n.to_string());
            table.row(&[cost.mib.to_string(), place.to_owned(), frames, cloned, entered, awake]);
        }
    }
    table
}
