//! Judges a program that calls `Send`, by the calls that arrive and the answers that leave. Pure.
//!
//! A record may be sent again only if it was told to be refused. Whatever else was told, or nothing, it may be in the log.

use std::collections::HashMap;

use oncelog_proto::v1::{SendRequest, SendResponse};
use oncelog_verify::{history::SendOutcome, wire};
use tonic::Status;

use crate::{
    accusation::{Accusations, Duty},
    contract::{Claim, number_of},
};

/// What a caller has done so far.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    pub(crate) accusations: Accusations,
    /// What the program knows of each record that it sent.
    known: HashMap<u32, Known>,
    calls: u64,
    /// Records of the largest `Send`.
    largest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// At this offset; -1: nobody knows where.
    Appended(i64),
    Refused,
    /// Also: not answered yet.
    Nothing,
}

impl Sending {
    /// A `Send` has arrived, with these records.
    pub(crate) fn called(&mut self, request: &SendRequest, has_deadline: bool) -> Vec<u32> {
        self.calls += 1;
        if !has_deadline {
            self.accusations.accuse(Duty::Deadline, "a Send has no deadline; if no answer comes it waits for ever");
        }
        let numbers: Option<Vec<u32>> = request.records.iter().map(number_of).collect();
        let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
            self.accusations.accuse(Duty::Request, "a Send has no record, or one that is not by the rule");
            return Vec::new();
        };
        self.largest = self.largest.max(numbers.len());
        for number in &numbers {
            let before = match self.known.insert(*number, Known::Nothing) {
                None | Some(Known::Refused) => continue,
                Some(Known::Appended(_)) => "is in the log, was told so",
                Some(Known::Nothing) => "may be in the log",
            };
            self.accusations
                .accuse(Duty::SentAgain, format!("record {number} {before}, and is sent again: these are two records"));
        }
        numbers
    }

    /// Its answer leaves.
    pub(crate) fn answered(&mut self, numbers: &[u32], answer: &Result<SendResponse, Status>) {
        let mut left = numbers.iter();
        for outcome in wire::send(numbers.len(), answer) {
            let (count, known) = match outcome {
                SendOutcome::Accepted { place, .. } => (1, Known::Appended(place.offset)),
                SendOutcome::Refused(count) => (count, Known::Refused),
                SendOutcome::Unknown(count) => (count, Known::Nothing),
            };
            self.known.extend(left.by_ref().take(count as usize).map(|number| (*number, known)));
        }
    }

    /// The run is over; the program says this of each record.
    pub(crate) fn claimed(&mut self, claims: &[Option<Claim>]) {
        let mut on_their_way = LATE * self.largest;
        for (number, claim) in (0..).zip(claims) {
            let Some(claim) = claim else { continue };
            let Some(known) = self.known.get(&number) else {
                // Its deadline was over before it arrived, as when a slow program makes its first call.
                if *claim != Claim::Unknown || on_their_way == 0 {
                    self.accusations.accuse(Duty::Claim, format!("record {number} never arrived"));
                }
                on_their_way = on_their_way.saturating_sub(1);
                continue;
            };
            let fits = match claim {
                // Which offset it is, the log tells.
                Claim::Appended(offset) => matches!(known, Known::Appended(told) if (*told < 0) == (*offset < 0)),
                Claim::Refused => *known == Known::Refused,
                Claim::Unknown => *known == Known::Nothing,
            };
            if !fits {
                let told = match known {
                    Known::Appended(offset) => format!("told that it is in the log, at {offset}"),
                    Known::Refused => "told that it is not in the log".to_owned(),
                    Known::Nothing => "told nothing of it that is certain".to_owned(),
                };
                let said = match claim {
                    Claim::Appended(offset) => format!("appended {offset}"),
                    Claim::Refused => "refused".to_owned(),
                    Claim::Unknown => "unknown".to_owned(),
                };
                self.accusations.accuse(Duty::Claim, format!("record {number}: the program was {told}, and says {said}"));
            }
        }
    }

    /// Calls that were made.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }
}

/// Of so many `Send`s it is believed that they left and did not arrive.
const LATE: usize = 3;

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::send_response::SentRecord;

    use super::*;
    use crate::contract::record;

    fn send(numbers: &[u32]) -> SendRequest {
        SendRequest { records: numbers.iter().map(|number| record(*number)).collect(), ..SendRequest::default() }
    }

    fn duties(sending: &mut Sending) -> Vec<Duty> {
        sending.accusations.take().into_iter().map(|accusation| accusation.duty).collect()
    }

    #[test]
    fn what_may_be_in_the_log_is_not_sent_again() {
        let mut sending = Sending::default();
        let numbers = sending.called(&send(&[0, 1]), true);
        sending.called(&send(&[0]), true);
        assert_eq!(duties(&mut sending), [Duty::SentAgain]);
        sending.answered(&numbers, &Err(Status::unavailable("the connection broke")));
        sending.called(&send(&[1]), true);
        assert_eq!(duties(&mut sending), [Duty::SentAgain]);
    }

    #[test]
    fn claims_are_what_was_told() {
        let mut sending = Sending::default();
        let numbers = sending.called(&send(&[0]), true);
        sending.answered(&numbers, &Ok(SendResponse { records: vec![SentRecord::default()] }));
        let numbers = sending.called(&send(&[1]), true);
        sending.answered(&numbers, &Err(Status::unavailable("the connection broke")));
        sending.claimed(&[Claim::Appended(0), Claim::Unknown].map(Some));
        assert_eq!(duties(&mut sending), []);
        sending.claimed(&[Claim::Unknown, Claim::Refused, Claim::Refused].map(Some));
        assert_eq!(duties(&mut sending), [Duty::Claim; 3]);
        sending.claimed(&[None, None, None]);
        assert_eq!(duties(&mut sending), []);
    }

    #[test]
    fn an_offset_is_said_if_and_only_if_it_was_told() {
        for (told, said, expected) in [(0, 0, 0), (-1, -1, 0), (0, -1, 1), (-1, 0, 1)] {
            let mut sending = Sending::default();
            let numbers = sending.called(&send(&[0]), true);
            let records = vec![SentRecord { offset: told, ..SentRecord::default() }];
            sending.answered(&numbers, &Ok(SendResponse { records }));
            sending.claimed(&[Some(Claim::Appended(said))]);
            assert_eq!(duties(&mut sending), vec![Duty::Claim; expected], "{told} {said}");
        }
    }

    #[test]
    fn a_few_sends_may_end_before_they_arrive_and_are_unknown() {
        for (claims, expected) in [
            (vec![Claim::Unknown; 3], vec![]),
            (vec![Claim::Unknown; 4], vec![Duty::Claim]),
            (vec![Claim::Appended(0)], vec![Duty::Claim]),
            (vec![Claim::Refused], vec![Duty::Claim]),
        ] {
            let mut sending = Sending::default();
            sending.called(&send(&[99]), true);
            sending.claimed(&claims.iter().copied().map(Some).collect::<Vec<_>>());
            assert_eq!(duties(&mut sending), expected, "{claims:?}");
        }
    }

    #[test]
    fn a_send_has_a_deadline_and_records() {
        let mut sending = Sending::default();
        sending.called(&send(&[]), false);
        assert_eq!(duties(&mut sending), [Duty::Deadline, Duty::Request]);
    }
}
