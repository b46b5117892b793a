//! The decision table: what an answer means for the batch it was given to. Pure; one row a line.

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{ErrorCode, Fault, Offset, Sequence, Timestamp};

use super::BatchAnswer;

/// What the answer is held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The lowest sequence not known to be in the log when the call was sent (R7).
    pub(super) floor: Sequence,
    /// The batch's first sequence.
    pub(super) base: Sequence,
    /// The sequence after its last.
    pub(super) end: Sequence,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Resolved: it is in the log.
    Appended { base_offset: Option<Offset>, append_time: Timestamp },
    /// Resolved: it is in the log, and nobody knows where.
    AppendedSomewhere,
    /// Keep it and send it again unchanged, after a pause.
    Again(Fault),
    /// Keep it and send it again unchanged, behind the lower ones.
    BehindLower,
    /// Keep it; only a recovery tells more.
    Recover,
    /// The broker will not take it.
    Refused(Fault),
    /// Somebody else writes under this id.
    Shared(Fault),
}

/// Judges the answer to a tagged batch.
pub(super) fn judge(asked: Asked, answer: BatchAnswer) -> Verdict {
    let (code, message, expected) = match answer {
        BatchAnswer::Acknowledged { base_offset, append_time, duplicate: _ } => {
            return Verdict::Appended { base_offset, append_time };
        }
        BatchAnswer::Refused { code, message, expected } => (code, message, expected),
    };
    let fault = Fault::new(code, message);
    match code {
        ErrorCode::OutOfOrderSequenceNumber if is_on(Defect::OutOfOrderMeansAbsent) => Verdict::Refused(fault),
        ErrorCode::OutOfOrderSequenceNumber => match expected {
            // R8: this never proves that anything is absent; only a recovery does.
            Some(expected) if expected < asked.floor => Verdict::Recover,
            Some(expected) if expected < asked.base => Verdict::BehindLower,
            Some(expected) if expected > asked.base && expected < asked.end => Verdict::Shared(fault),
            // Either it fits by now, or it is in the log and the acknowledgement is still to be fetched.
            Some(_) | None => Verdict::Again(fault),
        },
        ErrorCode::DuplicateSequenceNumber => Verdict::AppendedSomewhere,
        // Own epoch or not (R12): the tag is no longer good, and only a recovery says what became of it (R9).
        ErrorCode::InvalidProducerEpoch | ErrorCode::UnknownProducerId => Verdict::Recover,
        ErrorCode::SequenceConflict => Verdict::Shared(fault),
        code if code.is_retriable() || !code.outcome_is_known() => Verdict::Again(fault),
        _ => Verdict::Refused(fault),
    }
}

/// Judges the answer to a batch without a tag. There is nothing to recover: what is not retriable is final.
pub(super) fn judge_untagged(answer: BatchAnswer) -> Verdict {
    match answer {
        BatchAnswer::Acknowledged { base_offset, append_time, duplicate: _ } => Verdict::Appended { base_offset, append_time },
        BatchAnswer::Refused { code, message, expected: _ } if code.is_retriable() || !code.outcome_is_known() => {
            Verdict::Again(Fault::new(code, message))
        }
        BatchAnswer::Refused { code, message, expected: _ } => Verdict::Refused(Fault::new(code, message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(value: i64) -> Sequence {
        Sequence::new(value).expect("not negative")
    }

    /// A batch of the sequences 10 to 14, sent when everything below 4 was known to be in the log.
    fn asked() -> Asked {
        Asked { floor: sequence(4), base: sequence(10), end: sequence(15) }
    }

    fn refused(code: ErrorCode, expected: Option<i64>) -> BatchAnswer {
        BatchAnswer::Refused { code, message: "why".to_owned(), expected: expected.map(sequence) }
    }

    fn fault(code: ErrorCode) -> Fault {
        Fault::new(code, "why")
    }

    #[test]
    fn an_acknowledgement_resolves_duplicate_or_not() {
        for duplicate in [false, true] {
            let (base_offset, append_time) = (Some(Offset::ZERO), Timestamp::from_micros(5));
            let answer = BatchAnswer::Acknowledged { base_offset, append_time, duplicate };
            assert_eq!(judge(asked(), answer.clone()), Verdict::Appended { base_offset, append_time });
            assert_eq!(judge_untagged(answer), Verdict::Appended { base_offset, append_time });
        }
    }

    #[test]
    fn out_of_order_is_judged_by_what_is_expected() {
        let again = || Verdict::Again(fault(ErrorCode::OutOfOrderSequenceNumber));
        let shared = || Verdict::Shared(fault(ErrorCode::OutOfOrderSequenceNumber));
        for (expected, verdict) in [
            (Some(0), Verdict::Recover),
            (Some(3), Verdict::Recover),
            (Some(4), Verdict::BehindLower),
            (Some(9), Verdict::BehindLower),
            (Some(10), again()),
            (Some(11), shared()),
            (Some(14), shared()),
            (Some(15), again()),
            (Some(99), again()),
            (None, again()),
        ] {
            let answer = refused(ErrorCode::OutOfOrderSequenceNumber, expected);
            assert_eq!(judge(asked(), answer), verdict, "{expected:?}");
        }
    }

    #[test]
    fn every_other_code_has_one_meaning() {
        use ErrorCode as E;
        for (code, verdict) in [
            (E::DuplicateSequenceNumber, Verdict::AppendedSomewhere),
            (E::InvalidProducerEpoch, Verdict::Recover),
            (E::UnknownProducerId, Verdict::Recover),
            (E::SequenceConflict, Verdict::Shared(fault(E::SequenceConflict))),
            (E::RequestTimedOut, Verdict::Again(fault(E::RequestTimedOut))),
            (E::KafkaStorageError, Verdict::Again(fault(E::KafkaStorageError))),
            (E::ResourceExhausted, Verdict::Again(fault(E::ResourceExhausted))),
            (E::Unspecified, Verdict::Again(fault(E::Unspecified))),
            (E::UnknownTopicOrPartition, Verdict::Refused(fault(E::UnknownTopicOrPartition))),
            (E::MessageTooLarge, Verdict::Refused(fault(E::MessageTooLarge))),
            (E::TopicAuthorizationFailed, Verdict::Refused(fault(E::TopicAuthorizationFailed))),
            (E::InvalidRequiredAcks, Verdict::Refused(fault(E::InvalidRequiredAcks))),
            (E::InvalidRecord, Verdict::Refused(fault(E::InvalidRecord))),
            (E::CorruptMessage, Verdict::Refused(fault(E::CorruptMessage))),
        ] {
            assert_eq!(judge(asked(), refused(code, None)), verdict, "{code:?}");
        }
    }

    #[test]
    fn without_a_tag_what_is_not_retriable_is_final() {
        use ErrorCode as E;
        for code in [E::InvalidProducerEpoch, E::UnknownProducerId, E::SequenceConflict, E::MessageTooLarge] {
            assert_eq!(judge_untagged(refused(code, None)), Verdict::Refused(fault(code)));
        }
        for code in [E::RequestTimedOut, E::ResourceExhausted, E::Unspecified] {
            assert_eq!(judge_untagged(refused(code, None)), Verdict::Again(fault(code)));
        }
    }
}
