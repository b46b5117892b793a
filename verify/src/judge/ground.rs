//! What stands while a history is judged: the log, and where each producer's batches are in it. Judged by itself as well: much of
//! what is promised can be seen from the log alone.

use std::{collections::HashMap, ops::Range};

use super::outline::{Outline, Standing};
use crate::{
    history::{Producer, Tag},
    log::{Batch, Log, PartitionLog},
    report::{Evidence, Report, Rule},
};

/// The log, arranged for questions.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) log: &'a Log,
    pub(super) outline: Outline,
    /// The batches of a producer's epoch in a partition, in the order of the log.
    streams: HashMap<(Producer, usize), Vec<u32>>,
    /// Where a producer's epoch has streams.
    partitions_of: HashMap<Producer, Vec<usize>>,
}

/// What the log says of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A batch with exactly these sequences, and its number.
    Batch(u32),
    /// Nothing.
    Absent,
}

impl<'a> Ground<'a> {
    pub(super) fn new(log: &'a Log, outline: Outline, report: &mut Report) -> Self {
        let mut ground = Self { log, outline, streams: HashMap::new(), partitions_of: HashMap::new() };
        for index in 0..log.partitions().len() {
            ground.read(index, report);
        }
        for stand in log.stands() {
            ground.compare(stand, report);
        }
        ground
    }

    fn read(&mut self, index: usize, report: &mut Report) {
        let partition = &self.log.partitions()[index];
        report.counts.in_log += partition.records().count() as u64;
        for hole in partition.holes() {
            self.judge_hole(partition, &hole, report);
        }
        if let Some(disorder) = partition.disorder() {
            report.accuse(Rule::I3, format!("{}: {disorder}", partition.name()), Vec::new());
        }
        let mut epochs: HashMap<i64, (i32, u32)> = HashMap::new();
        for (number, batch) in (0..).zip(partition.batches()) {
            let Some(tag) = batch.tag else { continue };
            let producer = tag.producer;
            let (highest, its) = *epochs.entry(producer.id).or_insert((producer.epoch, number));
            if producer.epoch < highest {
                let what = format!("producer {} wrote in epoch {} after epoch {highest}", producer.id, producer.epoch);
                report.accuse(Rule::I6, what, vec![place(partition, its), place(partition, number)]);
            } else {
                epochs.insert(producer.id, (producer.epoch, number));
            }
            let stream = self.streams.entry((producer, index)).or_default();
            if stream.is_empty() {
                self.partitions_of.entry(producer).or_default().push(index);
            }
            check_sequence(partition, stream, number, tag, report);
            stream.push(number);
        }
    }

    /// Offsets are given out for records alone: where none can be read there was one, and whoever wrote it was told "in the log".
    fn judge_hole(&self, partition: &PartitionLog, hole: &Range<i64>, report: &mut Report) {
        if self.log.is_damaged() {
            report.unjudged.missing_offsets += hole.end.abs_diff(hole.start);
            return;
        }
        let what = format!("{}: nothing can be read from offset {} to {}", partition.name(), hole.start, hole.end - 1);
        let evidence = Evidence::Record { partition: partition.name().clone(), offset: hole.start };
        report.accuse(Rule::I1, what, vec![evidence]);
    }

    /// Is the state what a fold of the log gives (I5)?
    fn compare(&self, stand: &crate::log::Stand, report: &mut Report) {
        let Some(index) = self.log.find(&stand.partition) else { return };
        match self.next_sequence(stand.producer, index) {
            // What it wrote may be trimmed, or the window may have outlived it.
            None if self.log.partitions()[index].is_trimmed() => report.unjudged.trimmed += 1,
            next if next.unwrap_or(0) == stand.next_sequence => {}
            next => {
                let Producer { id, epoch } = stand.producer;
                let what = format!(
                    "{}: the broker says that producer {id} epoch {epoch} goes on with {}; by the log it is {}",
                    stand.partition,
                    stand.next_sequence,
                    next.unwrap_or(0)
                );
                let last = self.streams.get(&(stand.producer, index)).and_then(|stream| stream.last());
                let evidence = last.map(|last| place(&self.log.partitions()[index], *last));
                report.accuse(Rule::I5, what, evidence.into_iter().collect());
            }
        }
    }

    /// The sequence behind the last batch of a producer's epoch in a partition; none if there is no batch.
    pub(super) fn next_sequence(&self, producer: Producer, partition: usize) -> Option<i64> {
        let last = self.streams.get(&(producer, partition))?.last()?;
        self.log.partitions()[partition].batch(*last).next_sequence()
    }

    /// The last `most` batches of a producer's epoch in a partition, oldest first.
    pub(super) fn last_batches(&self, producer: Producer, partition: usize, most: usize) -> Vec<Batch> {
        let stream = self.streams.get(&(producer, partition)).map_or(&[][..], Vec::as_slice);
        let last = &stream[stream.len().saturating_sub(most)..];
        last.iter().map(|number| *self.log.partitions()[partition].batch(*number)).collect()
    }

    /// Where a producer's epoch has batches in the log.
    pub(super) fn partitions_of(&self, producer: Producer) -> &[usize] {
        self.partitions_of.get(&producer).map_or(&[], Vec::as_slice)
    }

    /// Looks for a batch by its tag and size.
    pub(super) fn find(&self, partition: usize, tag: Tag, record_count: u32) -> Found {
        let log = &self.log.partitions()[partition];
        let Some(stream) = self.streams.get(&(tag.producer, partition)) else { return Found::Absent };
        let base = |number: &u32| log.batch(*number).tag.map_or(i64::MIN, |tag| tag.base_sequence);
        match stream.binary_search_by_key(&tag.base_sequence, base) {
            Ok(at) if log.batch(stream[at]).record_count == record_count => Found::Batch(stream[at]),
            _ => Found::Absent,
        }
    }

    pub(super) fn partition(&self, index: usize) -> &'a PartitionLog {
        &self.log.partitions()[index]
    }

    /// How a claim stands to the topic that was read. Of one that was not read, nobody can tell.
    pub(super) fn standing(&self, topic: &str, called: u64, answered: u64) -> Standing {
        if self.log.covers(topic) { self.outline.standing(topic, called, answered) } else { Standing::Doubtful }
    }
}

/// The evidence that a batch is.
pub(super) fn place(partition: &PartitionLog, number: u32) -> Evidence {
    Evidence::Record { partition: partition.name().clone(), offset: partition.batch(number).place.offset }
}

/// Does the batch follow the ones before of its producer's epoch (I3), and is it none of them (I2)?
fn check_sequence(partition: &PartitionLog, stream: &[u32], number: u32, tag: Tag, report: &mut Report) {
    let batch = partition.batch(number);
    let Producer { id, epoch } = tag.producer;
    let whose = || format!("{}: producer {id} epoch {epoch}", partition.name());
    let Some(last) = stream.last() else {
        if tag.base_sequence == 0 {
            return;
        }
        if partition.is_trimmed() {
            report.unjudged.trimmed += 1;
        } else {
            let what = format!("{} begins with sequence {}", whose(), tag.base_sequence);
            report.accuse(Rule::I3, what, vec![place(partition, number)]);
        }
        return;
    };
    let expected = partition.batch(*last).next_sequence().expect("a stream has tagged batches");
    if tag.base_sequence == expected {
        return;
    }
    let is_same = |earlier: &&u32| {
        let earlier = partition.batch(**earlier);
        earlier.tag == batch.tag && earlier.record_count == batch.record_count && earlier.checksum == batch.checksum
    };
    // Only where something is wrong, so this does not make the whole slow.
    if let Some(original) = stream.iter().rev().take(LOOKED_BACK).find(is_same) {
        report.counts.duplicated += u64::from(batch.record_count);
        let what = format!("{}: sequence {} is in the log twice", whose(), tag.base_sequence);
        return report.accuse(Rule::I2, what, vec![place(partition, *original), place(partition, number)]);
    }
    let what = format!("{}: sequence {} follows where {expected} should", whose(), tag.base_sequence);
    report.accuse(Rule::I3, what, vec![place(partition, *last), place(partition, number)]);
}

/// Batches among which the original of a duplicate is looked for.
const LOOKED_BACK: usize = 1_000;
