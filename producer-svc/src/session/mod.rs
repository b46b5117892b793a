//! The producer's session: what turns `Send`s into tagged batches and brings each of them to the log exactly once.
//!
//! Pure: events and the time go in by [`Session::handle`], what is to be done comes out of [`Session::poll_action`], and
//! [`Session::next_wakeup`] says when to come back. No clock, no I/O, no randomness but the seed's: the same events give the
//! same actions.
//!
//! | module | owns |
//! |---|---|
//! | [`step`] | what goes in and what comes out |
//! | `config` | what is set |
//! | `intake` | how a `Send` comes in |
//! | `sends` | who waits for which outcome |
//! | `lanes`, `lane` | the partitions: a queue of untagged batches and a window of tagged ones each |
//! | `window` | the tagged batches of a partition, at most five from the lowest unresolved one on |
//! | `slot` | one tagged batch |
//! | `schedule` | whose turn it is, and when to look again |
//! | `produce` | which batches leave in which call |
//! | `calls` | the calls that are out |
//! | `answers` | the decision table |
//! | `verdicts` | what follows from a call that ended |
//! | `handshake` | producer id, epoch, and the calls that get them |
//! | `recovery` | what a recovery answer says |
//! | `succession` | from one incarnation to the next |
//! | `refused_topics` | what fails without asking |
//! | `expiry` | what waited too long |
//! | `backoff` | how long to wait |
//! | `digest` | when two sessions are alike |
//!
//! What holds throughout: a tag is for ever. A batch gets its sequence when it is first handed over; until its outcome is known
//! it is only ever sent again, the same bytes under the same tag. Nothing is renumbered while unsure (W18).

mod answers;
mod backoff;
mod calls;
mod config;
mod digest;
mod expiry;
mod handshake;
mod intake;
mod lane;
mod lanes;
mod produce;
mod recovery;
mod refused_topics;
mod schedule;
mod sends;
mod slot;
pub mod step;
mod succession;
mod verdicts;
mod window;

use std::{collections::VecDeque, time::Duration};

use oncelog_proto::Monotonic;

pub use crate::accumulator::record_cost;
use crate::accumulator::{Batch, ReadyRule, Share};
use backoff::Backoff;
use calls::Calls;
pub use config::SessionConfig;
pub(crate) use digest::Moment;
use handshake::Handshake;
use lane::Next;
use lanes::Lanes;
use refused_topics::RefusedTopics;
use schedule::{LaneId, Schedule, Urgency};
use sends::{BatchOutcome, Sends};
pub use step::*;

/// One producer id's worth of protocol state: everything between a `Send` and its outcome.
#[derive(Clone, Debug)]
pub struct Session {
    config: SessionConfig,
    now: Monotonic,
    closing: bool,
    /// Largest batch that the broker takes, once it has said so.
    max_batch_bytes: Option<usize>,
    handshake: Handshake,
    sends: Sends,
    lanes: Lanes,
    schedule: Schedule,
    calls: Calls,
    refused_topics: RefusedTopics,
    backoff: Backoff,
    actions: VecDeque<Action>,
    counts: Counts,
}

impl Session {
    /// A session that has sent nothing yet. With idempotence its first action asks for a producer id. `seed` decides the
    /// jitter of its pauses.
    ///
    /// # Panics
    /// The configuration breaks a promise: no call in flight, a token that is empty or longer than 64 bytes, or with
    /// idempotence more than five calls in flight or acknowledgements that do not mean durable.
    pub fn new(config: SessionConfig, seed: u64) -> Self {
        config.assert_sound();
        let mut session = Self {
            now: Monotonic::default(),
            closing: false,
            max_batch_bytes: None,
            handshake: Handshake::new(config.idempotence),
            sends: Sends::default(),
            lanes: Lanes::new(config.idempotence),
            schedule: Schedule::default(),
            calls: Calls::new(config.max_in_flight),
            refused_topics: RefusedTopics::default(),
            backoff: Backoff::new(config.retry_backoff, config.retry_backoff_max, seed),
            actions: VecDeque::new(),
            counts: Counts::default(),
            config,
        };
        session.shake_hands();
        session
    }

    /// Takes note of what happened. Then act on everything that [`Self::poll_action`] returns.
    ///
    /// # Panics
    /// A [`SendId`] was used before and its `Send` is not complete.
    pub fn handle(&mut self, event: Event, now: Monotonic) {
        self.now = self.now.max(now);
        match event {
            Event::Send { id, topic, records } => self.accept(id, &topic, &records),
            Event::ProduceAnswered { call, results } => self.produce_answered(call, results),
            Event::ProduceFailed { call, failure } => self.produce_failed(call, &failure),
            Event::InitAnswered { init, answer } => self.init_answered(init, &answer),
            Event::InitFailed { init, failure } => self.init_failed(init, &failure),
            Event::Close => {
                self.closing = true;
                self.reschedule_all();
            }
            Event::Tick => {}
        }
        self.elapse();
        self.replace_idle_id();
        self.shake_hands();
        self.produce();
    }

    /// The next thing to be done, in order; none if nothing is.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle`] with [`Event::Tick`] if nothing else happens before. Maybe earlier than needed, never later.
    pub fn next_wakeup(&self) -> Option<Monotonic> {
        [self.schedule.next_wakeup(), self.handshake.due()].into_iter().flatten().min()
    }

    /// Has every `Send` got its outcome, and was every action polled? What may be left are tags of batches whose callers were
    /// told "unknown".
    pub fn is_idle(&self) -> bool {
        self.sends.is_empty() && self.actions.is_empty()
    }

    /// Largest batch that the broker takes, in bytes as sent; none as long as it has not said so.
    pub(crate) fn max_batch_bytes(&self) -> Option<usize> {
        self.max_batch_bytes
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whose records the batch at this place of an outstanding call holds; none once its outcome is known.
    pub(crate) fn shares(&self, call: CallId, index: usize) -> &[Share] {
        let carried = self.calls.get(call).and_then(|call| call.batches.get(index));
        let batch = carried.and_then(|carried| self.lanes.get(carried.lane)?.window.batch(carried.base));
        batch.map_or(&[], Batch::shares)
    }

    /// Fails what a partition has queued if its topic is refused.
    fn fail_untagged_if_refused(&mut self, id: LaneId) {
        while let Some(lane) = self.lanes.get_mut(id) {
            let Some(fault) = self.refused_topics.fault(&lane.partition.topic, self.now) else { return };
            let Some(batch) = lane.accumulator.take() else { return };
            self.conclude(id, &batch, &BatchOutcome::Refused(fault.into()));
        }
    }

    /// Tells the callers of a batch.
    fn conclude(&mut self, id: LaneId, batch: &Batch, outcome: &BatchOutcome) {
        let lane = self.lanes.get(id).expect("a lane with a batch is not dropped before the batch is concluded");
        self.sends.conclude(lane.partition.partition, batch, outcome, &mut self.actions);
    }

    /// Notes what a partition has to send, and when to look at it again. To be called whenever something happened to it.
    fn reschedule(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get(id) else { return self.schedule.set_ready(id, None) };
        let (urgency, at) = match lane.next(self.now, self.ready_rule()) {
            Next::Resend(_) => (Some(Urgency::Resend), None),
            Next::New => (Some(Urgency::New), None),
            Next::At(at) => (None, Some(at)),
            Next::Nothing => (None, None),
        };
        let deadline = lane.oldest().map(|created| created.plus(self.config.delivery_timeout));
        self.schedule.set_ready(id, urgency);
        for at in [at, deadline].into_iter().flatten() {
            self.schedule.wake_by(id, at);
        }
    }

    fn reschedule_all(&mut self) {
        for id in self.lanes.ids() {
            self.reschedule(id);
        }
    }

    fn ready_rule(&self) -> ReadyRule {
        let linger = if self.closing { Duration::ZERO } else { self.config.linger };
        ReadyRule { linger, bytes: self.config.batch_size }
    }
}
