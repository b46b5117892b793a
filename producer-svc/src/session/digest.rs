//! When two sessions are alike: equal digests, equal futures.
//!
//! A model checker has to see that two ways lead to the same place. So the digest leaves out what only gives names or measures
//! the past: a call is its place among those that are out, an instant is how far it is from now.
//!
//! What it takes for granted:
//! - The sessions that are compared have the same configuration, and each `Send` id stands for the same records.
//! - The pauses between attempts are all alike, whatever the jitter and the number of failures: `retry_backoff` is 0, or at least
//!   a quarter above `retry_backoff_max`.
//! - An id does not get stale in the course of time, but only by a leap: who lets an hour pass, lets it pass at once.

use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use oncelog_proto::Monotonic;

use super::{CallId, Session, calls::Calls};

/// What names and instants are told by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    now: Monotonic,
    calls: &'a Calls,
    retries: u32,
    delivery_timeout: Duration,
}

impl Session {
    /// Feeds `into` everything that decides what the session will do when something happens to it, and nothing else.
    ///
    /// # Panics
    /// Not every action was polled.
    pub fn digest(&self, into: &mut impl Hasher) {
        assert!(self.actions.is_empty(), "what is to be done is no part of the digest");
        let (retries, delivery_timeout) = (self.config.retries, self.config.delivery_timeout);
        let moment = Moment { now: self.now, calls: &self.calls, retries, delivery_timeout };
        (self.closing, self.max_batch_bytes).hash(into);
        self.handshake.digest(moment, into);
        self.sends.digest(into);
        self.calls.digest(into);
        self.schedule.digest(moment, into);
        self.refused_topics.digest(moment, into);
        for lane in self.lanes.iter() {
            lane.digest(moment, into);
        }
    }
}

impl Moment<'_> {
    pub(super) fn now(self) -> Monotonic {
        self.now
    }

    /// How long until then; nothing if it has come.
    pub(super) fn until(self, at: Monotonic) -> Duration {
        at.since(self.now)
    }

    /// How long ago that was, up to where it makes no difference any more.
    pub(crate) fn age(self, at: Monotonic) -> Duration {
        self.now.since(at).min(self.delivery_timeout)
    }

    pub(super) fn is_out(self, call: CallId) -> bool {
        self.calls.is_out(call)
    }

    /// The place of a call among those that are out.
    pub(super) fn rank(self, call: CallId) -> usize {
        self.calls.rank(call)
    }

    /// How often a batch failed, if that is ever held against a limit.
    pub(super) fn failures(self, failures: u32) -> u32 {
        if self.retries == u32::MAX { 0 } else { failures.min(self.retries) }
    }
}
