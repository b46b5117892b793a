//! What a caller is told of the outcomes of its records.
//!
//! The status of a `Send` that did not succeed as a whole follows one rule, because some clients repeat calls by themselves:
//! `UNAVAILABLE` and `RESOURCE_EXHAUSTED`, which they repeat, are only answered if nothing is in the log. (A connection that
//! breaks is `UNAVAILABLE` to a client as well, and leaves everything unknown; then there is no `SendFailure`. So a client that
//! repeats on the code alone is not safe, and the contract says so.)
//!
//! | the records | status |
//! |---|---|
//! | the outcome of one is unknown | `DEADLINE_EXCEEDED` |
//! | some are in the log, some refused with what would be one of those two | `ABORTED` |
//! | some refused otherwise | the code of the first refusal |

use oncelog_proto::{
    ErrorCode, Fault,
    v1::{
        SendFailure, SendResponse,
        send_failure::{Appended, Outcome, Refused, Unknown, outcome},
        send_response::SentRecord,
    },
};
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::session::RecordOutcome;

/// A request that did not succeed as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// What stands for the whole: reason and message.
    fault: Box<Fault>,
    code: Code,
    outcomes: Vec<Outcome>,
}

/// The answer to a request of `count` records; no outcomes: the process ends before they are known.
pub(super) fn sent(outcomes: Option<&[RecordOutcome]>, count: usize) -> Result<SendResponse, Failure> {
    let Some(outcomes) = outcomes else { return Err(Failure::of(&vec![RecordOutcome::Unknown; count])) };
    let mut records = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let RecordOutcome::Appended { partition, offset, append_time } = outcome else {
            return Err(Failure::of(outcomes));
        };
        let offset = offset.map_or(NO_OFFSET, |offset| offset.get());
        records.push(SentRecord { partition: partition.get(), offset, append_time: Some(append_time.to_proto()) });
    }
    Ok(SendResponse { records })
}

impl Failure {
    /// Nothing of a request of `count` records was taken in.
    pub(super) fn not_taken_in(fault: Fault, count: usize) -> Self {
        let code = fault.code().grpc_code();
        let refused = outcome::Outcome::Refused(refused(&fault));
        Self {
            fault: Box::new(fault),
            code,
            outcomes: vec![Outcome { first_index: 0, count: number(count), outcome: Some(refused) }],
        }
    }

    fn of(records: &[RecordOutcome]) -> Self {
        let unknown = records.iter().filter(|outcome| matches!(outcome, RecordOutcome::Unknown)).count();
        let appended = records.iter().any(|outcome| matches!(outcome, RecordOutcome::Appended { .. }));
        let first_refusal = records.iter().find_map(|outcome| match outcome {
            RecordOutcome::Refused(fault) => Some(Fault::clone(fault)),
            _ => None,
        });
        let (fault, code) = match first_refusal {
            Some(fault) if unknown == 0 => {
                let code = fault.code().grpc_code();
                let repeated_by_clients = matches!(code, Code::Unavailable | Code::ResourceExhausted);
                (fault, if appended && repeated_by_clients { Code::Aborted } else { code })
            }
            _ => {
                let message = format!(
                    "the outcome of {unknown} of {} records is unknown: each is in the log at most once; to send again may write it twice",
                    records.len()
                );
                (Fault::new(ErrorCode::RequestTimedOut, message).with("unknown", unknown), Code::DeadlineExceeded)
            }
        };
        Self { fault: Box::new(fault), code, outcomes: neighbours(records) }
    }

    /// In a stream: whole.
    pub(super) fn to_proto(&self) -> SendFailure {
        let count = |which: fn(&outcome::Outcome) -> bool| {
            self.outcomes.iter().filter(|o| o.outcome.as_ref().is_some_and(which)).map(|o| o.count).sum()
        };
        SendFailure {
            code: self.code.into(),
            message: self.fault.message().to_owned(),
            outcomes: self.outcomes.clone(),
            appended_count: count(|outcome| matches!(outcome, outcome::Outcome::Appended(_))),
            refused_count: count(|outcome| matches!(outcome, outcome::Outcome::Refused(_))),
            unknown_count: count(|outcome| matches!(outcome, outcome::Outcome::Unknown(_))),
        }
    }

    /// As a status: with the fault's own details, and as many outcomes as fit into 4 KiB, because peers limit the headers that
    /// carry it.
    pub(super) fn to_status(&self) -> Status {
        let mut whole = self.to_proto();
        let mut outcomes = std::mem::take(&mut whole.outcomes);
        let mut status = pb::Status::decode(self.fault.to_status().details()).expect("it was encoded a moment ago");
        status.code = whole.code;
        // Room for the two lengths that grow with what is put in.
        let room = MAX_DETAILS_BYTES.saturating_sub(status.encoded_len() + TYPE_URL.len() + whole.encoded_len() + 16);
        let mut used = 0;
        let fit = outcomes.iter().take_while(|outcome| {
            let len = outcome.encoded_len();
            used += 1 + prost::length_delimiter_len(len) + len;
            used <= room
        });
        outcomes.truncate(fit.count());
        whole.outcomes = outcomes;
        status.details.push(Any { type_url: TYPE_URL.to_owned(), value: whole.encode_to_vec() });
        Status::with_details(self.code, whole.message, status.encode_to_vec().into())
    }
}

/// Joins neighbours with the same outcome.
fn neighbours(records: &[RecordOutcome]) -> Vec<Outcome> {
    let mut joined: Vec<Outcome> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match joined.last_mut() {
            Some(last) if continues(last, record) => last.count += 1,
            _ => joined.push(Outcome { first_index: number(index), count: 1, outcome: Some(to_proto(record)) }),
        }
    }
    joined
}

/// Is `record` what `group` would say of its next one?
fn continues(group: &Outcome, record: &RecordOutcome) -> bool {
    match (&group.outcome, to_proto(record)) {
        (Some(outcome::Outcome::Appended(first)), outcome::Outcome::Appended(next)) => {
            let offset = if first.offset == NO_OFFSET { NO_OFFSET } else { first.offset + i64::from(group.count) };
            *first == Appended { offset: first.offset, ..next } && next.offset == offset
        }
        (Some(same), next) => *same == next,
        (None, _) => false,
    }
}

fn to_proto(record: &RecordOutcome) -> outcome::Outcome {
    match record {
        RecordOutcome::Appended { partition, offset, append_time } => outcome::Outcome::Appended(Appended {
            partition: partition.get(),
            offset: offset.map_or(NO_OFFSET, |offset| offset.get()),
            append_time: Some(append_time.to_proto()),
        }),
        RecordOutcome::Refused(fault) => outcome::Outcome::Refused(refused(fault)),
        RecordOutcome::Unknown => outcome::Outcome::Unknown(Unknown {}),
    }
}

fn refused(fault: &Fault) -> Refused {
    Refused { code: fault.code().into(), message: fault.message().to_owned() }
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

const TYPE_URL: &str = "type.googleapis.com/oncelog.v1.SendFailure";
const NO_OFFSET: i64 = -1;
const MAX_DETAILS_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use oncelog_proto::{Offset, PartitionIndex, Timestamp};
    use tonic_types::StatusExt;

    use super::*;

    fn appended(offset: i64) -> RecordOutcome {
        RecordOutcome::Appended {
            partition: PartitionIndex::MIN,
            offset: Offset::new(offset).ok(),
            append_time: Timestamp::from_micros(1),
        }
    }

    fn refused(code: ErrorCode) -> RecordOutcome {
        RecordOutcome::Refused(Fault::new(code, "no").into())
    }

    fn failed(outcomes: Vec<RecordOutcome>) -> SendFailure {
        let count = outcomes.len();
        sent(Some(&outcomes), count).expect_err("not all appended").to_proto()
    }

    fn in_details(status: &Status) -> SendFailure {
        let details = pb::Status::decode(status.details()).expect("a google.rpc.Status");
        let any = details.details.iter().find(|any| any.type_url == TYPE_URL).expect("there");
        SendFailure::decode(any.value.as_slice()).expect("a SendFailure")
    }

    #[test]
    fn a_send_is_ok_only_if_every_record_is_appended() {
        let response = sent(Some(&[appended(7), appended(-1)]), 2).expect("all appended");
        assert_eq!(response.records.iter().map(|r| r.offset).collect::<Vec<_>>(), [7, -1]);
        assert!(sent(Some(&[appended(7), RecordOutcome::Unknown]), 2).is_err());
        assert_eq!(sent(None, 3).expect_err("nobody knows").to_proto().unknown_count, 3);
    }

    #[test]
    fn what_clients_repeat_by_themselves_is_told_only_if_nothing_is_in_the_log() {
        use ErrorCode::{MessageTooLarge, ResourceExhausted};
        let code = |outcomes| Code::from_i32(failed(outcomes).code);
        assert_eq!(code(vec![refused(ResourceExhausted)]), Code::ResourceExhausted);
        assert_eq!(code(vec![refused(ResourceExhausted), appended(0)]), Code::Aborted);
        assert_eq!(code(vec![refused(MessageTooLarge), appended(0)]), Code::InvalidArgument);
        assert_eq!(code(vec![refused(ResourceExhausted), RecordOutcome::Unknown]), Code::DeadlineExceeded);
        assert_eq!(code(vec![appended(0), RecordOutcome::Unknown]), Code::DeadlineExceeded);
    }

    #[test]
    fn neighbours_with_the_same_outcome_are_told_together() {
        let failure = failed(vec![
            appended(5),
            appended(6),
            appended(8),
            RecordOutcome::Unknown,
            RecordOutcome::Unknown,
            refused(ErrorCode::InvalidRecord),
            refused(ErrorCode::MessageTooLarge),
            appended(-1),
            appended(-1),
        ]);
        let groups: Vec<_> = failure.outcomes.iter().map(|o| (o.first_index, o.count)).collect();
        assert_eq!(groups, [(0, 2), (2, 1), (3, 2), (5, 1), (6, 1), (7, 2)]);
        assert_eq!((failure.appended_count, failure.refused_count, failure.unknown_count), (5, 2, 2));
    }

    #[test]
    fn a_status_carries_reason_hint_and_outcomes() {
        let fault = Fault::new(ErrorCode::BrokerNotAvailable, "away").retry_after(std::time::Duration::from_secs(1));
        let status = Failure::not_taken_in(fault, 3).to_status();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "away"));
        let details = status.get_error_details();
        assert_eq!(details.error_info().expect("there").reason, "BROKER_NOT_AVAILABLE");
        assert!(details.retry_info().is_some());
        let failure = in_details(&status);
        assert_eq!((failure.refused_count, failure.outcomes.len(), failure.code), (3, 1, Code::Unavailable as i32));
    }

    #[test]
    fn outcomes_are_cut_to_4_kib_and_counts_are_not() {
        let many: Vec<_> = (0..10_000).map(|i| if i % 2 == 0 { RecordOutcome::Unknown } else { appended(i) }).collect();
        let failure = sent(Some(&many), 10_000).expect_err("unknown");
        assert_eq!(failure.to_proto().outcomes.len(), 10_000);
        let status = failure.to_status();
        let len = status.details().len();
        assert!((MAX_DETAILS_BYTES - 64..=MAX_DETAILS_BYTES).contains(&len), "{len}");
        let cut = in_details(&status);
        assert!(!cut.outcomes.is_empty());
        assert_eq!((cut.unknown_count, cut.appended_count), (5_000, 5_000));
        assert_eq!(cut.outcomes, failure.to_proto().outcomes[..cut.outcomes.len()]);
    }
}
