//! The `Send`s that wait: which of their records have an outcome.
//!
//! Invariant: a `Send` is reported once, when the last of its records got its outcome; a record gets one outcome.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use oncelog_proto::{Fault, Offset, PartitionIndex, Timestamp};
use rustc_hash::FxHashMap;

use super::{Action, RecordOutcome, SendId};
use crate::accumulator::Batch;

/// Every `Send` with a record whose outcome is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Sends {
    // Never iterated but to be sorted, so its order decides nothing.
    open: FxHashMap<SendId, OpenSend>,
}

#[derive(Clone, Debug, Hash)]
struct OpenSend {
    outcomes: Vec<RecordOutcome>,
    missing: usize,
}

/// What became of a whole batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BatchOutcome {
    /// In the log.
    Appended {
        /// Offset of its first record, where it is told.
        base_offset: Option<Offset>,
        /// When.
        append_time: Timestamp,
    },
    /// Certainly not in the log.
    Refused(Arc<Fault>),
    /// Nobody knows.
    Unknown,
}

impl Sends {
    /// Starts to wait for the outcomes of `records` records, at least one.
    pub(super) fn open(&mut self, send: SendId, records: usize) {
        assert!(records > 0, "a Send without records is complete at once");
        let open = OpenSend { outcomes: vec![RecordOutcome::Unknown; records], missing: records };
        assert!(self.open.insert(send, open).is_none(), "{send:?} names one Send");
    }

    /// Tells the owners of a batch, and gives its memory back.
    pub(super) fn conclude(
        &mut self,
        partition: PartitionIndex,
        batch: &Batch,
        outcome: &BatchOutcome,
        actions: &mut VecDeque<Action>,
    ) {
        let mut at = 0;
        for shares in batch.shares().chunk_by(|a, b| a.send == b.send) {
            let send = shares[0].send;
            let open = self.open.get_mut(&send).expect("a Send stays open until each of its records has an outcome");
            for share in shares {
                for i in 0..share.count {
                    open.outcomes[share.first + i] = outcome.of_record(partition, at + i);
                }
                at += share.count;
                open.missing = open.missing.checked_sub(share.count).expect("a record gets one outcome");
            }
            if open.missing == 0 {
                let outcomes = self.open.remove(&send).map(|open| open.outcomes).expect("it was there");
                actions.push_back(Action::Complete { send, outcomes });
            }
        }
        actions.push_back(Action::Free { bytes: batch.cost() });
    }

    /// Has every `Send` been reported?
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What decides its future.
    pub(super) fn digest(&self, into: &mut impl Hasher) {
        self.open.iter().collect::<BTreeMap<_, _>>().hash(into);
    }
}

impl BatchOutcome {
    /// The outcome of the batch's record at `index`.
    fn of_record(&self, partition: PartitionIndex, index: usize) -> RecordOutcome {
        match self {
            Self::Appended { base_offset, append_time } => {
                // The base came from the network; a sum beyond all offsets is as good as none.
                let add = |base: Offset| base.get().checked_add(i64::try_from(index).ok()?).and_then(|o| Offset::new(o).ok());
                RecordOutcome::Appended { partition, offset: base_offset.and_then(add), append_time: *append_time }
            }
            Self::Refused(fault) => RecordOutcome::Refused(Arc::clone(fault)),
            Self::Unknown => RecordOutcome::Unknown,
        }
    }
}
