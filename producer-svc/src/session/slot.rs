//! One tagged batch: where it stands between its first hand-over and its outcome.
//!
//! Invariant: base, count and bytes never change. A batch that was handed over once is sent again or settled, and nothing else:
//! it cannot be taken back.

use std::{
    hash::{Hash, Hasher},
    mem,
};

use oncelog_proto::{Fault, Monotonic, RecordCount, Sequence};

use super::{CallId, digest::Moment};
use crate::accumulator::Batch;

/// A batch that has a tag.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    base: Sequence,
    end: Sequence,
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
#[derive(Clone, Debug)]
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

impl Slot {
    /// A batch that gets this sequence as its first and leaves in this call.
    pub(super) fn new(base: Sequence, batch: Batch, call: CallId) -> Self {
        let (count, checksum) = (batch.record_count(), batch.packed().checksum());
        let end = base.checked_add(count).expect("2^63 records are not reached in one epoch");
        Self { base, end, count, checksum, stage: Stage::Out { batch, call }, failures: 0, doubtful: false, company: usize::MAX }
    }

    /// The sequence of its first record.
    pub(super) fn base(&self) -> Sequence {
        self.base
    }

    /// The sequence after its last record.
    pub(super) fn end(&self) -> Sequence {
        self.end
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
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Where it stood, once its tag is void.
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

    /// What decides its future.
    pub(super) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        (self.base, self.count, self.checksum, self.doubtful, self.company, moment.failures(self.failures)).hash(into);
        mem::discriminant(&self.stage).hash(into);
        match &self.stage {
            Stage::Out { call, .. } => moment.rank(*call).hash(into),
            Stage::Parked { not_before, behind, .. } => (moment.until(*not_before), moment.rank(*behind)).hash(into),
            Stage::Refused { fault, .. } => fault.code().hash(into),
            // A call that has ended is asked for no more.
            Stage::Expired { call } => call.filter(|call| moment.is_out(*call)).map(|call| moment.rank(call)).hash(into),
            Stage::Resolved => {}
        }
        if let Some(batch) = self.batch() {
            batch.digest(moment, into);
        }
    }
}
