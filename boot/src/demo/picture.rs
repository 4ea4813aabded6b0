//! The pool over time, drawn: who holds its frames, and when the crash, the restart and the complete dump were.

use super::panel::{HEIGHT, Panel};
use crate::events::Event;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 1080.0;
/// Left and right edge of the whole run, and of the piece around the crash.
const WHOLE: (f64, f64) = (64.0, 600.0);
const PIECE: (f64, f64) = (680.0, 1056.0);
/// Seconds of the piece before the first mark and behind the last one.
const AROUND: f64 = 1.0;
/// Colours of partitions, in turn; free frames and those of dump images have their own.
const COLOURS: [&str; 6] = ["#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#bbbbbb"];
const FREE: &str = "#f2f2f2";
const IMAGE: &str = "#ee6677";

/// The pool at one moment, in pages.
#[derive(Clone, PartialEq, Debug, Default)]
struct Sample {
    seconds: f64,
    total: u64,
    free: u64,
    image: u64,
    resident: BTreeMap<String, u64>,
}

/// The pool over time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Series {
    samples: Vec<Sample>,
    marks: Vec<Mark>,
}

/// When something happened to a partition.
#[derive(Clone, PartialEq, Debug)]
struct Mark {
    seconds: f64,
    partition: String,
    what: &'static str,
}

impl Series {
    /// Takes an event in: counters become a sample, what one looks for becomes a mark.
    pub fn event(&mut self, event: &Event) {
        let number = |member: &str| event.0[member].as_u64().unwrap_or(0);
        let seconds = number("t") as f64 / 1e9;
        match event.name() {
            "pool" => {
                let (total, free, image) = (number("pages"), number("free"), number("image"));
                self.samples.push(Sample { seconds, total, free, image, resident: BTreeMap::new() });
            }
            "stats" => {
                if let (Some(sample), Some(name)) = (self.samples.last_mut(), event.0["partition"].as_str()) {
                    // Between crash and restart it has nothing but what the image has.
                    let between = ["crashed", "waiting"].map(|state| event.0["state"] == state).contains(&true);
                    sample.resident.insert(name.to_owned(), if between { 0 } else { number("resident") });
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

    /// At a crash all frames of the partition become the dump image's, at once: a step, however far the next counters are.
    fn hand_over(&mut self, event: &Event, seconds: f64) {
        let (Some(last), Some(name)) = (self.samples.last(), event.0["partition"].as_str()) else { return };
        let resident = event.0["resident"].as_u64().unwrap_or(0);
        let mut sample = Sample { seconds, ..last.clone() };
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

    /// Writes it to `pool.svg` in a folder, as [`Series::svg`] draws it, and says so.
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

    /// Draws it as SVG, the whole and what lies around the marks of partition `focus`; none where there is nothing to draw.
    pub fn svg(&self, focus: &str) -> Option<String> {
        let (first, last) = (self.samples.first()?.seconds, self.samples.last()?.seconds);
        // A mark may be before the first counters.
        let first = self.marks.iter().map(|mark| mark.seconds).fold(first, f64::min);
        let layers = self.layers();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let times = || self.marks.iter().filter(|mark| mark.partition == focus).map(|mark| mark.seconds);
        let (start, end) = (times().fold(last, f64::min) - AROUND, times().fold(first, f64::max) + AROUND);
        let piece = (start.max(first), end.min(last));
        // A mark says in one of the two what it is: where there is most room for it.
        let (inside, outside): (Vec<&Mark>, Vec<&Mark>) =
            self.marks.iter().partition(|mark| (piece.0..=piece.1).contains(&mark.seconds));
        let names = |marks: &[&Mark]| marks.iter().map(|mark| self.name(mark)).collect::<Vec<_>>();
        let pages = self.samples.iter().map(|sample| sample.total).max()?;
        let whole = Panel::of(WHOLE, (first, last), pages)?;
        let nameless: Vec<_> = inside.iter().map(|mark| (mark.seconds, String::new())).collect();
        svg += &self.panel(&whole, &layers, &[nameless, names(&outside)].concat());
        if let Some(panel) = Panel::of(PIECE, piece, pages) {
            svg += &self.panel(&panel, &layers, &names(&inside));
        }
        svg += &legend(&layers);
        svg += "</svg>\n";
        Some(svg)
    }

    /// Returns when a mark is and what it says; whose it is only where that is not clear.
    fn name(&self, mark: &Mark) -> (f64, String) {
        let whose = if self.marks.iter().all(|other| other.partition == mark.partition) {
            String::new()
        } else {
            format!("{}: ", mark.partition)
        };
        (mark.seconds, format!("{whose}{} {:.1} s", mark.what, mark.seconds))
    }

    fn panel(&self, panel: &Panel, layers: &[Layer], marks: &[(f64, String)]) -> String {
        let times: Vec<f64> = self.samples.iter().map(|sample| sample.seconds).collect();
        let mut below = vec![0.0; times.len()];
        let mut svg = panel.clip();
        for (_, colour, pages) in layers {
            let above: Vec<f64> = below.iter().zip(pages).map(|(below, pages)| below + pages).collect();
            svg += &panel.area(&times, &below, &above, colour);
            below = above;
        }
        svg + &panel.axes() + &panel.marks(marks)
    }

    /// Names, colours and pages over time of what is stacked, from the bottom.
    fn layers(&self) -> Vec<Layer> {
        let of = |pages: fn(&Sample) -> u64| self.samples.iter().map(|sample| pages(sample) as f64).collect();
        let mut names: Vec<&String> = self.samples.iter().flat_map(|sample| sample.resident.keys()).collect();
        names.sort();
        names.dedup();
        let resident = |name: &String| self.samples.iter().map(|s| s.resident.get(name).copied().unwrap_or(0) as f64).collect();
        let colours = COLOURS.iter().cycle();
        let mut layers: Vec<_> =
            names.iter().zip(colours).map(|(name, colour)| ((*name).clone(), *colour, resident(name))).collect();
        layers.push(("dump image".to_owned(), IMAGE, of(|sample| sample.image)));
        layers.push(("free".to_owned(), FREE, of(|sample| sample.free)));
        layers
    }
}

/// A name, a colour, pages over time.
type Layer = (String, &'static str, Vec<f64>);

fn legend(layers: &[Layer]) -> String {
    let (mut text, mut x) = (String::new(), WHOLE.0);
    let _ = writeln!(text, "<text x=\"{x}\" y=\"18\" font-weight=\"bold\">Frames of the pool</text>");
    x += 150.0;
    for (name, colour, _) in layers {
        let _ = writeln!(text, "<rect x=\"{x:.0}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{colour}\" stroke=\"#00000044\"/>");
        let _ = writeln!(text, "<text x=\"{:.0}\" y=\"18\">{name}</text>", x + 17.0);
        x += 34.0 + 7.0 * name.len() as f64;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn series() -> Series {
        let mut series = Series::default();
        for t in 0..3_u64 {
            series.event(&Event(
                json!({"event": "pool", "t": t * 1_000_000_000, "pages": 1024, "free": 256, "image": 256 * t / 2}),
            ));
            series.event(&Event(json!({"event": "stats", "partition": "a", "resident": 512})));
        }
        series.event(&Event(json!({"event": "crash", "partition": "a", "t": 1_500_000_000})));
        series
    }

    #[test]
    fn every_holder_has_an_area_and_every_mark_a_line() {
        let svg = series().svg("a").unwrap();
        // Each is there twice, in the whole and in the piece around the crash.
        assert_eq!((svg.matches("<polygon").count(), svg.matches("crash 1.5 s").count()), (6, 1));
        assert!(svg.contains(">a</text>") && svg.contains(">free</text>") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_crash_hands_the_frames_over_at_once() {
        let mut series = series();
        series.event(&Event(json!({"event": "crash", "partition": "a", "t": 3_000_000_000_u64, "resident": 500})));
        series.event(&Event(json!({"event": "pool", "t": 4_000_000_000_u64, "pages": 1024, "image": 400})));
        series.event(&Event(json!({"event": "stats", "partition": "a", "state": "crashed", "resident": 400})));
        let held = |sample: &Sample| (sample.seconds, sample.resident["a"], sample.image);
        let held: Vec<_> = series.samples.iter().rev().take(3).map(held).collect();
        assert_eq!(held, [(4.0, 0, 400), (3.0, 0, 756), (3.0, 500, 256)]);
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
        assert_eq!(Series::default().svg("a"), None);
    }
}
