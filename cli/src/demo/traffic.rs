//! What goes over between the services, as somebody in the middle sees it: the calls on their way, at most five, and what was
//! sent a second time. Pure: requests, answers and `now` in, a picture out.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use oncelog_proto::v1::{Batch, ErrorCode, ProduceRequest, ProduceResponse, batch_result::Outcome};

/// The picture.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    slots: [Option<Slot>; WINDOW],
    next_call: u64,
    /// Batches that were sent and not acknowledged, and how often.
    unresolved: HashMap<BatchKey, u32>,
    counts: Counts,
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Batches that were sent, each time counted.
    pub(super) batches: u64,
    /// Batches that were sent again.
    pub(super) retried: u64,
    /// Batches that the broker recognised: they were in the log, and were not stored again.
    pub(super) duplicates_refused: u64,
    /// Calls to which no answer came.
    pub(super) unanswered: u64,
}

/// One of the five places for calls that are not answered, and the last call that had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) call: CallNumber,
    pub(super) first: Option<BatchSketch>,
    /// Batches in it, each for another partition.
    pub(super) batches: usize,
    /// How often the most repeated one of them was sent, this time included.
    pub(super) attempt: u32,
    pub(super) since: Instant,
    pub(super) stage: Stage,
}

/// Names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallNumber(u64);

/// What can be said of a batch in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BatchSketch {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// First and last sequence; none without a tag.
    pub(super) sequences: Option<(i64, i64)>,
    pub(super) records: i32,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    OnItsWay,
    Acknowledged {
        took: Duration,
        /// Of its batches so many were in the log already.
        duplicates: usize,
    },
    /// It, or at least one of its batches, was refused, as this.
    Refused(ErrorCode),
    /// The connection broke before the answer came. The work may have been done.
    AnswerLost,
}

/// A batch by what is in it. It is the same when it is sent again, also with another tag or with none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BatchKey(u64);

/// What has to be known of a call to understand its answer.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    call: CallNumber,
    keys: Vec<BatchKey>,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self { slots: Default::default(), next_call: 0, unresolved: HashMap::new(), counts: Counts::default() }
    }

    /// A call goes by.
    pub(super) fn sent(&mut self, request: &ProduceRequest, now: Instant) -> Pending {
        let call = CallNumber(self.next_call);
        self.next_call += 1;
        if self.unresolved.len() + request.batches.len() > MOST_UNRESOLVED {
            // Of batches that were given up nobody tells. What is forgotten here is counted as new if it comes again.
            self.unresolved.clear();
        }
        let keys: Vec<_> = request.batches.iter().map(BatchKey::of).collect();
        let mut attempt = 1;
        for key in &keys {
            let times = self.unresolved.entry(*key).or_default();
            *times += 1;
            attempt = attempt.max(*times);
            self.counts.batches += 1;
            self.counts.retried += u64::from(*times > 1);
        }
        let first = request.batches.first().map(|batch| BatchSketch::of(batch, request.producer_id.is_some()));
        let slot = Slot { call, first, batches: keys.len(), attempt, since: now, stage: Stage::OnItsWay };
        *self.place() = Some(slot);
        Pending { call, keys }
    }

    /// An answer goes back.
    pub(super) fn answered(&mut self, pending: &Pending, response: &ProduceResponse, now: Instant) {
        let mut duplicates = 0;
        let mut refused = None;
        for (key, result) in pending.keys.iter().zip(&response.results) {
            match &result.outcome {
                Some(Outcome::Ack(ack)) => {
                    self.unresolved.remove(key);
                    duplicates += usize::from(ack.duplicate);
                }
                Some(Outcome::Error(error)) => refused = refused.or_else(|| ErrorCode::try_from(error.code).ok()),
                None => {}
            }
        }
        self.counts.duplicates_refused += duplicates as u64;
        self.end(pending, |slot| {
            let took = now.saturating_duration_since(slot.since);
            refused.map_or(Stage::Acknowledged { took, duplicates }, Stage::Refused)
        });
    }

    /// The call was answered, and refused as a whole.
    pub(super) fn refused(&mut self, pending: &Pending, reason: ErrorCode) {
        self.end(pending, |_| Stage::Refused(reason));
    }

    /// No answer will come.
    pub(super) fn lost(&mut self, pending: &Pending) {
        self.counts.unanswered += 1;
        self.end(pending, |_| Stage::AnswerLost);
    }

    pub(super) fn slots(&self) -> &[Option<Slot>] {
        &self.slots
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Calls on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.stage == Stage::OnItsWay).count()
    }

    /// The place of a new call: one that was never used, else that of the call that ended first; the oldest one if all are on
    /// their way, which somebody who keeps to the window never has.
    fn place(&mut self) -> &mut Option<Slot> {
        let age = |slot: &Option<Slot>| slot.as_ref().map(|slot| (slot.stage == Stage::OnItsWay, slot.call.0));
        let index = (0..WINDOW).min_by_key(|index| age(&self.slots[*index])).expect("there are five");
        &mut self.slots[index]
    }

    fn end(&mut self, pending: &Pending, stage: impl FnOnce(&Slot) -> Stage) {
        if let Some(slot) = self.slots.iter_mut().flatten().find(|slot| slot.call == pending.call) {
            slot.stage = stage(slot);
        }
    }
}

impl BatchSketch {
    fn of(batch: &Batch, is_tagged: bool) -> Self {
        let records =
            batch.packed.as_ref().map_or_else(|| i32::try_from(batch.records.len()).unwrap_or(i32::MAX), |p| p.record_count);
        let base = batch.base_sequence;
        let sequences = is_tagged.then(|| (base, base.saturating_add(i64::from(records) - 1)));
        Self { topic: batch.topic.clone(), partition: batch.partition, sequences, records }
    }
}

impl BatchKey {
    fn of(batch: &Batch) -> Self {
        let mut hasher = DefaultHasher::new();
        (&batch.topic, batch.partition).hash(&mut hasher);
        batch.packed.as_ref().map(|packed| &packed.data).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Calls that an idempotent producer may have unanswered (D1).
pub(super) const WINDOW: usize = 5;
const MOST_UNRESOLVED: usize = 10_000;

#[cfg(test)]
mod tests {
    use oncelog_proto::v1::{BatchAck, BatchError, BatchResult, PackedRecords};

    use super::*;

    fn request(partition: i32, base_sequence: i64) -> ProduceRequest {
        let data = format!("{partition}/{base_sequence}").into();
        let packed = PackedRecords { record_count: 3, data, ..PackedRecords::default() };
        let batch = Batch { topic: "t".into(), partition, base_sequence, packed: Some(packed), ..Batch::default() };
        ProduceRequest { producer_id: Some(1), batches: vec![batch], ..ProduceRequest::default() }
    }

    fn response(outcome: Outcome) -> ProduceResponse {
        ProduceResponse { results: vec![BatchResult { outcome: Some(outcome) }] }
    }

    fn acknowledged(duplicate: bool) -> ProduceResponse {
        response(Outcome::Ack(BatchAck { duplicate, ..BatchAck::default() }))
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_is_sent_again_after_a_lost_answer_is_counted_as_retried_and_its_recognition_as_a_duplicate() {
        let mut traffic = Traffic::new();
        let now = now();
        let first = traffic.sent(&request(0, 0), now);
        assert_eq!(traffic.in_flight(), 1);
        traffic.lost(&first);
        let again = traffic.sent(&request(0, 0), now);
        assert_eq!(traffic.slots().iter().flatten().map(|slot| slot.attempt).max(), Some(2));
        traffic.answered(&again, &acknowledged(true), now + Duration::from_millis(3));
        let counts = Counts { batches: 2, retried: 1, duplicates_refused: 1, unanswered: 1 };
        assert_eq!((traffic.counts(), traffic.in_flight()), (counts, 0));
        let stages: Vec<_> = traffic.slots().iter().flatten().map(|slot| slot.stage).collect();
        assert_eq!(stages, [Stage::AnswerLost, Stage::Acknowledged { took: Duration::from_millis(3), duplicates: 1 }]);
        // It is resolved: whatever looks like it from now on is another one.
        traffic.sent(&request(0, 0), now);
        assert_eq!(traffic.counts().retried, 1);
    }

    #[test]
    fn a_sixth_call_takes_the_place_of_the_one_that_ended_first() {
        let mut traffic = Traffic::new();
        let now = now();
        let calls: Vec<_> = (0..5).map(|base| traffic.sent(&request(0, base), now)).collect();
        traffic.answered(&calls[3], &acknowledged(false), now);
        traffic.answered(&calls[1], &acknowledged(false), now);
        traffic.sent(&request(0, 5), now);
        let calls: Vec<_> = traffic.slots().iter().flatten().map(|slot| slot.call.0).collect();
        assert_eq!(calls, [0, 5, 2, 3, 4]);
        assert_eq!(traffic.in_flight(), 4);
    }

    #[test]
    fn a_refusal_is_shown_with_its_code_and_a_late_answer_changes_nobody_elses_place() {
        let mut traffic = Traffic::new();
        let now = now();
        let calls: Vec<_> = (0..6).map(|base| traffic.sent(&request(0, base), now)).collect();
        let error = BatchError { code: ErrorCode::OutOfOrderSequenceNumber.into(), ..BatchError::default() };
        traffic.answered(&calls[0], &acknowledged(false), now);
        traffic.answered(&calls[5], &response(Outcome::Error(error)), now);
        let slot = traffic.slots()[0].as_ref().expect("used");
        assert_eq!((slot.call.0, slot.stage), (5, Stage::Refused(ErrorCode::OutOfOrderSequenceNumber)));
    }

    #[test]
    fn what_is_unresolved_is_bounded() {
        let mut traffic = Traffic::new();
        let now = now();
        for base in 0..=MOST_UNRESOLVED as i64 {
            traffic.sent(&request(0, base), now);
        }
        assert_eq!(traffic.unresolved.len(), 1);
    }
}
