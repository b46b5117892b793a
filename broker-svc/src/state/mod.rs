//! Everything the broker knows: topics, producer ids and epochs, windows, offsets. A fold over the journal's entries.
//!
//! | file | owns |
//! |---|---|
//! | `judge` | what becomes of a batch: the admission table |
//! | `init` | what becomes of an `InitProducerId` |
//! | `topics`, `producers`, `window` | the three parts of what is known |
//! | `by_id` | a map that wastes nothing on a million producers |
//! | `snapshot` | the state as bytes and back |
//!
//! Deciding reads the state and returns entries; only [`State::apply`] changes it, live and at replay alike (I5). So a decision
//! never leaves half a change behind, and replay cannot differ from what happened.
//!
//! *Deliberately absent*: a clock, I/O, locks, and knowledge of calls and groups.

mod by_id;
mod init;
mod judge;
mod producers;
mod snapshot;
mod topics;
mod window;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::BuildHasherDefault,
    time::Duration,
};

use oncelog_proto::{
    ErrorCode, Fault, PartitionIndex, ProducerId, Sequence, Timestamp, TopicName, TopicPartition, topic::PartitionCount,
};

pub use init::{Granted, InitDecision, InitRequest, Recovered};
pub use judge::{Arrival, Verdict};
pub(crate) use judge::{out_of_order, unknown_producer};
use producers::{Producer, Producers};
pub use snapshot::SnapshotError;
pub use topics::Ends;
use topics::{Topics, unknown_topic};
pub use window::{Remembered, WINDOW_BATCHES};

use crate::entry::{Entry, OwnerHash, PartitionId};

/// A map whose order does not differ between runs: keys are numbers that the broker gave out, so nobody can choose them to
/// collide.
type DeterministicMap<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// An entry that cannot follow what came before it: the journal is damaged, or a decision was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(pub &'static str);

/// What the state may grow to, and what it does by itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest batch, in bytes as stored. Kafka's `message.max.bytes`.
    pub max_message_bytes: usize,
    /// Create a topic when the first batch for it arrives.
    pub auto_create_topics: bool,
    /// How many partitions such a topic has.
    pub default_partitions: PartitionCount,
    /// Most partitions of all topics together.
    pub max_partitions: usize,
    /// Most producer ids that are known at a time.
    pub max_producers: usize,
    /// Most windows and closed markers of all producers together: what memory is really spent on.
    pub max_windows: usize,
    /// A producer that is not heard of for so long is forgotten. Time when the broker was down does not count.
    pub producer_id_expiration: Duration,
}

/// The fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    topics: Topics,
    producers: Producers,
    is_clock_doubtful: bool,
}

/// Some topics, in the order in which they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TopicPage {
    /// What is told of each.
    pub topics: Vec<TopicDescription>,
    /// There are more, behind this one.
    pub after: Option<TopicName>,
}

/// What is told of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicDescription {
    /// Its name.
    pub topic: TopicName,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// What is told of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionDescription {
    /// Its id in the journal.
    pub id: PartitionId,
    /// Where its log starts and ends.
    pub ends: Ends,
    /// Stored bytes between the two.
    pub bytes: u64,
}

/// Some producers, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerPage {
    /// What is told of each.
    pub producers: Vec<ProducerDescription>,
    /// There may be more, above this one.
    pub after: Option<ProducerId>,
}

/// What is told of a producer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProducerDescription {
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: oncelog_proto::Epoch,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// Whose it is.
    pub owner: Option<OwnerHash>,
    /// Where it stands, by topic and partition.
    pub partitions: Vec<(TopicPartition, Sequence)>,
}

impl State {
    /// Makes one change. `time` is that of the entry's group.
    ///
    /// # Errors
    /// The entry contradicts what came before. Then the state means nothing any more and has to be thrown away.
    pub fn apply(&mut self, entry: &Entry, time: Timestamp) -> Result<(), Contradiction> {
        match entry {
            Entry::CreateTopic { topic, first_partition, partitions } => {
                if *first_partition != self.topics.next_partition() {
                    return Err(Contradiction("a partition id is skipped or given out twice"));
                }
                self.topics.create(topic, *first_partition, *partitions)
            }
            Entry::DeleteTopic { topic } => {
                let deleted = self.topics.delete(topic)?;
                self.producers.close(&deleted);
                Ok(())
            }
            Entry::InitProducer { producer, epoch, token } => self.producers.init(*producer, *epoch, *token, time),
            Entry::GrantProducer { producer, owner } => self.producers.grant(*producer, *owner, time),
            Entry::Append(append) => {
                if let Some(tag) = append.tag {
                    self.producers.append(tag, append, time)?;
                }
                self.topics.append(append)
            }
            Entry::Expire { producer } => self.producers.expire(*producer),
            Entry::Seen { producer } => self.producers.seen(*producer, time),
            Entry::Trim { partitions, .. } => {
                partitions.iter().for_each(|trimmed| self.topics.trim(trimmed));
                Ok(())
            }
            Entry::LostRange { partition, to, .. } => {
                self.topics.skip_to(*partition, *to);
                Ok(())
            }
            Entry::Opened { downtime, is_clock_doubtful } => {
                self.producers.opened(*downtime);
                self.is_clock_doubtful = *is_clock_doubtful;
                Ok(())
            }
        }
    }

    /// Decides a `CreateTopic`. `partitions` absent: the default number.
    ///
    /// # Errors
    /// The topic exists, or there would be too many partitions.
    pub fn create_topic(&self, topic: &TopicName, partitions: Option<PartitionCount>, limits: &Limits) -> Result<Entry, Fault> {
        if self.topics.get(topic).is_some() {
            let message = format!("topic {topic} exists already");
            return Err(Fault::new(ErrorCode::TopicAlreadyExists, message).with("topic", topic));
        }
        let partitions = partitions.unwrap_or(limits.default_partitions);
        let (have, most) = (self.topics.partition_count(), limits.max_partitions);
        if have + partitions.get().unsigned_abs() as usize > most {
            let message = format!(
                "topic {topic} with {} partitions would make {} in all; --max-partitions is {most}: delete a topic or raise it",
                partitions.get(),
                have + partitions.get().unsigned_abs() as usize
            );
            return Err(Fault::new(ErrorCode::ResourceExhausted, message).with("max_partitions", most));
        }
        if self.topics.next_partition().0.checked_add(partitions.get().unsigned_abs()).is_none() {
            let message = "four billion partitions were created here, and no id is left for another";
            return Err(Fault::new(ErrorCode::ResourceExhausted, message));
        }
        Ok(Entry::CreateTopic { topic: topic.clone(), first_partition: self.topics.next_partition(), partitions })
    }

    /// Decides a `DeleteTopic`.
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn delete_topic(&self, topic: &TopicName) -> Result<Entry, Fault> {
        match self.topics.get(topic) {
            Some(_) => Ok(Entry::DeleteTopic { topic: topic.clone() }),
            None => Err(unknown_topic(topic)),
        }
    }

    /// The partitions that a topic has: their ids are gone for ever once it is deleted.
    pub fn partition_ids(&self, topic: &TopicName) -> Vec<PartitionId> {
        self.topics.get(topic).map_or_else(Vec::new, |found| {
            (0..found.partitions.get().unsigned_abs()).map(|index| PartitionId(found.first.0 + index)).collect()
        })
    }

    /// Finds a partition by name.
    ///
    /// # Errors
    /// The topic or the partition does not exist.
    pub fn find_partition(&self, name: &TopicPartition) -> Result<(PartitionId, Ends), Fault> {
        let id = self.topics.find(name)?.ok_or_else(|| unknown_topic(&name.topic))?;
        Ok((id, self.ends(id).expect("a living topic has its partitions")))
    }

    /// Where the log of a partition starts and ends; none if its topic is deleted.
    pub fn ends(&self, partition: PartitionId) -> Option<Ends> {
        self.topics.partition(partition).map(|partition| partition.ends)
    }

    /// Describes one topic, or all by name.
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn describe_topic(&self, topic: &TopicName) -> Result<TopicDescription, Fault> {
        let found = self.topics.get(topic).ok_or_else(|| unknown_topic(topic))?;
        let describe = |index| {
            let index = PartitionIndex::new(index).expect("counted from 0");
            let id = found.first.nth(index);
            let partition = self.topics.partition(id).expect("a living topic has its partitions");
            PartitionDescription { id, ends: partition.ends, bytes: partition.bytes }
        };
        Ok(TopicDescription { topic: topic.clone(), partitions: (0..found.partitions.get()).map(describe).collect() })
    }

    /// Names of all topics, sorted.
    pub fn topic_names(&self) -> Vec<TopicName> {
        self.topics.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Describes producers in the order of their ids: those above `after`, at most `most`; only the one `id` if it is given, and
    /// only those that wrote to `topic` if that is given. A page ends earlier where it gets long, or takes long to find.
    pub fn describe_producers(
        &self,
        id: Option<ProducerId>,
        topic: Option<&TopicName>,
        after: Option<ProducerId>,
        most: usize,
    ) -> ProducerPage {
        let mut page = ProducerPage { producers: Vec::new(), after: None };
        if let Some(id) = id {
            let found = self.producers.get(id).filter(|_| after.is_none_or(|after| id > after));
            page.producers.extend(found.and_then(|producer| self.describe_producer(id, producer, topic)));
            return page;
        }
        let mut partitions = 0;
        for (looked_at, (id, producer)) in (1..).zip(self.producers.iter_after(after)) {
            if let Some(described) = self.describe_producer(id, producer, topic) {
                partitions += described.partitions.len();
                page.producers.push(described);
            }
            if page.producers.len() >= most || partitions >= PAGE_PARTITIONS || looked_at >= PAGE_LOOKED_AT {
                page.after = Some(id);
                break;
            }
        }
        page
    }

    /// None: it did not write to the topic.
    fn describe_producer(&self, id: ProducerId, producer: &Producer, topic: Option<&TopicName>) -> Option<ProducerDescription> {
        let is_meant = |name: &TopicPartition| topic.is_none_or(|topic| name.topic == *topic);
        let mut partitions: Vec<_> = producer
            .windows_of(producer.epoch)
            .filter_map(|(id, window)| Some((&self.topics.partition(id)?.name, window.next())))
            .filter(|(name, _)| is_meant(name))
            .map(|(name, next)| (name.clone(), next))
            .collect();
        if topic.is_some() && partitions.is_empty() {
            return None;
        }
        partitions.sort_unstable();
        let last_seen = self.producers.last_seen(producer);
        Some(ProducerDescription { producer: id, epoch: producer.epoch, last_seen, owner: producer.owner(), partitions })
    }

    /// Is there such a producer, and is it this caller's? An id that was handed out when nobody was asked who they are is that of
    /// callers who are nobody in particular, and of nobody else.
    pub fn owns(&self, caller: Option<OwnerHash>, producer: ProducerId) -> bool {
        self.producers.get(producer).is_some_and(|producer| producer.owner() == caller)
    }

    /// Producers that are to expire now, at most `most` of them. Each becomes an [`Entry::Expire`]. The last sign of life may be
    /// younger than the one that is journaled, so they are given that much longer.
    pub fn expired_producers(&self, limits: &Limits, now: Timestamp, most: usize) -> Vec<ProducerId> {
        self.producers.expired(limits.producer_id_expiration.saturating_add(coarse(limits)), now, most)
    }

    /// What must never be done without an entry (I5): forgets producers that are to expire.
    pub(crate) fn forget_idle(&mut self, limits: &Limits, now: Timestamp) {
        for producer in self.expired_producers(limits, now, usize::MAX) {
            self.apply(&Entry::Expire { producer }, now).expect("it is known");
        }
    }

    /// Should a duplicate of this producer's be journaled as a sign of life?
    pub fn is_seen_stale(&self, producer: ProducerId, limits: &Limits, now: Timestamp) -> bool {
        self.producers.get(producer).is_some_and(|p| now.since(self.producers.last_seen(p)) > coarse(limits))
    }

    /// Did the last opening not know whether the clock was to be trusted?
    pub fn is_clock_doubtful(&self) -> bool {
        self.is_clock_doubtful
    }

    /// How many producers and how many windows and markers there are.
    pub fn producer_counts(&self) -> (usize, usize) {
        (self.producers.len(), self.producers.size())
    }

    /// How many topics and partitions there are.
    pub fn topic_counts(&self) -> (usize, usize) {
        (self.topics.count(), self.topics.partition_count())
    }
}

/// How exactly a producer's last sign of life is known: to the hour, or to a 24th of the expiration.
fn coarse(limits: &Limits) -> Duration {
    (limits.producer_id_expiration / 24).min(Duration::from_secs(3600))
}

/// Partitions after which a page of producers ends: a producer may have written to any number of them.
const PAGE_PARTITIONS: usize = 10_000;
/// Producers that are looked at for a page: nobody else is served meanwhile.
const PAGE_LOOKED_AT: usize = 10_000;

#[cfg(test)]
mod tests;
