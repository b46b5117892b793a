//! The broker as the contract describes it, in as few words as possible: state that never loses anything, one call at a time,
//! no hold (an early batch is told so at once). Written from the contract, not from either service.

use std::collections::{BTreeMap, VecDeque};

use oncelog_proto::{Epoch, ErrorCode, Monotonic, Offset, ProducerId, Sequence, Tag, Timestamp, TopicName, TopicPartition};
use producer_svc::session::{BatchAnswer, FailureKind, InitAnswer, OutgoingBatch, RecoveredBatch, RecoveredPartition};

use super::{
    broker::{Answer, Broker, Call, Log, record_numbers},
    dice::Dice,
};

/// The contract as code.
#[derive(Debug, Default)]
pub(crate) struct ReferenceBroker {
    logs: BTreeMap<TopicPartition, Log>,
    past: Vec<(TopicPartition, Log)>,
    answers: VecDeque<Answer>,
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

    fn produce(&mut self, batch: &OutgoingBatch) -> BatchAnswer {
        match batch.tag {
            Some(tag) => self.judge(tag, batch),
            None => {
                let (base_offset, append_time) = append(&mut self.logs, &mut self.clock, batch);
                BatchAnswer::Acknowledged { base_offset: Some(base_offset), append_time, duplicate: false }
            }
        }
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
}

impl Broker for ReferenceBroker {
    fn arrive(&mut self, call: Call, refusal: Option<ErrorCode>) {
        let answer = match call {
            Call::Produce(id, batches) => {
                let mut refusal = refusal;
                let answers = batches.iter().map(|batch| match refusal.take() {
                    Some(code) => refused(code, None),
                    None => self.produce(batch),
                });
                Answer::Produce(id, answers.collect())
            }
            Call::Init(id, recover, token) => Answer::Init(id, self.init(recover, &token)),
        };
        self.answers.push_back(answer);
    }

    fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    fn work(&mut self) -> bool {
        false
    }

    fn next_wakeup(&self) -> Option<Monotonic> {
        None
    }

    fn tick(&mut self, _: Monotonic) {}

    fn crash(&mut self, _: &mut Dice) {}

    fn heal(&mut self) {}

    fn expire_producers(&mut self) {
        self.producers.clear();
    }

    fn create_topic(&mut self, _: &TopicName, _: i32) {}

    fn delete_topic(&mut self, topic: &TopicName) {
        let is_deleted = |(partition, _): &(TopicPartition, Log)| partition.topic == *topic;
        let (deleted, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.logs).into_iter().partition(is_deleted);
        self.past.extend(deleted);
        self.logs.extend(kept);
        for producer in self.producers.values_mut() {
            let of_topic = producer.entries.keys().filter(|partition| partition.topic == *topic).cloned();
            producer.closed.extend(of_topic.collect::<Vec<_>>());
            producer.entries.retain(|partition, _| partition.topic != *topic);
        }
    }

    fn log(&self, partition: &TopicPartition) -> Log {
        self.logs.get(partition).cloned().unwrap_or_default()
    }

    fn past_logs(&self, partition: &TopicPartition) -> Vec<Log> {
        self.past.iter().filter(|(past, _)| past == partition).map(|(_, log)| log.clone()).collect()
    }
}

fn append(logs: &mut BTreeMap<TopicPartition, Log>, clock: &mut u64, batch: &OutgoingBatch) -> (Offset, Timestamp) {
    *clock += 1;
    let time = Timestamp::from_micros(*clock);
    let log = logs.entry(batch.partition.clone()).or_default();
    let base = Offset::new(i64::try_from(log.len()).expect("small")).expect("not negative");
    log.extend(record_numbers(&batch.packed).into_iter().map(|number| (number, time)));
    (base, time)
}

fn refused(code: ErrorCode, expected: Option<i64>) -> BatchAnswer {
    let expected = expected.map(|expected| Sequence::new(expected).expect("not negative"));
    BatchAnswer::Refused { code, message: format!("the model's broker says {}", code.reason()), expected }
}
