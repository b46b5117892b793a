//! The broker's answers, parsed once. What makes no sense is told apart here, so that the session sees only answers that could be
//! true.
//!
//! A result is about one batch, and so is nonsense in it: a broker of a later version may refuse one batch with a code that this
//! one does not know and acknowledge all the others. If the call were in doubt for it, those would travel with it again and again
//! and be acknowledged each time, until their callers hear "unknown". Only a wrong number of results leaves nobody's outcome
//! known.

use oncelog_proto::{
    Epoch, ErrorCode, Offset, ProducerId, RecordCount, Sequence, Timestamp, TopicName, TopicPartition,
    topic::PartitionCount,
    v1,
    v1::{Acks, batch_result::Outcome, init_producer_id_response::Partition},
};

use crate::session::{BatchAnswer, InitAnswer, RecoveredBatch, RecoveredPartition};

/// Why an answer makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nonsense(pub(crate) String);

/// What became of the batches of a call, whose record counts were `counts`, answered `now`. A batch whose result makes no sense
/// may be in the log or not.
pub(crate) fn batches(
    response: v1::ProduceResponse,
    counts: &[RecordCount],
    acks: Acks,
    now: Timestamp,
) -> Result<Vec<BatchAnswer>, Nonsense> {
    if response.results.len() != counts.len() {
        return Err(Nonsense(format!("it has {} results for {} batches", response.results.len(), counts.len())));
    }
    let answers = response.results.into_iter().zip(counts).map(|(result, &count)| {
        let answer = match result.outcome {
            Some(Outcome::Ack(ack)) => acknowledged(&ack, count, acks, now),
            Some(Outcome::Error(error)) => refused(&error),
            None => Err(Nonsense("it is neither an acknowledgement nor an error".to_owned())),
        };
        answer.unwrap_or_else(not_understood)
    });
    Ok(answers.collect())
}

/// A result that is none: whether its batch was appended is not known.
fn not_understood(Nonsense(what): Nonsense) -> BatchAnswer {
    let message = format!("the broker's result makes no sense: {what}");
    BatchAnswer::Refused { code: ErrorCode::Unspecified, message, expected: None }
}

fn acknowledged(ack: &v1::BatchAck, count: RecordCount, acks: Acks, now: Timestamp) -> Result<BatchAnswer, Nonsense> {
    let base_offset = match (ack.base_offset, acks) {
        (-1, Acks::Zero) => None,
        (offset, _) => Some(offset_with_room(offset, count)?),
    };
    let append_time = match (&ack.append_time, acks) {
        (Some(time), _) => Timestamp::from_proto(time),
        // Nothing was appended yet; the time of the answer is the best there is.
        (None, Acks::Zero) => now,
        (None, _) => return Err(Nonsense("an acknowledgement has no append_time".to_owned())),
    };
    Ok(BatchAnswer::Acknowledged { base_offset, append_time, duplicate: ack.duplicate })
}

/// A code that this version does not know says neither yes nor no; what it says to people is kept.
fn refused(error: &v1::BatchError) -> Result<BatchAnswer, Nonsense> {
    let message = super::shortened(&error.message);
    let code = ErrorCode::try_from(error.code);
    let code = code.map_err(|_| Nonsense(format!("error code {} is not known ({message})", error.code)))?;
    let expected = error.expected_sequence.map(|sequence| sensible(Sequence::new(sequence))).transpose()?;
    Ok(BatchAnswer::Refused { code, message: message.to_owned(), expected })
}

/// One page of an answer to `InitProducerId`.
pub(crate) fn init_page(page: v1::InitProducerIdResponse) -> Result<InitAnswer, Nonsense> {
    let max_batch_bytes = usize::try_from(page.max_batch_bytes).ok().filter(|&bytes| bytes > 0);
    Ok(InitAnswer {
        producer: sensible(ProducerId::new(page.producer_id))?,
        epoch: sensible(Epoch::new(page.producer_epoch))?,
        max_batch_bytes: max_batch_bytes.ok_or_else(|| Nonsense(format!("max_batch_bytes is {}", page.max_batch_bytes)))?,
        partitions: page.partitions.into_iter().map(recovered).collect::<Result<_, _>>()?,
    })
}

fn recovered(partition: Partition) -> Result<RecoveredPartition, Nonsense> {
    let name = sensible(TopicPartition::parse(&partition.topic, partition.partition))?;
    let next = sensible(Sequence::new(partition.next_sequence))?;
    if partition.window.len() > WINDOW {
        return Err(Nonsense(format!("the window of {name} has {} batches", partition.window.len())));
    }
    let window = partition.window.iter().map(window_entry).collect::<Result<Vec<_>, _>>()?;
    // Oldest first and without gaps up to `next`, or a batch could be read as in the log that is not.
    let starts = window.iter().skip(1).map(|batch| batch.base).chain([next]);
    let joined = window.iter().zip(starts).all(|(batch, start)| batch.base.checked_add(batch.count) == Some(start));
    if !joined {
        return Err(Nonsense(format!("the window of {name} does not lead up to its next sequence {next}")));
    }
    Ok(RecoveredPartition { partition: name, next, window })
}

fn window_entry(entry: &v1::WindowEntry) -> Result<RecoveredBatch, Nonsense> {
    let append_time = entry.append_time.as_ref().map(Timestamp::from_proto);
    let count = sensible(RecordCount::new(entry.record_count))?;
    Ok(RecoveredBatch {
        base: sensible(Sequence::new(entry.base_sequence))?,
        count,
        base_offset: offset_with_room(entry.base_offset, count)?,
        append_time: append_time.ok_or_else(|| Nonsense("a batch of a window has no append_time".to_owned()))?,
        checksum: entry.checksum,
    })
}

/// The offset of a batch's first record. Its other records have offsets, too.
fn offset_with_room(base_offset: i64, count: RecordCount) -> Result<Offset, Nonsense> {
    let base = sensible(Offset::new(base_offset))?;
    let end = base.checked_add(count);
    end.map(|_| base).ok_or_else(|| Nonsense(format!("offset {base} leaves no room for {count} records")))
}

/// The number of partitions of `topic`, which was asked for alone.
pub(crate) fn partition_count(response: &v1::DescribeTopicsResponse, topic: &TopicName) -> Result<PartitionCount, Nonsense> {
    match response.topics.as_slice() {
        [one] if one.topic == topic.as_str() => {
            sensible(PartitionCount::new(i32::try_from(one.partitions.len()).unwrap_or(i32::MAX)))
        }
        _ => Err(Nonsense(format!("the broker was asked for topic {topic} and answered with others"))),
    }
}

fn sensible<T, E: std::fmt::Display>(value: Result<T, E>) -> Result<T, Nonsense> {
    value.map_err(|e| Nonsense(e.to_string()))
}

/// Batches that the broker remembers for each producer and partition.
const WINDOW: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: usize) -> RecordCount {
        RecordCount::of_len(n).expect("small")
    }

    fn time() -> Option<prost_types::Timestamp> {
        Some(Timestamp::from_micros(7).to_proto())
    }

    fn ack(base_offset: i64) -> v1::BatchAck {
        v1::BatchAck { base_offset, append_time: time(), duplicate: true }
    }

    fn error(code: i32, expected_sequence: Option<i64>) -> v1::BatchError {
        v1::BatchError { code, message: "m".to_owned(), expected_sequence, current_epoch: None }
    }

    /// Neither that its batch is in the log nor that it is not.
    fn says_nothing(answer: &BatchAnswer) -> bool {
        matches!(answer, BatchAnswer::Refused { code: ErrorCode::Unspecified, expected: None, .. })
    }

    fn judge(outcome: Option<Outcome>, acks: Acks) -> Result<Vec<BatchAnswer>, Nonsense> {
        batches(v1::ProduceResponse { results: vec![v1::BatchResult { outcome }] }, &[count(2)], acks, Timestamp::default())
    }

    #[test]
    fn sensible_results_are_taken() {
        let base_offset = Some(Offset::new(9).expect("valid"));
        let append_time = Timestamp::from_micros(7);
        let acknowledged = BatchAnswer::Acknowledged { base_offset, append_time, duplicate: true };
        assert_eq!(judge(Some(Outcome::Ack(ack(9))), Acks::All), Ok(vec![acknowledged]));
        let refused = BatchAnswer::Refused {
            code: ErrorCode::OutOfOrderSequenceNumber,
            message: "m".to_owned(),
            expected: Some(Sequence::ZERO),
        };
        assert_eq!(judge(Some(Outcome::Error(error(45, Some(0)))), Acks::All), Ok(vec![refused]));
        let accepted = BatchAnswer::Acknowledged { base_offset: None, append_time, duplicate: true };
        assert_eq!(judge(Some(Outcome::Ack(ack(-1))), Acks::Zero), Ok(vec![accepted]));
    }

    #[test]
    fn a_result_that_could_not_be_true_says_nothing_of_its_batch() {
        let bad = [
            None,
            Some(Outcome::Ack(ack(-1))),
            Some(Outcome::Ack(ack(-2))),
            Some(Outcome::Ack(ack(i64::MAX - 1))),
            Some(Outcome::Ack(v1::BatchAck { append_time: None, ..ack(1) })),
            Some(Outcome::Error(error(0, None))),
            Some(Outcome::Error(error(1003, None))),
            Some(Outcome::Error(error(45, Some(-1)))),
        ];
        for outcome in bad {
            let answers = judge(outcome.clone(), Acks::All).expect("one result for one batch");
            assert!(says_nothing(&answers[0]), "{outcome:?}: {answers:?}");
        }
        let sensible = judge(Some(Outcome::Ack(ack(i64::MAX - 2))), Acks::All).expect("one result for one batch");
        assert!(!says_nothing(&sensible[0]));
    }

    #[test]
    fn a_result_that_makes_no_sense_leaves_its_neighbours_alone() {
        let results = [Outcome::Ack(ack(5)), Outcome::Error(error(1003, None)), Outcome::Ack(ack(9))];
        let results = results.map(|outcome| v1::BatchResult { outcome: Some(outcome) }).to_vec();
        let answers = batches(v1::ProduceResponse { results }, &[count(2); 3], Acks::All, Timestamp::default());
        let answers = answers.expect("three results for three batches");
        assert_eq!(answers.iter().map(says_nothing).collect::<Vec<_>>(), [false, true, false]);
        let BatchAnswer::Refused { message, .. } = &answers[1] else { unreachable!("it says nothing") };
        assert!(message.ends_with("error code 1003 is not known (m)"), "{message}");
    }

    #[test]
    fn an_answer_with_another_number_of_results_is_nonsense() {
        let none = v1::ProduceResponse { results: vec![] };
        assert!(batches(none.clone(), &[count(1)], Acks::All, Timestamp::default()).is_err());
        assert!(batches(none, &[], Acks::All, Timestamp::default()).is_ok());
        let two = v1::ProduceResponse { results: vec![v1::BatchResult::default(); 2] };
        assert!(batches(two, &[count(1)], Acks::All, Timestamp::default()).is_err());
    }

    fn entry(base_sequence: i64, record_count: i32) -> v1::WindowEntry {
        v1::WindowEntry { base_sequence, record_count, base_offset: 100, append_time: time(), checksum: 1 }
    }

    fn page(next_sequence: i64, window: Vec<v1::WindowEntry>) -> v1::InitProducerIdResponse {
        v1::InitProducerIdResponse {
            producer_id: 1,
            producer_epoch: 2,
            max_batch_bytes: 1000,
            partitions: vec![Partition { topic: "t".to_owned(), partition: 3, next_sequence, window }],
            next_page_token: String::new(),
        }
    }

    #[test]
    fn a_sensible_page_is_taken() {
        for good in [page(0, vec![]), page(7, vec![]), page(7, vec![entry(3, 2), entry(5, 2)])] {
            let answer = init_page(good).expect("sensible");
            assert_eq!((answer.producer.get(), answer.epoch.get(), answer.max_batch_bytes), (1, 2, 1000));
            assert_eq!(answer.partitions.len(), 1);
        }
    }

    #[test]
    fn a_page_that_could_not_be_true_is_nonsense() {
        let six = (0..6).map(|base| entry(base, 1)).collect::<Vec<_>>();
        assert!(init_page(page(6, six[1..].to_vec())).is_ok(), "five are the window");
        let last = v1::WindowEntry { base_offset: i64::MAX - 2, ..entry(5, 2) };
        assert!(init_page(page(7, vec![last])).is_ok(), "there is room for two");
        let bad = [
            v1::InitProducerIdResponse { producer_id: -1, ..page(0, vec![]) },
            v1::InitProducerIdResponse { producer_epoch: -1, ..page(0, vec![]) },
            v1::InitProducerIdResponse { max_batch_bytes: 0, ..page(0, vec![]) },
            page(-1, vec![]),
            page(6, six),
            page(8, vec![entry(3, 2), entry(5, 2)]),
            page(7, vec![entry(3, 1), entry(5, 2)]),
            page(5, vec![entry(5, 0)]),
            page(7, vec![v1::WindowEntry { append_time: None, ..entry(5, 2) }]),
            page(7, vec![v1::WindowEntry { base_offset: -1, ..entry(5, 2) }]),
            page(7, vec![v1::WindowEntry { base_offset: i64::MAX - 1, ..entry(5, 2) }]),
            page(7, vec![v1::WindowEntry { base_offset: i64::MAX, ..entry(5, 2) }]),
        ];
        for page in bad {
            assert!(init_page(page.clone()).is_err(), "{page:?}");
        }
    }

    #[test]
    fn only_the_topic_asked_for_counts() {
        let topic = TopicName::parse("t").expect("valid");
        let describe = |name: &str, partitions: usize| v1::describe_topics_response::Topic {
            topic: name.to_owned(),
            partitions: vec![v1::describe_topics_response::Partition::default(); partitions],
        };
        let judge = |topics: Vec<_>| {
            partition_count(&v1::DescribeTopicsResponse { topics, ..Default::default() }, &topic).map(PartitionCount::get)
        };
        assert_eq!(judge(vec![describe("t", 3)]), Ok(3));
        assert!(judge(vec![]).is_err());
        assert!(judge(vec![describe("u", 3)]).is_err());
        assert!(judge(vec![describe("t", 0)]).is_err());
        assert!(judge(vec![describe("t", 10_001)]).is_err());
    }
}
