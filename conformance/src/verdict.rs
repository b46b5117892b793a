//! What is in the log, against what the program says of it: the program is judged like a caller of `Send`.

use std::collections::HashMap;

use oncelog_verify::{
    HistoryError, Log,
    history::{Began, CallId, CallerId, Digest, Event, FORMAT, Line, Place, SendCalled, SendOutcome},
    judge,
};

use crate::{
    accusation::{Accusations, Duty},
    contract::{Claim, record},
};

/// Judges claims by the log: what is claimed to be appended is there, once, where it is said to be, and in the order of the
/// numbers; what is claimed to be refused is not there; nothing is there twice.
///
/// # Errors
/// Never: the history is whole.
pub(crate) fn judge_claims(
    log: &Log,
    topic: &str,
    claims: &[Option<Claim>],
    accusations: &mut Accusations,
) -> Result<(), HistoryError> {
    for violation in judge(log, &history(log, topic, claims))?.violations {
        accusations.accuse(Duty::Log, violation.to_string());
    }
    Ok(())
}

/// The program as a caller that sends its records one by one in a stream, and hears at the end what became of them. What is
/// unknown is no part of the stream: its copies may arrive whenever they do, and nothing is said of where they stand. What a
/// program that failed does not speak of is as unknown.
fn history(log: &Log, topic: &str, claims: &[Option<Claim>]) -> Vec<Line> {
    let times = append_times(log);
    let claims: Vec<Claim> = claims.iter().map(|claim| claim.unwrap_or(Claim::Unknown)).collect();
    let began = Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms: None });
    let called = (0..).zip(&claims).map(|(number, claim)| {
        let records = vec![Digest::of(&record(number))];
        let (call, caller) = (CallId(u64::from(number)), CallerId(0));
        let (topic, streamed) = (topic.to_owned(), *claim != Claim::Unknown);
        Event::SendCalled(SendCalled { call, caller, streamed, repeats: false, topic, partition: Some(0), records })
    });
    let answered = (0..).zip(&claims).map(|(number, claim)| {
        let outcome = match *claim {
            // A claim says no time; that of the log is taken.
            Claim::Appended(offset) => SendOutcome::Accepted {
                partition: 0,
                place: Place { offset, append_time: times.get(&offset).copied().unwrap_or(0) },
            },
            Claim::Refused => SendOutcome::Refused(1),
            Claim::Unknown => SendOutcome::Unknown(1),
        };
        Event::SendAnswered { call: CallId(number), outcomes: vec![outcome] }
    });
    [began].into_iter().chain(called).chain(answered).map(|event| Line { at: 0, event }).collect()
}

fn append_times(log: &Log) -> HashMap<i64, u64> {
    let batches = log.partitions().iter().flat_map(|partition| partition.batches());
    let times = batches.flat_map(|batch| {
        let place = batch.place;
        (place.offset..place.offset + i64::from(batch.record_count)).map(move |offset| (offset, place.append_time))
    });
    times.collect()
}

#[cfg(test)]
mod tests {
    use oncelog_verify::{PartitionLog, history::Partition};

    use super::*;

    /// A log of these records, each a batch, and what is found when the claims are judged by it.
    fn judged(numbers: &[u32], claims: &[Claim]) -> usize {
        let mut partition = PartitionLog::new(Partition::new("t", 0), 0, numbers.len() as i64);
        for (offset, number) in (0..).zip(numbers) {
            partition.push(Place { offset, append_time: 5 }, None, None, &[Digest::of(&record(*number))]);
        }
        let mut log = Log::of(&["t".to_owned()]);
        log.add(partition);
        let mut accusations = Accusations::default();
        let claims: Vec<_> = claims.iter().copied().map(Some).collect();
        judge_claims(&log, "t", &claims, &mut accusations).expect("the history is whole");
        accusations.take().len()
    }

    #[test]
    fn claims_are_judged_by_the_log() {
        use Claim::{Appended, Refused, Unknown};
        assert_eq!(judged(&[0, 1, 3], &[Appended(0), Appended(1), Refused, Unknown]), 0);
        assert_eq!(judged(&[0, 2, 1], &[Appended(0), Unknown, Appended(1)]), 0, "a copy of the unknown is late");
        assert_ne!(judged(&[0], &[Appended(0), Appended(1)]), 0, "lost");
        assert_ne!(judged(&[0, 0], &[Appended(0)]), 0, "twice");
        assert_ne!(judged(&[0, 1, 1], &[Appended(0), Unknown]), 0, "twice, though unknown");
        assert_ne!(judged(&[0], &[Refused]), 0, "there, though refused");
        assert_ne!(judged(&[1, 0], &[Appended(1), Appended(0)]), 0, "out of order");
        assert_ne!(judged(&[7], &[Unknown]), 0, "sent by nobody");
    }
}
