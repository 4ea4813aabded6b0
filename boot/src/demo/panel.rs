//! A panel of a picture: where times and pages come to lie, its axes, and the marks on it.

use std::fmt::Write;
use std::ops::Range;

/// Height of the whole picture.
pub(super) const HEIGHT: f64 = 420.0;
const TOP: f64 = 56.0;
const BASE: f64 = 372.0;
const PAGES_PER_MIB: f64 = 256.0;

/// Where values come to lie.
pub(super) struct Panel {
    edges: (f64, f64),
    time: (f64, f64),
    pages: f64,
}

impl Panel {
    /// Returns a panel between two edges for a span of time; none where there is nothing to draw.
    pub fn of(edges: (f64, f64), time: (f64, f64), pages: u64) -> Option<Self> {
        (time.1 > time.0 && pages > 0).then_some(Self { edges, time, pages: pages as f64 })
    }

    fn x(&self, seconds: f64) -> f64 {
        self.edges.0 + (seconds - self.time.0) / (self.time.1 - self.time.0) * (self.edges.1 - self.edges.0)
    }

    fn y(&self, pages: f64) -> f64 {
        BASE - (pages / self.pages).min(1.0) * (BASE - TOP)
    }

    /// What lies outside is cut off at the edges.
    pub fn clip(&self) -> String {
        let (left, right) = self.edges;
        format!(
            "<clipPath id=\"c{left}\"><rect x=\"{left}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
            right - left,
            BASE - TOP
        )
    }

    /// Returns which of ascending times lie inside, and the next on either side, to which lines go over the edge.
    fn seen(&self, times: &[f64]) -> Range<usize> {
        let first = times.partition_point(|at| *at < self.time.0);
        let end = times.partition_point(|at| *at <= self.time.1);
        first.saturating_sub(1)..times.len().min(end + 1)
    }

    /// Draws what lies between two lines, which have a value for each of the ascending times.
    pub fn area(&self, times: &[f64], below: &[f64], above: &[f64], colour: &str) -> String {
        let point = |(at, pages): (&f64, &f64)| format!("{:.1},{:.1}", self.x(*at), self.y(*pages));
        let seen = self.seen(times);
        let upper = times[seen.clone()].iter().zip(&above[seen.clone()]).map(point);
        let lower = times[seen.clone()].iter().zip(&below[seen]).rev().map(point);
        let points: Vec<String> = upper.chain(lower).collect();
        let clip = format!("clip-path=\"url(#c{})\"", self.edges.0);
        format!("<polygon points=\"{}\" fill=\"{colour}\" stroke=\"white\" stroke-width=\"0.4\" {clip}/>\n", points.join(" "))
    }

    /// Draws lines and labels.
    pub fn axes(&self) -> String {
        let ((left, right), mut text) = (self.edges, String::new());
        for quarter in 0..=4 {
            let pages = self.pages * f64::from(quarter) / 4.0;
            let (y, mib) = (self.y(pages), pages / PAGES_PER_MIB);
            let _ = writeln!(text, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mib:.0}</text>", left - 8.0, y + 4.0);
            let _ = writeln!(text, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#00000022\"/>");
        }
        let step = nice_step(self.time.1 - self.time.0);
        let digits = usize::from(step < 1.0);
        let mut at = (self.time.0 / step).ceil() * step;
        while at <= self.time.1 {
            let x = self.x(at);
            let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.digits$}</text>", BASE + 18.0);
            at += step;
        }
        let _ = writeln!(text, "<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">seconds</text>", HEIGHT - 12.0);
        let _ = writeln!(text, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">MiB</text>", left - 8.0, TOP - 14.0);
        text
    }

    /// Draws lines with their names, if they have one.
    pub fn marks(&self, marks: &[(f64, String)]) -> String {
        let mut text = String::new();
        for (row, (seconds, name)) in marks.iter().enumerate() {
            // Marks lie close to each other: their names stand on steps.
            let (x, y) = (self.x(*seconds), TOP + 16.0 + 16.0 * (row % 6) as f64);
            let _ = writeln!(text, "<path d=\"M{x:.1} {TOP}V{BASE}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>");
            if !name.is_empty() {
                let style = "font-weight=\"bold\" paint-order=\"stroke\" stroke=\"white\" stroke-width=\"3\"";
                // To the side where there is room.
                let middle = (self.edges.0 + self.edges.1) / 2.0;
                let (x, anchor) = if x > middle { (x - 4.0, "end") } else { (x + 4.0, "start") };
                let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{name}</text>");
            }
        }
        text
    }
}

/// Returns the distance of labels, about eight of them for the whole, in 1, 2 or 5 of some power of ten.
fn nice_step(span: f64) -> f64 {
    let rough = span / 8.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= rough);
    step.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_what_is_inside_and_one_on_either_side() {
        let times: Vec<_> = (0..10).map(f64::from).collect();
        let seen = |time| Panel::of((0.0, 100.0), time, 1).unwrap().seen(&times);
        assert_eq!([seen((3.5, 5.0)), seen((0.0, 1.5)), seen((8.5, 20.0))], [3..7, 0..3, 8..10]);
    }

    #[test]
    fn labels_stand_at_round_numbers() {
        assert_eq!([7.0, 60.0, 300.0].map(nice_step), [1.0, 10.0, 50.0]);
    }
}
