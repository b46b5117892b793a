//! What became of every record that was sent. Pure: answers in, counts out.
//!
//! Answers come in the order of the requests. At every moment `sent = acknowledged + refused + unknown + awaited`.

use std::{collections::VecDeque, fmt};

use oncelog_proto::v1::{
    ErrorCode, SendFailure, SendStreamResponse, send_failure::outcome::Outcome as Fate, send_stream_response::Outcome,
};

/// Accounts for records by their numbers, from 1.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    outstanding: VecDeque<Range>,
    sent: u64,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
    awaited: u64,
    failures: Vec<Failure>,
    failed_records_kept: u64,
}

/// Neighbouring records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    count: u64,
}

/// Neighbouring records that are not known to be in the log, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    range: Range,
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { first, count } = self.range;
        match count {
            1 => write!(f, "record {first}: ")?,
            _ => write!(f, "records {first} to {}: ", first + count - 1)?,
        }
        f.write_str(&self.why)
    }
}

impl Ledger {
    /// A request of `count` records goes out, the first of which has the number `first`.
    pub(super) fn sent(&mut self, first: u64, count: usize) {
        let count = count as u64;
        self.outstanding.push_back(Range { first, count });
        self.sent += count;
        self.awaited += count;
    }

    /// The oldest outstanding request is answered.
    pub(super) fn answered(&mut self, answer: SendStreamResponse) {
        // An answer to nothing says nothing about any record.
        let Some(range) = self.outstanding.pop_front() else { return };
        self.awaited -= range.count;
        match answer.outcome {
            Some(Outcome::Sent(sent)) if sent.records.len() as u64 == range.count => self.acknowledged += range.count,
            Some(Outcome::Sent(sent)) => {
                let why = format!("the answer is for {} records, not for {}", sent.records.len(), range.count);
                self.note_unknown(range, &why);
            }
            Some(Outcome::Failed(failure)) => self.failed(range, &failure),
            None => self.note_unknown(range, "the answer is empty"),
        }
    }

    /// The call has ended: what is still awaited will never be known.
    pub(super) fn no_more_answers(&mut self) {
        for range in std::mem::take(&mut self.outstanding) {
            self.awaited -= range.count;
            self.note_unknown(range, "no answer came");
        }
    }

    fn failed(&mut self, range: Range, failure: &SendFailure) {
        let mut next = 0;
        for outcome in &failure.outcomes {
            let (Ok(first), Ok(count)) = (u64::try_from(outcome.first_index), u64::try_from(outcome.count)) else { break };
            // Only what is told in order is believed; of the rest nothing is known.
            if first != next || count == 0 || count > range.count - first {
                break;
            }
            let part = Range { first: range.first + first, count };
            match &outcome.outcome {
                Some(Fate::Appended(_)) => self.acknowledged += count,
                Some(Fate::Refused(refused)) => {
                    self.refused += count;
                    let reason = ErrorCode::try_from(refused.code).map_or("refused", ErrorCode::reason);
                    self.note(part, format!("refused, {reason}: {}", refused.message));
                }
                Some(Fate::Unknown(_)) | None => self.note_unknown(part, &failure.message),
            }
            next += count;
        }
        if next < range.count {
            self.note_unknown(Range { first: range.first + next, count: range.count - next }, &failure.message);
        }
    }

    fn note_unknown(&mut self, range: Range, why: &str) {
        self.unknown += range.count;
        self.note(range, format!("unknown: {why}"));
    }

    fn note(&mut self, range: Range, why: String) {
        if let Some(last) = self.failures.last_mut()
            && last.why == why
            && last.range.first + last.range.count == range.first
        {
            last.range.count += range.count;
        } else if self.failures.len() < FAILURES_KEPT {
            self.failures.push(Failure { range, why });
        } else {
            return;
        }
        self.failed_records_kept += range.count;
    }

    /// Requests without an answer.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Records that were sent.
    pub(super) fn records_sent(&self) -> u64 {
        self.sent
    }

    /// Records that are sent and not answered.
    pub(super) fn records_awaited(&self) -> u64 {
        self.awaited
    }

    /// Records that are in the log.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Records that are certainly not in the log.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Records that are in the log once or not at all.
    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Number of the first record that was not sent.
    pub(super) fn next_record(&self) -> u64 {
        self.sent + 1
    }

    /// The first failures, neighbours with the same reason as one.
    pub(super) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Failed records that are not among [`Self::failures`].
    pub(super) fn failures_not_kept(&self) -> u64 {
        self.refused + self.unknown - self.failed_records_kept
    }
}

const FAILURES_KEPT: usize = 20;

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::{
        SendResponse,
        send_failure::{self, Appended, Refused, Unknown},
        send_response::SentRecord,
    };

    use super::*;

    fn ok(count: usize) -> SendStreamResponse {
        let records = vec![SentRecord::default(); count];
        SendStreamResponse { outcome: Some(Outcome::Sent(SendResponse { records })) }
    }

    fn failed(outcomes: Vec<(i32, i32, Option<Fate>)>) -> SendStreamResponse {
        let outcomes = outcomes.into_iter();
        let outcomes =
            outcomes.map(|(first_index, count, outcome)| send_failure::Outcome { first_index, count, outcome }).collect();
        let failure = SendFailure { message: "the broker is away".into(), outcomes, ..SendFailure::default() };
        SendStreamResponse { outcome: Some(Outcome::Failed(failure)) }
    }

    fn refused() -> Option<Fate> {
        Some(Fate::Refused(Refused { code: ErrorCode::MessageTooLarge.into(), message: "2 bytes".into() }))
    }

    fn counts(ledger: &Ledger) -> [u64; 5] {
        let known = [ledger.acknowledged(), ledger.refused(), ledger.unknown()];
        assert_eq!(ledger.records_sent(), known.iter().sum::<u64>() + ledger.records_awaited());
        [ledger.records_sent(), known[0], known[1], known[2], ledger.records_awaited()]
    }

    #[test]
    fn an_answer_is_for_the_oldest_request() {
        let mut ledger = Ledger::default();
        ledger.sent(1, 2);
        ledger.sent(3, 5);
        ledger.answered(ok(2));
        assert_eq!(counts(&ledger), [7, 2, 0, 0, 5]);
        ledger.answered(ok(5));
        assert_eq!(counts(&ledger), [7, 7, 0, 0, 0]);
        assert_eq!(ledger.failures(), []);
    }

    #[test]
    fn a_mixed_failure_is_told_by_record_number() {
        let mut ledger = Ledger::default();
        ledger.sent(11, 4);
        let appended = Some(Fate::Appended(Appended::default()));
        ledger.answered(failed(vec![(0, 1, appended), (1, 1, refused()), (2, 2, Some(Fate::Unknown(Unknown {})))]));
        assert_eq!(counts(&ledger), [4, 1, 1, 2, 0]);
        let told: Vec<_> = ledger.failures().iter().map(ToString::to_string).collect();
        assert_eq!(told, ["record 12: refused, MESSAGE_TOO_LARGE: 2 bytes", "records 13 to 14: unknown: the broker is away"]);
    }

    #[test]
    fn what_an_answer_does_not_speak_of_is_unknown() {
        for answer in [
            failed(vec![]),
            failed(vec![(1, 1, refused())]),
            failed(vec![(0, 4, refused())]),
            failed(vec![(0, 0, refused())]),
            failed(vec![(-1, 1, refused())]),
            failed(vec![(0, 3, None)]),
            ok(2),
            ok(4),
            SendStreamResponse::default(),
        ] {
            let mut ledger = Ledger::default();
            ledger.sent(1, 3);
            ledger.answered(answer.clone());
            assert_eq!(counts(&ledger), [3, 0, 0, 3, 0], "{answer:?}");
        }
    }

    #[test]
    fn without_an_answer_a_record_is_unknown() {
        let mut ledger = Ledger::default();
        ledger.sent(1, 2);
        ledger.sent(3, 2);
        ledger.answered(ok(2));
        ledger.no_more_answers();
        assert_eq!(counts(&ledger), [4, 2, 0, 2, 0]);
        assert_eq!(ledger.failures()[0].to_string(), "records 3 to 4: unknown: no answer came");
        assert_eq!(ledger.next_record(), 5);
    }

    #[test]
    fn an_answer_to_nothing_counts_nothing() {
        let mut ledger = Ledger::default();
        ledger.answered(ok(1));
        assert_eq!(counts(&ledger), [0; 5]);
    }

    #[test]
    fn the_first_twenty_failures_are_kept_and_the_rest_is_counted() {
        let mut ledger = Ledger::default();
        for request in 0..=FAILURES_KEPT as u64 {
            ledger.sent(2 * request + 1, 2);
            let appended = Some(Fate::Appended(Appended::default()));
            ledger.answered(failed(vec![(0, 1, refused()), (1, 1, appended)]));
            assert_eq!(ledger.failures_not_kept(), u64::from(request as usize == FAILURES_KEPT));
        }
        assert_eq!(ledger.failures().len(), FAILURES_KEPT);
    }
}
