//! A row as horizontal bars: the median, with a line from the smallest to the largest.

use std::fmt::Write;

use super::number;
use crate::{session::RowResult, statistics::Spread};

pub(super) fn svg(row: &RowResult) -> String {
    let of = |name: &str| Spread::of(row.of_entry(name).filter_map(|measured| row.metric.of(measured)));
    let bars: Vec<_> = row.entries.iter().map(|(name, _)| (name, of(name))).collect();
    let most = bars.iter().filter_map(|(_, spread)| Some(spread.as_ref()?.most)).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = TOP + bars.len() * BAR + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"22\" font-weight=\"bold\" fill=\"#222222\">{}: {}</text>\n",
        escaped(row.name),
        row.metric.unit()
    );
    for (place, (name, spread)) in bars.iter().enumerate() {
        let y = TOP + place * BAR;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#222222\">{}</text>",
            LEFT - 8,
            y + 16,
            escaped(name)
        );
        let Some(spread) = spread else {
            let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#888888\">not measured</text>", y + 16);
            continue;
        };
        let x = |number: f64| number / most * ROOM;
        let left = LEFT as f64;
        let fill = if name.starts_with("oncelog") { "#1f6feb" } else { "#9aa4b2" };
        let _ =
            writeln!(out, "<rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"16\" fill=\"{fill}\"/>", y + 4, x(spread.median));
        let (from, to, middle) = (left + x(spread.least), left + x(spread.most), y + 12);
        let _ = writeln!(
            out,
            "<line x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222222\" stroke-width=\"1.5\"/>"
        );
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\" fill=\"#222222\">{}</text>", to + 6.0, y + 16, number(spread.median));
    }
    out + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const WIDTH: usize = 860;
const LEFT: usize = 240;
/// For the longest bar; right of it stands its number.
const ROOM: f64 = 530.0;
const TOP: usize = 36;
const BAR: usize = 24;
const MARGIN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_an_entry_without_a_number_is_named() {
        let mut row = RowResult::of_rates("a-row", &[[("oncelog", 50.0), ("a < b", 100.0)]]);
        row.entries.push(("absent".to_owned(), "none".to_owned()));
        let svg = svg(&row);
        assert!(svg.contains("width=\"530.0\"") && svg.contains("width=\"265.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("not measured"), "{svg}");
    }
}
