//! The tables, for people.

use std::{collections::BTreeSet, fmt::Write};

use super::{Report, number};
use crate::{
    metric::{Metric, Servers},
    session::{Participant, RowResult},
    statistics::Spread,
    targets::{self, Target},
};

pub(super) fn text(report: &Report) -> String {
    // Writing to a string does not fail, here and below.
    let mut out = String::from("# What was measured\n\n");
    if report.is_quick {
        out.push_str("A quick session: a quarter of the load. It shows that everything works; it is not a result.\n\n");
    }
    for (what, value) in &report.machine.0 {
        let _ = writeln!(out, "- {what}: {value}");
    }
    let commits: BTreeSet<_> = report.rows.iter().map(|row| row.commit.as_str()).collect();
    let _ = writeln!(out, "- commit: {}", commits.iter().copied().collect::<Vec<_>>().join(", "));
    for (name, version) in &report.versions {
        let _ = writeln!(out, "- {name}: {version}");
    }
    for (name, why) in &report.missing {
        let _ = writeln!(out, "- {name}: could not be had: {why}");
    }
    for (name, bytes) in &report.sizes {
        let _ = writeln!(out, "- {name}: {} MB", number(*bytes as f64 / 1e6));
    }
    out.push_str("\nMedian (smallest to largest) over the rounds; ratios are made within a round.\n\n## Targets\n\n");
    out.push_str("| measure | needed | measured | met |\n|---|---|---|---|\n");
    for target in targets::all() {
        out.push_str(&target_line(&target, &report.rows));
    }
    for row in report.rows.iter().filter(|row| !row.runs.is_empty()) {
        out.push_str(&row_table(row, commits.len() > 1));
    }
    out
}

fn target_line(target: &Target, rows: &[RowResult]) -> String {
    let (measured, met) = match target.measured(rows) {
        Some(spread) => (shown(spread), if target.needed.is_met(spread.median) { "yes" } else { "**no**" }),
        None => ("not measured".to_owned(), "–"),
    };
    format!("| {} | {} | {measured} | {met} |\n", target.measure, target.needed)
}

fn row_table(row: &RowResult, names_commit: bool) -> String {
    let mut out = format!("\n## {0}\n\n{1}\n\n![{0}]({0}.svg)\n\n", row.name, row.about);
    if names_commit {
        let _ = writeln!(out, "Measured at {}.\n", row.commit);
    }
    let columns = columns(row);
    let titles: Vec<String> = columns.iter().map(|metric| title(*metric)).collect();
    let _ = writeln!(out, "| | {} | ratio to the first | read back | runs | an acknowledgement means |", titles.join(" | "));
    out.push_str(&"|---".repeat(columns.len() + 5));
    out.push_str("|\n");
    let first = &row.entries[0].name;
    for Participant { name, durability } in &row.entries {
        let of = |metric: Metric| Spread::of(row.of_entry(name).filter_map(|measured| metric.of(measured)));
        let cells: Vec<String> = columns.iter().map(|metric| of(*metric).map_or_else(|| "–".to_owned(), shown)).collect();
        let ratios = (0..row.rounds()).filter_map(|round| {
            let of = |name: &str| row.metric.of(row.measured(name, round)?);
            Some(of(name)? / of(first)?)
        });
        let ratio = Spread::of(ratios).map_or_else(|| "–".to_owned(), shown);
        let _ = writeln!(
            out,
            "| {name} | {} | {ratio} | {} | {} | {durability} |",
            cells.join(" | "),
            read_back(row, name),
            runs(row, name)
        );
    }
    for run in &row.runs {
        if let Err(why) = &run.outcome {
            let _ = writeln!(out, "\nRound {}, {}: {why}", run.round + 1, run.entry);
        }
    }
    out
}

/// What at least one run of the row tells, the row's own metric first.
fn columns(row: &RowResult) -> Vec<Metric> {
    let mut columns = vec![row.metric];
    let further = [
        Metric::PayloadRate,
        Metric::RecordRate,
        Metric::P50,
        Metric::P99,
        Metric::ClientCpuPerMillion,
        Metric::CpuPerMillion(Servers::Broker),
        Metric::CpuPerMillion(Servers::All),
        Metric::Idle,
        Metric::Loaded,
        Metric::DiskPerByte,
    ];
    let is_told = |metric: &Metric| row.entries.iter().any(|entry| row.of_entry(&entry.name).any(|m| metric.of(m).is_some()));
    columns.extend(further.into_iter().filter(|metric| *metric != row.metric && is_told(metric)));
    columns
}

fn title(metric: Metric) -> String {
    match metric {
        Metric::CpuPerMillion(Servers::Broker) => "CPU s per million records, broker-svc".to_owned(),
        Metric::CpuPerMillion(Servers::All) => "CPU s per million records, servers".to_owned(),
        Metric::ClientCpuPerMillion => "CPU s per million records, client".to_owned(),
        Metric::Idle => "MB resident, idle".to_owned(),
        Metric::Loaded => "MB resident, most".to_owned(),
        Metric::DiskPerByte => "disk bytes per payload byte".to_owned(),
        metric => metric.unit().to_owned(),
    }
}

fn shown(spread: Spread) -> String {
    match spread.count {
        1 => number(spread.median),
        _ => format!("{} ({}–{})", number(spread.median), number(spread.least), number(spread.most)),
    }
}

/// Of all records: a run that did not read everything back shows.
fn read_back(row: &RowResult, entry: &str) -> String {
    let (sent, verified) = row.of_entry(entry).fold((0, 0), |(sent, verified), m| (sent + m.records, verified + m.verified));
    match verified {
        0 => "–".to_owned(),
        _ if verified == sent => "all".to_owned(),
        _ => format!("{} of {}", number(verified as f64), number(sent as f64)),
    }
}

fn runs(row: &RowResult, entry: &str) -> String {
    let runs: Vec<_> = row.runs.iter().filter(|run| run.entry == entry).collect();
    let failed = runs.iter().filter(|run| run.outcome.is_err()).count();
    let disturbed = runs.iter().filter(|run| !run.disturbance.is_quiet()).count();
    let mut text = runs.len().to_string();
    for (count, what) in [(failed, "failed"), (disturbed, "disturbed")] {
        if count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::Machine, rows::names};

    #[test]
    fn a_target_says_plainly_whether_it_is_met() {
        let rates = |of: f64| [(names::ONCELOG, of), (names::FIO, 100.0)];
        let report = |of: f64| Report {
            machine: Machine::default(),
            began: 0,
            is_quick: false,
            versions: Default::default(),
            missing: [("A peer".to_owned(), "not in the registry".to_owned())].into(),
            sizes: Default::default(),
            rows: vec![RowResult::of_rates("produce-1k", &[rates(of), rates(of + 10.0), rates(of)])],
        };
        let met = text(&report(90.0));
        assert!(met.contains("| Produce, 1 KiB, against fio (the aim is 1.2) | ≥ 0.9 | 0.900 (0.900–1.00) | yes |"), "{met}");
        assert!(text(&report(89.0)).contains("| 0.890 (0.890–0.990) | **no** |"));
        assert!(met.contains("| whole path against JetStream, 1 KiB | ≥ 1.5 | not measured | – |"));
        assert!(met.contains("A peer: could not be had: not in the registry"));
    }
}
