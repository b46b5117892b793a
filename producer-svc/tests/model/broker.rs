//! What a broker is to the model: calls arrive, answers leave, maybe much later; and in between it stops and starts.

use oncelog_proto::{Epoch, ErrorCode, Monotonic, ProducerId, Timestamp, TopicName, TopicPartition};
use producer_svc::session::{BatchAnswer, CallId, FailureKind, InitAnswer, InitId, OutgoingBatch};

use super::dice::Dice;

/// On its way to the broker.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Produce(CallId, Vec<OutgoingBatch>),
    Init(InitId, Option<(ProducerId, Epoch)>, String),
}

/// On its way back. To each copy of a call there is at most one.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Produce(CallId, Vec<BatchAnswer>),
    ProduceFailed(CallId, FailureKind),
    Init(InitId, Result<InitAnswer, FailureKind>),
}

/// The records of a partition by offset: the number of each and when it was appended.
pub(crate) type Log = Vec<(u64, Timestamp)>;

/// What the model needs of a broker.
pub(crate) trait Broker {
    /// A call arrives. With `refusal` its first batch is refused unseen.
    fn arrive(&mut self, call: Call, refusal: Option<ErrorCode>);
    /// An answer that leaves.
    fn poll_answer(&mut self) -> Option<Answer>;
    /// One step of what goes on inside: of a write, of a sync. False if nothing is to be done.
    fn work(&mut self) -> bool;
    /// When time alone lets it answer.
    fn next_wakeup(&self) -> Option<Monotonic>;
    /// It is this late.
    fn tick(&mut self, now: Monotonic);
    /// Stops without warning, loses what the dice say of what was not durable, and starts again.
    fn crash(&mut self, dice: &mut Dice);
    /// From now on it refuses nothing of what the model sends for want of room or permission.
    fn heal(&mut self);
    /// Forgets every producer, as if none had been heard of for a day.
    fn expire_producers(&mut self);
    /// Creates a topic, if there is none of this name.
    fn create_topic(&mut self, topic: &TopicName, partitions: i32);
    /// Deletes a topic; it may be created again by its first use.
    fn delete_topic(&mut self, topic: &TopicName);
    /// What a partition durably holds.
    fn log(&self, partition: &TopicPartition) -> Log;
    /// What it held in its earlier lives, each ended by a deletion, oldest first.
    fn past_logs(&self, partition: &TopicPartition) -> Vec<Log>;
}

/// The numbers of a batch's records.
pub(crate) fn record_numbers(packed: &oncelog_proto::PackedBatch) -> Vec<u64> {
    let number = |record: oncelog_proto::v1::Record| {
        let value = record.value.expect("the model's records have values");
        u64::from_be_bytes(value[..8].try_into().expect("they start with their number"))
    };
    packed.records().expect("the session packs well").into_iter().map(number).collect()
}
