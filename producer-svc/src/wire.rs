//! What is read from callers and from the broker: parsed once, and nothing decided but whether a message is well-formed. For
//! those who want to see that no message, however wrong, does any harm.

use oncelog_proto::{
    Fault, RecordCount, Timestamp, TopicName,
    topic::PartitionCount,
    v1::{Acks, DescribeTopicsResponse, InitProducerIdResponse, ProduceResponse, SendRequest},
};

use crate::{
    broker_client::answer::{self, Nonsense},
    rpc,
    session::{BatchAnswer, InitAnswer},
};

/// Judges a `Send`. A record has at most `max_request_size` bytes.
///
/// # Errors
/// The request is wrong in itself; nothing of it would be handed over.
pub fn send(request: &SendRequest, max_request_size: usize) -> Result<(), Fault> {
    rpc::check(request, max_request_size).map(drop)
}

/// Reads the answer to a `Produce` of one batch for each of `counts`, which came `now`. A result that makes no sense leaves the
/// outcome of its batch unknown.
///
/// # Errors
/// It has another number of results; the outcome of all batches stays unknown.
pub fn produced(
    response: ProduceResponse,
    counts: &[RecordCount],
    acks: Acks,
    now: Timestamp,
) -> Result<Vec<BatchAnswer>, String> {
    answer::batches(response, counts, acks, now).map_err(|Nonsense(what)| what)
}

/// Reads one page of the answer to an `InitProducerId`.
///
/// # Errors
/// What makes no sense about it.
pub fn granted(page: InitProducerIdResponse) -> Result<InitAnswer, String> {
    answer::init_page(page).map_err(|Nonsense(what)| what)
}

/// Reads how many partitions the one topic has that was asked for.
///
/// # Errors
/// What makes no sense about it.
pub fn partitions(response: &DescribeTopicsResponse, topic: &TopicName) -> Result<PartitionCount, String> {
    answer::partition_count(response, topic).map_err(|Nonsense(what)| what)
}
