//! From one machine's words to the other's: what the two shells and the protobuf messages between them do.

use broker_svc::{
    pipeline::{self, BatchOutcome, Request},
    state::{Granted, InitRequest},
    wire::parse,
};
use oncelog_proto::{Epoch, Fault, PackedBatch, ProducerId, v1};
use producer_svc::session::{BatchAnswer, FailureKind, InitAnswer, OutgoingBatch, RecoveredBatch, RecoveredPartition};

use crate::travel::{Answer, Message, Waiter};

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

/// The broker's answer, as the session's shell reads it.
pub(crate) fn answer(waiter: Waiter, answer: pipeline::Answer, max_batch_bytes: usize) -> Answer {
    match (waiter, answer) {
        (Waiter::Produce(call), pipeline::Answer::Produced(outcomes)) => {
            Answer::Produce(call, Ok(outcomes.into_iter().map(batch_answer).collect()))
        }
        (Waiter::Produce(call), pipeline::Answer::Refused(fault)) => {
            Answer::Produce(call, Err(FailureKind::of_produce(fault.to_status().code())))
        }
        (Waiter::Init(init), pipeline::Answer::Granted(granted)) => Answer::Init(init, Ok(init_answer(granted, max_batch_bytes))),
        (Waiter::Init(init), pipeline::Answer::Refused(fault)) => {
            Answer::Init(init, Err(FailureKind::of_init(fault.to_status().code())))
        }
        (waiter, answer) => panic!("{waiter:?} is told {answer:?}"),
    }
}

fn batch_answer(outcome: BatchOutcome) -> BatchAnswer {
    match outcome {
        BatchOutcome::Acknowledged { base_offset, time, duplicate } => {
            BatchAnswer::Acknowledged { base_offset, append_time: time, duplicate }
        }
        BatchOutcome::Refused(fault) => refused(&fault),
    }
}

fn refused(fault: &Fault) -> BatchAnswer {
    BatchAnswer::Refused { code: fault.code(), message: fault.message().to_owned(), expected: fault.expected_sequence() }
}

fn init_answer(granted: Granted, max_batch_bytes: usize) -> InitAnswer {
    let batch = |batch: broker_svc::state::Remembered| RecoveredBatch {
        base: batch.base,
        count: batch.count,
        base_offset: batch.base_offset,
        append_time: batch.time,
        checksum: batch.checksum,
    };
    let partitions = granted.recovered.into_iter().map(|recovered| RecoveredPartition {
        partition: recovered.partition,
        next: recovered.next,
        window: recovered.window.into_iter().map(batch).collect(),
    });
    InitAnswer { producer: granted.producer, epoch: granted.epoch, max_batch_bytes, partitions: partitions.collect() }
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
