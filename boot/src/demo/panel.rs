//! A panel of a picture: the coordinates of times and pages, its axes, and the marks on it.

use std::fmt::Write;
use std::ops::Range;

const PAGES_PER_MIB: f64 = 256.0;
/// Height of a row of names above a frame.
pub(super) const ROW: f64 = 17.0;
/// Approximate width of a character in a mark's name, to find whether the name exceeds the picture.
const CHARACTER: f64 = 7.0;

/// The edges of a panel in the picture.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Edges {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub base: f64,
}

/// The mapping of values to coordinates.
pub(super) struct Panel {
    pub edges: Edges,
    time: (f64, f64),
    pages: f64,
}

impl Panel {
    /// Returns a panel for a span of time and a number of pages; `None` where either is empty.
    pub(super) fn of(edges: Edges, time: (f64, f64), pages: u64) -> Option<Self> {
        (time.1 > time.0 && pages > 0).then_some(Self { edges, time, pages: pages as f64 })
    }

    pub(super) fn x(&self, seconds: f64) -> f64 {
        self.edges.left
            + (seconds - self.time.0) / (self.time.1 - self.time.0)
                * (self.edges.right - self.edges.left)
    }

    fn y(&self, pages: f64) -> f64 {
        self.edges.base - (pages / self.pages).min(1.0) * (self.edges.base - self.edges.top)
    }

    /// Returns a clip path that hides everything outside the edges.
    pub(super) fn clip(&self) -> String {
        let Edges { left, right, top, base } = self.edges;
        let (width, height) = (right - left, base - top);
        format!(
            "<clipPath id=\"c{top}\"><rect x=\"{left}\" y=\"{top}\" width=\"{width}\" \
             height=\"{height}\"/></clipPath>\n"
        )
    }

    /// Returns the range of the ascending times that lie inside, plus one on either side for lines
    /// that cross the edge.
    fn seen(&self, times: &[f64]) -> Range<usize> {
        let first = times.partition_point(|at| *at < self.time.0);
        let end = times.partition_point(|at| *at <= self.time.1);
        first.saturating_sub(1)..times.len().min(end + 1)
    }

    /// Draws the area between two lines, which have a value for each of the ascending times.
    pub(super) fn area(&self, times: &[f64], below: &[f64], above: &[f64], colour: &str) -> String {
        let point = |(at, pages): (&f64, &f64)| format!("{:.1},{:.1}", self.x(*at), self.y(*pages));
        let seen = self.seen(times);
        let upper = times[seen.clone()].iter().zip(&above[seen.clone()]).map(point);
        let lower = times[seen.clone()].iter().zip(&below[seen]).rev().map(point);
        let points: Vec<String> = upper.chain(lower).collect();
        let clip = format!("clip-path=\"url(#c{})\"", self.edges.top);
        format!(
            "<polygon points=\"{}\" fill=\"{colour}\" stroke=\"white\" stroke-width=\"0.4\" \
             {clip}/>\n",
            points.join(" ")
        )
    }

    /// Draws the promised memory beyond the pool of `pages` pages: an empty area with its size,
    /// above the line of the pool.
    pub(super) fn promise(&self, pages: u64, name: &str) -> String {
        let (Edges { left, right, top, .. }, line) = (self.edges, self.y(pages as f64));
        let mut text = String::new();
        if line - top < 1.0 {
            return text;
        }
        let (width, height) = (right - left, line - top);
        let _ = writeln!(
            text,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height:.1}\" \
             fill=\"url(#promised)\"/>"
        );
        let _ = writeln!(
            text,
            "<path d=\"M{left} {line:.1}H{right}\" stroke=\"black\" stroke-width=\"1.5\"/>"
        );
        let (x, y) = (right - 12.0, top + height / 2.0 + 4.0);
        let style = "paint-order=\"stroke\" stroke=\"white\" stroke-width=\"4\"";
        let _ = writeln!(
            text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" {style}>{name}</text>"
        );
        text
    }

    /// Draws lines and labels.
    pub(super) fn axes(&self) -> String {
        let (Edges { left, right, top, base }, mut text) = (self.edges, String::new());
        for quarter in 0..=4 {
            let pages = self.pages * f64::from(quarter) / 4.0;
            let (y, mib) = (self.y(pages), pages / PAGES_PER_MIB);
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mib:.0}</text>",
                left - 8.0,
                y + 4.0
            );
            let _ = writeln!(text, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#00000022\"/>");
        }
        let step = nice_step(self.time.1 - self.time.0);
        let digits = usize::from(step < 1.0);
        let mut at = (self.time.0 / step).ceil() * step;
        // Leave room for the unit at the right edge.
        while at <= self.time.1 && self.x(at) < right - 60.0 {
            let x = self.x(at);
            let _ = writeln!(
                text,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.digits$}</text>",
                base + 17.0
            );
            at += step;
        }
        let _ = writeln!(
            text,
            "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">seconds</text>",
            base + 17.0
        );
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">MiB</text>",
            left - 8.0,
            top - 14.0
        );
        text
    }

    /// Draws marks as lines with their names, if any, above the frame. The first mark's name is the
    /// highest, so no line crosses the name of another mark.
    pub(super) fn marks(&self, marks: &[(f64, String)]) -> String {
        let (Edges { right, top, base, .. }, mut text) = (self.edges, String::new());
        let mut rows = marks.iter().filter(|(_, name)| !name.is_empty()).count();
        for (seconds, name) in marks {
            let x = self.x(*seconds);
            let mut from = top;
            if !name.is_empty() {
                let y = top + 10.0 - ROW * rows as f64;
                rows -= 1;
                from = y - 10.0;
                let leaves = x + 4.0 + CHARACTER * name.chars().count() as f64 > right + 20.0;
                let (x, anchor) = if leaves { (x - 4.0, "end") } else { (x + 4.0, "start") };
                let _ = writeln!(
                    text,
                    "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" \
                     font-weight=\"bold\">{name}</text>"
                );
            }
            let _ = writeln!(
                text,
                "<path d=\"M{x:.1} {from}V{base}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>"
            );
        }
        text
    }
}

/// Returns the distance of labels, about eight for the whole span: 1, 2 or 5 times a power of ten.
fn nice_step(span: f64) -> f64 {
    let rough = span / 8.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
    step.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: Edges = Edges { left: 0.0, right: 100.0, top: 100.0, base: 200.0 };

    #[test]
    fn a_piece_has_what_is_inside_and_one_on_either_side() {
        let times: Vec<_> = (0..10).map(f64::from).collect();
        let seen = |time| Panel::of(EDGES, time, 1).unwrap().seen(&times);
        assert_eq!([seen((3.5, 5.0)), seen((0.0, 1.5)), seen((8.5, 20.0))], [3..7, 0..3, 8..10]);
    }

    #[test]
    fn labels_stand_at_round_numbers() {
        assert_eq!([7.0, 60.0, 300.0].map(nice_step), [1.0, 10.0, 50.0]);
    }

    #[test]
    fn names_stand_above_the_frame_the_first_one_highest() {
        let panel = Panel::of(EDGES, (0.0, 10.0), 1).unwrap();
        let svg =
            panel.marks(&[(1.0, "first".into()), (2.0, String::new()), (3.0, "second".into())]);
        let heights: Vec<f64> = svg
            .split(" y=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights, [100.0 + 10.0 - 2.0 * ROW, 100.0 + 10.0 - ROW]);
        assert!(heights.iter().all(|y| *y < EDGES.top));
    }

    #[test]
    fn what_is_promised_beyond_the_pool_is_drawn_above_it() {
        let panel = Panel::of(EDGES, (0.0, 10.0), 200).unwrap();
        let drawn = panel.promise(100, "promised");
        assert!(drawn.contains("M0 150.0H100") && drawn.contains(">promised<"), "{drawn}");
        assert_eq!(panel.promise(200, "promised"), "");
    }
}
