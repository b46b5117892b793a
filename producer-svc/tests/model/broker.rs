//! The broker as the contract describes it, in as few words as possible: state that never loses anything, one call at a time,
//! no hold (an early batch is told so at once). Written from the contract, not from either service.

use std::collections::{BTreeMap, VecDeque};

use oncelog_proto::{Epoch, ErrorCode, Offset, ProducerId, Sequence, Tag, Timestamp, TopicName, TopicPartition};
use producer_svc::session::{BatchAnswer, FailureKind, InitAnswer, OutgoingBatch, RecoveredBatch, RecoveredPartition};

/// What the model needs of a broker.
pub(crate) trait Broker {
    /// Judges each batch of a `Produce` call.
    fn produce(&mut self, batches: &[OutgoingBatch]) -> Vec<BatchAnswer>;
    /// Hands out an id, or recovers one.
    fn init(&mut self, recover: Option<(ProducerId, Epoch)>, token: &str) -> Result<InitAnswer, FailureKind>;
    /// Stops and starts again.
    fn restart(&mut self);
    /// Forgets every producer, as if none had been heard of for a day.
    fn expire_producers(&mut self);
    /// Deletes a topic; it is created again on first use.
    fn delete_topic(&mut self, topic: &TopicName);
    /// The values in the log of a partition, by offset, each with its append time.
    fn log(&self, partition: &TopicPartition) -> Vec<(u64, Timestamp)>;
}

/// The contract as code.
#[derive(Debug, Default)]
pub(crate) struct ReferenceBroker {
    logs: BTreeMap<TopicPartition, Vec<(u64, Timestamp)>>,
    producers: BTreeMap<i64, Producer>,
    ids: i64,
    clock: u64,
    pub(crate) max_batch_bytes: usize,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: i32,
    token: Option<String>,
    entries: BTreeMap<TopicPartition, Entry>,
    /// What the raise to the current epoch fenced, for a repeated recovery.
    fenced: Vec<RecoveredPartition>,
    closed: Vec<TopicPartition>,
}

#[derive(Debug, Default)]
struct Entry {
    next: i64,
    window: VecDeque<RecoveredBatch>,
}

impl ReferenceBroker {
    pub(crate) fn new(max_batch_bytes: usize) -> Self {
        Self { max_batch_bytes, ..Self::default() }
    }

    fn judge(&mut self, tag: Tag, batch: &OutgoingBatch) -> BatchAnswer {
        let partition = &batch.partition;
        let Some(producer) = self.producers.get_mut(&tag.producer.get()) else {
            return refused(ErrorCode::UnknownProducerId, None);
        };
        if producer.closed.contains(partition) || tag.epoch.get() != producer.epoch {
            return refused(ErrorCode::InvalidProducerEpoch, None);
        }
        let entry = producer.entries.entry(partition.clone()).or_default();
        let (base, count, checksum) = (tag.base.get(), i64::from(batch.packed.count().get()), batch.packed.checksum());
        for known in &entry.window {
            if (known.base, known.count) == (tag.base, batch.packed.count()) {
                if known.checksum != checksum {
                    return refused(ErrorCode::SequenceConflict, None);
                }
                let (base_offset, append_time) = (Some(known.base_offset), known.append_time);
                return BatchAnswer::Acknowledged { base_offset, append_time, duplicate: true };
            }
        }
        let lowest = entry.window.front().map_or(0, |oldest| oldest.base.get());
        if base + count <= lowest {
            return refused(ErrorCode::DuplicateSequenceNumber, None);
        }
        if base != entry.next {
            return refused(ErrorCode::OutOfOrderSequenceNumber, Some(entry.next));
        }
        if batch.packed.data().len() > self.max_batch_bytes {
            return refused(ErrorCode::MessageTooLarge, None);
        }
        let (base_offset, append_time) = append(&mut self.logs, &mut self.clock, batch);
        let entry = producer.entries.get_mut(partition).expect("just made");
        entry.next += count;
        entry.window.push_back(RecoveredBatch {
            base: tag.base,
            count: batch.packed.count(),
            base_offset,
            append_time,
            checksum,
        });
        if entry.window.len() > 5 {
            entry.window.pop_front();
        }
        BatchAnswer::Acknowledged { base_offset: Some(base_offset), append_time, duplicate: false }
    }
}

impl Broker for ReferenceBroker {
    fn produce(&mut self, batches: &[OutgoingBatch]) -> Vec<BatchAnswer> {
        let judge = |batch: &OutgoingBatch| match batch.tag {
            Some(tag) => self.judge(tag, batch),
            None => {
                let (base_offset, append_time) = append(&mut self.logs, &mut self.clock, batch);
                BatchAnswer::Acknowledged { base_offset: Some(base_offset), append_time, duplicate: false }
            }
        };
        batches.iter().map(judge).collect()
    }

    fn init(&mut self, recover: Option<(ProducerId, Epoch)>, token: &str) -> Result<InitAnswer, FailureKind> {
        let max_batch_bytes = self.max_batch_bytes;
        let Some((id, epoch)) = recover else {
            self.ids += 1;
            self.producers.insert(self.ids, Producer::default());
            let producer = ProducerId::new(self.ids).expect("positive");
            return Ok(InitAnswer { producer, epoch: Epoch::ZERO, max_batch_bytes, partitions: Vec::new() });
        };
        let producer = self.producers.get_mut(&id.get()).ok_or(FailureKind::UnknownProducer)?;
        if producer.epoch == epoch.get() {
            producer.epoch += 1;
            producer.token = Some(token.to_owned());
            producer.closed.clear();
            let entries = std::mem::take(&mut producer.entries).into_iter();
            let recovered = |(partition, entry): (TopicPartition, Entry)| RecoveredPartition {
                partition,
                next: Sequence::new(entry.next).expect("not negative"),
                window: entry.window.into(),
            };
            producer.fenced = entries.filter(|(_, entry)| entry.next > 0).map(recovered).collect();
        } else {
            let repeated = producer.epoch == epoch.get() + 1 && producer.token.as_deref() == Some(token);
            let written = producer.entries.values().any(|entry| entry.next > 0);
            if !repeated || written {
                return Err(FailureKind::Permanent);
            }
        }
        let epoch = Epoch::new(producer.epoch).expect("not negative");
        Ok(InitAnswer { producer: id, epoch, max_batch_bytes, partitions: producer.fenced.clone() })
    }

    fn restart(&mut self) {}

    fn expire_producers(&mut self) {
        self.producers.clear();
    }

    fn delete_topic(&mut self, topic: &TopicName) {
        self.logs.retain(|partition, _| partition.topic != *topic);
        for producer in self.producers.values_mut() {
            let of_topic = producer.entries.keys().filter(|partition| partition.topic == *topic).cloned();
            producer.closed.extend(of_topic.collect::<Vec<_>>());
            producer.entries.retain(|partition, _| partition.topic != *topic);
        }
    }

    fn log(&self, partition: &TopicPartition) -> Vec<(u64, Timestamp)> {
        self.logs.get(partition).cloned().unwrap_or_default()
    }
}

fn append(
    logs: &mut BTreeMap<TopicPartition, Vec<(u64, Timestamp)>>,
    clock: &mut u64,
    batch: &OutgoingBatch,
) -> (Offset, Timestamp) {
    *clock += 1;
    let time = Timestamp::from_micros(*clock);
    let log = logs.entry(batch.partition.clone()).or_default();
    let base = Offset::new(i64::try_from(log.len()).expect("small")).expect("not negative");
    for record in batch.packed.records().expect("the session packs well") {
        let value = record.value.expect("the model's records have values");
        let id = u64::from_be_bytes(value[..8].try_into().expect("they start with their number"));
        log.push((id, time));
    }
    (base, time)
}

fn refused(code: ErrorCode, expected: Option<i64>) -> BatchAnswer {
    let expected = expected.map(|expected| Sequence::new(expected).expect("not negative"));
    BatchAnswer::Refused { code, message: format!("the model's broker says {}", code.reason()), expected }
}
