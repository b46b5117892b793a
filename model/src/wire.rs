//! From one machine's words to the other's: what the two shells and the protobuf messages between them do. Each edge is the real
//! one; only the network is not there.

use broker_svc::{
    pipeline::{self, Request},
    state::InitRequest,
    wire::{parse, reply},
};
use oncelog_proto::{
    Epoch, PackedBatch, ProducerId, Timestamp,
    v1::{self, Acks},
};
use producer_svc::{
    session::{FailureKind, OutgoingBatch},
    wire,
};

use crate::travel::{Answer, Message, Sent, Waiter};

/// A call, as the broker's edge parses it.
pub(crate) fn request(message: &Message, max_message_bytes: usize) -> Request {
    match message {
        Message::Produce(sent) => {
            let request = produce_request(sent.iter().map(|sent| &sent.batch));
            parse::produce(request, max_message_bytes).expect("the calls are well-formed")
        }
        Message::Init { recover, token } => Request::InitProducer(init_request(*recover, token)),
    }
}

fn produce_request<'a>(batches: impl Iterator<Item = &'a OutgoingBatch> + Clone) -> v1::ProduceRequest {
    let tag = batches.clone().next().and_then(|batch| batch.tag);
    let batch = |batch: &OutgoingBatch| v1::Batch {
        topic: batch.partition.topic.to_string(),
        partition: batch.partition.partition.get(),
        base_sequence: batch.tag.map_or(0, |tag| tag.base.get()),
        packed: Some(batch.packed.to_proto()),
        ..Default::default()
    };
    v1::ProduceRequest {
        producer_id: tag.map(|tag| tag.producer.get()),
        producer_epoch: tag.map_or(0, |tag| tag.epoch.get()),
        batches: batches.map(batch).collect(),
        ..Default::default()
    }
}

fn init_request(recover: Option<(ProducerId, Epoch)>, token: &str) -> InitRequest {
    let request = v1::InitProducerIdRequest {
        producer_id: recover.map(|(producer, _)| producer.get()),
        producer_epoch: recover.map(|(_, epoch)| epoch.get()),
        recovery_token: token.to_owned(),
        ..Default::default()
    };
    let (request, _) = parse::init_producer(&request).expect("the calls are well-formed");
    request
}

/// The broker's answer, as the session's shell reads it: through both edges and the message between them. `sent` are the batches
/// of a `Produce`.
pub(crate) fn answer(waiter: Waiter, sent: Option<&[Sent]>, answer: pipeline::Answer, max_batch_bytes: usize) -> Answer {
    match (waiter, answer) {
        (Waiter::Produce(call), pipeline::Answer::Produced(outcomes)) => {
            let counts: Vec<_> = sent.into_iter().flatten().map(|sent| sent.batch.packed.count()).collect();
            let answers = wire::produced(reply::produced(outcomes), &counts, Acks::All, Timestamp::default());
            Answer::Produce(
                call,
                Ok(answers.unwrap_or_else(|what| panic!("the session takes {call:?}'s answer for nonsense: {what}"))),
            )
        }
        (Waiter::Produce(call), pipeline::Answer::Refused(fault)) => {
            Answer::Produce(call, Err(FailureKind::of_produce(fault.to_status().code())))
        }
        (Waiter::Init(init), pipeline::Answer::Granted(granted)) => {
            let page = reply::granted(granted, None, max_batch_bytes);
            assert!(page.next_page_token.is_empty(), "a few partitions fit into a page");
            let answer = wire::granted(page);
            Answer::Init(
                init,
                Ok(answer.unwrap_or_else(|what| panic!("the session takes {init:?}'s answer for nonsense: {what}"))),
            )
        }
        (Waiter::Init(init), pipeline::Answer::Refused(fault)) => {
            Answer::Init(init, Err(FailureKind::of_init(fault.to_status().code())))
        }
        (waiter, answer) => panic!("{waiter:?} is told {answer:?}"),
    }
}

/// A record whose value is its number.
pub(crate) fn record(number: u8) -> v1::Record {
    v1::Record { value: Some(vec![number].into()), ..Default::default() }
}

/// The numbers of a batch's records.
pub(crate) fn numbers(packed: &PackedBatch) -> Vec<u8> {
    let number = |record: v1::Record| record.value.expect("each record has its number as its value")[0];
    packed.records().expect("what was packed can be unpacked").into_iter().map(number).collect()
}
