//! What becomes of a batch: the admission table, in the order of its rows.
//!
//! The order matters. Whose batch it is comes first, because the windows of a fenced or closed epoch say nothing. What is in
//! the log already comes before every limit (R15, W8): a batch that is durable is acknowledged, even if a limit was lowered
//! since. Kafka checks limits first, and so refuses batches that it holds (D7).

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{ErrorCode, Fault, Offset, PackedBatch, ProducerId, Sequence, Tag, Timestamp, TopicPartition, TraceContext};

use super::{
    Limits, State,
    producers::{Producer, expected},
    topics::{check_partition, unknown_topic},
    window::Place,
};
use crate::entry::{Append, Entry};

/// A batch that arrived and is well-formed in itself. One above the size limit need not be verified: it is appended by nobody,
/// and acknowledged only if it equals one that was verified when it was appended.
#[derive(Clone, Debug, Hash)]
pub struct Arrival {
    /// Where it is for.
    pub partition: TopicPartition,
    /// Whose it is; none without idempotence.
    pub tag: Option<Tag>,
    /// Its records.
    pub packed: PackedBatch,
    /// Which trace it is in; none decides anything by it.
    pub trace: Option<TraceContext>,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be appended, after its topic is created if there is none yet.
    Append {
        /// The topic's creation.
        create: Option<Entry>,
        /// The append.
        append: Append,
    },
    /// It is in the log.
    Duplicate {
        /// Where.
        base_offset: Offset,
        /// Since when.
        time: Timestamp,
    },
    /// It waits for the batches before it, or is refused as out of order.
    Early {
        /// The sequence of the first of them.
        expected: Sequence,
    },
    /// It is refused.
    Refuse(Fault),
}

impl State {
    /// Judges a batch. Changes nothing: whoever appends applies the entries.
    pub fn judge(&self, arrival: &Arrival, limits: &Limits) -> Verdict {
        let verdict = match arrival.tag {
            None => self.admit(arrival, limits),
            Some(tag) => self.judge_tagged(arrival, tag, limits),
        };
        verdict.unwrap_or_else(Verdict::Refuse)
    }

    fn judge_tagged(&self, arrival: &Arrival, tag: Tag, limits: &Limits) -> Result<Verdict, Fault> {
        let producer = self.producers.get(tag.producer).ok_or_else(|| unknown_producer(tag.producer))?;
        check_epoch(producer, tag, &arrival.partition)?;
        let found = self.topics.find(&arrival.partition)?;
        if is_on(Defect::LimitsComeFirst) {
            self.check_limits(arrival, limits)?;
        }
        let window = found.and_then(|id| producer.window(id));
        let expected = expected(window);
        let end = tag.end(arrival.packed.count()).ok_or_else(|| {
            let message = format!("{tag} with {} records passes the highest sequence", arrival.packed.count());
            Fault::new(ErrorCode::InvalidRecord, message)
        })?;
        let place = match window {
            Some(window) => window.place(tag.base, end),
            None if tag.base == Sequence::ZERO => Place::Next,
            None => Place::Early,
        };
        match place {
            Place::Exactly(batch) if batch.checksum != arrival.packed.checksum() && !is_on(Defect::ConflictIsSwallowed) => {
                Err(conflict(tag, &arrival.partition))
            }
            Place::Exactly(_) if is_on(Defect::DuplicateIsAppended) => self.admit(arrival, limits),
            Place::Exactly(batch) => Ok(Verdict::Duplicate { base_offset: batch.base_offset, time: batch.time }),
            Place::Below => Err(forgotten_duplicate(tag, &arrival.partition)),
            Place::Overlap => Err(out_of_order(tag, &arrival.partition, expected)),
            Place::Next => {
                if window.is_none() {
                    self.check_window_cap(producer, limits)?;
                }
                self.admit(arrival, limits)
            }
            Place::Early if is_on(Defect::GapIsAppended) => self.admit(arrival, limits),
            Place::Early => {
                // What can never be appended need not wait for its turn.
                self.check_limits(arrival, limits)?;
                Ok(Verdict::Early { expected })
            }
        }
    }

    /// The batch is new and on its turn: limits decide.
    fn admit(&self, arrival: &Arrival, limits: &Limits) -> Result<Verdict, Fault> {
        self.check_limits(arrival, limits)?;
        let name = &arrival.partition;
        let (create, partition, base_offset) = match self.topics.find(name)? {
            Some(id) => (None, id, self.ends(id).expect("it was just found").end),
            None => {
                let create = self.create_topic(&name.topic, None, limits)?;
                (Some(create), self.topics.next_partition().nth(name.partition), Offset::ZERO)
            }
        };
        if base_offset.checked_add(arrival.packed.count()).is_none() {
            return Err(Fault::new(ErrorCode::InvalidRecord, format!("{name} has no offset left for the batch")));
        }
        let packed = &arrival.packed;
        let append = Append {
            partition,
            base_offset,
            tag: arrival.tag,
            count: packed.count(),
            compression: packed.compression(),
            uncompressed_bytes: packed.uncompressed_bytes(),
            data_len: u32::try_from(packed.data().len()).expect("a batch is below 64 MiB"),
            checksum: packed.checksum(),
        };
        Ok(Verdict::Append { create, append })
    }

    /// What is wrong with a batch whatever else is in the log, and would be on its turn too.
    fn check_limits(&self, arrival: &Arrival, limits: &Limits) -> Result<(), Fault> {
        let (bytes, most) = (arrival.packed.data().len(), limits.max_message_bytes);
        if bytes > most {
            let message = format!("the batch has {bytes} bytes; --max-message-bytes is {most}: send fewer records in a batch");
            let fault = Fault::new(ErrorCode::MessageTooLarge, message);
            return Err(fault.with("batch_bytes", bytes).with("max_message_bytes", most));
        }
        if self.topics.get(&arrival.partition.topic).is_none() {
            if !limits.auto_create_topics {
                return Err(unknown_topic(&arrival.partition.topic));
            }
            check_partition(&arrival.partition, limits.default_partitions)?;
        }
        Ok(())
    }

    /// A producer that has recovered gives back what it had before: at the cap it goes on.
    fn check_window_cap(&self, producer: &Producer, limits: &Limits) -> Result<(), Fault> {
        let (have, most) = (self.producers.size() - producer.outdated(), limits.max_windows);
        if have < most {
            return Ok(());
        }
        let message = format!(
            "the broker remembers {have} pairs of producer and partition; --max-windows is {most}: \
             wait for idle producers to expire, or raise it"
        );
        Err(Fault::new(ErrorCode::ResourceExhausted, message).with("max_windows", most))
    }
}

/// The refusal of a batch that is early and may not wait (any longer).
pub(crate) fn out_of_order(tag: Tag, partition: &TopicPartition, expected: Sequence) -> Fault {
    let message = if tag.base > expected {
        format!("{tag} in {partition}: the records from sequence {expected} on have not arrived; send them first")
    } else {
        format!("{tag} in {partition} overlaps what is in the log; the next sequence is {expected}")
    };
    Fault::new(ErrorCode::OutOfOrderSequenceNumber, message).expecting(expected)
}

/// What is said of a producer that is another one's as well: who may not use it need not know that it is there.
pub(crate) fn unknown_producer(id: ProducerId) -> Fault {
    let message = format!(
        "producer {id} was never handed out here, has expired, or belongs to another identity; ask for a fresh id with InitProducerId"
    );
    Fault::new(ErrorCode::UnknownProducerId, message).with("producer_id", id)
}

/// A closed marker comes before everything, first-use creation included: the partition's earlier life may have held this very
/// batch (R12).
fn check_epoch(producer: &Producer, tag: Tag, partition: &TopicPartition) -> Result<(), Fault> {
    let current = producer.epoch;
    let why = if producer.is_closed(partition) {
        format!("{partition} was deleted since {tag} was written to it; recover the producer with InitProducerId")
    } else if tag.epoch < current && !is_on(Defect::OlderEpochIsAccepted) {
        format!("{tag} is fenced: the producer is at epoch {current}; recover with InitProducerId")
    } else if tag.epoch > current {
        format!("{tag} has an epoch that was never handed out: the producer is at {current}")
    } else {
        return Ok(());
    };
    Err(Fault::new(ErrorCode::InvalidProducerEpoch, why).current_epoch(current))
}

fn conflict(tag: Tag, partition: &TopicPartition) -> Fault {
    let message = format!(
        "{tag} in {partition} was appended before with other content: two processes share the producer id; \
         get a fresh one with InitProducerId"
    );
    Fault::new(ErrorCode::SequenceConflict, message).with("producer_id", tag.producer)
}

fn forgotten_duplicate(tag: Tag, partition: &TopicPartition) -> Fault {
    let message = format!("{tag} is in {partition} already, below the last five batches; its offset is no longer remembered");
    Fault::new(ErrorCode::DuplicateSequenceNumber, message)
}
