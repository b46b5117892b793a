//! The outstanding `Produce` calls: which batches each carries, and what was known of their partitions when it left.
//!
//! Invariant: never more than `max_in_flight` of them, those of a fenced epoch counted until they end.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use oncelog_proto::{Epoch, ProducerId, Sequence};

use super::{CallId, schedule::LaneId};

/// Every call that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    outstanding: BTreeMap<CallId, Call>,
    limit: usize,
    next: u64,
}

/// What is remembered of a call.
#[derive(Clone, Debug, Hash)]
pub(super) struct Call {
    /// Whose tags its batches carry; none with idempotence off.
    pub(super) incarnation: Option<Incarnation>,
    /// Its batches, in order.
    pub(super) batches: Vec<Carried>,
    /// Its length on the wire, or a little more.
    pub(super) bytes: usize,
}

/// A producer id with one of its epochs: all that tags are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incarnation {
    pub(super) producer: ProducerId,
    pub(super) epoch: Epoch,
}

/// A batch in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Carried {
    /// Its partition.
    pub(super) lane: LaneId,
    /// Its base sequence.
    pub(super) base: Sequence,
    /// The lowest sequence of the partition that was not known to be in the log when the call was sent (R7). A delayed "out of
    /// order" is judged by this: by then the floor may be higher, and what it expects looks lost.
    pub(super) floor: Sequence,
}

impl Call {
    /// May it be larger than what the broker takes, which has said, or has not yet, how large a batch may be?
    pub(super) fn may_be_too_large(&self, max_batch_bytes: Option<usize>) -> bool {
        self.bytes > max_batch_bytes.unwrap_or(0).saturating_add(CALL_OVERHEAD)
    }
}

impl Calls {
    pub(super) fn new(limit: usize) -> Self {
        Self { outstanding: BTreeMap::new(), limit, next: 0 }
    }

    /// How many more may be made.
    pub(super) fn room(&self) -> usize {
        self.limit - self.outstanding.len()
    }

    /// The id that the next call will have.
    pub(super) fn next_id(&self) -> CallId {
        CallId(self.next)
    }

    /// A call is made, under [`Self::next_id`].
    pub(super) fn start(&mut self, call: Call) -> CallId {
        assert!(self.room() > 0, "at most {} calls are outstanding", self.limit);
        let id = self.next_id();
        self.next += 1;
        self.outstanding.insert(id, call);
        id
    }

    /// A call that has not ended.
    pub(super) fn get(&self, id: CallId) -> Option<&Call> {
        self.outstanding.get(&id)
    }

    /// A call ended. None if it is not known.
    pub(super) fn end(&mut self, id: CallId) -> Option<Call> {
        self.outstanding.remove(&id)
    }

    /// Has this call not ended?
    pub(super) fn is_out(&self, id: CallId) -> bool {
        self.outstanding.contains_key(&id)
    }

    /// How many calls are out that were made before this one.
    pub(super) fn rank(&self, id: CallId) -> usize {
        self.outstanding.range(..id).count()
    }

    /// What decides its future: the calls by their order, not by their ids.
    pub(super) fn digest(&self, into: &mut impl Hasher) {
        self.outstanding.len().hash(into);
        self.outstanding.values().for_each(|call| call.hash(into));
    }
}

/// What a call may have beside the largest batch, in bytes, whatever else the broker was set to: so says the contract.
const CALL_OVERHEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_never_too_large_up_to_64_kib_above_the_largest_batch() {
        let call = |bytes| Call { incarnation: None, batches: Vec::new(), bytes };
        for (max_batch_bytes, most) in [(None, 64 << 10), (Some(1_000), 1_000 + (64 << 10)), (Some(usize::MAX), usize::MAX)] {
            assert!(!call(most).may_be_too_large(max_batch_bytes), "{max_batch_bytes:?}");
            assert_eq!(call(most.saturating_add(1)).may_be_too_large(max_batch_bytes), most < usize::MAX, "{max_batch_bytes:?}");
        }
    }
}
