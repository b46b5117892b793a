//! One partition as the session sees it: the untagged queue before it, the window of tagged batches, and what comes next.

use std::hash::{Hash, Hasher};

use oncelog_proto::{Monotonic, Sequence, TopicPartition};

use super::{
    digest::Moment,
    window::{Resend, Window},
};
use crate::accumulator::{Accumulator, Batch, ReadyRule};

/// A partition.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) partition: TopicPartition,
    pub(super) accumulator: Accumulator,
    pub(super) window: Window,
}

/// What a partition has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The parked batch of this base, unchanged.
    Resend(Sequence),
    /// The first batch of the queue, which gets its tag.
    New,
    /// Something, but not before this.
    At(Monotonic),
    /// Nothing, until something happens to it.
    Nothing,
}

impl Lane {
    pub(super) fn new(partition: TopicPartition) -> Self {
        Self { partition, accumulator: Accumulator::default(), window: Window::default() }
    }

    /// What comes next. Resends go before new batches, and new ones wait for room in the window.
    pub(super) fn next(&self, now: Monotonic, ready: ReadyRule) -> Next {
        match self.window.resend(now) {
            Resend::Now(base) => Next::Resend(base),
            Resend::At(at) => Next::At(at),
            Resend::Behind => Next::Nothing,
            Resend::None if !self.window.has_room() => Next::Nothing,
            Resend::None => match self.accumulator.ready_at(ready) {
                Some(at) if at <= now => Next::New,
                Some(at) => Next::At(at),
                None => Next::Nothing,
            },
        }
    }

    /// When the oldest batch was created for which callers wait.
    pub(super) fn oldest(&self) -> Option<Monotonic> {
        // All of them are looked at: without tags one that came back may be older than what was sent before it.
        let handed_over = self.window.slots().filter_map(|slot| slot.batch().map(Batch::created));
        handed_over.chain(self.accumulator.oldest()).min()
    }

    /// Would a new lane be the same? With tags the next sequence has to be remembered for as long as the epoch lasts.
    pub(super) fn is_blank(&self, tagged: bool) -> bool {
        let numbered = tagged && self.window.next() != Sequence::ZERO;
        self.accumulator.is_empty() && self.window.len() == 0 && !numbered
    }

    /// What decides its future.
    pub(super) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        self.partition.hash(into);
        self.accumulator.digest(moment, into);
        self.window.next().hash(into);
        self.window.len().hash(into);
        self.window.slots().for_each(|slot| slot.digest(moment, into));
    }
}
