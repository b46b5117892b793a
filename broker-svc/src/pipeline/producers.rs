//! Producer ids: handed out, recovered, kept alive, forgotten.

use std::time::Duration;

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Epoch, ProducerId};

use super::{Answer, Now, Pipeline};
use crate::{
    entry::{Entry, OwnerHash},
    state::{InitDecision, InitRequest},
};

impl<R> Pipeline<R> {
    pub(super) fn init_producer(&mut self, caller: Option<OwnerHash>, request: InitRequest, now: Now) -> Answer {
        match self.state.init_producer(request, caller, self.options.incarnation, &self.options.limits) {
            InitDecision::Grant { entry, granted } => {
                if let Err(fault) = self.check_room(0) {
                    return Answer::Refused(fault);
                }
                self.enter(entry, None, now);
                if granted.epoch != Epoch::ZERO {
                    // Held batches of the fenced epoch are told at once (R4).
                    let mut fenced = self.hold.take_producer(granted.producer);
                    if is_on(Defect::HeldBatchesChangeEpoch) {
                        fenced.drain(..).for_each(|batch| self.hold_on(batch, granted.epoch, now));
                    }
                    self.rejudge(fenced, now);
                }
                Answer::Granted(granted)
            }
            InitDecision::Repeat(granted) => {
                self.note_seen(granted.producer, now);
                Answer::Granted(granted)
            }
            InitDecision::Refuse(fault) => Answer::Refused(fault),
        }
    }

    /// Expires idle producers; returns when to look again.
    pub(super) fn expire_producers(&mut self, now: Now) -> Duration {
        let expiration = self.options.limits.producer_id_expiration;
        let pause = (expiration / 10).clamp(Duration::from_millis(50), Duration::from_secs(600));
        if self.state.is_clock_doubtful() {
            return pause;
        }
        let time = self.clock.read(now);
        let expired = self.state.expired_producers(&self.options.limits, time, EXPIRED_PER_TURN);
        for producer in &expired {
            if self.check_room(0).is_err() {
                return pause;
            }
            self.enter(Entry::Expire { producer: *producer }, None, now);
            self.counts.expired_producers += 1;
            let held = self.hold.take_producer(*producer);
            self.rejudge(held, now);
        }
        if expired.len() == EXPIRED_PER_TURN { Duration::from_millis(1) } else { pause }
    }

    /// A duplicate keeps its producer alive (W5), across a restart too.
    pub(super) fn note_seen(&mut self, producer: ProducerId, now: Now) {
        let time = self.clock.read(now);
        if self.state.is_seen_stale(producer, &self.options.limits, time) && self.check_room(0).is_ok() {
            self.enter(Entry::Seen { producer }, None, now);
        }
    }
}

/// So that a million producers that expire together do not stall anybody.
const EXPIRED_PER_TURN: usize = 1_000;
