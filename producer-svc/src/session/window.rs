//! The window of one partition: the tagged batches from the lowest unresolved one on.
//!
//! Invariants. At most [`SPAN`] slots, resolved ones between counted (R1), so that no batch in doubt can ever fall out of the
//! broker's memory of five: limiting the outstanding calls alone does not do that, because a cancelled call has copies that
//! live. A slot's base, count and bytes never change. The first slot is unresolved, so everything below it is in the log.
//!
//! With idempotence off the same window bounds and names the batches that were handed over; its sequences are then not sent.

use std::{collections::VecDeque, mem};

use oncelog_proto::{Fault, Monotonic, RecordCount, Sequence};

use super::CallId;
use crate::accumulator::Batch;

/// Most tagged batches of a partition, from the lowest unresolved one on: what the broker remembers (D1).
pub(super) const SPAN: usize = 5;

/// The tagged batches of one partition.
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    next: Sequence,
}

/// A batch that has a tag.
#[derive(Debug)]
pub(super) struct Slot {
    base: Sequence,
    count: RecordCount,
    checksum: u32,
    stage: Stage,
    /// How often it failed, apart from waiting its turn.
    pub(super) failures: u32,
    /// A copy may be in the log although an attempt was refused. Only asked with idempotence off.
    pub(super) doubtful: bool,
    /// Most batches that may share a call with it, itself counted. Halved each time a call that carries it is refused whole.
    pub(super) company: usize,
}

/// Where a tagged batch stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// In an outstanding call.
    Out { batch: Batch, call: CallId },
    /// In no call; goes out again unchanged.
    Parked {
        batch: Batch,
        /// Not before this.
        not_before: Monotonic,
        /// Not before all lower ones are resolved, or out in this call or a later one: behind an older call it has just been
        /// told to wait its turn, and would be told so again.
        behind: CallId,
    },
    /// Refused, which is not final while copies of it may be on their way (R5): not sent again, a recovery decides.
    Refused { batch: Batch, fault: Fault },
    /// Its callers were told "unknown" and its bytes are gone; the tag stays, so that no gap opens, until a recovery.
    Expired { call: Option<CallId> },
    /// Its outcome is known.
    Resolved,
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
        self.slots.len() < SPAN
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Gives a batch its tag and hands it over to a call.
    pub(super) fn tag(&mut self, batch: Batch, call: CallId) -> Sequence {
        assert!(self.has_room(), "R1: a sixth tagged batch could push one in doubt out of the broker's memory");
        let (base, count, checksum) = (self.next, batch.record_count(), batch.packed().checksum());
        self.next = base.checked_add(count).expect("2^63 records are not reached in one epoch");
        let stage = Stage::Out { batch, call };
        self.slots.push_back(Slot { base, count, checksum, stage, failures: 0, doubtful: false, company: usize::MAX });
        base
    }

    /// The lowest sequence that is not known to be in the log.
    pub(super) fn floor(&self) -> Sequence {
        self.slots.front().map_or(self.next, |slot| slot.base)
    }

    /// The sequence of the next batch to be tagged.
    pub(super) fn next(&self) -> Sequence {
        self.next
    }

    /// The end of what was acknowledged: the log has to reach at least this far.
    pub(super) fn acknowledged(&self) -> Sequence {
        let resolved = self.slots.iter().rev().find(|slot| matches!(slot.stage, Stage::Resolved));
        resolved.map_or_else(|| self.floor(), Slot::end)
    }

    /// The slots, lowest first.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The slot of this base, if it is still there (R6).
    pub(super) fn slot_mut(&mut self, base: Sequence) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.base == base)
    }

    /// The batch of this base. It is parked or out.
    pub(super) fn batch(&self, base: Sequence) -> Option<&Batch> {
        self.slots.iter().find(|slot| slot.base == base).and_then(Slot::batch)
    }

    /// The parked batch that goes out next: always the lowest. Sending a higher one first would only make it wait at the broker.
    pub(super) fn resend(&self, now: Monotonic) -> Resend {
        let mut oldest_lower_call: Option<CallId> = None;
        for slot in &self.slots {
            match &slot.stage {
                Stage::Out { call, .. } => oldest_lower_call = Some(oldest_lower_call.map_or(*call, |oldest| oldest.min(*call))),
                Stage::Parked { not_before, .. } if *not_before > now => return Resend::At(*not_before),
                Stage::Parked { behind, .. } if oldest_lower_call.is_some_and(|call| call < *behind) => return Resend::Behind,
                Stage::Parked { .. } => return Resend::Now(slot.base),
                Stage::Refused { .. } | Stage::Expired { .. } | Stage::Resolved => {}
            }
        }
        Resend::None
    }

    /// Lets go of the lowest slots that are resolved.
    pub(super) fn slide(&mut self) {
        while self.slots.front().is_some_and(|slot| matches!(slot.stage, Stage::Resolved)) {
            self.slots.pop_front();
        }
    }

    /// Starts at sequence 0 and hands out what it held. All tags are void from here on.
    pub(super) fn restart(&mut self) -> VecDeque<Slot> {
        mem::take(self).slots
    }
}

impl Slot {
    /// The sequence of its first record.
    pub(super) fn base(&self) -> Sequence {
        self.base
    }

    /// The sequence after its last record.
    pub(super) fn end(&self) -> Sequence {
        self.base.checked_add(self.count).expect("checked when it was tagged")
    }

    /// Number of its records.
    pub(super) fn count(&self) -> RecordCount {
        self.count
    }

    /// CRC-32C of its data.
    pub(super) fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Where it stands.
    pub(super) fn into_stage(self) -> Stage {
        self.stage
    }

    /// Is it in an outstanding call?
    pub(super) fn is_out(&self) -> bool {
        matches!(self.stage, Stage::Out { .. })
    }

    /// Is it carried by this call?
    pub(super) fn is_out_in(&self, id: CallId) -> bool {
        match self.stage {
            Stage::Out { call, .. } => call == id,
            Stage::Expired { call } => call == Some(id),
            Stage::Parked { .. } | Stage::Refused { .. } | Stage::Resolved => false,
        }
    }

    /// The batch, while somebody waits for its outcome.
    pub(super) fn batch(&self) -> Option<&Batch> {
        match &self.stage {
            Stage::Out { batch, .. } | Stage::Parked { batch, .. } | Stage::Refused { batch, .. } => Some(batch),
            Stage::Expired { .. } | Stage::Resolved => None,
        }
    }

    /// It goes out again, in this call.
    pub(super) fn hand_over(&mut self, call: CallId) {
        self.stage = match mem::replace(&mut self.stage, Stage::Resolved) {
            Stage::Parked { batch, .. } => Stage::Out { batch, call },
            other => unreachable!("only a parked batch is sent again, not {other:?}"),
        };
    }

    /// Its call ended without an outcome; it waits for the next.
    pub(super) fn park(&mut self, not_before: Monotonic, behind: CallId) {
        self.stage = match mem::replace(&mut self.stage, Stage::Resolved) {
            Stage::Out { batch, .. } => Stage::Parked { batch, not_before, behind },
            Stage::Expired { .. } => Stage::Expired { call: None },
            other => other,
        };
    }

    /// The broker will never take it; until a recovery nobody knows whether it took an earlier copy (R5).
    pub(super) fn refuse(&mut self, fault: Fault) {
        self.stage = match mem::replace(&mut self.stage, Stage::Resolved) {
            Stage::Out { batch, .. } | Stage::Parked { batch, .. } => Stage::Refused { batch, fault },
            Stage::Expired { .. } => Stage::Expired { call: None },
            other => other,
        };
    }

    /// Its time or its retries are used up. The batch comes back, for its callers to be told.
    pub(super) fn expire(&mut self) -> Option<Batch> {
        let (stage, batch) = match mem::replace(&mut self.stage, Stage::Resolved) {
            Stage::Out { batch, call } => (Stage::Expired { call: Some(call) }, Some(batch)),
            Stage::Parked { batch, .. } | Stage::Refused { batch, .. } => (Stage::Expired { call: None }, Some(batch)),
            done @ (Stage::Expired { .. } | Stage::Resolved) => (done, None),
        };
        self.stage = stage;
        batch
    }

    /// Its outcome is known. The batch comes back, unless its callers were told before.
    pub(super) fn resolve(&mut self) -> Option<Batch> {
        match mem::replace(&mut self.stage, Stage::Resolved) {
            Stage::Out { batch, .. } | Stage::Parked { batch, .. } | Stage::Refused { batch, .. } => Some(batch),
            Stage::Expired { .. } | Stage::Resolved => None,
        }
    }
}
