//! What came of a judgement: what was violated, by which evidence, and what was counted.

use std::fmt;

use serde::Serialize;

use crate::history::Partition;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rule {
    /// An acknowledged record is in the log.
    I1,
    /// No record is in the log twice, and none that was not sent, or not to this partition.
    I2,
    /// The order of the log is the order of the sequences, without gaps.
    I3,
    /// An acknowledgement never changes.
    I4,
    /// The recovered state is a pure function of the journal: nothing that was known is forgotten.
    I5,
    /// An older epoch never writes after a newer one was handed out.
    I6,
    /// What was answered is true of what is durable.
    I7,
    /// After a failed write or sync nothing more is acknowledged.
    I8,
    /// Records of one `Send`, and of `Send`s of one caller one after the other, keep their order in a partition.
    Order,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// A line of the history, from 1.
    Line(u64),
    /// A record of the log.
    Record {
        /// In which partition.
        #[serde(flatten)]
        partition: Partition,
        /// At which offset.
        offset: i64,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Record { partition, offset } => write!(f, "{partition} offset {offset}"),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What happened, with the values.
    pub what: String,
    /// What proves it.
    pub evidence: Vec<Evidence>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)?;
        for (index, evidence) in self.evidence.iter().enumerate() {
            write!(f, "{}{evidence}", if index == 0 { " [" } else { ", " })?;
        }
        f.write_str(if self.evidence.is_empty() { "" } else { "]" })
    }
}

/// What was counted. Records, if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In the log between its ends.
    pub in_log: u64,
    /// Sent by `Send`.
    pub sent: u64,
    /// Of those: acknowledged.
    pub accepted: u64,
    /// Of those: certainly not in the log.
    pub refused: u64,
    /// Of those: in the log once or not at all.
    pub unknown: u64,
    /// Of the unknown: in the log.
    pub unknown_in_log: u64,
    /// Batches that were produced directly, each time counted.
    pub produced: u64,
    /// Of those: acknowledged.
    pub acknowledged: u64,
    /// Of those: sent before.
    pub retried: u64,
    /// Of those: recognised as in the log, and not appended a second time.
    pub duplicates_refused: u64,
    /// In the log, sent by nobody in this history.
    pub of_others: u64,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// In the log more often than sent.
    pub duplicated: u64,
}

/// What could not be judged, and was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unjudged {
    /// Claims about records that retention has trimmed.
    pub trimmed: u64,
    /// Claims about a topic that was, or may have been, deleted since, or that was not read.
    pub deleted: u64,
    /// Offsets between the ends of the log at which nothing could be read, because what is there is damaged.
    pub missing_offsets: u64,
    /// Answers that a producer id is unknown, where it cannot be told whether it had expired.
    pub expiry: u64,
}

impl Unjudged {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.trimmed + self.deleted + self.missing_offsets + self.expiry
    }
}

/// What came of a judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was counted.
    pub counts: Counts,
    /// What could not be judged.
    pub unjudged: Unjudged,
    /// How many promises were broken.
    pub violation_count: u64,
    /// The first twenty against each rule.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Nothing was violated.
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    /// Which rules were violated, each once.
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<_> = self.violations.iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Adds a violation, unless twenty against this rule are kept already: then it is counted.
    pub fn accuse(&mut self, rule: Rule, what: String, evidence: Vec<Evidence>) {
        self.violation_count += 1;
        if self.violations.iter().filter(|kept| kept.rule == rule).count() < VIOLATIONS_KEPT {
            self.violations.push(Violation { rule, what, evidence });
        }
    }
}

/// Against each rule, so that many against one do not hide those against another.
const VIOLATIONS_KEPT: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_violations_of_one_rule_do_not_hide_another() {
        let mut report = Report::default();
        for _ in 0..1_000 {
            report.accuse(Rule::Order, "out of order".to_owned(), Vec::new());
        }
        report.accuse(Rule::I2, "twice".to_owned(), Vec::new());
        assert_eq!((report.violations.len(), report.violation_count), (VIOLATIONS_KEPT + 1, 1_001));
        assert_eq!(report.rules(), [Rule::I2, Rule::Order]);
    }
}
