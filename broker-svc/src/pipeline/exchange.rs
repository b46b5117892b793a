//! What goes into the pipeline and what comes out of it.

use std::time::Duration;

use oncelog_proto::{Fault, Offset, ProducerId, Timestamp, TopicName, TopicPartition, TraceContext, topic::PartitionCount};

use crate::{
    entry::PartitionId,
    state::{Arrival, Ends, Granted, InitRequest, ProducerPage, TopicPage},
};

/// What callers ask for. Everything in it is well-formed: it was parsed at the edge.
#[derive(Clone, Debug)]
pub enum Request {
    /// Append batches, each judged on its own; one that is not well-formed comes with its fault.
    Produce {
        /// When to answer.
        acks: Acks,
        /// In the caller's order. Tagged ones are for different partitions.
        batches: Vec<Result<Arrival, Fault>>,
    },
    /// Hand out or recover a producer id.
    InitProducer(InitRequest),
    /// Create a topic.
    CreateTopic {
        /// Its name.
        topic: TopicName,
        /// Absent: the default number.
        partitions: Option<PartitionCount>,
    },
    /// Delete a topic.
    DeleteTopic(TopicName),
    /// Describe topics.
    DescribeTopics {
        /// Which; none means all.
        topics: Vec<TopicName>,
        /// Create those that do not exist, if that is allowed.
        create: bool,
        /// Only those behind it, in the order of `topics` or of their names.
        after: Option<TopicName>,
    },
    /// Describe producers, by id.
    DescribeProducers {
        /// Only this one.
        producer: Option<ProducerId>,
        /// Only those that wrote to it.
        topic: Option<TopicName>,
        /// Only those above it.
        after: Option<ProducerId>,
        /// At most so many.
        most: usize,
    },
    /// Find a partition, to read from it.
    Locate(TopicPartition),
}

/// When a `Produce` call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// When its batches are durable.
    All,
    /// When they are written. Only for untagged batches.
    One,
    /// When they are accepted, without offsets. Only for untagged batches.
    Zero,
}

/// What callers are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To [`Request::Produce`]: one outcome for each batch, in order.
    Produced(Vec<BatchOutcome>),
    /// To [`Request::InitProducer`].
    Granted(Granted),
    /// To [`Request::CreateTopic`].
    Created(PartitionCount),
    /// To [`Request::DeleteTopic`].
    Deleted,
    /// To [`Request::DescribeTopics`].
    Topics(TopicPage),
    /// To [`Request::DescribeProducers`].
    Producers(ProducerPage),
    /// To [`Request::Locate`].
    Located(PartitionId, Ends),
    /// To any of them: refused as a whole.
    Refused(Fault),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BatchOutcome {
    /// It is in the log.
    Acknowledged {
        /// Where; none with [`Acks::Zero`].
        base_offset: Option<Offset>,
        /// Since when.
        time: Timestamp,
        /// It was there before this call.
        duplicate: bool,
    },
    /// It was refused.
    Refused(Fault),
}

/// What leaves the machine, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<R> {
    /// An answer to the request that came with `R`.
    Answer(R, Answer),
    /// The durable log of a partition moved: readers that follow it may go on.
    Moved(PartitionId, Ends),
    /// A partition is gone: readers that follow it end.
    Gone(PartitionId),
}

/// A batch that waited in the hold and is in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Which trace.
    pub trace: TraceContext,
    /// How long.
    pub time: Duration,
}

/// How many of what happened, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records appended.
    pub appended_records: u64,
    /// Batches appended.
    pub appended_batches: u64,
    /// Batches acknowledged again.
    pub duplicate_batches: u64,
    /// Records of these.
    pub duplicate_records: u64,
    /// Batches below the window: in the log, and their offset is forgotten.
    pub window_misses: u64,
    /// Batches refused.
    pub refused_batches: u64,
    /// Batches that waited in the hold.
    pub held_batches: u64,
    /// Producers that expired.
    pub expired_producers: u64,
}

impl BatchOutcome {
    pub(super) fn without_offset(self) -> Self {
        match self {
            Self::Acknowledged { time, duplicate, .. } => Self::Acknowledged { base_offset: None, time, duplicate },
            Self::Refused(fault) => Self::Refused(fault),
        }
    }
}
