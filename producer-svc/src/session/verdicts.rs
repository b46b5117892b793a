//! What follows from a call that ended: every batch of it is settled, parked, or refused until a recovery.

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{ErrorCode, Fault, RecordCount, Sequence};

use super::{
    Action, BatchAnswer, CallFailure, CallId, FailureKind, Session,
    answers::{Asked, Verdict, judge, judge_untagged},
    calls::{Call, Carried},
    handshake::Mode,
    refused_topics::RefusedTopics,
    schedule::LaneId,
    sends::BatchOutcome,
    slot::Slot,
};

impl Session {
    pub(super) fn produce_answered(&mut self, id: CallId, results: Vec<BatchAnswer>) {
        let Some(call) = self.calls.end(id) else { return };
        if results.len() != call.batches.len() {
            let message = format!("the answer has {} results for {} batches", results.len(), call.batches.len());
            return self.leave_in_doubt(id, &call, &message);
        }
        let mut evidence = None;
        for (carried, answer) in call.batches.iter().zip(results) {
            let floor = self.floor(carried);
            let Some(slot) = self.slot_in(id, &call, *carried) else { continue };
            let asked = Asked { floor, base: slot.base(), end: slot.end() };
            let verdict = match call.incarnation {
                Some(_) => judge(asked, answer),
                None => judge_untagged(answer),
            };
            if let Verdict::Shared(fault) = &verdict {
                evidence.get_or_insert_with(|| fault.to_string());
            }
            self.apply(*carried, verdict);
            self.settle(carried.lane);
        }
        // Last, because it makes everything unknown that is in doubt; the answer may have settled some of it.
        if let Some(evidence) = evidence {
            self.share_alarm(&evidence);
        }
    }

    pub(super) fn produce_failed(&mut self, id: CallId, failure: &CallFailure) {
        let Some(call) = self.calls.end(id) else { return };
        match failure.kind {
            FailureKind::InDoubt | FailureKind::UnknownProducer => self.leave_in_doubt(id, &call, &failure.message),
            // So it is the answer that is too large: what it answers was carried out, and nobody here knows how. In smaller
            // company the answer is smaller, too.
            FailureKind::TooLarge if !call.may_be_too_large(self.max_batch_bytes) => {
                self.halve_company(id, &call);
                self.leave_in_doubt(id, &call, &failure.message);
            }
            FailureKind::Permanent | FailureKind::TooLarge if call.batches.len() > 1 => self.bisect(id, &call),
            FailureKind::Permanent | FailureKind::TooLarge => {
                let fault = Fault::new(ErrorCode::InvalidRequest, format!("the broker refused the call: {}", failure.message));
                for carried in &call.batches {
                    if self.slot_in(id, &call, *carried).is_some() {
                        self.apply(*carried, Verdict::Refused(fault.clone()));
                        self.settle(carried.lane);
                    }
                }
            }
        }
    }

    /// Nobody knows whether the call was carried out. All its batches wait equally long, so that they share a call again.
    fn leave_in_doubt(&mut self, id: CallId, call: &Call, message: &str) {
        let failures = call.batches.iter().filter_map(|carried| Some(self.slot_in(id, call, *carried)?.failures)).max();
        let again = self.now.plus(self.backoff.after(failures.unwrap_or(0).saturating_add(1)));
        for carried in &call.batches {
            let Some(slot) = self.slot_in(id, call, *carried) else { continue };
            slot.doubtful = true;
            slot.failures = slot.failures.saturating_add(1);
            slot.park(again, CallId(0));
            self.expire_if_tried_enough(*carried, || Fault::new(ErrorCode::RequestTimedOut, message.to_owned()));
            self.settle(carried.lane);
        }
    }

    /// One of several batches is at fault and the status does not say which. After a few rounds of halves it travels alone (and
    /// the others got through without it).
    fn bisect(&mut self, id: CallId, call: &Call) {
        self.halve_company(id, call);
        let now = self.now;
        for carried in &call.batches {
            let Some(slot) = self.slot_in(id, call, *carried) else { continue };
            slot.park(now, CallId(0));
            self.settle(carried.lane);
        }
    }

    /// Each batch of the call may travel only in half the company from now on.
    fn halve_company(&mut self, id: CallId, call: &Call) {
        for carried in &call.batches {
            if let Some(slot) = self.slot_in(id, call, *carried) {
                slot.company = call.batches.len().div_ceil(2);
            }
        }
    }

    /// The batch of an answer, if it still carries the tag it was sent with (R6). Else the answer is about a batch that has long
    /// been settled: acting on a late "fenced" of an old epoch would start recoveries for ever.
    fn slot_in(&mut self, id: CallId, call: &Call, carried: Carried) -> Option<&mut Slot> {
        let is_own = call.incarnation == self.handshake.incarnation();
        let slot = self.lanes.get_mut(carried.lane)?.window.slot_mut(carried.base)?;
        if is_on(Defect::StaleAnswersCount) {
            return Some(slot);
        }
        (is_own && slot.is_out_in(id)).then_some(slot)
    }

    /// What an "out of order" is judged by (R7).
    fn floor(&self, carried: &Carried) -> Sequence {
        match self.lanes.get(carried.lane) {
            Some(lane) if is_on(Defect::FloorAtAnswerTime) => lane.window.floor(),
            _ => carried.floor,
        }
    }

    fn slot(&mut self, carried: Carried) -> &mut Slot {
        let lane = self.lanes.get_mut(carried.lane).expect("a lane with a tagged batch is not dropped");
        lane.window.slot_mut(carried.base).expect("just looked up")
    }

    /// Acts on the verdict over a batch that was just found by [`Self::slot_in`].
    fn apply(&mut self, carried: Carried, verdict: Verdict) {
        match verdict {
            Verdict::Appended { base_offset, append_time } => {
                self.handshake.bears_fruit(self.now);
                self.resolve(carried, &BatchOutcome::Appended { base_offset, append_time });
            }
            Verdict::AppendedSomewhere => {
                let partition = self.lanes.get(carried.lane).map(|lane| lane.partition.to_string()).unwrap_or_default();
                let message = format!(
                    "{partition}: the broker no longer remembers where the batch at sequence {} is, though it was in doubt: a defect. \
                     The records are in the log; their offsets are not known",
                    carried.base
                );
                self.actions.push_back(Action::Alarm { message });
                self.resolve(carried, &BatchOutcome::Appended { base_offset: None, append_time: Default::default() });
            }
            Verdict::Again(fault) => {
                let failures = self.slot(carried).failures.saturating_add(1);
                let again = self.now.plus(self.backoff.after(failures));
                let slot = self.slot(carried);
                slot.doubtful |= !fault.code().outcome_is_known();
                slot.failures = failures;
                slot.park(again, CallId(0));
                self.expire_if_tried_enough(carried, || fault);
            }
            Verdict::BehindLower => {
                let (now, behind) = (self.now, self.calls.next_id());
                self.slot(carried).park(now, behind);
            }
            Verdict::Recover => {
                let now = self.now;
                self.slot(carried).park(now, CallId(0));
                self.begin_recovery();
            }
            Verdict::Refused(fault) if !is_final(&fault) => self.refuse(carried, fault),
            Verdict::Refused(fault) | Verdict::Shared(fault) => self.resolve(carried, &BatchOutcome::Refused(fault.into())),
        }
    }

    /// The broker will not take this batch.
    fn refuse(&mut self, carried: Carried, fault: Fault) {
        if self.handshake.mode() == Mode::Untagged {
            self.refuse_untagged(carried, &fault);
        } else {
            self.slot(carried).refuse(fault.clone());
            self.begin_recovery();
        }
        let topic = self.lanes.get(carried.lane).map(|lane| lane.partition.topic.clone());
        if let Some(topic) = topic.filter(|_| RefusedTopics::concerns(fault.code())) {
            self.refused_topics.refuse(topic.clone(), fault, self.now, self.backoff.max());
            for id in self.lanes.of_topic(&topic) {
                self.fail_untagged_if_refused(id);
                self.reschedule(id);
            }
            self.actions.push_back(Action::ForgetTopic { topic });
        }
    }

    /// Without tags a refusal is final, unless an earlier attempt may have been carried out.
    fn refuse_untagged(&mut self, carried: Carried, fault: &Fault) {
        let compression = self.config.compression;
        let slot = self.slot(carried);
        let doubtful = slot.doubtful;
        let Some(batch) = slot.resolve() else { return };
        if doubtful {
            self.conclude(carried.lane, &batch, &BatchOutcome::Unknown);
        } else if fault.code() == ErrorCode::MessageTooLarge && batch.record_count() > RecordCount::MIN {
            let [left, right] = batch.split(compression);
            let lane = self.lanes.get_mut(carried.lane).expect("just looked up");
            lane.accumulator.put_back(right);
            lane.accumulator.put_back(left);
        } else {
            self.conclude(carried.lane, &batch, &BatchOutcome::Refused(fault.clone().into()));
        }
    }

    /// The batch's outcome is known. Its callers hear it, unless they heard "unknown" before.
    fn resolve(&mut self, carried: Carried, outcome: &BatchOutcome) {
        if let Some(batch) = self.slot(carried).resolve() {
            self.conclude(carried.lane, &batch, outcome);
        }
    }

    fn expire_if_tried_enough(&mut self, carried: Carried, fault: impl FnOnce() -> Fault) {
        if self.slot(carried).failures > self.config.retries {
            self.expire(carried.lane, carried.base, fault);
        }
    }

    /// The batch's time or its retries are used up. With a tag it may still be in the log, or get there: its callers hear
    /// "unknown", the tag stays, and a recovery is to tell. Without one it is over; `fault` says why, if it is certainly not
    /// in the log.
    pub(super) fn expire(&mut self, lane: LaneId, base: Sequence, fault: impl FnOnce() -> Fault) {
        let tagged = self.handshake.mode() != Mode::Untagged;
        let Some(slot) = self.lanes.get_mut(lane).and_then(|lane| lane.window.slot_mut(base)) else { return };
        let certain = !tagged && !slot.doubtful && !slot.is_out();
        let batch = if tagged { slot.expire() } else { slot.resolve() };
        let Some(batch) = batch else { return };
        let outcome = if certain { BatchOutcome::Refused(fault().into()) } else { BatchOutcome::Unknown };
        self.conclude(lane, &batch, &outcome);
        if tagged {
            self.begin_recovery();
        }
    }

    /// After something happened to a lane's window.
    fn settle(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.window.slide();
        }
        self.reschedule(lane);
    }
}

/// No refusal is, while copies may be on their way (R5); being out of order least of all (R8).
fn is_final(fault: &Fault) -> bool {
    is_on(Defect::RefusalIsFinal) || (is_on(Defect::OutOfOrderMeansAbsent) && fault.code() == ErrorCode::OutOfOrderSequenceNumber)
}
