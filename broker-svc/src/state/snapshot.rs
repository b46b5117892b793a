//! The state as bytes and back. All five entries of every window are in it: a clean stop forgets nothing (W1).
//!
//! A snapshot is a sequence of chunks, each a sequence of length-delimited protobuf messages; the journal checksums the chunks.
//! Everything is sorted, so equal states have equal bytes.

use std::time::Duration;

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{
    Epoch, Offset, PartitionIndex, ProducerId, RecordCount, Sequence, Timestamp, TopicName, TopicPartition, topic::PartitionCount,
};
use prost::Message;

use super::{
    Contradiction, State,
    producers::{Producer, Producers},
    topics::{Ends, Topics},
    window::{Slot, Window},
};
use crate::entry::{OwnerHash, PartitionId, TokenHash};

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are not of this form.
    #[error("the snapshot is not readable: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A value in it is out of its range, or contradicts another.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(#[from] Contradiction),
}

impl State {
    /// The state as chunks of at most a few hundred KiB.
    pub fn to_chunks(&self) -> Vec<Vec<u8>> {
        let mut chunks = Chunks::default();
        chunks.push(Item::Counters(Counters {
            next_partition: self.topics.next_partition().0,
            next_producer: self.producers.next_id(),
            downtime_micros: u64::try_from(self.producers.downtime().as_micros()).unwrap_or(u64::MAX),
            is_clock_doubtful: self.is_clock_doubtful,
        }));
        for (name, _) in self.topics.iter() {
            let topic = self.describe_topic(name).expect("it is being iterated");
            chunks.push(Item::Topic(TopicItem {
                name: name.to_string(),
                first_partition: topic.partitions[0].id.0,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|p| PartitionItem { start: p.ends.start.get(), end: p.ends.end.get(), bytes: p.bytes })
                    .collect(),
            }));
        }
        for (id, producer) in self.producers.iter_after(None) {
            chunks.push(Item::Producer(producer_item(id, producer)));
            // Not a field of the item: who does not know it must not pass over it, or ids would be nobody's.
            if let Some(OwnerHash(owner)) = producer.owner() {
                chunks.push(Item::Owner(OwnerItem { producer: id.get(), owner: owner.to_vec() }));
            }
            // One that writes everywhere is told in parts: a chunk has to stay small.
            let windows: Vec<_> = producer.all_windows().map(window_item).collect();
            for windows in windows.chunks(PARTITIONS_PER_ITEM) {
                chunks.push(Item::Windows(WindowsItem { producer: id.get(), windows: windows.to_vec() }));
            }
            let closed: Vec<_> = producer.closed().map(closed_item).collect();
            for closed in closed.chunks(PARTITIONS_PER_ITEM) {
                chunks.push(Item::Closed(ClosedItem { producer: id.get(), partitions: closed.to_vec() }));
            }
        }
        chunks.finish()
    }

    /// The state that [`Self::to_chunks`] made the chunks of.
    ///
    /// # Errors
    /// The chunks are not readable, or contradict themselves.
    pub fn from_chunks<C: AsRef<[u8]>>(chunks: impl IntoIterator<Item = C>) -> Result<Self, SnapshotError> {
        let mut state = Self::default();
        for chunk in chunks {
            let mut rest = chunk.as_ref();
            while !rest.is_empty() {
                let item = SnapshotItem::decode_length_delimited(&mut rest)?.item;
                state.restore(item.ok_or(Contradiction("an item of an unknown kind"))?)?;
            }
        }
        Ok(state)
    }

    fn restore(&mut self, item: Item) -> Result<(), SnapshotError> {
        match item {
            Item::Counters(counters) => {
                self.topics = Topics::restore(counters.next_partition);
                let downtime = Duration::from_micros(counters.downtime_micros);
                self.producers = Producers::restore(counters.next_producer, downtime);
                self.is_clock_doubtful = counters.is_clock_doubtful;
            }
            Item::Topic(topic) => self.restore_topic(&topic)?,
            Item::Producer(producer) => self.restore_producer(&producer)?,
            Item::Owner(item) => {
                let owner = OwnerHash(item.owner.as_slice().try_into().map_err(|_| OUT_OF_RANGE)?);
                self.producers.restore_owner(number(item.producer)?, owner)?;
            }
            Item::Windows(item) => {
                let id = number(item.producer)?;
                item.windows.iter().try_for_each(|window| self.restore_window(id, window))?;
            }
            Item::Closed(item) => {
                let id = number(item.producer)?;
                item.partitions.iter().try_for_each(|partition| self.restore_closed(id, partition))?;
            }
        }
        Ok(())
    }

    fn restore_topic(&mut self, item: &TopicItem) -> Result<(), Contradiction> {
        let name = TopicName::parse(&item.name).map_err(|_| OUT_OF_RANGE)?;
        let count = PartitionCount::new(i32::try_from(item.partitions.len()).unwrap_or(0)).map_err(|_| OUT_OF_RANGE)?;
        let first = PartitionId(item.first_partition);
        self.topics.create(&name, first, count)?;
        for (index, partition) in (0..).zip(&item.partitions) {
            let ends = Ends { start: number(partition.start)?, end: number(partition.end)? };
            self.topics.restore_partition(PartitionId(first.0 + index), ends, partition.bytes)?;
        }
        Ok(())
    }

    fn restore_producer(&mut self, item: &ProducerItem) -> Result<(), Contradiction> {
        let token = match item.token.len() {
            0 => None,
            _ => Some(TokenHash(item.token.as_slice().try_into().map_err(|_| OUT_OF_RANGE)?)),
        };
        let mut producer = Producer::new(number(item.epoch)?, token, Timestamp::from_micros(item.last_seen_micros));
        producer.written = item.written;
        self.producers.insert(number::<_, ProducerId>(item.id)?, producer)
    }

    fn restore_window(&mut self, producer: ProducerId, window: &WindowItem) -> Result<(), Contradiction> {
        let forgotten = usize::from(is_on(Defect::WindowForgetsAtRestart));
        let slots: Vec<_> = window.slots.iter().skip(forgotten).map(slot).collect::<Result<_, _>>()?;
        let restored = Window::restore(number(window.epoch)?, number(window.next)?, &slots).ok_or(OUT_OF_RANGE)?;
        self.producers.restore_window(producer, PartitionId(window.partition), restored)
    }

    fn restore_closed(&mut self, producer: ProducerId, item: &ClosedPartition) -> Result<(), Contradiction> {
        let partition = TopicPartition::parse(&item.topic, item.partition).map_err(|_| OUT_OF_RANGE)?;
        self.producers.restore_closed(producer, partition)
    }
}

const OUT_OF_RANGE: Contradiction = Contradiction("a value is out of its range");

fn number<N, T: TryFrom<N>>(number: N) -> Result<T, Contradiction> {
    T::try_from(number).map_err(|_| OUT_OF_RANGE)
}

fn slot(item: &SlotItem) -> Result<Slot, Contradiction> {
    Ok(Slot {
        base_offset: number::<_, Offset>(item.base_offset)?,
        time: Timestamp::from_micros(item.time_micros),
        count: number::<_, RecordCount>(item.count)?,
        checksum: item.checksum,
    })
}

fn producer_item(id: ProducerId, producer: &Producer) -> ProducerItem {
    ProducerItem {
        id: id.get(),
        epoch: producer.epoch.get(),
        token: producer.token().map_or_else(Vec::new, |token| token.0.to_vec()),
        written: producer.written,
        last_seen_micros: producer.last_seen.as_micros(),
    }
}

fn closed_item(name: &TopicPartition) -> ClosedPartition {
    ClosedPartition { topic: name.topic.to_string(), partition: PartitionIndex::get(name.partition) }
}

fn window_item((partition, window): (PartitionId, &Window)) -> WindowItem {
    let slot_item = |slot: &Slot| SlotItem {
        base_offset: slot.base_offset.get(),
        time_micros: slot.time.as_micros(),
        count: slot.count.get(),
        checksum: slot.checksum,
    };
    WindowItem {
        partition: partition.0,
        epoch: Epoch::get(window.epoch()),
        next: Sequence::get(window.next()),
        slots: window.slots().iter().map(slot_item).collect(),
    }
}

/// Collects items into chunks.
#[derive(Default)]
struct Chunks {
    done: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl Chunks {
    fn push(&mut self, item: Item) {
        let item = SnapshotItem { item: Some(item) };
        item.encode_length_delimited(&mut self.current).expect("a vector grows as needed");
        if self.current.len() >= CHUNK_BYTES {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

const CHUNK_BYTES: usize = 256 << 10;
const PARTITIONS_PER_ITEM: usize = 1_000;

#[derive(Message)]
struct SnapshotItem {
    #[prost(oneof = "Item", tags = "1, 2, 3, 4, 5, 6")]
    item: Option<Item>,
}

#[derive(prost::Oneof)]
enum Item {
    #[prost(message, tag = "1")]
    Counters(Counters),
    #[prost(message, tag = "2")]
    Topic(TopicItem),
    #[prost(message, tag = "3")]
    Producer(ProducerItem),
    #[prost(message, tag = "4")]
    Windows(WindowsItem),
    #[prost(message, tag = "5")]
    Closed(ClosedItem),
    #[prost(message, tag = "6")]
    Owner(OwnerItem),
}

#[derive(Message)]
struct Counters {
    #[prost(uint32, tag = "1")]
    next_partition: u32,
    #[prost(int64, tag = "2")]
    next_producer: i64,
    #[prost(uint64, tag = "3")]
    downtime_micros: u64,
    #[prost(bool, tag = "4")]
    is_clock_doubtful: bool,
}

#[derive(Message)]
struct TopicItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    first_partition: u32,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<PartitionItem>,
}

#[derive(Message)]
struct PartitionItem {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(uint64, tag = "3")]
    bytes: u64,
}

#[derive(Message)]
struct ProducerItem {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int32, tag = "2")]
    epoch: i32,
    #[prost(bytes = "vec", tag = "3")]
    token: Vec<u8>,
    #[prost(bool, tag = "4")]
    written: bool,
    #[prost(uint64, tag = "5")]
    last_seen_micros: u64,
}

/// Whose the producer in the item before is.
#[derive(Message)]
struct OwnerItem {
    #[prost(int64, tag = "1")]
    producer: i64,
    #[prost(bytes = "vec", tag = "2")]
    owner: Vec<u8>,
}

/// Windows of the producer in the item before.
#[derive(Message)]
struct WindowsItem {
    #[prost(int64, tag = "1")]
    producer: i64,
    #[prost(message, repeated, tag = "2")]
    windows: Vec<WindowItem>,
}

#[derive(Clone, PartialEq, Message)]
struct WindowItem {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(int32, tag = "2")]
    epoch: i32,
    #[prost(int64, tag = "3")]
    next: i64,
    #[prost(message, repeated, tag = "4")]
    slots: Vec<SlotItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SlotItem {
    #[prost(int64, tag = "1")]
    base_offset: i64,
    #[prost(uint64, tag = "2")]
    time_micros: u64,
    #[prost(int32, tag = "3")]
    count: i32,
    #[prost(uint32, tag = "4")]
    checksum: u32,
}

/// Closed markers of the producer in the item before.
#[derive(Message)]
struct ClosedItem {
    #[prost(int64, tag = "1")]
    producer: i64,
    #[prost(message, repeated, tag = "2")]
    partitions: Vec<ClosedPartition>,
}

#[derive(Clone, PartialEq, Message)]
struct ClosedPartition {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(int32, tag = "2")]
    partition: i32,
}
