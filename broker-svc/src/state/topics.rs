//! Topics and their partitions: names, ids, and where each log starts and ends.

use std::collections::BTreeMap;

use oncelog_proto::{ErrorCode, Fault, Offset, TopicName, TopicPartition, topic::PartitionCount};

use super::{Contradiction, DeterministicMap};
use crate::entry::{Append, PartitionId, Trimmed};

/// A living topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) first: PartitionId,
    pub(super) partitions: PartitionCount,
}

/// One partition of a living topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) name: TopicPartition,
    pub(super) ends: Ends,
    pub(super) bytes: u64,
}

/// Where a partition's log starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The lowest offset that can be read.
    pub start: Offset,
    /// The offset after the last record.
    pub end: Offset,
}

impl Ends {
    /// The offset that a reader starts from: the one asked for, or the log start.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE`: below the log start or above the log end; names both.
    pub fn first_to_read(self, asked: Option<i64>, partition: &TopicPartition) -> Result<Offset, Fault> {
        let Some(asked) = asked else { return Ok(self.start) };
        let offset = Offset::new(asked).ok().filter(|offset| (self.start..=self.end).contains(offset));
        offset.ok_or_else(|| self.out_of_range(asked, partition))
    }

    /// The fault of an offset that is not between the two.
    pub fn out_of_range(self, offset: i64, partition: &TopicPartition) -> Fault {
        let Self { start, end } = self;
        let message =
            format!("{partition} has no offset {offset} to read: its log starts at {start}, and its next offset is {end}");
        let fault = Fault::new(ErrorCode::OffsetOutOfRange, message).with("offset", offset);
        fault.with("log_start_offset", start).with("log_end_offset", end)
    }
}

/// All living topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topics {
    by_name: BTreeMap<TopicName, Topic>,
    partitions: DeterministicMap<PartitionId, Partition>,
    /// Counts up for ever, over deleted topics too.
    next_partition: u32,
}

impl Topics {
    pub(super) fn restore(next_partition: u32) -> Self {
        Self { next_partition, ..Self::default() }
    }

    pub(super) fn next_partition(&self) -> PartitionId {
        PartitionId(self.next_partition)
    }

    pub(super) fn count(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    pub(super) fn get(&self, topic: &TopicName) -> Option<Topic> {
        self.by_name.get(topic).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicName, Topic)> {
        self.by_name.iter().map(|(name, topic)| (name, *topic))
    }

    pub(super) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(&id)
    }

    /// The partition of this name.
    pub(super) fn find(&self, name: &TopicPartition) -> Result<Option<PartitionId>, Fault> {
        let Some(topic) = self.get(&name.topic) else { return Ok(None) };
        check_partition(name, topic.partitions)?;
        Ok(Some(topic.first.nth(name.partition)))
    }

    pub(super) fn create(
        &mut self,
        name: &TopicName,
        first: PartitionId,
        partitions: PartitionCount,
    ) -> Result<(), Contradiction> {
        // A snapshot restores topics in the order of their names, not of their ids; so ids may lie below the counter there.
        let after = first.0.checked_add(partitions.get().unsigned_abs()).ok_or(Contradiction("partition ids overflow"))?;
        for index in 0..partitions.get() {
            let index = index.try_into().map_err(|_| Contradiction("a partition count is negative"))?;
            let partition = Partition {
                name: TopicPartition { topic: name.clone(), partition: index },
                ends: Ends { start: Offset::ZERO, end: Offset::ZERO },
                bytes: 0,
            };
            if self.partitions.insert(first.nth(index), partition).is_some() {
                return Err(Contradiction("a partition id is given out twice"));
            }
        }
        self.next_partition = self.next_partition.max(after);
        match self.by_name.insert(name.clone(), Topic { first, partitions }) {
            None => Ok(()),
            Some(_) => Err(Contradiction("a topic is created that exists")),
        }
    }

    /// Sets what a snapshot says of a partition.
    pub(super) fn restore_partition(&mut self, id: PartitionId, ends: Ends, bytes: u64) -> Result<(), Contradiction> {
        let partition = self.partitions.get_mut(&id).ok_or(Contradiction("a partition without a topic"))?;
        partition.ends = ends;
        partition.bytes = bytes;
        Ok(())
    }

    /// Removes a topic; returns its partitions' ids and names.
    pub(super) fn delete(&mut self, name: &TopicName) -> Result<Vec<(PartitionId, TopicPartition)>, Contradiction> {
        let topic = self.by_name.remove(name).ok_or(Contradiction("a topic is deleted that does not exist"))?;
        let ids = topic.first.0..topic.first.0 + topic.partitions.get().unsigned_abs();
        Ok(ids.filter_map(|id| Some((PartitionId(id), self.partitions.remove(&PartitionId(id))?.name))).collect())
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<(), Contradiction> {
        let partition =
            self.partitions.get_mut(&append.partition).ok_or(Contradiction("records for a partition that does not exist"))?;
        if append.base_offset != partition.ends.end {
            return Err(Contradiction("the base offset is not the partition's log end"));
        }
        partition.ends.end = append.base_offset.checked_add(append.count).ok_or(Contradiction("offsets overflow"))?;
        partition.bytes += u64::from(append.data_len);
        Ok(())
    }

    pub(super) fn trim(&mut self, trimmed: &Trimmed) {
        // The segment may hold records of a topic that was deleted since.
        if let Some(partition) = self.partitions.get_mut(&trimmed.partition) {
            partition.ends.start = partition.ends.start.max(trimmed.log_start).min(partition.ends.end);
            partition.bytes = partition.bytes.saturating_sub(trimmed.bytes);
        }
    }

    pub(super) fn skip_to(&mut self, id: PartitionId, to: Offset) {
        if let Some(partition) = self.partitions.get_mut(&id) {
            partition.ends.end = partition.ends.end.max(to);
        }
    }
}

/// Is there a partition of this number in a topic of this many?
pub(super) fn check_partition(name: &TopicPartition, partitions: PartitionCount) -> Result<(), Fault> {
    if partitions.contains(name.partition) {
        return Ok(());
    }
    let (topic, partition, count) = (&name.topic, name.partition, partitions.get());
    let message = format!("topic {topic} has no partition {partition}: it has {count}, numbered from 0");
    Err(Fault::new(ErrorCode::UnknownTopicOrPartition, message).with("topic", topic).with("partition", partition))
}

/// The fault of a name that no topic has.
pub(super) fn unknown_topic(topic: &TopicName) -> Fault {
    let message = format!("topic {topic} does not exist; create it with CreateTopic");
    Fault::new(ErrorCode::UnknownTopicOrPartition, message).with("topic", topic)
}
