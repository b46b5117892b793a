//! Judges `Produce`: each answer to a batch is a claim about the log, refusals included (I7).

use std::collections::HashMap;

use super::{
    Call, Moment,
    claim::{Claim, is_same},
    epochs::Epochs,
    ground::{Found, Ground, place},
    known::Known,
    outline::Standing,
};
use crate::{
    history::{Partition, Place, ProduceAnswer, ProduceCalled, Tag},
    report::{Evidence, Report, Rule},
};

/// What was produced so far.
#[derive(Debug, Default)]
pub(super) struct Produces {
    /// By partition and batch of the log: who asked for exactly this batch.
    asked: Vec<Vec<Asked>>,
    /// Where the records of a name are.
    names: HashMap<u64, (usize, u32)>,
    /// What was acknowledged of batches that are trimmed: the log cannot tell any more whether it changed (I4).
    trimmed: HashMap<(usize, Tag), (Place, u64)>,
}

/// How often a batch was asked for, and refused.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    calls: u32,
    /// Of those: certainly not appended by the call itself.
    refused: u32,
}

/// A call, and what was known when it was made.
#[derive(Debug)]
pub(super) struct Produced {
    pub(super) what: ProduceCalled,
    /// The next sequence that acknowledgements had told.
    known: i64,
    /// The batch of the log that it asks for.
    batch: Option<(usize, u32)>,
}

impl Produces {
    pub(super) fn new(ground: &Ground<'_>) -> Self {
        let asked = ground.log.partitions().iter().map(|partition| vec![Asked::default(); partition.batches().len()]).collect();
        Self { asked, ..Self::default() }
    }

    pub(super) fn called(
        &mut self,
        ground: &Ground<'_>,
        known: &Known,
        what: ProduceCalled,
        now: Moment,
        report: &mut Report,
    ) -> Produced {
        report.counts.produced += 1;
        let index = ground.log.find(&what.partition);
        let Some((tag, index)) = what.tag.zip(index) else { return Produced { what, known: 0, batch: None } };
        let mut batch = None;
        if let Found::Batch(number) = ground.find(index, tag, what.record_count)
            && is_same(ground, index, number, what.checksum)
        {
            batch = Some((index, number));
            let asked = &mut self.asked[index][number as usize];
            report.counts.retried += u64::from(asked.calls > 0);
            asked.calls = asked.calls.saturating_add(1);
            if let Some(name) = what.batch
                && let Some(other) = self.names.insert(name, (index, number)).filter(|other| *other != (index, number))
            {
                report.counts.duplicated += u64::from(what.record_count);
                let text = format!("the records of batch {name} are in the log under two tags");
                let evidence = vec![
                    Evidence::Line(now.line),
                    place(ground.partition(other.0), other.1),
                    place(ground.partition(index), number),
                ];
                report.accuse(Rule::I2, text, evidence);
            }
        }
        let known = known.next(tag.producer, index);
        Produced { what, known, batch }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of what is known")]
    pub(super) fn answered(
        &mut self,
        ground: &Ground<'_>,
        known: &mut Known,
        epochs: &mut Epochs,
        call: Call<Produced>,
        answer: ProduceAnswer,
        now: Moment,
        report: &mut Report,
    ) {
        let Call { what: Produced { what: batch, known: known_when_called, batch: in_log }, line: called, .. } = call;
        match answer {
            ProduceAnswer::Acknowledged { duplicate, .. } => {
                report.counts.acknowledged += 1;
                report.counts.duplicates_refused += u64::from(duplicate);
            }
            ProduceAnswer::DuplicateBelowWindow => report.counts.duplicates_refused += 1,
            _ => {}
        }
        if let Some((index, number)) = in_log.filter(|_| is_refusal(answer)) {
            let asked = &mut self.asked[index][number as usize];
            asked.refused = asked.refused.saturating_add(1);
        }
        let standing = ground.standing(&batch.partition.topic, called, now.line);
        let claim = Claim { ground, batch: &batch, lines: [called, now.line], standing };
        match answer {
            ProduceAnswer::Acknowledged { place, duplicate } => {
                if let Some(tag) = batch.tag {
                    epochs.alive(tag.producer.id, call.at);
                    if !duplicate {
                        epochs.check_not_fenced(tag.producer, called, now, report);
                    }
                }
                self.acknowledged(&claim, known, place, now, report);
            }
            ProduceAnswer::OutOfOrder { expected_sequence } => claim.out_of_order(expected_sequence, known_when_called, report),
            ProduceAnswer::DuplicateBelowWindow => {
                let end = batch.tag.map_or(0, |tag| tag.base_sequence + i64::from(batch.record_count));
                claim.reaches(end, "the batch is said to be in the log", report);
                claim.is_forgotten(report);
            }
            ProduceAnswer::Fenced => {
                if let Some(tag) = batch.tag {
                    epochs.check_fenced(tag.producer, ground.outline.was_deleted(&batch.partition.topic), called, now, report);
                }
            }
            ProduceAnswer::UnknownProducer => {
                if let Some(tag) = batch.tag {
                    epochs.check_unknown(tag.producer.id, called, now, report);
                }
            }
            ProduceAnswer::Conflict => claim.conflict(report),
            ProduceAnswer::Refused | ProduceAnswer::Unknown => {}
        }
    }

    fn acknowledged(&mut self, claim: &Claim<'_>, known: &mut Known, place: Place, now: Moment, report: &mut Report) {
        let batch = claim.batch;
        if claim.standing != Standing::Current {
            report.unjudged.deleted += 1;
            return;
        }
        let count = u64::from(batch.record_count);
        let Some(index) = claim.ground.log.find(&batch.partition) else {
            report.counts.lost += count;
            let what = format!("{} is not there; a batch was acknowledged in it", batch.partition);
            return report.accuse(Rule::I1, what, claim.evidence());
        };
        if let Some(tag) = batch.tag {
            known.grow(tag.producer, index, tag.base_sequence + i64::from(batch.record_count), now.life);
        }
        let log = claim.ground.partition(index);
        if place.offset < log.log_start() {
            report.unjudged.trimmed += 1;
            let Some(tag) = batch.tag else { return };
            let (first, line) = *self.trimmed.entry((index, tag)).or_insert((place, now.line));
            if first != place {
                let what = format!("{}: a batch was acknowledged at {first}, and later at {place}", batch.partition);
                report.accuse(Rule::I4, what, vec![Evidence::Line(line), Evidence::Line(now.line)]);
            }
            return;
        }
        let there = log.at(place.offset).map(|(number, _)| *log.batch(number));
        let mut evidence = claim.evidence();
        evidence.push(Evidence::Record { partition: batch.partition.clone(), offset: place.offset });
        match there {
            Some(found)
                if found.place.offset == place.offset
                    && found.tag == batch.tag
                    && found.record_count == batch.record_count
                    && found.checksum.is_none_or(|checksum| checksum == batch.checksum) =>
            {
                if found.place != place {
                    let what = format!("{}: acknowledged at {place}, and in the log at {}", batch.partition, found.place);
                    report.accuse(Rule::I4, what, evidence);
                }
            }
            _ => match batch.tag.map(|tag| claim.ground.find(index, tag, batch.record_count)) {
                Some(Found::Batch(number)) if is_same(claim.ground, index, number, batch.checksum) => {
                    let what =
                        format!("{}: acknowledged at {place}, and in the log at {}", batch.partition, log.batch(number).place);
                    report.accuse(Rule::I4, what, evidence);
                }
                Some(_) | None => {
                    report.counts.lost += count;
                    let what =
                        format!("{}: a batch of {count} records was acknowledged at {place}, and is not there", batch.partition);
                    report.accuse(Rule::I1, what, evidence);
                }
            },
        }
    }

    /// At the end. Where nobody else wrote: batches that nobody asked for. Where calls arrive once: batches of which every call
    /// was told that it did not append them.
    pub(super) fn end(&self, ground: &Ground<'_>, is_own: impl Fn(i64) -> bool, alone: bool, once: bool, report: &mut Report) {
        for (index, partition) in ground.log.partitions().iter().enumerate() {
            for (number, batch) in (0..).zip(partition.batches()) {
                let own = batch.tag.is_some_and(|tag| is_own(tag.producer.id));
                let Asked { calls, refused } = self.asked[index][number as usize];
                if alone && own && calls == 0 {
                    let what = format!("{}: a batch that nobody sent", partition.name());
                    report.accuse(Rule::I2, what, vec![place(partition, number)]);
                }
                if once && own && calls > 0 && calls == refused {
                    let what = format!("{}: a batch is in the log, and all of its {calls} calls were refused", partition.name());
                    report.accuse(Rule::I7, what, vec![place(partition, number)]);
                }
            }
        }
    }
}

/// Does the answer say that the call appended nothing?
fn is_refusal(answer: ProduceAnswer) -> bool {
    match answer {
        ProduceAnswer::OutOfOrder { .. }
        | ProduceAnswer::Fenced
        | ProduceAnswer::UnknownProducer
        | ProduceAnswer::Conflict
        | ProduceAnswer::Refused => true,
        ProduceAnswer::Acknowledged { .. } | ProduceAnswer::DuplicateBelowWindow | ProduceAnswer::Unknown => false,
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "offset {} of time {}", self.offset, self.append_time)
    }
}

impl Partition {
    /// Names one.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}
