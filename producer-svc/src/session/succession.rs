//! From one incarnation to the next: a recovery, or a fresh id where the old one is lost.
//!
//! A recovery raises the epoch. What is in the log is acknowledged, what is not gets a new tag from 0 on in the original
//! order, and nothing is renumbered before that answer (W18). It waits for nothing: calls of the old epoch may stay out, and
//! what they still acknowledge counts until the answer.
//!
//! A fresh id knows nothing of the old one (R10): every batch that ever had a tag of the old id is unknown for good. So an id
//! that may soon be forgotten for being idle is replaced while nothing has its tag: after a day of silence the first batch would
//! otherwise be reported as unknown, though nothing ever went wrong.

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{ErrorCode, RecordCount};

use super::{
    Action, CallFailure, FailureKind, InitAnswer, InitId, Session,
    calls::Incarnation,
    handshake::Mode,
    recovery::{Fate, Missing, Recovered},
    schedule::LaneId,
    sends::BatchOutcome,
    slot::{Slot, Stage},
};

impl Session {
    /// Makes the `InitProducerId` call that is due, if one is.
    pub(super) fn shake_hands(&mut self) {
        if let Some((init, recover)) = self.handshake.poll(self.now) {
            let recover = recover.map(|old| (old.producer, old.epoch));
            let (token, timeout) = (self.config.token.clone(), self.config.request_timeout);
            self.actions.push_back(Action::Init { init, recover, token, timeout });
        }
    }

    /// Fences the current epoch to learn what is in the log. Without effect while that is under way.
    pub(super) fn begin_recovery(&mut self) {
        let at = self.now.plus(self.backoff.after(self.handshake.fruitless()));
        self.handshake.recover(at);
    }

    pub(super) fn init_answered(&mut self, init: InitId, answer: &InitAnswer) {
        if !self.handshake.ended(init) {
            return;
        }
        match self.handshake.mode() {
            Mode::Recovering(old) if (Some(answer.epoch), answer.producer) != (old.epoch.next(), old.producer) => {
                let Incarnation { producer, epoch } = old;
                let (other, other_epoch) = (answer.producer, answer.epoch);
                self.share_alarm(&format!("recovery of {producer} epoch {epoch} was answered with {other} epoch {other_epoch}"));
            }
            Mode::Recovering(_) => {
                let recovered = Recovered::new(answer);
                if let Some(contradiction) = recovered.contradiction(&self.lanes) {
                    return self.share_alarm(&contradiction);
                }
                self.alarm_if_missing(&recovered.missing(&self.lanes));
                self.establish(answer);
                for id in self.lanes.ids() {
                    self.carry_over(id, &recovered);
                }
            }
            Mode::Fresh => {
                self.establish(answer);
                self.reschedule_all();
            }
            Mode::Untagged | Mode::Established(_) => unreachable!("no call is out in this mode"),
        }
    }

    pub(super) fn init_failed(&mut self, init: InitId, failure: &CallFailure) {
        if !self.handshake.ended(init) {
            return;
        }
        let recovering = matches!(self.handshake.mode(), Mode::Recovering(_));
        match failure.kind {
            // Only an owner of the same id could have raised it past us (R13).
            FailureKind::Permanent if recovering => self.share_alarm(&failure.message),
            FailureKind::UnknownProducer if recovering => self.start_over(),
            // Maybe carried out, maybe not: asking again for a recovery is answered alike (R13), and an unused id expires.
            FailureKind::InDoubt | FailureKind::Permanent | FailureKind::TooLarge | FailureKind::UnknownProducer => {
                let failures = self.handshake.fail();
                let at = self.now.plus(self.backoff.after(failures));
                self.handshake.repeat(at);
            }
        }
    }

    /// Gives the id up because somebody else writes under it, and says so.
    pub(super) fn share_alarm(&mut self, evidence: &str) {
        let id = self.handshake.incarnation().map_or(String::new(), |i| format!(" {} epoch {}", i.producer, i.epoch));
        let message = format!(
            "producer id{id} is used by another process: {evidence}. Batches in doubt are reported as unknown; this process asks \
             for a fresh id"
        );
        self.actions.push_back(Action::Alarm { message });
        self.start_over();
    }

    /// Gives an idle id up before the next batch gets a tag of it. While a tagged batch is unresolved the id stays, however old:
    /// only under that id can its outcome still be learned.
    pub(super) fn replace_idle_id(&mut self) {
        let is_needed = || self.schedule.first_ready().is_some();
        let is_unused = || self.lanes.iter().all(|lane| lane.window.len() == 0);
        if self.handshake.is_stale(self.now) && is_needed() && is_unused() {
            self.start_over();
        }
    }

    /// Gives the id up: what was tagged is unknown, what was not goes on under the next id.
    fn start_over(&mut self) {
        let at = self.now.plus(self.backoff.after(self.handshake.fruitless()));
        self.handshake.start_over(at);
        for id in self.lanes.ids() {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let mut slots = lane.window.restart();
            if is_on(Defect::UnknownIdIsTaggedAnew) {
                slots.drain(..).rev().filter_map(|mut slot| slot.resolve()).for_each(|batch| lane.accumulator.put_back(batch));
            }
            for slot in slots {
                match slot.into_stage() {
                    Stage::Out { batch, .. } | Stage::Parked { batch, .. } | Stage::Refused { batch, .. } => {
                        self.conclude(id, &batch, &BatchOutcome::Unknown);
                    }
                    Stage::Expired { .. } | Stage::Resolved => {}
                }
            }
            self.reschedule(id);
        }
    }

    fn establish(&mut self, answer: &InitAnswer) {
        self.max_batch_bytes = Some(answer.max_batch_bytes);
        self.handshake.establish(Incarnation { producer: answer.producer, epoch: answer.epoch }, self.now);
    }

    /// Settles what one partition had in the fenced epoch, and queues the rest to be tagged anew.
    fn carry_over(&mut self, id: LaneId, recovered: &Recovered<'_>) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let partition = lane.partition.clone();
        let slots: Vec<(Slot, Fate)> = lane
            .window
            .restart()
            .into_iter()
            .map(|slot| {
                let fate = recovered.fate(&partition, &slot);
                (slot, fate)
            })
            .collect();
        let mut again = Vec::new();
        for (slot, fate) in slots {
            let (batch, refusal) = match slot.into_stage() {
                Stage::Out { batch, .. } | Stage::Parked { batch, .. } => (batch, None),
                Stage::Refused { batch, fault } => (batch, Some(fault)),
                // Its callers were told. If it is not in the log, it is dropped.
                Stage::Expired { .. } | Stage::Resolved => continue,
            };
            match (fate, refusal) {
                (Fate::Appended { base_offset, append_time }, _) => {
                    self.conclude(id, &batch, &BatchOutcome::Appended { base_offset, append_time });
                }
                (Fate::Absent, None) => again.push(batch),
                (Fate::Absent, Some(fault))
                    if fault.code() == ErrorCode::MessageTooLarge && batch.record_count() > RecordCount::MIN =>
                {
                    again.extend(batch.split(self.config.compression));
                }
                (Fate::Absent, Some(fault)) => self.conclude(id, &batch, &BatchOutcome::Refused(fault.into())),
            }
        }
        if let Some(lane) = self.lanes.get_mut(id) {
            again.into_iter().rev().for_each(|batch| lane.accumulator.put_back(batch));
        }
        self.fail_untagged_if_refused(id);
        self.reschedule(id);
    }

    fn alarm_if_missing(&mut self, missing: &Missing) {
        if let Some(first) = missing.cut.first() {
            let message = format!(
                "ACKNOWLEDGED RECORDS ARE LOST in {} partition(s): {first}. The broker no longer has what it had confirmed: check its \
                 disk, and whether its data directory was replaced or restored",
                missing.cut.len()
            );
            self.actions.push_back(Action::Alarm { message });
        }
        if !missing.gone.is_empty() {
            let (count, named) = (missing.gone.len(), missing.gone[..missing.gone.len().min(GONE_NAMED)].join(", "));
            let message = format!(
                "the broker has nothing of what it acknowledged in {count} partition(s): {named}; either the topic was deleted, or \
                 acknowledged records are lost"
            );
            self.actions.push_back(Action::Alarm { message });
        }
    }
}

/// Partitions that an alarm names. Who deleted a topic has to be able to see that nothing else is gone.
const GONE_NAMED: usize = 20;
