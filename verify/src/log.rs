//! What a reader reads: every partition from its log start to its end, as tags, times and digests.
//!
//! In memory a record takes 12 bytes and a batch about 70.

use std::{collections::HashMap, ops::Range};

use crate::history::{Digest, Partition, Place, Producer, Tag};

/// All partitions that were read.
#[derive(Clone, Debug, Default)]
pub struct Log {
    partitions: Vec<PartitionLog>,
    by_name: HashMap<Partition, usize>,
    stands: Vec<Stand>,
    /// The topics that were read; empty: all there are.
    topics: Vec<String>,
    is_damaged: bool,
}

/// One partition.
#[derive(Clone, Debug)]
pub struct PartitionLog {
    name: Partition,
    log_start: i64,
    log_end: i64,
    batches: Vec<Batch>,
    /// By offset from the log start: the number of the record's batch.
    batch_of: Vec<u32>,
    digests: Vec<Digest>,
    disorder: Option<String>,
}

/// A batch without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where it stands, and since when.
    pub place: Place,
    /// How many records it has, from 1.
    pub record_count: u32,
    /// None: it was appended without one.
    pub tag: Option<Tag>,
    /// CRC-32C of its data, if the reader was told.
    pub checksum: Option<u32>,
}

/// Where the broker says that a producer stands in a partition, when nothing is written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Who, in its current epoch.
    pub producer: Producer,
    /// Where.
    pub partition: Partition,
    /// The sequence that is expected next.
    pub next_sequence: i64,
}

impl Log {
    /// A log of these topics alone; none: of all of them. What is claimed of others is not judged.
    pub fn of(topics: &[String]) -> Self {
        Self { topics: topics.to_vec(), ..Self::default() }
    }

    /// Adds a partition.
    ///
    /// # Panics
    /// It was added before.
    pub fn add(&mut self, partition: PartitionLog) {
        let before = self.by_name.insert(partition.name.clone(), self.partitions.len());
        assert!(before.is_none(), "a partition is read once");
        self.partitions.push(partition);
    }

    /// Adds what the broker says of a producer. It is compared with the log, so it belongs to the moment the log was read.
    pub fn add_stand(&mut self, stand: Stand) {
        self.stands.push(stand);
    }

    /// Something of it could not be read because it is damaged, and whoever reads has said so. Then the holes that this leaves
    /// are no fault of their own: they are counted, and nobody is accused.
    pub fn note_damage(&mut self) {
        self.is_damaged = true;
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// The partitions, in the order in which they were added.
    pub fn partitions(&self) -> &[PartitionLog] {
        &self.partitions
    }

    /// How many records there are.
    pub fn record_count(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.records().count() as u64).sum()
    }

    pub(crate) fn covers(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|read| read == topic)
    }

    pub(crate) fn stands(&self) -> &[Stand] {
        &self.stands
    }

    pub(crate) fn find(&self, name: &Partition) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

impl PartitionLog {
    /// An empty one, with the ends that the broker told.
    pub fn new(name: Partition, log_start: i64, log_end: i64) -> Self {
        Self { name, log_start, log_end, batches: Vec::new(), batch_of: Vec::new(), digests: Vec::new(), disorder: None }
    }

    /// The next batch that was read. Records below the log start are not kept, nor are those beyond its end: they came later.
    ///
    /// # Panics
    /// There are four billion batches, or no records.
    pub fn push(&mut self, place: Place, tag: Option<Tag>, checksum: Option<u32>, records: &[Digest]) {
        let record_count = u32::try_from(records.len()).expect("a batch is far smaller");
        assert!(record_count > 0, "a batch has a record");
        if place.offset < self.next_offset() && !self.batches.is_empty() && self.disorder.is_none() {
            self.disorder = Some(format!("offset {} was read after {}", place.offset, self.next_offset() - 1));
        }
        let number = u32::try_from(self.batches.len()).ok().filter(|number| *number != NO_BATCH).expect("below four billion");
        self.batches.push(Batch { place, record_count, tag, checksum });
        for (offset, digest) in (place.offset..).zip(records) {
            if offset < self.next_offset() || offset >= self.log_end {
                continue;
            }
            let index = usize::try_from(offset - self.log_start).expect("not below the next offset");
            self.batch_of.resize(index, NO_BATCH);
            self.digests.resize(index, Digest(0));
            self.batch_of.push(number);
            self.digests.push(*digest);
        }
    }

    fn next_offset(&self) -> i64 {
        self.log_start + i64::try_from(self.digests.len()).expect("in memory")
    }

    /// Its name.
    pub fn name(&self) -> &Partition {
        &self.name
    }

    /// Lowest offset that can be read.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// One above the last record.
    pub fn log_end(&self) -> i64 {
        self.log_end
    }

    /// In the order of the log.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Offset, batch and digest of each record.
    pub(crate) fn records(&self) -> impl Iterator<Item = (i64, u32, Digest)> {
        let offsets = self.log_start..;
        let records = offsets.zip(&self.batch_of).zip(&self.digests).map(|((offset, batch), digest)| (offset, *batch, *digest));
        records.filter(|(_, batch, _)| *batch != NO_BATCH)
    }

    /// The record at an offset: its batch's number, and what it is.
    pub(crate) fn at(&self, offset: i64) -> Option<(u32, Digest)> {
        let index = usize::try_from(offset.checked_sub(self.log_start)?).ok()?;
        let batch = *self.batch_of.get(index)?;
        (batch != NO_BATCH).then(|| (batch, self.digests[index]))
    }

    pub(crate) fn batch(&self, number: u32) -> &Batch {
        &self.batches[number as usize]
    }

    /// Ranges of offsets between the ends at which nothing was read, lowest first.
    pub(crate) fn holes(&self) -> Vec<Range<i64>> {
        let mut holes = Vec::new();
        let mut next = self.log_start;
        let mut reach = |offset: i64, behind: i64| {
            if next < offset {
                holes.push(next..offset);
            }
            next = behind;
        };
        self.records().for_each(|(offset, _, _)| reach(offset, offset + 1));
        reach(self.log_end, self.log_end);
        holes
    }

    pub(crate) fn disorder(&self) -> Option<&str> {
        self.disorder.as_deref()
    }

    /// Was something trimmed from it?
    pub(crate) fn is_trimmed(&self) -> bool {
        self.log_start > 0
    }
}

impl Batch {
    /// The sequence after its last record's; none without a tag.
    pub(crate) fn next_sequence(&self) -> Option<i64> {
        Some(self.tag?.base_sequence + i64::from(self.record_count))
    }
}

/// Stands where no record was read.
const NO_BATCH: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> Place {
        Place { offset, append_time: 0 }
    }

    #[test]
    fn records_are_found_by_their_offset_and_holes_are_seen() {
        let name = Partition { topic: "t".into(), partition: 0 };
        let mut log = PartitionLog::new(name, 10, 16);
        log.push(place(9), None, None, &[Digest(9), Digest(10)]);
        log.push(place(13), None, None, &[Digest(13), Digest(14), Digest(15), Digest(16)]);
        let found: Vec<_> = (8..18).map(|offset| log.at(offset).map(|(_, digest)| digest.0)).collect();
        assert_eq!(found, [None, None, Some(10), None, None, Some(13), Some(14), Some(15), None, None]);
        let holes = |log: &PartitionLog| log.holes().iter().map(|hole| (hole.start, hole.end)).collect::<Vec<_>>();
        assert_eq!(holes(&log), [(11, 13)]);
        assert_eq!(log.disorder(), None);
        log.push(place(14), None, None, &[Digest(14)]);
        assert!(log.disorder().is_some());
        let empty = PartitionLog::new(Partition { topic: "t".into(), partition: 1 }, 3, 5);
        assert_eq!(holes(&empty), [(3, 5)]);
    }
}
