//! Judges producer ids and epochs: who was given what, when, and what that forbids (I6).

use std::collections::HashMap;

use super::{Call, Moment, ground::Ground, known::Known, outline::Standing};
use crate::{
    history::{FencedPartition, InitAnswer, InitCalled, Producer},
    report::{Evidence, Report, Rule},
};

/// What was asked for and handed out so far.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    by_id: HashMap<i64, Issued>,
    expiration_ms: Option<u64>,
}

/// One producer id.
#[derive(Debug)]
struct Issued {
    /// Line of the answer that handed it out.
    line: u64,
    /// Epochs above the first, the answers that handed them out.
    raised: Vec<Raised>,
    /// The highest epoch that a recovery, answered or not, may have fenced, and the line of its call.
    maybe_fenced: Option<(i32, u64)>,
    /// When a call was made from which the broker heard of it.
    last_seen: u64,
}

#[derive(Debug)]
struct Raised {
    epoch: i32,
    line: u64,
    token: String,
    fenced: Vec<FencedPartition>,
}

/// A call, and what was known when it was made.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) what: InitCalled,
    /// Next sequences of the epoch to be fenced, by partition, that acknowledgements had told.
    known: Vec<(usize, i64)>,
}

impl Epochs {
    pub(super) fn new(expiration_ms: Option<u64>) -> Self {
        Self { expiration_ms, ..Self::default() }
    }

    /// Was this id handed out in this history?
    pub(super) fn is_own(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn called(&mut self, ground: &Ground<'_>, known: &Known, what: InitCalled, now: Moment) -> Asked {
        let mut known_next = Vec::new();
        if let Some(producer) = what.recover {
            if let Some(issued) = self.by_id.get_mut(&producer.id)
                && issued.maybe_fenced.is_none_or(|(epoch, _)| epoch < producer.epoch)
            {
                issued.maybe_fenced = Some((producer.epoch, now.line));
            }
            let partitions = 0..ground.log.partitions().len();
            known_next = partitions.map(|index| (index, known.next(producer, index))).filter(|(_, next)| *next > 0).collect();
        }
        Asked { what, known: known_next }
    }

    pub(super) fn answered(
        &mut self,
        ground: &Ground<'_>,
        call: Call<Asked>,
        answer: InitAnswer,
        now: Moment,
        report: &mut Report,
    ) {
        let Call { what: Asked { what: init, known }, line: called, at, .. } = call;
        match (init.recover, answer) {
            (None, InitAnswer::Granted { producer, .. }) => {
                let issued = Issued { line: now.line, raised: Vec::new(), maybe_fenced: None, last_seen: at };
                if let Some(before) = self.by_id.insert(producer.id, issued) {
                    let what = format!("producer id {} was handed out twice", producer.id);
                    report.accuse(Rule::I5, what, vec![Evidence::Line(before.line), Evidence::Line(now.line)]);
                }
            }
            (Some(fenced), InitAnswer::Granted { producer, fenced: told }) => {
                let lines = [called, now.line];
                if producer.id != fenced.id || producer.epoch != fenced.epoch + 1 {
                    let what = format!(
                        "the recovery of producer {} epoch {} was answered with {} epoch {}",
                        fenced.id, fenced.epoch, producer.id, producer.epoch
                    );
                    report.accuse(Rule::I6, what, lines.map(Evidence::Line).into());
                    return;
                }
                check_told(ground, fenced, &told, &known, lines, report);
                self.raised(producer, init.token, told, at, now, report);
            }
            (Some(fenced), InitAnswer::UnknownProducer) => self.check_unknown(fenced.id, called, now, report),
            (_, InitAnswer::Refused | InitAnswer::Unknown | InitAnswer::UnknownProducer) => {}
        }
    }

    fn raised(
        &mut self,
        producer: Producer,
        token: String,
        fenced: Vec<FencedPartition>,
        at: u64,
        now: Moment,
        report: &mut Report,
    ) {
        // An id of before this history is one as well.
        let issued = self.by_id.entry(producer.id).or_insert_with(|| Issued {
            line: now.line,
            raised: Vec::new(),
            maybe_fenced: Some((producer.epoch - 1, now.line)),
            last_seen: at,
        });
        issued.last_seen = issued.last_seen.max(at);
        let Some(before) = issued.raised.iter().find(|raised| raised.epoch == producer.epoch) else {
            issued.raised.push(Raised { epoch: producer.epoch, line: now.line, token, fenced });
            return;
        };
        let evidence = vec![Evidence::Line(before.line), Evidence::Line(now.line)];
        if before.token != token {
            let what = format!("epoch {} of producer {} was handed out twice, for different tokens", producer.epoch, producer.id);
            report.accuse(Rule::I6, what, evidence);
        } else if before.fenced != fenced {
            let what = format!("the recovery of producer {} to epoch {} got two answers", producer.id, producer.epoch);
            report.accuse(Rule::I4, what, evidence);
        }
    }

    /// The broker heard of it by a call that was made then.
    pub(super) fn alive(&mut self, id: i64, at: u64) {
        if let Some(issued) = self.by_id.get_mut(&id) {
            issued.last_seen = issued.last_seen.max(at);
        }
    }

    /// A batch was appended by a call that was made in the line `called`: no newer epoch was known then (I6).
    pub(super) fn check_not_fenced(&self, producer: Producer, called: u64, now: Moment, report: &mut Report) {
        let Some(issued) = self.by_id.get(&producer.id) else { return };
        let newer = issued.raised.iter().find(|raised| raised.epoch > producer.epoch && raised.line < called);
        if let Some(newer) = newer {
            let what =
                format!("producer {} wrote in epoch {} after it was given epoch {}", producer.id, producer.epoch, newer.epoch);
            report.accuse(Rule::I6, what, [newer.line, called, now.line].map(Evidence::Line).into());
        }
    }

    /// An answer says that an epoch is fenced: somebody has to have asked for that.
    pub(super) fn check_fenced(&self, producer: Producer, by_deletion: bool, called: u64, now: Moment, report: &mut Report) {
        let Some(issued) = self.by_id.get(&producer.id).filter(|_| !by_deletion) else { return };
        if issued.maybe_fenced.is_none_or(|(epoch, _)| epoch < producer.epoch) {
            let what = format!("producer {} is told that epoch {} is fenced; nobody recovered it", producer.id, producer.epoch);
            report.accuse(Rule::I5, what, [called, now.line].map(Evidence::Line).into());
        }
    }

    /// An answer says that an id is unknown: it has to have expired.
    pub(super) fn check_unknown(&self, id: i64, called: u64, now: Moment, report: &mut Report) {
        let Some(issued) = self.by_id.get(&id).filter(|issued| issued.line < called) else { return };
        let Some(expiration_ms) = self.expiration_ms else {
            report.unjudged.expiry += 1;
            return;
        };
        let silent_ms = now.at.saturating_sub(issued.last_seen) / 1_000;
        if silent_ms < expiration_ms {
            let what =
                format!("producer id {id} is said to be unknown after {silent_ms} ms of silence; it lives {expiration_ms} ms");
            report.accuse(Rule::I5, what, [issued.line, called, now.line].map(Evidence::Line).into());
        }
    }
}

/// A recovery says what is in the log of the fenced epoch, and that nothing of it will follow.
fn check_told(
    ground: &Ground<'_>,
    fenced: Producer,
    told: &[FencedPartition],
    known: &[(usize, i64)],
    lines: [u64; 2],
    report: &mut Report,
) {
    let mut indexes: Vec<usize> = ground.partitions_of(fenced).to_vec();
    indexes.extend(known.iter().map(|(index, _)| *index));
    indexes.sort_unstable();
    indexes.dedup();
    for index in indexes {
        let partition = ground.partition(index);
        let told = told.iter().find(|told| told.partition == *partition.name());
        let next_told = told.map_or(0, |told| told.next_sequence);
        if ground.standing(&partition.name().topic, lines[0], lines[1]) != Standing::Current {
            report.unjudged.deleted += 1;
            continue;
        }
        let known = known.iter().find(|(at, _)| *at == index).map_or(0, |(_, next)| *next);
        let in_log = ground.next_sequence(fenced, index);
        let of = format!("{}: a recovery of producer {} epoch {}", partition.name(), fenced.id, fenced.epoch);
        let evidence = lines.map(Evidence::Line).to_vec();
        if next_told < known {
            report.accuse(Rule::I5, format!("{of} says {next_told} is next, after {known} was known"), evidence);
        } else if in_log.is_none() && partition.is_trimmed() {
            report.unjudged.trimmed += 1;
        } else if in_log.unwrap_or(0) > next_told {
            let what = format!("{of} says that from {next_told} on nothing will be; the log goes to {}", in_log.unwrap_or(0));
            report.accuse(Rule::I6, what, evidence);
        } else if in_log.unwrap_or(0) == next_told
            && let Some(told) = told
        {
            check_window(ground, fenced, index, told, &of, evidence, report);
        }
    }
    // What is told and is not in the log at all, or not that far.
    for told in told {
        let index = ground.log.find(&told.partition);
        let in_log = index.and_then(|index| ground.next_sequence(fenced, index));
        if ground.standing(&told.partition.topic, lines[0], lines[1]) != Standing::Current {
            report.unjudged.deleted += 1;
        } else if in_log.is_none() && index.is_some_and(|index| ground.partition(index).is_trimmed()) {
            report.unjudged.trimmed += 1;
        } else if in_log.unwrap_or(0) < told.next_sequence {
            let what = format!(
                "{}: a recovery says that all below {} is in the log; it ends before {}",
                told.partition,
                told.next_sequence,
                in_log.unwrap_or(0)
            );
            report.accuse(Rule::I7, what, lines.map(Evidence::Line).into());
        }
    }
}

/// The window is the last five batches, or all of them, each as it is in the log: what a clean stop and a `kill -9` leave behind.
fn check_window(
    ground: &Ground<'_>,
    fenced: Producer,
    index: usize,
    told: &FencedPartition,
    of: &str,
    evidence: Vec<Evidence>,
    report: &mut Report,
) {
    let expected = ground.last_batches(fenced, index, WINDOW_BATCHES);
    if told.window.len() < expected.len() {
        let what = format!("{of} remembers {} of the last {} batches", told.window.len(), expected.len());
        return report.accuse(Rule::I5, what, evidence);
    }
    // Where older ones are trimmed, more is remembered than can be read.
    let newest = &told.window[told.window.len() - expected.len()..];
    let is_same = newest.iter().zip(&expected).all(|(told, batch)| {
        batch.tag.is_some_and(|tag| tag.base_sequence == told.base_sequence)
            && batch.record_count == told.record_count
            && batch.place == told.place
            && batch.checksum.is_none_or(|checksum| checksum == told.checksum)
    });
    if !is_same {
        report.accuse(Rule::I4, format!("{of} tells other places or contents of its batches than the log"), evidence);
    }
}

/// Batches that the broker remembers of each producer in each partition.
pub(super) const WINDOW_BATCHES: usize = 5;
