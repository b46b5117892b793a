//! What the answer to a recovery says, read against what the session remembers. Pure.
//!
//! The broker has fenced the old epoch, so its word is final: below `next` everything is in the log, from `next` on nothing
//! is and nothing ever will be. Before it is acted on, it has to agree with what this process did: a log that holds what the
//! process never sent was written by another one.

use std::collections::HashMap;

use oncelog_proto::{Offset, Sequence, Timestamp, TopicPartition};

use super::{InitAnswer, RecoveredPartition, lanes::Lanes, slot::Slot, window::Window};

/// A recovery answer, by partition. One that is absent holds nothing of the fenced epoch (R3).
#[derive(Debug)]
pub(super) struct Recovered<'a> {
    // Never iterated, so its order decides nothing.
    partitions: HashMap<&'a TopicPartition, &'a RecoveredPartition>,
    answer: &'a InitAnswer,
}

/// What became of a batch of the fenced epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the log, there where the window says (R2).
    Appended { base_offset: Option<Offset>, append_time: Timestamp },
    /// It is not, and never will be.
    Absent,
}

/// Partitions that hold less than was acknowledged, in words.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// The broker knows nothing of the fenced epoch there: the topic was deleted (R12), or everything is lost.
    pub(super) gone: Vec<String>,
    /// Some of it is there, and the end is not: acknowledged records are lost.
    pub(super) cut: Vec<String>,
}

impl<'a> Recovered<'a> {
    pub(super) fn new(answer: &'a InitAnswer) -> Self {
        let partitions = answer.partitions.iter().map(|recovered| (&recovered.partition, recovered)).collect();
        Self { partitions, answer }
    }

    /// Says why somebody else must have written under this id, if so.
    pub(super) fn contradiction(&self, lanes: &Lanes) -> Option<String> {
        self.answer.partitions.iter().find_map(|recovered| {
            let claim = match lanes.of(&recovered.partition) {
                Some(lane) => contradiction(&lane.window, recovered),
                None => (recovered.next > Sequence::ZERO).then(|| "this process wrote nothing to it".to_owned()),
            };
            claim.map(|claim| format!("{}: {claim}", recovered.partition))
        })
    }

    /// What was acknowledged in the fenced epoch and is not in the log.
    pub(super) fn missing(&self, lanes: &Lanes) -> Missing {
        let mut missing = Missing::default();
        for lane in lanes.iter() {
            let acknowledged = lane.window.acknowledged();
            match self.partitions.get(&lane.partition) {
                None if acknowledged > Sequence::ZERO => missing.gone.push(lane.partition.to_string()),
                Some(recovered) if recovered.next < acknowledged => {
                    let (partition, next) = (&lane.partition, recovered.next);
                    missing.cut.push(format!("{partition} ends at sequence {next}, acknowledged was up to {acknowledged}"));
                }
                None | Some(_) => {}
            }
        }
        missing
    }

    /// What became of a batch.
    pub(super) fn fate(&self, partition: &TopicPartition, slot: &Slot) -> Fate {
        if slot.end() > self.next(partition) {
            return Fate::Absent;
        }
        let window = self.partitions.get(partition).map(|recovered| recovered.window.as_slice()).unwrap_or_default();
        match window.iter().find(|batch| batch.base == slot.base()) {
            Some(batch) => Fate::Appended { base_offset: Some(batch.base_offset), append_time: batch.append_time },
            // R1 keeps every batch in doubt among the last five; without an entry it is still known to be in the log.
            None => Fate::Appended { base_offset: None, append_time: Timestamp::default() },
        }
    }

    fn next(&self, partition: &TopicPartition) -> Sequence {
        self.partitions.get(partition).map_or(Sequence::ZERO, |recovered| recovered.next)
    }
}

fn contradiction(window: &Window, recovered: &RecoveredPartition) -> Option<String> {
    let next = recovered.next;
    if next > window.next() {
        return Some(format!("the log reaches sequence {next}, this process tagged none from {} on", window.next()));
    }
    for slot in window.slots() {
        if slot.base() < next && next < slot.end() {
            return Some(format!("the log ends at sequence {next}, inside the batch {} to {}", slot.base(), slot.end()));
        }
        for batch in &recovered.window {
            let overlaps = batch.base < slot.end() && batch.base.checked_add(batch.count).is_none_or(|end| end > slot.base());
            let same = (batch.base, batch.count, batch.checksum) == (slot.base(), slot.count(), slot.checksum());
            if overlaps && !same {
                return Some(format!("the batch at sequence {} has other content than this process sent", batch.base));
            }
        }
    }
    None
}
