//! The window of one partition: the tagged batches from the lowest unresolved one on.
//!
//! Invariants. At most [`SPAN`] slots, resolved ones between counted (R1), so that no batch in doubt can ever fall out of the
//! broker's memory of five: limiting the outstanding calls alone does not do that, because a cancelled call has copies that
//! live. A slot's base, count and bytes never change. The first slot is unresolved, so everything below it is in the log.
//!
//! With idempotence off the same window bounds and names the batches that were handed over; its sequences are then not sent.

use std::{collections::VecDeque, mem};

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Monotonic, Sequence};

use super::{
    CallId,
    slot::{Slot, Stage},
};
use crate::accumulator::Batch;

/// Most tagged batches of a partition, from the lowest unresolved one on: what the broker remembers (D1).
pub(super) const SPAN: usize = 5;

/// The tagged batches of one partition.
#[derive(Clone, Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    next: Sequence,
}

/// Which parked batch goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resend {
    /// The one of this base.
    Now(Sequence),
    /// The lowest, not before this.
    At(Monotonic),
    /// The lowest, once a call that carries a lower one ends.
    Behind,
    /// Nothing is parked.
    None,
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: VecDeque::new(), next: Sequence::ZERO }
    }
}

impl Window {
    /// May another batch be tagged?
    pub(super) fn has_room(&self) -> bool {
        if is_on(Defect::SpanCountsUnresolved) {
            return self.slots.iter().filter(|slot| !matches!(slot.stage(), Stage::Resolved)).count() < SPAN;
        }
        self.slots.len() < SPAN
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Gives a batch its tag and hands it over to a call.
    pub(super) fn tag(&mut self, batch: Batch, call: CallId) -> Sequence {
        assert!(self.has_room(), "R1: a sixth tagged batch could push one in doubt out of the broker's memory");
        let slot = Slot::new(self.next, batch, call);
        let base = mem::replace(&mut self.next, slot.end());
        self.slots.push_back(slot);
        base
    }

    /// The lowest sequence that is not known to be in the log.
    pub(super) fn floor(&self) -> Sequence {
        self.slots.front().map_or(self.next, Slot::base)
    }

    /// The sequence of the next batch to be tagged.
    pub(super) fn next(&self) -> Sequence {
        self.next
    }

    /// The end of what was acknowledged: the log has to reach at least this far.
    pub(super) fn acknowledged(&self) -> Sequence {
        let resolved = self.slots.iter().rev().find(|slot| matches!(slot.stage(), Stage::Resolved));
        resolved.map_or_else(|| self.floor(), Slot::end)
    }

    /// The slots, lowest first.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The slot of this base, if it is still there (R6).
    pub(super) fn slot_mut(&mut self, base: Sequence) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.base() == base)
    }

    /// The batch of this base. It is parked or out.
    pub(super) fn batch(&self, base: Sequence) -> Option<&Batch> {
        self.slots.iter().find(|slot| slot.base() == base).and_then(Slot::batch)
    }

    /// The parked batch that goes out next: always the lowest. Sending a higher one first would only make it wait at the broker.
    pub(super) fn resend(&self, now: Monotonic) -> Resend {
        let mut oldest_lower_call: Option<CallId> = None;
        for slot in &self.slots {
            match slot.stage() {
                Stage::Out { call, .. } => oldest_lower_call = Some(oldest_lower_call.map_or(*call, |oldest| oldest.min(*call))),
                Stage::Parked { not_before, .. } if *not_before > now => return Resend::At(*not_before),
                Stage::Parked { behind, .. } if oldest_lower_call.is_some_and(|call| call < *behind) => return Resend::Behind,
                Stage::Parked { .. } => return Resend::Now(slot.base()),
                Stage::Refused { .. } | Stage::Expired { .. } | Stage::Resolved => {}
            }
        }
        Resend::None
    }

    /// Lets go of the lowest slots that are resolved.
    pub(super) fn slide(&mut self) {
        while self.slots.front().is_some_and(|slot| matches!(slot.stage(), Stage::Resolved)) {
            self.slots.pop_front();
        }
    }

    /// Starts at sequence 0 and hands out what it held. All tags are void from here on.
    pub(super) fn restart(&mut self) -> VecDeque<Slot> {
        mem::take(self).slots
    }
}
