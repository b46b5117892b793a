//! What was sent, told, and made durable; and whether the promises hold. It knows the journal's entries and what people were
//! told, and nothing of how either came about.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    rc::Rc,
};

use broker_svc::{
    entry::{Append, Entry, PartitionId},
    journal::Group,
    pipeline::BatchOutcome,
    state::Granted,
};
use oncelog_proto::{Compression, Epoch, ErrorCode, Fault, Offset, PackedBatch, ProducerId, Sequence, Tag, TopicPartition};
use producer_svc::session::RecordOutcome;

use crate::{travel::Sent, wire};

/// A promise that does not hold, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The ledger.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    records: Vec<Record>,
    partitions: BTreeMap<PartitionId, TopicPartition>,
    /// The durable log of each partition: the numbers of its records.
    logs: BTreeMap<TopicPartition, Vec<u8>>,
    /// The durable batches of each epoch that a recovery may still tell of, in order.
    batches: BTreeMap<(ProducerId, Epoch), BTreeMap<TopicPartition, Vec<Placed>>>,
    /// The durable epoch of each producer.
    epochs: BTreeMap<ProducerId, Epoch>,
    /// The highest epoch that was granted in an answer that left, and the token of the call.
    granted: BTreeMap<ProducerId, (Epoch, Option<Rc<str>>)>,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Record {
    process: u8,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Appended,
    Refused,
    Unknown,
}

/// A durable batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Placed {
    base: Sequence,
    end: Sequence,
    offset: Offset,
    checksum: u32,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A promise that does not hold.
macro_rules! violated {
    ($($words:tt)*) => { return Err(Violation(format!($($words)*))) };
}

impl Ledger {
    /// So many records of nobody's `Send`s, whose outcomes nobody is told.
    pub(crate) fn expect_strangers(&mut self, records: usize) {
        self.records = vec![Record { process: STRANGER, told: None }; records];
    }

    /// The next record is sent by this process; returns its number.
    pub(crate) fn send(&mut self, process: u8) -> u8 {
        self.records.push(Record { process, told: None });
        u8::try_from(self.records.len() - 1).expect("the bounds allow fewer than 100")
    }

    /// A process has ended; whatever it was not told is unknown.
    pub(crate) fn end(&mut self, process: u8) {
        let waiting = self.records.iter_mut().filter(|record| record.process == process && record.told.is_none());
        waiting.for_each(|record| record.told = Some(Told::Unknown));
    }

    /// A record's caller is told its outcome (I1).
    pub(crate) fn tell(&mut self, number: u8, partition: &TopicPartition, outcome: &RecordOutcome) -> Result<(), Violation> {
        let log = self.logs.get(partition).map(Vec::as_slice).unwrap_or_default();
        let told = match outcome {
            RecordOutcome::Appended { offset: None, .. } => violated!("record {number} is acknowledged without an offset (R2)"),
            RecordOutcome::Appended { offset: Some(offset), partition: index, .. } => {
                if *index != partition.partition || log.get(place(*offset)) != Some(&number) {
                    violated!("record {number} is acknowledged at {partition} {offset}, and the log is {log:?} (I1)");
                }
                Told::Appended
            }
            RecordOutcome::Refused(fault) => {
                if log.contains(&number) {
                    violated!("record {number} is reported as certainly not in the log, and is in it: {fault}");
                }
                Told::Refused
            }
            RecordOutcome::Unknown => Told::Unknown,
        };
        if let Some(before) = self.records[usize::from(number)].told.replace(told) {
            violated!("record {number} is told {told:?} after {before:?}");
        }
        Ok(())
    }

    /// A group is durable.
    pub(crate) fn commit(&mut self, group: &Group) -> Result<(), Violation> {
        let mut payloads = group.payloads().iter();
        for entry in group.entries() {
            match entry {
                Entry::CreateTopic { topic, first_partition, partitions } => {
                    for index in (0..partitions.get()).map(|index| index.try_into().expect("not negative")) {
                        let partition = TopicPartition { topic: topic.clone(), partition: index };
                        self.partitions.insert(first_partition.nth(index), partition);
                    }
                }
                Entry::InitProducer { producer, epoch, .. } => {
                    self.epochs.insert(*producer, *epoch);
                    // What is older than the fenced epoch is never told again.
                    self.batches.retain(|(owner, of), _| owner != producer || of.next().is_some_and(|next| next >= *epoch));
                }
                Entry::Append(append) => {
                    let data = payloads.next().expect("an append has its data");
                    let (compression, bytes, checksum) = (Compression::None, append.uncompressed_bytes, append.checksum);
                    let packed = PackedBatch::from_stored(compression, append.count, bytes, checksum, data.clone());
                    self.append(append, &wire::numbers(&packed.expect("what is in the journal was verified")))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, append: &Append, numbers: &[u8]) -> Result<(), Violation> {
        let Some(partition) = self.partitions.get(&append.partition).cloned() else {
            violated!("a batch is appended to {:?}, which does not exist", append.partition);
        };
        for number in numbers {
            if self.logs.values().flatten().any(|other| other == number) {
                violated!("record {number} is in the log twice (I2)");
            }
            let record = self.records[usize::from(*number)];
            if record.told == Some(Told::Refused) {
                violated!("record {number} was reported as certainly not in the log, and is appended now");
            }
            let log = self.logs.entry(partition.clone()).or_default();
            let later = log.iter().find(|other| *other > number && self.records[usize::from(**other)].process == record.process);
            if let Some(later) = later {
                violated!("record {number} of {partition} stands behind {later} (I3)");
            }
            log.push(*number);
        }
        let end = self.logs[&partition].len();
        if place(append.base_offset) + numbers.len() != end {
            violated!("a batch of {numbers:?} stands at offset {}, and the log of {partition} ends at {end}", append.base_offset);
        }
        match append.tag {
            Some(tag) => self.note(tag, append, partition),
            None => Ok(()),
        }
    }

    /// I3 and I6 of a batch that is durable now.
    fn note(&mut self, tag: Tag, append: &Append, partition: TopicPartition) -> Result<(), Violation> {
        if let Some((granted, _)) = self.granted.get(&tag.producer).filter(|(granted, _)| tag.epoch < *granted) {
            violated!("{tag} is appended after epoch {granted} was granted (I6)");
        }
        let batches = self.batches.entry((tag.producer, tag.epoch)).or_default().entry(partition).or_default();
        let expected = batches.last().map_or(Sequence::ZERO, |last| last.end);
        if tag.base != expected {
            violated!("{tag} is appended where sequence {expected} is next (I3)");
        }
        let end = tag.end(append.count).expect("few records");
        batches.push(Placed { base: tag.base, end, offset: append.base_offset, checksum: append.checksum });
        Ok(())
    }

    /// What becomes of a batch leaves the broker: it has to be true of what is durable (I7), and so for ever (I4).
    pub(crate) fn answer_batch(&self, sent: &Sent, outcome: &BatchOutcome) -> Result<(), Violation> {
        let partition = &sent.batch.partition;
        match outcome {
            BatchOutcome::Acknowledged { base_offset, .. } => {
                let log = self.logs.get(partition).map(Vec::as_slice).unwrap_or_default();
                let from = base_offset.map_or(log.len(), place);
                if log.get(from..from + sent.records.len()) != Some(&sent.records) {
                    let records = &sent.records;
                    violated!("records {records:?} are acknowledged at offset {from} of {partition}; durable is {log:?} (I7)");
                }
            }
            BatchOutcome::Refused(fault) => {
                if let Some(tag) = sent.batch.tag {
                    self.answer_refusal(tag, sent, fault)?;
                }
            }
        }
        Ok(())
    }

    /// A refusal has to be true of what is durable as well. It leaves with its group: what it was computed from, and a copy of
    /// the batch that came right behind it, are durable together with it. So a refusal that only says "not now" is never false by
    /// that.
    fn answer_refusal(&self, tag: Tag, sent: &Sent, fault: &Fault) -> Result<(), Violation> {
        let partition = &sent.batch.partition;
        let (epoch, next) = (self.epochs.get(&tag.producer), self.next(tag.producer, tag.epoch, partition));
        let end = tag.end(sent.batch.packed.count()).expect("few records");
        let batches = self.batches.get(&(tag.producer, tag.epoch)).and_then(|batches| batches.get(partition));
        let overlapping = || batches.into_iter().flatten().filter(move |batch| batch.base < end && tag.base < batch.end);
        let is_same = |batch: &Placed| (batch.base, batch.end, batch.checksum) == (tag.base, end, sent.batch.packed.checksum());
        match fault.code() {
            ErrorCode::OutOfOrderSequenceNumber => {
                let told = fault.expected_sequence();
                if told.is_none_or(|told| told > next) && epoch == Some(&tag.epoch) {
                    violated!("{tag} is told that {told:?} is expected; durable is up to {next} (I7)");
                }
            }
            ErrorCode::DuplicateSequenceNumber if end > next => {
                violated!("{tag} is told that it is in the log, and durable is up to {next} (I7)");
            }
            ErrorCode::InvalidProducerEpoch => {
                // An epoch that was not handed out yet may be by now. No topic is deleted here, so nothing of its own epoch is
                // closed.
                let (told, durable) = (fault.to_batch_error().current_epoch, epoch.map(|epoch| epoch.get()));
                if told == Some(tag.epoch.get()) || told > durable {
                    violated!("{tag} is told that the epoch is {told:?}; durable is {durable:?} (I7)");
                }
            }
            ErrorCode::UnknownProducerId if epoch.is_some() => {
                violated!("{tag} is told that its producer is unknown, and it is at epoch {epoch:?} (I7)");
            }
            ErrorCode::SequenceConflict if epoch == Some(&tag.epoch) && !overlapping().any(|batch| !is_same(batch)) => {
                violated!("{tag} is told of a conflict, and nothing else has its sequences (I7)");
            }
            // These say that it is not in the log, and with the same limits no copy of it can have followed (R15).
            code if is_for_ever(code) && overlapping().any(is_same) => {
                violated!("{tag} is told that it is not appended, and it is in the log: {fault} (I7)");
            }
            _ => {}
        }
        Ok(())
    }

    /// A granted epoch leaves the broker: it is durable (I7), and tells all of the fenced epoch and nothing else (R2, R3).
    /// It is granted to one caller (R13).
    pub(crate) fn answer_grant(&mut self, granted: &Granted, token: Option<&Rc<str>>) -> Result<(), Violation> {
        let Granted { producer, epoch, recovered } = granted;
        if self.epochs.get(producer).is_none_or(|durable| durable < epoch) {
            violated!("producer {producer} is granted epoch {epoch}, which is not durable (I7)");
        }
        let highest = self.granted.entry(*producer).or_insert_with(|| (*epoch, token.cloned()));
        if highest.0 == *epoch && highest.1.as_ref() != token {
            violated!(
                "epoch {epoch} of producer {producer} is granted to two callers, with tokens {:?} and {token:?} (R13)",
                highest.1
            );
        }
        if highest.0 < *epoch {
            *highest = (*epoch, token.cloned());
        }
        let Some(fenced) = epoch.previous() else { return Ok(()) };
        if self.epochs.get(producer) != Some(epoch) {
            // It was fenced itself before its answer left; whoever hears of it cannot write.
            return Ok(());
        }
        let nothing = BTreeMap::new();
        let batches = self.batches.get(&(*producer, fenced)).unwrap_or(&nothing);
        for (partition, placed) in batches {
            let Some(told) = recovered.iter().find(|told| told.partition == *partition) else {
                violated!("the recovery of producer {producer} epoch {fenced} does not tell of {partition} (R2)");
            };
            let next = placed.last().map_or(Sequence::ZERO, |last| last.end);
            let window: Vec<_> = told.window.iter().map(|w| (w.base, w.base_offset, w.checksum)).collect();
            let last: Vec<_> = placed[placed.len().saturating_sub(5)..].iter().map(|p| (p.base, p.offset, p.checksum)).collect();
            if told.next != next || window != last {
                violated!(
                    "the recovery of producer {producer} epoch {fenced} tells {told:?} of {partition}; durable is {placed:?} (R2)"
                );
            }
        }
        match recovered.iter().find(|told| !batches.contains_key(&told.partition)) {
            Some(told) => violated!(
                "the recovery of producer {producer} epoch {fenced} tells of {}, where it wrote nothing (R3)",
                told.partition
            ),
            None => Ok(()),
        }
    }

    fn next(&self, producer: ProducerId, epoch: Epoch, partition: &TopicPartition) -> Sequence {
        let batches = self.batches.get(&(producer, epoch)).and_then(|batches| batches.get(partition));
        batches.and_then(|batches| batches.last()).map_or(Sequence::ZERO, |last| last.end)
    }

    /// Is one of these records durable?
    pub(crate) fn holds(&self, numbers: &[u8]) -> bool {
        self.logs.values().flatten().any(|number| numbers.contains(number))
    }

    /// Has everything that this process sent an outcome?
    pub(crate) fn is_settled(&self, process: u8) -> bool {
        self.records.iter().all(|record| record.process != process || record.told.is_some())
    }

    /// Everything that later judgements depend on.
    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        (&self.records, &self.logs, &self.batches, &self.epochs, &self.granted).hash(into);
    }

    /// The logs, in words.
    pub(crate) fn logs(&self) -> String {
        format!("{:?}", self.logs.values().collect::<Vec<_>>())
    }
}

/// Refused for what the batch is, not for what was before it.
fn is_for_ever(code: ErrorCode) -> bool {
    let by_state = [
        ErrorCode::OutOfOrderSequenceNumber,
        ErrorCode::DuplicateSequenceNumber,
        ErrorCode::InvalidProducerEpoch,
        ErrorCode::UnknownProducerId,
        ErrorCode::SequenceConflict,
    ];
    !by_state.contains(&code) && !code.is_retriable() && code.outcome_is_known()
}

/// Not a process of ours.
const STRANGER: u8 = u8::MAX;

fn place(offset: Offset) -> usize {
    usize::try_from(offset.get()).expect("not negative")
}
