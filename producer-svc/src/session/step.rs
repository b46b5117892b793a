//! What goes into a session and what comes out of it. Nothing else connects the protocol with the world.

use std::{sync::Arc, time::Duration};

use oncelog_proto::{
    Epoch, ErrorCode, Fault, Offset, PackedBatch, PartitionIndex, ProducerId, RecordCount, Sequence, Tag, Timestamp, TopicName,
    TopicPartition, v1::Record,
};
use tonic::Code;

/// Names one `Send` within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

/// Names one attempt of a `Produce` call within the process. A resend is a new call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Names one attempt of an `InitProducerId` call within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InitId(pub u64);

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// A caller hands over records. They were routed, checked against the record limits, and their bytes are paid for.
    Send {
        /// Comes back in [`Action::Complete`].
        id: SendId,
        /// The topic of all of them.
        topic: TopicName,
        /// In the caller's order, each with its partition.
        records: Vec<(PartitionIndex, Record)>,
    },
    /// A `Produce` call was answered: one result for each batch, in order.
    ProduceAnswered {
        /// Which call.
        call: CallId,
        /// What became of each batch.
        results: Vec<BatchAnswer>,
    },
    /// A `Produce` call ended with a status, or with an answer that makes no sense.
    ProduceFailed {
        /// Which call.
        call: CallId,
        /// What its status says of it.
        failure: CallFailure,
    },
    /// An `InitProducerId` call was answered, with all of its pages.
    InitAnswered {
        /// Which call.
        init: InitId,
        /// The complete answer.
        answer: InitAnswer,
    },
    /// An `InitProducerId` call ended with a status.
    InitFailed {
        /// Which call.
        init: InitId,
        /// What its status says of it.
        failure: CallFailure,
    },
    /// No more `Send`s follow; what is there goes out without lingering.
    Close,
    /// Time has passed.
    Tick,
}

/// What became of one batch of an answered call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BatchAnswer {
    /// In the log.
    Acknowledged {
        /// Offset of its first record; none with acks=0.
        base_offset: Option<Offset>,
        /// When it was appended.
        append_time: Timestamp,
        /// An earlier copy was appended, not this one.
        duplicate: bool,
    },
    /// Refused.
    Refused {
        /// Why.
        code: ErrorCode,
        /// In words.
        message: String,
        /// With `OUT_OF_ORDER_SEQUENCE_NUMBER`.
        expected: Option<Sequence>,
    },
}

/// A call that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// What it means for the call's batches.
    pub kind: FailureKind,
    /// The status in words.
    pub message: String,
}

/// What a failed call means. Permanent are `INVALID_ARGUMENT` and `FAILED_PRECONDITION`; every other status leaves the call in
/// doubt, but for `OUT_OF_RANGE`, of which the status alone does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Nobody knows whether it was carried out: cut, timed out, cancelled, overloaded, internal.
    InDoubt,
    /// It was refused as a whole and always will be.
    Permanent,
    /// Only of `Produce`: a message is larger than the one who got it takes (`OUT_OF_RANGE`). If that is the call, nothing of it
    /// was looked at. If it is the answer, which this process refused by itself, the call was carried out.
    TooLarge,
    /// Only of `InitProducerId`: the producer id is not known (`NOT_FOUND`).
    UnknownProducer,
}

impl FailureKind {
    /// What the status of a `Produce` call means.
    pub fn of_produce(status: Code) -> Self {
        match status {
            Code::InvalidArgument | Code::FailedPrecondition => Self::Permanent,
            Code::OutOfRange => Self::TooLarge,
            _ => Self::InDoubt,
        }
    }

    /// What the status of an `InitProducerId` call means. There alone `NOT_FOUND` says that a producer id is unknown. The call
    /// itself is never too large.
    pub fn of_init(status: Code) -> Self {
        match status {
            Code::NotFound => Self::UnknownProducer,
            Code::OutOfRange => Self::InDoubt,
            other => Self::of_produce(other),
        }
    }
}

/// The complete answer to an `InitProducerId` call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InitAnswer {
    /// The producer id.
    pub producer: ProducerId,
    /// The epoch to write with.
    pub epoch: Epoch,
    /// Largest batch that the broker takes, in bytes as sent.
    pub max_batch_bytes: usize,
    /// What is in the log of the fenced epoch. A partition that is absent holds nothing of it (R3).
    pub partitions: Vec<RecoveredPartition>,
}

/// What a partition holds of the fenced epoch (R2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecoveredPartition {
    /// Which one.
    pub partition: TopicPartition,
    /// Sequences below this are in the log; all others never will be.
    pub next: Sequence,
    /// The last batches, oldest first.
    pub window: Vec<RecoveredBatch>,
}

/// A batch of the fenced epoch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecoveredBatch {
    /// Sequence of its first record.
    pub base: Sequence,
    /// Number of records.
    pub count: RecordCount,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When it was appended.
    pub append_time: Timestamp,
    /// CRC-32C of its data.
    pub checksum: u32,
}

/// What a session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call `Produce`. Answer with [`Event::ProduceAnswered`] or [`Event::ProduceFailed`], once.
    Produce(ProduceCall),
    /// Call `InitProducerId` and follow its pages. Answer with [`Event::InitAnswered`] or [`Event::InitFailed`], once.
    Init {
        /// Comes back in the answer.
        init: InitId,
        /// The id and epoch to recover; none asks for a fresh id.
        recover: Option<(ProducerId, Epoch)>,
        /// Random text of this process (R13).
        token: String,
        /// Give up after this long and report the call as in doubt.
        timeout: Duration,
    },
    /// All records of a `Send` have an outcome.
    Complete {
        /// Which.
        send: SendId,
        /// One for each record, in the caller's order.
        outcomes: Vec<RecordOutcome>,
    },
    /// These bytes, as counted by [`super::record_cost`], are free again for other records.
    Free {
        /// How many.
        bytes: usize,
    },
    /// The broker does not know this topic or partition; what is remembered of it should be asked again.
    ForgetTopic {
        /// Which topic.
        topic: TopicName,
    },
    /// Something that an operator has to hear of: an id shared by two processes, or acknowledged data that is lost.
    Alarm {
        /// What happened, and what was done about it.
        message: String,
    },
}

/// A `Produce` call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceCall {
    /// Comes back in the answer.
    pub call: CallId,
    /// At most one batch for each partition.
    pub batches: Vec<OutgoingBatch>,
    /// Give up after this long and report the call as in doubt.
    pub timeout: Duration,
}

/// A batch on the wire. All batches of a call have the same producer and epoch, or none has a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingBatch {
    /// Where to.
    pub partition: TopicPartition,
    /// Its tag; none with `enable.idempotence=false`.
    pub tag: Option<Tag>,
    /// Its records: the same bytes in every attempt.
    pub packed: PackedBatch,
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RecordOutcome {
    /// In the log.
    Appended {
        /// Its partition.
        partition: PartitionIndex,
        /// Its offset; none with acks=0, or if the broker no longer remembers it.
        offset: Option<Offset>,
        /// When it was appended.
        append_time: Timestamp,
    },
    /// Certainly not in the log. Shared, because all records of a batch are refused alike and most are never refused.
    Refused(Arc<Fault>),
    /// In the log at most once; nobody knows.
    Unknown,
}

/// How many of what happened, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches that were handed over for the first time.
    pub batches: u64,
    /// Batches that were handed over again.
    pub resends: u64,
}
