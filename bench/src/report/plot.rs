//! A row as a picture that reads on light and on dark ground.
//!
//! Amounts are bars on a linear axis: the median, with a line from the smallest to the largest of the rounds. Latencies differ by
//! orders of magnitude, so they are dots on a logarithmic axis: the median of p50, a line, and the median of p99.
//!
//! An entry whose acknowledgement means "on disk" is filled; one that promises less is an outline.

use std::fmt::Write;

use super::number;
use crate::{
    metric::Metric,
    session::{Participant, RowResult},
    statistics::Spread,
};

pub(super) fn svg(row: &RowResult) -> String {
    match row.metric {
        Metric::P50 | Metric::P99 => latencies(row),
        _ => amounts(row),
    }
}

/// One entry's line of the picture.
struct Lane<'a> {
    participant: &'a Participant,
    y: usize,
}

impl Lane<'_> {
    fn colour(&self) -> &'static str {
        if self.participant.name.contains("oncelog") || self.participant.durability == crate::oncelog::DURABILITY {
            OURS
        } else {
            OTHERS
        }
    }

    /// Of a shape: filled if an acknowledgement means that it is on disk.
    fn fill(&self) -> String {
        let colour = self.colour();
        let opacity = if self.participant.durability.starts_with("on disk") { "1" } else { "0.15" };
        format!("fill=\"{colour}\" fill-opacity=\"{opacity}\" stroke=\"{colour}\"")
    }
}

fn amounts(row: &RowResult) -> String {
    let spreads: Vec<_> = row.entries.iter().map(|entry| spread(row, &entry.name, row.metric)).collect();
    let most = spreads.iter().flatten().map(|spread| spread.most).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let step = step(most);
    let ticks: Vec<f64> = (0..=(most / step).ceil() as u32).map(|tick| f64::from(tick) * step).collect();
    let end = ticks.last().copied().unwrap_or(most);
    let at = |number: f64| LEFT + number / end * ROOM;
    let mut out = frame(row, &ticks, at, &axis(row.metric), LEGEND_AMOUNTS);
    for (lane, spread) in lanes(row).zip(spreads) {
        let Some(spread) = spread else {
            out.push_str(&label(LEFT + 6.0, lane.y, "start", "not measured"));
            continue;
        };
        let (y, width) = (lane.y - 9, at(spread.median) - LEFT);
        let _ = writeln!(out, "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\" {}/>", lane.fill());
        if spread.count > 1 {
            out.push_str(&whisker(at(spread.least), at(spread.most), lane.y));
        }
        out.push_str(&label(at(spread.most) + 8.0, lane.y, "start", &number(spread.median)));
    }
    out + "</svg>\n"
}

fn latencies(row: &RowResult) -> String {
    let of = |entry: &Participant| {
        Some((spread(row, &entry.name, Metric::P50)?.median, spread(row, &entry.name, Metric::P99)?.median))
    };
    let pairs: Vec<_> = row.entries.iter().map(of).collect();
    let all = || pairs.iter().flatten().flat_map(|(p50, p99)| [*p50, *p99]).filter(|micros| *micros > 0.0);
    let first = all().fold(f64::MAX, f64::min).log10().floor().min(6.0) as i32;
    let last = (all().fold(1.0, f64::max).log10().ceil() as i32).max(first + 1);
    let ticks: Vec<f64> = (first..=last).map(|power| 10f64.powi(power)).collect();
    let at = |micros: f64| LEFT + (micros.max(1e-3).log10() - f64::from(first)) / f64::from(last - first) * ROOM;
    let mut out = frame(row, &ticks, at, "latency in µs, logarithmic: shorter is better", LEGEND_LATENCIES);
    for (lane, pair) in lanes(row).zip(pairs) {
        let Some((p50, p99)) = pair else {
            out.push_str(&label(LEFT + 6.0, lane.y, "start", "not measured"));
            continue;
        };
        let (y, colour) = (lane.y, lane.colour());
        let (from, to) = (at(p50), at(p99));
        let _ = writeln!(
            out,
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-opacity=\"0.5\"/>"
        );
        let _ = writeln!(out, "<circle cx=\"{from:.1}\" cy=\"{y}\" r=\"6\" {}/>", lane.fill());
        let _ = writeln!(
            out,
            "<line x1=\"{to:.1}\" x2=\"{to:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"3\"/>",
            y - 7,
            y + 7
        );
        out.push_str(&label(to + 10.0, y, "start", &format!("{} / {}", number(p50), number(p99))));
    }
    out + "</svg>\n"
}

fn spread(row: &RowResult, entry: &str, metric: Metric) -> Option<Spread> {
    Spread::of(row.of_entry(entry).filter_map(|measured| metric.of(measured)))
}

fn lanes(row: &RowResult) -> impl Iterator<Item = Lane<'_>> {
    row.entries.iter().enumerate().map(|(place, participant)| Lane { participant, y: TOP + place * LANE + LANE / 2 })
}

/// Title, axis with its ticks, names of the entries, legend.
fn frame(row: &RowResult, ticks: &[f64], at: impl Fn(f64) -> f64, axis: &str, legend: &str) -> String {
    let bottom = TOP + row.entries.len() * LANE;
    let height = bottom + FOOT;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" \
         font-size=\"14\">\n<title>{0}</title>\n<text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\" fill=\"{INK}\">{0}</text>\n",
        escaped(&row.about)
    );
    for tick in ticks {
        let x = at(*tick);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{INK}\" stroke-opacity=\"0.25\"/>"
        );
        out.push_str(&label(x, bottom + 14, "middle", &round(*tick)));
    }
    out.push_str(&label(LEFT, bottom + 38, "start", axis));
    out.push_str(&label(LEFT, bottom + 60, "start", legend));
    for lane in lanes(row) {
        out.push_str(&label(LEFT - 10.0, lane.y, "end", &lane.participant.name));
    }
    out
}

fn whisker(from: f64, to: f64, y: usize) -> String {
    let (above, below) = (y - 5, y + 5);
    format!(
        "<path d=\"M{from:.1} {y}H{to:.1}M{from:.1} {above}V{below}M{to:.1} {above}V{below}\" stroke=\"{INK}\" stroke-width=\"1.5\" \
         fill=\"none\"/>\n"
    )
}

fn label(x: f64, y: usize, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"{INK}\">{}</text>\n", y + 5, escaped(text))
}

/// 1, 2 or 5 times a power of ten, so that there are four to ten steps.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| most / step <= 6.0).unwrap_or(10.0 * power)
}

/// A number of the axis, without zeros behind the point.
fn round(tick: f64) -> String {
    let text = number(tick);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn axis(metric: Metric) -> String {
    let (what, is_more_better) = match metric {
        Metric::PayloadRate => ("MB of values a second", true),
        Metric::RecordRate => ("records a second", true),
        Metric::Seconds => ("seconds", false),
        metric => (metric.unit(), false),
    };
    format!("{what}: {} is better", if is_more_better { "more" } else { "less" })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Grey and blue of middling lightness, on no ground of their own: they stand out from white and from black alike.
const INK: &str = "#808890";
const OTHERS: &str = "#808890";
const OURS: &str = "#3b82f6";
const WIDTH: usize = 900;
const LEFT: f64 = 250.0;
/// To the last tick; right of it stands the number of the longest bar.
const ROOM: f64 = 520.0;
const TOP: usize = 44;
const LANE: usize = 28;
const FOOT: usize = 76;
const LEGEND_AMOUNTS: &str = "bar: median; line: smallest to largest round; outline: acknowledged before it is on disk";
const LEGEND_LATENCIES: &str = "dot: p50; stroke: p99; medians of the rounds; outline: acknowledged before it is on disk";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::Percentiles;

    #[test]
    fn bars_are_to_scale_and_an_entry_without_a_number_is_named() {
        let mut row =
            RowResult::of_rates("a-row", &[[("oncelog", 50.0), ("a < b", 100.0)], [("oncelog", 50.0), ("a < b", 100.0)]]);
        row.entries.push(Participant { name: "absent".to_owned(), durability: "none".to_owned() });
        let svg = svg(&row);
        assert!(svg.contains("width=\"520.0\"") && svg.contains("width=\"260.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("not measured"), "{svg}");
    }

    #[test]
    fn latencies_stand_on_a_logarithmic_axis() {
        let mut row = RowResult::of_rates("a-row", &[[("oncelog", 50.0)]]);
        row.metric = Metric::P50;
        for run in &mut row.runs {
            let latency_us = Some(Percentiles { p50: 100.0, p99: 10_000.0, ..Percentiles::default() });
            run.outcome.as_mut().expect("it is one").latency_us = latency_us;
        }
        let svg = svg(&row);
        assert!(svg.contains(">100 / 10,000<") && svg.contains("cx=\"250.0\"") && svg.contains("x2=\"770.0\""), "{svg}");
    }

    #[test]
    fn steps_are_round_numbers() {
        for (most, expected) in [(100.0, 20.0), (1_234_567.0, 500_000.0), (9.9, 2.0), (0.034, 0.01)] {
            assert!((step(most) - expected).abs() < expected / 1e6, "{most}: {}", step(most));
        }
    }

    #[test]
    fn numbers_of_the_axis_have_no_zeros_behind_the_point() {
        for (tick, text) in [(0.0, "0"), (20.0, "20"), (500_000.0, "500,000"), (2.0, "2"), (0.5, "0.5"), (0.02, "0.02")] {
            assert_eq!(round(tick), text);
        }
    }
}
