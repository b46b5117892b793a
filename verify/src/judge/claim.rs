//! What an answer to a batch claims of the log, beside that the batch is acknowledged.

use super::{
    epochs::WINDOW_BATCHES,
    ground::{Found, Ground, place},
    outline::Standing,
};
use crate::{
    history::ProduceCalled,
    log::Batch,
    report::{Evidence, Report, Rule},
};

/// What an answer claims.
pub(super) struct Claim<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) batch: &'a ProduceCalled,
    pub(super) lines: [u64; 2],
    pub(super) standing: Standing,
}

impl Claim<'_> {
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        self.lines.map(Evidence::Line).into()
    }

    pub(super) fn out_of_order(&self, expected: i64, known_when_called: i64, report: &mut Report) {
        let next = format!("sequence {expected} is said to be next");
        if expected < known_when_called && self.standing == Standing::Current {
            let what = format!("{}: {next}, after {known_when_called} was known", self.batch.partition);
            return report.accuse(Rule::I5, what, self.evidence());
        }
        self.reaches(expected, &next, report);
    }

    /// The log has to hold this producer's sequences below `end`: an answer was computed from them (I7).
    pub(super) fn reaches(&self, end: i64, said: &str, report: &mut Report) {
        let Some(tag) = self.batch.tag.filter(|_| end > 0) else { return };
        if self.standing != Standing::Current {
            report.unjudged.deleted += 1;
            return;
        }
        let index = self.ground.log.find(&self.batch.partition);
        let next = index.and_then(|index| self.ground.next_sequence(tag.producer, index));
        if next.is_none() && index.is_some_and(|index| self.ground.partition(index).is_trimmed()) {
            report.unjudged.trimmed += 1;
        } else if next.unwrap_or(0) < end {
            let what = format!("{}: {said}, and the log ends before sequence {}", self.batch.partition, next.unwrap_or(0));
            report.accuse(Rule::I7, what, self.evidence());
        }
    }

    /// The last five batches are remembered, whatever happened since; a repetition of one of them is told its place (I4).
    pub(super) fn is_forgotten(&self, report: &mut Report) {
        let Some((tag, index)) = self.batch.tag.zip(self.ground.log.find(&self.batch.partition)) else { return };
        let remembered = self.ground.last_batches(tag.producer, index, WINDOW_BATCHES);
        let is_this = |batch: &Batch| batch.tag == Some(tag) && batch.record_count == self.batch.record_count;
        if self.standing == Standing::Current && remembered.iter().any(is_this) {
            let what = format!("{}: the place of one of the last five batches is said to be forgotten", self.batch.partition);
            report.accuse(Rule::I4, what, self.evidence());
        }
    }

    /// A conflict is a lie if the log holds exactly this batch.
    pub(super) fn conflict(&self, report: &mut Report) {
        let Some((tag, index)) = self.batch.tag.zip(self.ground.log.find(&self.batch.partition)) else { return };
        if self.standing == Standing::Current
            && let Found::Batch(number) = self.ground.find(index, tag, self.batch.record_count)
            && self.ground.partition(index).batch(number).checksum == Some(self.batch.checksum)
        {
            let mut evidence = self.evidence();
            evidence.push(place(self.ground.partition(index), number));
            let what = format!("{}: a conflict with what is exactly the same", self.batch.partition);
            report.accuse(Rule::I4, what, evidence);
        }
    }
}

/// Is this the batch's content, as far as can be told?
pub(super) fn is_same(ground: &Ground<'_>, index: usize, number: u32, checksum: u32) -> bool {
    ground.partition(index).batch(number).checksum.is_none_or(|there| there == checksum)
}
