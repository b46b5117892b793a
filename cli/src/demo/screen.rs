//! The picture that is redrawn in place, and the lines that are written where nothing can be. Pure: a view in, lines out.

use std::time::Duration;

use super::{
    board::{Phase, Struck, View},
    play::WRITERS,
    traffic::{Slot, Stage, WINDOW},
};
use crate::terminal::{Line, Tone, grouped, micros};

/// The picture, for so many columns.
pub(super) fn frame(view: &View, columns: usize, unicode: bool) -> Vec<Line> {
    let mut lines = head(view);
    lines.extend(numbers(view));
    lines.push(Line::new());
    let flight = flight(view, unicode);
    let failures = failures(view);
    if columns >= SIDE_BY_SIDE {
        let rows = flight.len().max(failures.len());
        let row = |from: &[Line], index: usize| from.get(index).cloned().unwrap_or_default();
        lines.extend((0..rows).map(|index| row(&flight, index).up_to(FAILURES_COLUMN).with(row(&failures, index))));
    } else {
        lines.extend(flight);
        lines.push(Line::new());
        lines.extend(failures);
    }
    lines
}

/// The same in a line, for a file.
pub(super) fn line(view: &View) -> String {
    let (counted, found, traffic) = (view.counted, view.found, view.traffic.counts());
    let latency = view.latency.map_or_else(String::new, |l| format!(", p50 {}, p99 {}", micros(l.p50), micros(l.p99)));
    format!(
        "{}: sent {}, acknowledged {}, stored {}, batches sent again {}, duplicates refused {}, lost {}, duplicated {}, \
         out of order {}{latency}, in flight {} of {WINDOW}",
        at(view.elapsed),
        grouped(counted.sent),
        grouped(counted.acknowledged),
        grouped(found.stored),
        grouped(traffic.retried),
        grouped(traffic.duplicates_refused),
        grouped(found.lost),
        grouped(found.duplicated),
        grouped(found.out_of_order),
        view.traffic.in_flight(),
    )
}

/// A mishap in a line, for a file: when it comes.
pub(super) fn strikes(struck: &Struck) -> String {
    format!("{}: {}", at(struck.at), struck.mishap.name())
}

/// And when it is over.
pub(super) fn mended(struck: &Struck) -> Option<String> {
    let took = struck.took?;
    Some(format!("{}: everything runs again, after {} ms", at(struck.at + took), took.as_millis()))
}

fn head(view: &View) -> Vec<Line> {
    let phase = match view.phase {
        Phase::Starting => "starting both services".to_owned(),
        Phase::Breaking => {
            let (elapsed, duration) = (view.elapsed.as_secs_f64(), view.asked.duration.as_secs_f64());
            format!("breaking things, {:.1} s of {duration:.0} s", elapsed.min(duration))
        }
        Phase::Healing => "nothing fails any more, waiting for answers".to_owned(),
        Phase::Verifying => "verifying every record".to_owned(),
        Phase::Ended => "ended".to_owned(),
    };
    let mode = if view.asked.idempotence { "idempotence on" } else { "WITHOUT IDEMPOTENCE" };
    let tone = if view.asked.idempotence { Tone::Good } else { Tone::Bad };
    let title = Line::new().then(Tone::Strong, "oncelog demo").then(Tone::Plain, format!("  {phase}"));
    let seed = format!("seed {}", view.asked.seed);
    let way = format!("{WRITERS} writers > producer-svc > [ network ] > broker-svc > disk");
    let way = Line::new().then(Tone::Faint, way);
    vec![title.up_to(WIDTH - seed.len()).then(Tone::Faint, seed), way.up_to(WIDTH - mode.len()).then(tone, mode), Line::new()]
}

/// Three columns of four numbers.
fn numbers(view: &View) -> Vec<Line> {
    let (counted, found, traffic) = (view.counted, view.found, view.traffic.counts());
    let unanswered = counted.sent.saturating_sub(counted.acknowledged + counted.refused + counted.unknown);
    let must_be_zero = |number: u64| if number == 0 { Tone::Good } else { Tone::Bad };
    let latency =
        |of: fn(&crate::latency::Percentiles) -> u64| view.latency.as_ref().map_or_else(|| "-".to_owned(), |l| micros(of(l)));
    let plain = |label, number| (label, grouped(number), Tone::Strong);
    let rows = [
        [plain("sent", counted.sent), plain("acknowledged", counted.acknowledged), plain("unanswered", unanswered)],
        [
            plain("stored", found.stored),
            ("lost", grouped(found.lost), must_be_zero(found.lost)),
            ("duplicated", grouped(found.duplicated), must_be_zero(found.duplicated)),
        ],
        [
            plain("batches sent again", traffic.retried),
            ("duplicates refused", grouped(traffic.duplicates_refused), Tone::Notable),
            ("out of order", grouped(found.out_of_order), must_be_zero(found.out_of_order)),
        ],
        [
            ("latency p50", latency(|l| l.p50), Tone::Plain),
            ("p99", latency(|l| l.p99), Tone::Plain),
            ("slowest", latency(|l| l.max), Tone::Plain),
        ],
    ];
    let line = |cells: [(&str, String, Tone); 3]| {
        (0..).step_by(CELL + GAP).zip(cells).fold(Line::new(), |line, (column, (label, value, tone))| {
            let line = line.up_to(column).then(Tone::Plain, label);
            let end = column + CELL;
            line.up_to(end.saturating_sub(value.chars().count())).then(tone, value)
        })
    };
    rows.map(line).into()
}

fn flight(view: &View, unicode: bool) -> Vec<Line> {
    let head = format!("In flight: {} of {WINDOW} calls", view.traffic.in_flight());
    let mut lines = vec![Line::new().then(Tone::Strong, head)];
    for (number, slot) in (1..).zip(view.traffic.slots()) {
        let line = Line::new().then(Tone::Faint, format!(" {number} "));
        lines.push(match slot {
            Some(slot) => line.with(call(slot, view, unicode)),
            None => line.then(Tone::Faint, "  -"),
        });
    }
    lines
}

fn call(slot: &Slot, view: &View, unicode: bool) -> Line {
    let again = match slot.attempt {
        1 => String::new(),
        2 => ", 2nd try".to_owned(),
        3 => ", 3rd try".to_owned(),
        attempt => format!(", {attempt}th try"),
    };
    let (mark, tone, told) = match slot.stage {
        Stage::OnItsWay => {
            let waits = view.now.saturating_duration_since(slot.since).as_millis();
            let (mark, tone) = if slot.attempt > 1 { (('↻', '~'), Tone::Notable) } else { (('▸', '>'), Tone::Plain) };
            (mark, tone, format!("on its way{again}, {waits} ms"))
        }
        Stage::Acknowledged { took, duplicates: 0 } => {
            (('✓', '+'), Tone::Faint, format!("acknowledged{again}, {} ms", took.as_millis()))
        }
        Stage::Acknowledged { .. } => (('=', '='), Tone::Good, "duplicate refused, answered again".to_owned()),
        Stage::Refused(code) => (('!', '!'), Tone::Notable, code.reason().to_owned()),
        Stage::AnswerLost => (('✗', 'x'), Tone::Bad, format!("no answer came{again}")),
    };
    let mark = if unicode { mark.0 } else { mark.1 };
    let what = slot.first.as_ref().map_or_else(String::new, |first| {
        let sequences = match first.sequences {
            Some((from, to)) if from == to => format!("seq {from}"),
            Some((from, to)) => format!("seq {from}-{to}"),
            None if first.records == 1 => "1 record, no tag".to_owned(),
            None => format!("{} records, no tag", first.records),
        };
        let others = if slot.batches > 1 { format!(" +{}", slot.batches - 1) } else { String::new() };
        format!("{}/{} {sequences}{others}", first.topic, first.partition)
    });
    Line::new().then(tone, format!("{mark} {what}")).up_to(STAGE_COLUMN).then(tone, told)
}

fn failures(view: &View) -> Vec<Line> {
    let mut lines = vec![Line::new().then(Tone::Strong, format!("What failed: {}", view.struck.len()))];
    for struck in view.struck.iter().rev().take(FAILURES_SHOWN) {
        let (tone, told) = match struck.took {
            None => (Tone::Bad, "now".to_owned()),
            Some(took) => (Tone::Faint, format!("{} ms", took.as_millis())),
        };
        let line = Line::new().then(Tone::Faint, format!("{:>7}  ", at(struck.at))).then(tone, struck.mishap.name());
        lines.push(line.up_to(42).then(tone, told));
    }
    // As many lines each time, so that what is below stands still.
    lines.resize(1 + FAILURES_SHOWN, Line::new());
    lines
}

fn at(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

/// Columns of the head and of the numbers.
const WIDTH: usize = 3 * CELL + 2 * GAP;
const CELL: usize = 24;
const GAP: usize = 3;
/// Where a call's stage is told, behind its number.
const STAGE_COLUMN: usize = 33;
const FAILURES_SHOWN: usize = 5;
const FAILURES_COLUMN: usize = 70;
/// From so many columns on failures stand beside the calls.
const SIDE_BY_SIDE: usize = FAILURES_COLUMN + 50;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{
        demo::{audit::Found, board::Asked, mishap::Mishap, traffic::Traffic},
        latency::Percentiles,
        terminal::Style,
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn view() -> View {
        let struck = |at, took: Option<u64>| Struck {
            mishap: Mishap::AnswersLostAndBrokerKilled,
            at: Duration::from_millis(at),
            took: took.map(Duration::from_millis),
        };
        View {
            asked: Asked { seed: u64::from(u32::MAX), duration: Duration::from_secs(12), idempotence: false },
            now: Instant::now(),
            elapsed: Duration::from_millis(5_250),
            phase: Phase::Healing,
            counted: oncelog_chaos::recorder::Counted { sent: 12_345_678, acknowledged: 12_345_600, ..Default::default() },
            traffic: Traffic::new(),
            found: Found { stored: 12_345_690, duplicated: 77, ..Found::default() },
            latency: Some(Percentiles { p50: 1_230, p90: 2_000, p99: 310_000, p999: 400_000, max: 1_200_000 }),
            struck: vec![struck(1_000, Some(2_340)), struck(4_000, None)],
        }
    }

    #[test]
    fn nothing_is_cut_at_80_columns_nor_at_120() {
        for columns in [80, 120] {
            for line in frame(&view(), columns, false) {
                assert!(line.width() <= columns, "{columns}: {}", line.rendered(Style::PLAIN, 500));
            }
        }
    }

    #[test]
    fn the_picture_says_in_words_what_colours_say() {
        let text: Vec<_> = frame(&view(), 80, false).iter().map(|line| line.rendered(Style::PLAIN, 80)).collect();
        let text = text.join("\n");
        for said in
            ["WITHOUT IDEMPOTENCE", "unanswered            78", "duplicated            77", "lost                   0", "now"]
        {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
        assert!(text.is_ascii());
    }

    #[test]
    fn the_picture_keeps_its_height() {
        let mut later = view();
        later.struck.extend(view().struck);
        later.struck.extend(view().struck);
        assert_eq!(frame(&view(), 80, true).len(), frame(&later, 80, true).len());
    }

    #[test]
    fn a_line_for_a_file_has_the_same_numbers() {
        let line = line(&view());
        for said in ["5.2 s: sent 12,345,678", "stored 12,345,690", "duplicated 77", "p99 310 ms", "in flight 0 of 5"] {
            assert!(line.contains(said), "{said:?} is not in {line}");
        }
    }
}
