//! Single operations: exits, faults, page-ins, page-outs, ageing, dumping.

use super::BenchImages;
use crate::bed::{Bed, RunningMachine};
use crate::events::Event;
use crate::report::TextTable;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::Write;
use std::time::Duration;

/// Time limit for each step of the run, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);
/// How often a guest repeats each operation.
const COUNT: u64 = 4096;

/// An operation and its references.
struct Operation {
    id: &'static str,
    what: &'static str,
    /// Linux 6.1 with KVM on the same beds: VMX, SVM.
    kvm: [Option<u64>; 2],
    /// Its maximum, if it has one.
    bar: Option<u64>,
}

const fn operation(
    id: &'static str,
    what: &'static str,
    kvm: [Option<u64>; 2],
    bar: Option<u64>,
) -> Operation {
    Operation { id, what, kvm, bar }
}

const OPERATIONS: &[Operation] = &[
    operation("E1", "CPUID", [Some(1073), Some(2876)], Some(150)),
    operation("E1-prefixed", "CPUID with prefixes", [None, None], Some(150)),
    operation("E4", "IN from an emulated device", [Some(1300), Some(1430)], Some(200)),
    operation("E3", "RDMSR of the APIC's base", [None, Some(2800)], Some(200)),
    operation("E3-TPR", "WRMSR to the task priority", [None, Some(77_463)], Some(200)),
    operation("E3-EOI", "WRMSR to the end of interrupt", [None, Some(2861)], Some(200)),
    operation("E5", "MMIO write to an emulated device", [None, Some(3607)], Some(600)),
    operation("E6", "interrupt to oneself, with IF set", [Some(5532), Some(7665)], Some(900)),
    operation("E6-STI", "interrupt to oneself, then STI", [None, Some(9356)], Some(900)),
    operation("E7", "lateness of a deadline, spinning", [None, Some(272)], Some(300)),
    operation("E7-HLT", "lateness of a deadline, halted", [None, Some(216)], Some(300)),
    operation("E8", "interrupt to oneself that ends HLT", [Some(6695), Some(12_242)], Some(1500)),
    operation("F3", "first read of a page", [None, Some(4886)], Some(500)),
    operation("F1", "first write to a page", [Some(6870), Some(10_159)], Some(1200)),
    operation("P1", "page-in of one page", [Some(10_657), Some(13_823)], Some(2600)),
    operation("P1-around", "page-in, each of sixteen neighbours", [None, None], None),
    operation("P3", "page-out, in batches of 64", [Some(16_250), Some(19_420)], Some(1500)),
    operation("P4", "eviction of a page whose block is current", [None, None], Some(300)),
    operation("P5", "eviction of a page of zeros", [None, None], Some(900)),
    operation("A1", "ageing a mapped page", [Some(4357), Some(4370)], Some(30)),
    operation("D1", "dump of a dirty page", [Some(3134), Some(3065)], None),
    operation("D1-device", "the same without the disk's copy", [None, None], Some(790)),
    operation("device", "the disk's copy of a page", [None, None], None),
];

/// One measured operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figure {
    /// The id, as in `docs/benchmarks.md`.
    pub id: String,
    /// The minimum.
    pub minimum: u64,
    /// The mean.
    pub average: u64,
    /// The number of repetitions.
    pub count: u64,
}

/// All results of one run.
#[derive(Clone, Debug)]
pub struct Figures {
    bed: Bed,
    figures: Vec<Figure>,
    /// Bytes of metadata for a guest page, in a partition twice as large as the pool that has
    /// touched all its pages.
    pub metadata_per_page: f64,
}

impl Figures {
    /// Returns the figure with this id.
    ///
    /// # Errors
    /// Where it was not measured.
    pub fn get(&self, id: &str) -> Result<&Figure> {
        self.figures
            .iter()
            .find(|figure| figure.id == id)
            .with_context(|| format!("{id} was not measured"))
    }

    /// Returns the ids of the operations whose minimum is above the bar.
    pub fn above_the_bar(&self) -> Vec<&'static str> {
        let above = |operation: &&Operation| {
            let minimum = self.get(operation.id).map_or(u64::MAX, |figure| figure.minimum);
            operation.bar.is_some_and(|bar| minimum > bar)
        };
        OPERATIONS.iter().filter(above).map(|operation| operation.id).collect()
    }

    /// Returns the table to print.
    pub fn table(&self) -> TextTable {
        let mut table =
            TextTable::new(&["id", "operation", "minimum", "average", "count", "bar", "KVM here"]);
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        for operation in OPERATIONS {
            let figure = self.get(operation.id).ok();
            let kvm = operation.kvm[usize::from(self.bed != Bed::Bochs)];
            let cells = [
                operation.id.to_owned(),
                operation.what.to_owned(),
                number(figure.map(|f| f.minimum)),
                number(figure.map(|f| f.average)),
                number(figure.map(|f| f.count)),
                number(operation.bar),
                number(kvm),
            ];
            table.row(&cells);
        }
        table
    }

    fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Derives D1 without the time of the disk's copy, as with a device that uses DMA.
    fn derive(&mut self) -> Result<()> {
        let (whole, copy) = (self.get("D1")?.clone(), self.get("device")?.minimum);
        let without = |ticks: u64| ticks.saturating_sub(copy);
        let (minimum, average) = (without(whole.minimum), without(whole.average));
        self.add(Figure { id: "D1-device".to_owned(), minimum, average, count: whole.count });
        Ok(())
    }
}

/// Measures all operations.
///
/// # Errors
/// Names the step that did not finish in time, or the failure in the machine.
pub fn measure(bed: Bed, images: &BenchImages<'_>) -> Result<Figures> {
    let machine = images.machine(bed, "bench", &configuration(images))?;
    let mut running = machine.start()?;
    let mut figures = Figures { bed, figures: Vec::new(), metadata_per_page: 0.0 };
    let pages = until_evict(&mut running, &mut figures)?;
    evict(&mut running, pages)?;
    running.console.typist()?.write_all(b" ")?;
    until_verdict(&mut running, &mut figures)?;
    figures.derive()?;
    running.passed();
    figures.metadata_per_page = metadata(bed, images)?;
    Ok(figures)
}

/// The pool holds everything, so that pages leave only by an explicit eviction.
fn configuration(images: &BenchImages<'_>) -> String {
    format!(
        "self_tests = [\"pager\"]\n[pool]\nmemory = \"88 MiB\"\n[machine]\ncpus = \
         1\n[[paging_device]]\nmemory = \"112 MiB\"\n[[partition]]\nname = \"bench\"\nmemory = \
         \"96 MiB\"\nkernel = \"{}\"\ncmdline = \"count={COUNT}\"\ndump = \"off\"\nrestart = \
         \"never\"\n",
        images.kernel.display()
    )
}

/// Takes figures until the guest asks for an eviction; returns the number of pages to evict.
fn until_evict(running: &mut RunningMachine, figures: &mut Figures) -> Result<u64> {
    let asked = running.events.wait_for(LIMIT, "the guest's wish for an eviction", |event| {
        figures.figures.extend(figure_of(event));
        is_bad(event) || event.0["text"].as_str().is_some_and(|text| text.starts_with("evict "))
    })?;
    let number = asked.0["text"]
        .as_str()
        .and_then(|text| text.strip_prefix("evict "))
        .and_then(|n| n.parse().ok());
    number.with_context(|| format!("{}; transcript in {}", asked.0, running.folder().display()))
}

fn until_verdict(running: &mut RunningMachine, figures: &mut Figures) -> Result<()> {
    let verdict = running.events.wait_for(LIMIT, "the guest's verdict", |event| {
        figures.figures.extend(figure_of(event));
        is_bad(event) || event.name() == "guest" && event.0["kind"] == "pass"
    })?;
    if is_bad(&verdict) {
        bail!("{}; transcript in {}", verdict.0, running.folder().display());
    }
    Ok(())
}

fn is_bad(event: &Event) -> bool {
    matches!(event.name(), "error" | "crash" | "end")
        || event.name() == "guest" && event.0["kind"] == "fail"
}

/// Returns the figure from the hypervisor's own event, or from a line of the guest's log.
fn figure_of(event: &Event) -> Option<Figure> {
    let number = |member: &str| event.0[member].as_u64();
    if event.name() == "bench" {
        let id = event.0["id"].as_str()?.to_owned();
        return Some(Figure {
            id,
            minimum: number("minimum")?,
            average: number("average")?,
            count: number("count")?,
        });
    }
    let mut words = event.0["text"].as_str()?.strip_prefix("bench ")?.split(' ');
    let id = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    Some(Figure { id, minimum: number()?, average: number()?, count: number()? })
}

/// Returns the metadata of a guest page at an overcommit of 2, all pages touched.
fn metadata(bed: Bed, images: &BenchImages<'_>) -> Result<f64> {
    let toml = format!(
        "[pool]\nmemory = \"32 MiB\"\n[machine]\ncpus = 1\n[[paging_device]]\nmemory = \"72 \
         MiB\"\n[[partition]]\nname = \"bench\"\nmemory = \"64 MiB\"\nkernel = \"{}\"\ncmdline = \
         \"touch=1\"\ndump = \"off\"\nrestart = \"never\"\n",
        images.kernel.display()
    );
    let mut running = images.machine(bed, "metadata", &toml)?.start()?;
    running
        .events
        .wait_for(LIMIT, "the guest to touch its memory", |event| event.0["text"] == "touched")?;
    running.events.command(LIMIT, json!({"command": "stats"}))?;
    let pool = running.events.newest("pool").context("no counters of the pool")?;
    let metadata = pool.number("metadata_per_page_milli")? as f64 / 1000.0;
    running.passed();
    Ok(metadata)
}

/// Evicts `pages` pages and waits until no more page-outs are in flight.
fn evict(running: &mut RunningMachine, pages: u64) -> Result<()> {
    running
        .events
        .command(LIMIT, json!({"command": "evict", "partition": "bench", "count": pages}))?;
    let mut last = 0;
    loop {
        running.events.command(LIMIT, json!({"command": "stats"}))?;
        let last_of = |name| running.events.newest(name).context("no counters");
        let (stats, pool) = (last_of("stats")?, last_of("pool")?);
        let left = pool.number("page_outs")?
            + pool.number("clean_evictions")?
            + pool.number("zero_evictions")?;
        if stats.number("paged")? + 64 > pages && left == last {
            return Ok(());
        }
        last = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_an_event_or_a_line_of_the_guest() {
        let expected = Some(Figure { id: "E1".into(), minimum: 1, average: 2, count: 3 });
        let own = json!({"event": "bench", "id": "E1", "minimum": 1, "average": 2, "count": 3});
        assert_eq!(figure_of(&Event(own)), expected);
        assert_eq!(
            figure_of(&Event(json!({"event": "guest", "kind": "log", "text": "bench E1 1 2 3"}))),
            expected
        );
        assert_eq!(
            figure_of(&Event(json!({"event": "guest", "kind": "log", "text": "bench E1 1 2"}))),
            None
        );
    }

    #[test]
    fn what_was_not_measured_is_above_its_bar() {
        let figures = Figures { bed: Bed::Qemu, figures: Vec::new(), metadata_per_page: 0.0 };
        assert!(figures.above_the_bar().contains(&"E1"));
    }
}
