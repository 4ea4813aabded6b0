//! A drawing of the pool over time: the owners of its frames, and the moments of the crash, the
//! restart and the complete dump.

use super::panel::{Edges, Panel, ROW};
use crate::events::Event;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 1080.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 1056.0;
/// Upper edge of the panel of the whole run, below the legend, and the height of its frame.
const TOP: f64 = 46.0;
const WHOLE: f64 = 210.0;
/// Distance from the whole to the joint with the piece around the crash, height of the joint, and
/// height of the piece's frame.
const GAP: f64 = 26.0;
const JOINT: f64 = 34.0;
const PIECE: f64 = 270.0;
/// Space for times and unit below a frame.
const FOOT: f64 = 30.0;
/// Seconds of the piece before the first mark and after the last one.
const AROUND: f64 = 1.0;
/// Colours of the partitions, in turn; free frames and dump images have colours of their own.
const COLOURS: [&str; 6] = ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#bbbbbb"];
const FREE: &str = "#f2f2f2";
const IMAGE: &str = "#ee6677";

/// The pool at one moment, in pages.
#[derive(Clone, PartialEq, Debug, Default)]
struct PoolSample {
    seconds: f64,
    total: u64,
    free: u64,
    image: u64,
    resident: BTreeMap<String, u64>,
    /// Whether a partition is between its crash and its restart.
    is_between: bool,
}

impl PoolSample {
    /// Returns the frames of dump images. Right after a crash the counters do not have them yet:
    /// the image then has all frames without another owner.
    fn image(&self) -> f64 {
        let others = self.free + self.resident.values().sum::<u64>();
        let rest = if self.is_between { self.total.saturating_sub(others) } else { 0 };
        self.image.max(rest) as f64
    }

    /// Returns a partition's resident pages, for its layer.
    fn of(&self, name: &str) -> f64 {
        self.resident.get(name).copied().unwrap_or(0) as f64
    }
}

/// The pool over time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PoolSeries {
    samples: Vec<PoolSample>,
    marks: Vec<Mark>,
    /// Pages that each partition was promised.
    promised: BTreeMap<String, u64>,
}

/// An event in the life of a partition, with its time.
#[derive(Clone, PartialEq, Debug)]
struct Mark {
    seconds: f64,
    partition: String,
    what: &'static str,
}

impl PoolSeries {
    /// Takes an event: counters become a sample, important events become a mark.
    pub fn event(&mut self, event: &Event) {
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let seconds = number("t") as f64 / 1e9;
        match event.name() {
            "pool" => {
                let (total, free, image) = (number("pages"), number("free"), number("image"));
                self.samples.push(PoolSample {
                    seconds,
                    total,
                    free,
                    image,
                    resident: BTreeMap::new(),
                    is_between: false,
                });
            }
            "stats" => {
                if let (Some(sample), Some(name)) =
                    (self.samples.last_mut(), event.0["partition"].as_str())
                {
                    // Between crash and restart the partition has no frames but those of its image.
                    let between = ["crashed", "waiting"]
                        .map(|state| event.0["state"] == state)
                        .contains(&true);
                    sample.is_between |= between;
                    sample
                        .resident
                        .insert(name.to_owned(), if between { 0 } else { number("resident") });
                    let pages: u64 =
                        ["resident", "paged", "zero", "untouched"].map(number).iter().sum();
                    let promised = self.promised.entry(name.to_owned()).or_default();
                    *promised = pages.max(*promised);
                }
            }
            "crash" => {
                self.hand_over(event, seconds);
                self.mark(event, seconds, "crash");
            }
            "restart" => self.mark(event, seconds, "restart"),
            "dump_complete" => self.mark(event, seconds, "dump complete"),
            _ => {}
        }
    }

    /// At a crash all frames of the partition become the dump image's at once. Adds two samples, so
    /// that this is a step in the picture.
    fn hand_over(&mut self, event: &Event, seconds: f64) {
        let (Some(last), Some(name)) = (self.samples.last(), event.0["partition"].as_str()) else {
            return;
        };
        let resident = event.0["resident"].as_u64().unwrap_or(0);
        let mut sample = PoolSample { seconds, ..last.clone() };
        sample.resident.insert(name.to_owned(), resident);
        self.samples.push(sample.clone());
        sample.resident.insert(name.to_owned(), 0);
        sample.image += resident;
        self.samples.push(sample);
    }

    fn mark(&mut self, event: &Event, seconds: f64, what: &'static str) {
        let partition = event.0["partition"].as_str().unwrap_or("").to_owned();
        self.marks.push(Mark { seconds, partition, what });
    }

    /// Writes the picture of [`PoolSeries::svg`] to `pool.svg` in a folder, and prints its path.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn draw(&self, folder: &Path, focus: &str) -> Result<()> {
        if let Some(svg) = self.svg(focus) {
            let file = folder.join("pool.svg");
            std::fs::write(&file, svg).with_context(|| format!("{}", file.display()))?;
            println!("\n  the pool over time: {}", file.display());
        }
        Ok(())
    }

    /// Returns the picture as SVG: the whole run, and below it the piece around the marks of
    /// partition `focus`; `None` where there is nothing to draw.
    pub fn svg(&self, focus: &str) -> Option<String> {
        let (first, last) = (self.samples.first()?.seconds, self.samples.last()?.seconds);
        // A mark may be before the first sample.
        let first = self.marks.iter().map(|mark| mark.seconds).fold(first, f64::min);
        let times =
            || self.marks.iter().filter(|mark| mark.partition == focus).map(|mark| mark.seconds);
        let (start, end) =
            (times().fold(last, f64::min) - AROUND, times().fold(first, f64::max) + AROUND);
        let span = (start.max(first), end.min(last));
        // Each mark is named in one of the two panels, in the one with more room for it.
        let (inside, outside): (Vec<&Mark>, Vec<&Mark>) =
            self.marks.iter().partition(|mark| (span.0..=span.1).contains(&mark.seconds));
        let pool = self.samples.iter().map(|sample| sample.total).max()?;
        let pages = pool.max(self.promised.values().sum());

        let top = TOP + ROW * outside.len() as f64;
        let whole = Panel::of(
            Edges { left: LEFT, right: RIGHT, top, base: top + WHOLE },
            (first, last),
            pages,
        )?;
        let joint = whole.edges.base + GAP;
        let top = joint + JOINT + ROW * inside.len() as f64;
        let piece =
            Panel::of(Edges { left: LEFT, right: RIGHT, top, base: top + PIECE }, span, pages);
        let height = piece.as_ref().map_or(whole.edges.base, |piece| piece.edges.base) + FOOT;
        let layers = self.layers(focus);
        let mut svg = head(height) + &legend(&layers);
        let nameless: Vec<_> = inside.iter().map(|mark| (mark.seconds, String::new())).collect();
        svg += &self.panel(&whole, pool, &layers, &[nameless, self.names(&outside)].concat());
        if let Some(piece) = piece {
            svg += &join(&whole, span, joint);
            svg += &self.panel(&piece, pool, &layers, &self.names(&inside));
        }
        svg += "</svg>\n";
        Some(svg)
    }

    fn names(&self, marks: &[&Mark]) -> Vec<(f64, String)> {
        marks.iter().map(|mark| self.name(mark)).collect()
    }

    /// Returns a mark's time and text. The partition's name is included only where the marks have
    /// several.
    fn name(&self, mark: &Mark) -> (f64, String) {
        let whose = if self.marks.iter().all(|other| other.partition == mark.partition) {
            String::new()
        } else {
            format!("{}: ", mark.partition)
        };
        (mark.seconds, format!("{whose}{} {:.1} s", mark.what, mark.seconds))
    }

    fn panel(&self, panel: &Panel, pool: u64, layers: &[Layer], marks: &[(f64, String)]) -> String {
        let times: Vec<f64> = self.samples.iter().map(|sample| sample.seconds).collect();
        let mut below = vec![0.0; times.len()];
        let mut svg = panel.clip();
        for (_, colour, pages) in layers {
            let above: Vec<f64> =
                below.iter().zip(pages).map(|(below, pages)| below + pages).collect();
            svg += &panel.area(&times, &below, &above, colour);
            below = above;
        }
        let promised: u64 = self.promised.values().sum();
        let name =
            format!("promised to {} partitions: {} MiB", self.promised.len(), promised / 256);
        svg + &panel.axes() + &panel.marks(marks) + &panel.promise(pool, &name)
    }

    /// Returns name, colour and pages over time of each layer, from the bottom. The partition in
    /// focus lies directly on the dump image: at a crash its colour turns into the image's colour
    /// at the same place.
    fn layers(&self, focus: &str) -> Vec<Layer> {
        let of = |pages: &dyn Fn(&PoolSample) -> f64| self.samples.iter().map(pages).collect();
        let mut names: Vec<&String> =
            self.samples.iter().flat_map(|sample| sample.resident.keys()).collect();
        names.sort();
        names.dedup();
        let layer = |(name, colour): (&&String, &&'static str)| {
            ((*name).clone(), *colour, of(&|sample| sample.of(name)))
        };
        let (mut layers, top): (Vec<_>, Vec<_>) = names
            .iter()
            .zip(COLOURS.iter().cycle())
            .map(layer)
            .partition(|(name, ..)| name != focus);
        layers.push(("dump image".to_owned(), IMAGE, of(&PoolSample::image)));
        layers.extend(top);
        layers.push(("free".to_owned(), FREE, of(&|sample| sample.free as f64)));
        layers
    }
}

/// A name, a colour, pages over time.
type Layer = (String, &'static str, Vec<f64>);

fn head(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<pattern id=\"promised\" width=\"8\" \
         height=\"8\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><path \
         d=\"M0 0V8\" stroke=\"#00000018\" stroke-width=\"3\"/></pattern>\n<rect \
         width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

/// Draws the lines from the whole to the piece below, which show the piece's place in it.
fn join(whole: &Panel, span: (f64, f64), top: f64) -> String {
    let (start, end) = (whole.x(span.0), whole.x(span.1));
    let Edges { top: upper, base, .. } = whole.edges;
    let (width, height, bottom) = (end - start, base - upper, top + JOINT - 8.0);
    format!(
        "<rect x=\"{start:.1}\" y=\"{upper}\" width=\"{width:.1}\" height=\"{height}\" \
         fill=\"none\" stroke=\"black\"/>\n<path d=\"M{start:.1} {base}L{start:.1} {top}L{LEFT} \
         {bottom}H{RIGHT}L{end:.1} {top}V{base}\" fill=\"#00000010\" stroke=\"#00000066\"/>\n"
    )
}

fn legend(layers: &[Layer]) -> String {
    let (mut text, mut x) = (String::new(), LEFT);
    let _ =
        writeln!(text, "<text x=\"{x}\" y=\"18\" font-weight=\"bold\">Frames of the pool</text>");
    x += 150.0;
    for (name, colour, _) in layers {
        let _ = writeln!(
            text,
            "<rect x=\"{x:.0}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{colour}\" \
             stroke=\"#00000044\"/>"
        );
        let _ = writeln!(text, "<text x=\"{:.0}\" y=\"18\">{name}</text>", x + 17.0);
        x += 34.0 + 7.0 * name.len() as f64;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn series() -> PoolSeries {
        let mut series = PoolSeries::default();
        for t in 0..3_u64 {
            series.event(&Event(json!({
                "event": "pool", "t": t * 1_000_000_000, "pages": 1024, "free": 256,
                "image": 256 * t / 2
            })));
            series.event(&Event(
                json!({"event": "stats", "partition": "a", "resident": 512, "paged": 1536}),
            ));
        }
        series.event(&Event(json!({"event": "crash", "partition": "a", "t": 1_500_000_000})));
        series
    }

    #[test]
    fn every_holder_has_an_area_and_every_mark_a_line() {
        let svg = series().svg("a").unwrap();
        // Each layer is there twice, in the whole and in the piece around the crash.
        assert_eq!((svg.matches("<polygon").count(), svg.matches("crash 1.5 s").count()), (6, 1));
        assert!(
            svg.contains(">a</text>") && svg.contains(">free</text>") && svg.ends_with("</svg>\n")
        );
    }

    #[test]
    fn a_crash_hands_the_frames_over_at_once() {
        let mut series = series();
        series.event(&Event(
            json!({"event": "crash", "partition": "a", "t": 3_000_000_000_u64, "resident": 500}),
        ));
        series.event(&Event(
            json!({"event": "pool", "t": 4_000_000_000_u64, "pages": 1024, "image": 400}),
        ));
        series.event(&Event(
            json!({"event": "stats", "partition": "a", "state": "crashed", "resident": 400}),
        ));
        let held = |sample: &PoolSample| (sample.seconds, sample.resident["a"], sample.image);
        let held: Vec<_> = series.samples.iter().rev().take(3).map(held).collect();
        assert_eq!(held, [(4.0, 0, 400), (3.0, 0, 756), (3.0, 500, 256)]);
    }

    /// Returns the points of the polygons of a colour; those of the whole come first.
    fn points(svg: &str, colour: &str) -> Vec<Vec<(f64, f64)>> {
        let fill = format!("fill=\"{colour}\"");
        let polygons =
            svg.lines().filter(|line| line.starts_with("<polygon") && line.contains(&fill));
        let parse = |point: &str| {
            point.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        };
        polygons
            .map(|line| line.split('"').nth(1).unwrap().split(' ').filter_map(parse).collect())
            .collect()
    }

    #[test]
    fn the_partition_that_crashes_changes_its_colour_in_place() {
        let mut series = PoolSeries::default();
        let stats = |name: &str, resident: u64| {
            json!({
                "event": "stats", "partition": name, "resident": resident
            })
        };
        for (t, a, image) in [(0, 500, 0), (1, 500, 0), (3, 0, 500), (4, 0, 0)] {
            series.event(&Event(
                json!({"event": "pool", "t": t * 1_000_000_000_u64, "pages": 1000, "image": image}),
            ));
            for (name, pages) in [("a", a), ("b", 300)] {
                series.event(&Event(stats(name, pages)));
            }
            if t == 1 {
                series.event(&Event(json!({
                    "event": "crash", "partition": "a", "t": 2_000_000_000_u64,
                    "resident": 500
                })));
            }
        }
        let svg = series.svg("a").unwrap();
        let at = |colour: &str, x: f64| -> (f64, f64) {
            let heights = points(&svg, colour)[0]
                .iter()
                .filter(|(px, _)| (px - x).abs() < 0.2)
                .map(|p| p.1)
                .collect::<Vec<_>>();
            (
                heights.iter().copied().fold(f64::MAX, f64::min),
                heights.iter().copied().fold(f64::MIN, f64::max),
            )
        };
        let crash = LEFT + (RIGHT - LEFT) / 2.0;
        assert_eq!(
            at(COLOURS[0], crash),
            at(IMAGE, crash),
            "both reach from the neighbour's top to the stack's"
        );
        assert_eq!(at(COLOURS[1], crash).0, at(IMAGE, crash).1);
    }

    #[test]
    fn frames_that_no_counter_knows_after_a_crash_are_the_images() {
        let mut series = PoolSeries::default();
        series.event(&Event(json!({
            "event": "pool", "t": 1_000_000_000_u64, "pages": 1000, "free": 100,
            "image": 0
        })));
        series.event(&Event(json!({"event": "stats", "partition": "b", "resident": 300})));
        assert_eq!(series.samples[0].image(), 0.0);
        series.event(&Event(
            json!({"event": "stats", "partition": "a", "state": "crashed", "resident": 0}),
        ));
        assert_eq!(series.samples[0].image(), 600.0);
    }

    #[test]
    fn the_promised_memory_and_the_joint_are_drawn() {
        let svg = series().svg("a").unwrap();
        assert_eq!(svg.matches(">promised to 1 partitions: 8 MiB<").count(), 2);
        assert_eq!(svg.matches("fill=\"#00000010\"").count(), 1);
        // The scale is that of the promised memory: 2048 pages.
        assert!(svg.contains(">8</text>"));
    }

    #[test]
    fn marks_of_several_say_whose_they_are() {
        let mut series = series();
        series.event(&Event(json!({"event": "restart", "partition": "b", "t": 100_000_000})));
        let svg = series.svg("a").unwrap();
        assert!(svg.contains(">a: crash 1.5 s<") && svg.contains(">b: restart 0.1 s<"), "{svg}");
    }

    #[test]
    fn without_samples_there_is_no_picture() {
        assert_eq!(PoolSeries::default().svg("a"), None);
    }
}
