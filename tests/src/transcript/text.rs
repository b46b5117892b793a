//! Answers as the lines of a transcript.

use oncelog_proto::v1::{self, batch_result::Outcome};
use tonic::Status;
use tonic_types::StatusExt;

pub(super) fn setting(word: &str) -> (String, String) {
    let (key, value) = word.split_once('=').expect("broker key=value …");
    (key.to_owned(), value.to_owned())
}

pub(super) fn refused(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("(no ErrorInfo)", |info| info.reason.as_str());
    vec![format!("refused {} {reason}", code_name(status.code()))]
}

/// A code as protobuf writes it.
pub fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

pub(super) fn granted(response: &v1::InitProducerIdResponse) -> Vec<String> {
    let mut lines = vec![format!("producer {} epoch {}", response.producer_id, response.producer_epoch)];
    for partition in &response.partitions {
        let entry = |e: &v1::WindowEntry| format!(" {}+{}@{}", e.base_sequence, e.record_count, e.base_offset);
        let window: String = partition.window.iter().map(entry).collect();
        lines.push(format!("{}/{} next {}:{window}", partition.topic, partition.partition, partition.next_sequence));
    }
    lines
}

pub(super) fn produced(request: &v1::ProduceRequest, response: v1::ProduceResponse) -> Vec<String> {
    let line = |(batch, result): (&v1::Batch, v1::BatchResult)| {
        let outcome = match result.outcome {
            Some(Outcome::Ack(ack)) if ack.base_offset < 0 => "accepted".to_owned(),
            Some(Outcome::Ack(ack)) if ack.duplicate => format!("duplicate {}", ack.base_offset),
            Some(Outcome::Ack(ack)) => format!("appended {}", ack.base_offset),
            Some(Outcome::Error(error)) => {
                let expected = error.expected_sequence.map_or_else(String::new, |s| format!(" expected {s}"));
                let current = error.current_epoch.map_or_else(String::new, |e| format!(" current {e}"));
                format!("{}{expected}{current}", error.code().reason())
            }
            None => "nothing".to_owned(),
        };
        format!("{}/{} {outcome}", batch.topic, batch.partition)
    };
    request.batches.iter().zip(response.results).map(line).collect()
}

pub(super) fn fetched(responses: &[v1::FetchResponse]) -> Vec<String> {
    let mut lines = Vec::new();
    for fetched in responses.iter().flat_map(|response| &response.records) {
        let value = fetched.record.as_ref().and_then(|record| record.value.as_deref()).unwrap_or_default();
        let tag = match (fetched.producer_id, fetched.producer_epoch, fetched.sequence) {
            (Some(id), Some(epoch), Some(sequence)) => format!(" {id}/{epoch}@{sequence}"),
            _ => String::new(),
        };
        lines.push(format!("{} {}{tag}", fetched.offset, String::from_utf8_lossy(value)));
    }
    let last = responses.last().expect("a stream has at least one response");
    lines.push(format!("ends {}..{}", last.log_start_offset, last.log_end_offset));
    lines
}

pub(super) fn created(topic: &str, partitions: i32) -> Vec<String> {
    vec![format!("created {topic} {partitions}")]
}

pub(super) fn deleted() -> Vec<String> {
    vec!["deleted".to_owned()]
}

pub(super) fn described(response: &v1::DescribeTopicsResponse) -> Vec<String> {
    let lines = |topic: &v1::describe_topics_response::Topic| {
        let line = |p: &v1::describe_topics_response::Partition| {
            format!("{}/{} {}..{}", topic.topic, p.partition, p.log_start_offset, p.log_end_offset)
        };
        topic.partitions.iter().map(line).collect::<Vec<_>>()
    };
    response.topics.iter().flat_map(lines).collect()
}

pub(super) fn producers(response: &v1::DescribeProducersResponse) -> Vec<String> {
    response.producers.iter().map(|p| format!("{} epoch {}", p.producer_id, p.producer_epoch)).collect()
}
