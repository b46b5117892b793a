//! The verdict: by `oncelog_verify`, from the log and from what the writers were told, running and at rest. What the board
//! counted meanwhile is only told beside it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use oncelog_verify::{Report, Rule};

use super::{
    board::{Asked, View},
    mishap::Mishap,
};
use crate::{
    terminal::{Line, Style, Tone, grouped},
    verify::verdict as at_rest,
};

/// What came of a demo.
#[derive(Debug)]
pub(super) struct Verdict {
    asked: Asked,
    view: View,
    running: Report,
    at_rest: at_rest::Verdict,
}

impl Verdict {
    pub(super) fn new(asked: Asked, view: View, running: Report, at_rest: at_rest::Verdict) -> Self {
        Self { asked, view, running, at_rest }
    }

    /// Every promise was kept.
    pub(super) fn is_sound(&self) -> bool {
        self.running.is_clean() && self.at_rest.is_sound()
    }

    /// In words: the promises that were broken, the first of each, and one line.
    pub(super) fn tell(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        let mut told: Vec<Rule> = Vec::new();
        for violation in self.running.violations.iter().chain(&self.at_rest.report.violations) {
            if !told.contains(&violation.rule) {
                told.push(violation.rule);
                writeln!(out, "  {}: {}", violation.rule, violation.what)?;
            }
        }
        for damage in &self.at_rest.damage {
            writeln!(out, "  damage: {damage}")?;
        }
        for line in self.grounds() {
            writeln!(out, "{line}")?;
        }
        let tone = if self.is_sound() { Tone::Good } else { Tone::Bad };
        let (head, rest) = self.line();
        let line = Line::new().then(tone, head).then(Tone::Plain, rest);
        writeln!(out, "{}", line.rendered(style, usize::MAX))
    }

    /// As a JSON object.
    pub(super) fn json(&self) -> serde_json::Value {
        let (counts, traffic, found) = (&self.running.counts, self.view.traffic.counts(), self.view.found);
        serde_json::json!({
            "sound": self.is_sound(), "idempotence": self.asked.idempotence, "seed": self.asked.seed,
            "failures": self.failures().into_iter().map(|(mishap, times)| (mishap.key(), times)).collect::<BTreeMap<_, _>>(),
            "sent": counts.sent, "acknowledged": counts.accepted, "refused": counts.refused, "unknown": counts.unknown,
            "stored": counts.in_log, "lost": counts.lost, "duplicated": counts.duplicated, "out_of_order": found.out_of_order,
            "batches_sent": traffic.batches, "batches_retried": traffic.retried,
            "duplicates_refused": traffic.duplicates_refused, "calls_unanswered": traffic.unanswered,
            "latency_micros": self.view.latency, "violation_count": self.running.violation_count,
            "violations": self.running.violations, "at_rest": self.at_rest,
        })
    }

    fn failures(&self) -> BTreeMap<Mishap, u64> {
        let mut failures = BTreeMap::new();
        for struck in &self.view.struck {
            *failures.entry(struck.mishap).or_default() += 1;
        }
        failures
    }

    /// What the verdict stands on.
    fn grounds(&self) -> Vec<String> {
        let traffic = self.view.traffic.counts();
        let (retried, refused) = (grouped(traffic.retried), grouped(traffic.duplicates_refused));
        let mut lines = vec![format!("verified running and at rest; {retried} batches sent again, {refused} duplicates refused")];
        match (self.is_sound(), self.asked.idempotence) {
            (true, _) => {}
            (false, true) => lines.push("this must never be: please report it, with the seed".to_owned()),
            (false, false) => lines.push(format!(
                "that is what sending again does without idempotence; with it: oncelog demo --seed {}",
                self.asked.seed
            )),
        }
        lines
    }

    /// The verdict.
    fn line(&self) -> (String, String) {
        let counts = &self.running.counts;
        if self.is_sound() {
            let unknown = match counts.unknown {
                0 => String::new(),
                unknown => format!("; of {} more nobody knows", grouped(unknown)),
            };
            let acknowledged = grouped(counts.accepted);
            let rest = format!(": {acknowledged} records acknowledged, each in the log once and in order{unknown}");
            return ("EXACTLY ONCE".to_owned(), rest);
        }
        let rest = format!(
            ": {} copies too many, {} records behind later ones, {} lost",
            grouped(counts.duplicated),
            grouped(self.view.found.out_of_order),
            grouped(counts.lost),
        );
        ("NOT EXACTLY ONCE".to_owned(), rest)
    }
}
