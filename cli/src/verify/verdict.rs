//! What a verification found, told in lines or as JSON.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use oncelog_verify::{Evidence, Log, Report};
use serde::Serialize;

use crate::output::{self, Output};

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    #[serde(flatten)]
    pub(crate) report: Report,
    /// Partitions that were read.
    pub(crate) partitions: usize,
    /// Bytes on the disk that are not what was written: the first hundred faults.
    pub(crate) damage: Vec<String>,
    /// What has to be known to read the verdict.
    pub(crate) notes: Vec<String>,
}

impl Verdict {
    pub(crate) fn new(report: Report, log: &Log) -> Self {
        Self { report, partitions: log.partitions().len(), damage: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.report.is_clean() && self.damage.is_empty()
    }

    /// Writes it to stdout: faults first, the verdict last.
    pub(crate) fn tell(&self, output: Output, history: Option<&Path>) -> anyhow::Result<()> {
        if output == Output::Json {
            return Ok(output::json(self)?);
        }
        let mut out = io::stdout().lock();
        for damage in &self.damage {
            writeln!(out, "damage: {damage}")?;
        }
        let lines = self.quoted(history)?;
        for violation in &self.report.violations {
            writeln!(out, "violated {violation}")?;
            for (number, text) in lines.iter().filter(|(number, _)| violation.evidence.contains(&Evidence::Line(**number))) {
                writeln!(out, "  line {number}: {text}")?;
            }
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        writeln!(out, "{}", self.line())?;
        Ok(())
    }

    /// The lines of the history that the violations name.
    fn quoted(&self, history: Option<&Path>) -> io::Result<BTreeMap<u64, String>> {
        let mut lines = BTreeMap::new();
        let Some(path) = history.filter(|_| !self.report.is_clean()) else { return Ok(lines) };
        for evidence in self.report.violations.iter().flat_map(|violation| &violation.evidence) {
            if let Evidence::Line(number) = evidence {
                lines.insert(*number, String::new());
            }
        }
        for (number, text) in (1..).zip(BufReader::new(File::open(path)?).lines()) {
            if let Some(line) = lines.get_mut(&number) {
                *line = text?;
            }
        }
        Ok(lines)
    }

    fn line(&self) -> String {
        let counts = &self.report.counts;
        let mut line = match (self.is_sound(), self.report.violation_count) {
            (true, _) => "sound".to_owned(),
            (false, 0) => "damaged".to_owned(),
            (false, violations) => {
                let rules: Vec<_> = self.report.rules().iter().map(ToString::to_string).collect();
                format!("NOT SOUND: {violations} violations of {}", rules.join(", "))
            }
        };
        line += &format!(": {} records in {} partitions", counts.in_log, self.partitions);
        if counts.sent > 0 {
            line += &format!(
                "; sent {}, acknowledged {}, refused {}, unknown {}",
                counts.sent, counts.accepted, counts.refused, counts.unknown
            );
            line += &format!(" (of those {} in the log), of others {}", counts.unknown_in_log, counts.of_others);
        }
        if counts.produced > 0 {
            let (produced, retried, duplicates) = (counts.produced, counts.retried, counts.duplicates_refused);
            line += &format!("; batches produced {produced}, retried {retried}, duplicates refused {duplicates}");
        }
        line += &format!("; lost {}, duplicated {}", counts.lost, counts.duplicated);
        let unjudged = &self.report.unjudged;
        if unjudged.total() > 0 {
            line += &format!(
                "; not judged: {} trimmed, {} of topics deleted or not read, {} offsets without records, {} ids that may have expired",
                unjudged.trimmed, unjudged.deleted, unjudged.missing_offsets, unjudged.expiry
            );
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use oncelog_verify::Rule;

    use super::*;

    #[test]
    fn the_last_line_is_the_verdict() {
        let mut verdict = Verdict::new(Report::default(), &Log::default());
        assert_eq!(verdict.line(), "sound: 0 records in 0 partitions; lost 0, duplicated 0");
        verdict.damage.push("a file".to_owned());
        assert!(verdict.line().starts_with("damaged: 0 records"));
        verdict.report.accuse(Rule::I2, "twice".to_owned(), Vec::new());
        verdict.report.unjudged.trimmed = 3;
        let line = verdict.line();
        assert!(line.starts_with("NOT SOUND: 1 violations of I2: ") && line.contains("not judged: 3 trimmed"), "{line}");
    }
}
