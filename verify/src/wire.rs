//! Answers as the contract has them, as events of a history. What is not said, or not said well, is unknown: nobody is accused
//! because of an answer that was not understood.

use oncelog_proto::{
    Timestamp,
    v1::{
        BatchResult, ErrorCode, InitProducerIdResponse, SendFailure, SendResponse, SendStreamResponse, batch_result,
        send_failure::outcome::Outcome as Fate, send_response::SentRecord, send_stream_response,
    },
};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use crate::history::{FencedPartition, InitAnswer, Partition, Place, ProduceAnswer, Producer, SendOutcome, WindowEntry};

/// The answer to a `Send` of `count` records.
pub fn send(count: usize, answer: &Result<SendResponse, Status>) -> Vec<SendOutcome> {
    match answer {
        Ok(sent) => accepted(count, sent),
        Err(status) => send_failure(status).map_or_else(|| no_answer(count), |failure| failed(count, &failure)),
    }
}

/// What is known of the `count` records of a call that nobody answered.
pub fn no_answer(count: usize) -> Vec<SendOutcome> {
    vec![SendOutcome::Unknown(u32::try_from(count).unwrap_or(u32::MAX))]
}

/// The answer to a request of `count` records in a `SendStream`.
pub fn send_stream(count: usize, answer: &SendStreamResponse) -> Vec<SendOutcome> {
    match &answer.outcome {
        Some(send_stream_response::Outcome::Sent(sent)) => accepted(count, sent),
        Some(send_stream_response::Outcome::Failed(failure)) => failed(count, failure),
        None => no_answer(count),
    }
}

/// What the end of a `SendStream` says of a request of `count` records behind the last answer: not taken in, if the service says
/// why it ended. Any other end says nothing.
pub fn send_stream_ended(count: usize, status: &Status) -> Vec<SendOutcome> {
    if status.code() == Code::OutOfRange || reason(status) == Some(ErrorCode::BrokerNotAvailable) {
        vec![SendOutcome::Refused(u32::try_from(count).unwrap_or(u32::MAX))]
    } else {
        no_answer(count)
    }
}

fn accepted(count: usize, sent: &SendResponse) -> Vec<SendOutcome> {
    if sent.records.len() != count {
        // It is an answer to another question.
        return no_answer(count);
    }
    let at = |record: &SentRecord| place(record.offset, &record.append_time);
    sent.records.iter().map(|record| SendOutcome::Accepted { partition: record.partition, place: at(record) }).collect()
}

fn failed(count: usize, failure: &SendFailure) -> Vec<SendOutcome> {
    let mut outcomes = Vec::new();
    let most = u32::try_from(count).unwrap_or(u32::MAX);
    let mut next = 0_u32;
    for outcome in &failure.outcomes {
        let (Ok(first), Ok(some)) = (u32::try_from(outcome.first_index), u32::try_from(outcome.count)) else { break };
        // Only what is told in order is believed; of the rest nothing is known.
        if first != next || some == 0 || some > most - first {
            break;
        }
        match &outcome.outcome {
            Some(Fate::Appended(appended)) => outcomes.extend((0..i64::from(some)).map(|index| {
                let offset = if appended.offset < 0 { appended.offset } else { appended.offset + index };
                SendOutcome::Accepted { partition: appended.partition, place: place(offset, &appended.append_time) }
            })),
            Some(Fate::Refused(_)) => outcomes.push(SendOutcome::Refused(some)),
            Some(Fate::Unknown(_)) | None => outcomes.push(SendOutcome::Unknown(some)),
        }
        next += some;
    }
    outcomes.extend((next < most).then(|| SendOutcome::Unknown(most - next)));
    outcomes
}

/// What a failed `Send` carries in its details.
fn send_failure(status: &Status) -> Option<SendFailure> {
    let details = pb::Status::decode(status.details()).ok()?;
    let any = details.details.iter().find(|any| any.type_url.ends_with("/oncelog.v1.SendFailure"))?;
    SendFailure::decode(any.value.as_slice()).ok()
}

/// The answer to one batch. With a failed call each of its batches has the outcome of [`produce_failed`].
pub fn produce(result: &BatchResult) -> ProduceAnswer {
    match &result.outcome {
        Some(batch_result::Outcome::Ack(ack)) => {
            ProduceAnswer::Acknowledged { place: place(ack.base_offset, &ack.append_time), duplicate: ack.duplicate }
        }
        Some(batch_result::Outcome::Error(error)) => match (error.code(), error.expected_sequence) {
            (ErrorCode::OutOfOrderSequenceNumber, Some(expected_sequence)) => ProduceAnswer::OutOfOrder { expected_sequence },
            (code, _) => refusal(code),
        },
        None => ProduceAnswer::Unknown,
    }
}

/// What a failed `Produce` says of each of its batches.
pub fn produce_failed(status: &Status) -> ProduceAnswer {
    reason(status).map_or(ProduceAnswer::Unknown, refusal)
}

fn refusal(code: ErrorCode) -> ProduceAnswer {
    match code {
        ErrorCode::DuplicateSequenceNumber => ProduceAnswer::DuplicateBelowWindow,
        ErrorCode::InvalidProducerEpoch => ProduceAnswer::Fenced,
        ErrorCode::UnknownProducerId => ProduceAnswer::UnknownProducer,
        ErrorCode::SequenceConflict => ProduceAnswer::Conflict,
        ErrorCode::Unspecified | ErrorCode::RequestTimedOut | ErrorCode::KafkaStorageError => ProduceAnswer::Unknown,
        _ => ProduceAnswer::Refused,
    }
}

/// The answer to an `InitProducerId`: all its pages, in their order.
pub fn init(pages: &[InitProducerIdResponse]) -> InitAnswer {
    let Some(first) = pages.first() else { return InitAnswer::Unknown };
    let partitions = pages.iter().flat_map(|page| &page.partitions);
    let fenced = partitions.map(|partition| FencedPartition {
        partition: Partition::new(&partition.topic, partition.partition),
        next_sequence: partition.next_sequence,
        window: partition
            .window
            .iter()
            .map(|entry| WindowEntry {
                base_sequence: entry.base_sequence,
                record_count: u32::try_from(entry.record_count).unwrap_or(0),
                place: place(entry.base_offset, &entry.append_time),
                checksum: entry.checksum,
            })
            .collect(),
    });
    let producer = Producer { id: first.producer_id, epoch: first.producer_epoch };
    InitAnswer::Granted { producer, fenced: fenced.collect() }
}

/// What a failed `InitProducerId` says.
pub fn init_failed(status: &Status) -> InitAnswer {
    match reason(status).map(refusal) {
        Some(ProduceAnswer::UnknownProducer) => InitAnswer::UnknownProducer,
        None | Some(ProduceAnswer::Unknown) => InitAnswer::Unknown,
        Some(_) => InitAnswer::Refused,
    }
}

/// The code that a status names. A status without one came from the transport, and says nothing.
fn reason(status: &Status) -> Option<ErrorCode> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == oncelog_proto::fault::ERROR_DOMAIN)?;
    ErrorCode::from_str_name(&format!("ERROR_CODE_{}", info.reason))
}

fn place(offset: i64, append_time: &Option<prost_types::Timestamp>) -> Place {
    Place { offset, append_time: append_time.as_ref().map_or(0, |time| Timestamp::from_proto(time).as_micros()) }
}

#[cfg(test)]
mod tests {
    use oncelog_proto::{
        Fault, Sequence,
        v1::{
            BatchError,
            send_failure::{Appended, Outcome, Refused, Unknown},
        },
    };

    use super::*;

    fn failure(outcomes: &[(i32, i32, Fate)]) -> SendFailure {
        let outcomes = outcomes.iter().map(|(first_index, count, fate)| Outcome {
            first_index: *first_index,
            count: *count,
            outcome: Some(fate.clone()),
        });
        SendFailure { outcomes: outcomes.collect(), ..SendFailure::default() }
    }

    #[test]
    fn a_failure_is_taken_apart_and_what_it_does_not_say_in_order_is_left_unknown() {
        let appended = Fate::Appended(Appended { partition: 1, offset: 7, append_time: None });
        let refused = Fate::Refused(Refused::default());
        let unknown = Fate::Unknown(Unknown {});
        let at = |offset| SendOutcome::Accepted { partition: 1, place: Place { offset, append_time: 0 } };
        let whole = failure(&[(0, 2, appended.clone()), (2, 1, refused.clone()), (3, 1, unknown)]);
        assert_eq!(failed(4, &whole), [at(7), at(8), SendOutcome::Refused(1), SendOutcome::Unknown(1)]);
        assert_eq!(failed(3, &whole), [at(7), at(8), SendOutcome::Refused(1)]);
        assert_eq!(failed(4, &failure(&[(0, 1, appended), (2, 1, refused)])), [at(7), SendOutcome::Unknown(3)]);
        let other = SendResponse { records: vec![SentRecord::default(); 2] };
        assert_eq!((accepted(2, &other).len(), accepted(3, &other)), (2, vec![SendOutcome::Unknown(3)]));
    }

    #[test]
    fn a_status_without_a_reason_says_nothing() {
        assert_eq!(produce_failed(&Status::not_found("a gateway")), ProduceAnswer::Unknown);
        let full = Fault::new(ErrorCode::ResourceExhausted, "full").to_status();
        assert_eq!(produce_failed(&full), ProduceAnswer::Refused);
        let unknown = Fault::new(ErrorCode::UnknownProducerId, "unknown").to_status();
        assert_eq!(init_failed(&unknown), InitAnswer::UnknownProducer);
        assert_eq!(init_failed(&Status::unavailable("gone")), InitAnswer::Unknown);
        assert_eq!(init_failed(&Fault::new(ErrorCode::InvalidProducerEpoch, "old").to_status()), InitAnswer::Refused);
    }

    #[test]
    fn the_end_of_a_stream_refuses_only_if_it_says_why() {
        let ending = Fault::new(ErrorCode::BrokerNotAvailable, "ending").to_status();
        for status in [ending, Status::out_of_range("too large")] {
            assert_eq!(send_stream_ended(3, &status), [SendOutcome::Refused(3)]);
        }
        for status in [Status::unavailable("a broken connection"), Status::internal("not decoded"), Status::cancelled("")] {
            assert_eq!(send_stream_ended(3, &status), [SendOutcome::Unknown(3)]);
        }
    }

    #[test]
    fn refusals_of_a_batch_are_told_apart() {
        let told = |error: BatchError| produce(&BatchResult { outcome: Some(batch_result::Outcome::Error(error)) });
        let expected = Fault::new(ErrorCode::OutOfOrderSequenceNumber, "a gap").expecting(Sequence::ZERO);
        assert_eq!(told(expected.to_batch_error()), ProduceAnswer::OutOfOrder { expected_sequence: 0 });
        for (code, answer) in [
            (ErrorCode::DuplicateSequenceNumber, ProduceAnswer::DuplicateBelowWindow),
            (ErrorCode::InvalidProducerEpoch, ProduceAnswer::Fenced),
            (ErrorCode::SequenceConflict, ProduceAnswer::Conflict),
            (ErrorCode::MessageTooLarge, ProduceAnswer::Refused),
            (ErrorCode::KafkaStorageError, ProduceAnswer::Unknown),
        ] {
            assert_eq!(told(Fault::new(code, "no").to_batch_error()), answer, "{code:?}");
        }
        assert_eq!(produce(&BatchResult { outcome: None }), ProduceAnswer::Unknown);
    }
}
