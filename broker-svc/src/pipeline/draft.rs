//! A group that is being gathered, with everything that leaves once it is durable.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use oncelog_proto::{Timestamp, trace::Joined};

use super::Answer;
use crate::{
    entry::{Entry, PartitionId},
    journal::{Group, GroupDraft, GroupLimit},
    state::Ends,
};

/// The gathering part.
#[derive(Clone, Debug)]
pub(super) struct Draft<R> {
    pub(super) time: Timestamp,
    group: GroupDraft,
    pub(super) leaving: Leaving<R>,
}

/// What leaves with a group.
#[derive(Clone, Debug)]
pub(super) struct Leaving<R> {
    /// Answers that leave when the group is written (acks=1).
    pub(super) on_written: Vec<(R, Answer)>,
    /// Answers that leave when the group is durable.
    pub(super) on_synced: Vec<(R, Answer)>,
    /// Where the logs of the touched partitions stand after this group; the state itself may be further by then.
    pub(super) ends: BTreeMap<PartitionId, Ends>,
    /// Partitions that this group deletes.
    pub(super) gone: Vec<PartitionId>,
    /// What the journal needs for the group.
    pub(super) bytes: usize,
    /// The traces of the batches in it.
    pub(super) traces: Joined,
}

impl<R> Draft<R> {
    pub(super) fn new(time: Timestamp, limit: GroupLimit) -> Self {
        let (on_written, on_synced) = (Vec::new(), Vec::new());
        let leaving =
            Leaving { on_written, on_synced, ends: BTreeMap::new(), gone: Vec::new(), bytes: 0, traces: Joined::default() };
        Self { time, group: GroupDraft::new(limit), leaving }
    }

    pub(super) fn fits(&self, entry: &Entry) -> bool {
        self.group.fits(entry)
    }

    /// An append comes with its data, and nothing else does.
    pub(super) fn push(&mut self, entry: Entry, data: Option<Bytes>) {
        match (entry, data) {
            (Entry::Append(append), Some(data)) => self.group.append(append, data),
            (entry, None) => self.group.push(entry),
            (entry, Some(_)) => unreachable!("{entry:?} has no data"),
        }
    }

    pub(super) fn has_no_entries(&self) -> bool {
        self.group.is_empty()
    }

    /// What decides its future: its entries, and what leaves with it.
    pub(super) fn digest(&self, name: &impl Fn(&R) -> Option<u64>, into: &mut impl Hasher) {
        self.group.entries().hash(into);
        self.leaving.digest(name, into);
    }

    pub(super) fn bytes(&self) -> usize {
        self.group.bytes() + PADDING_BYTES_MAX
    }

    pub(super) fn finish(self) -> (Group, Leaving<R>) {
        let bytes = self.bytes();
        (self.group.finish(self.time), Leaving { bytes, ..self.leaving })
    }
}

impl<R> Leaving<R> {
    /// The answers, without those that nobody hears.
    pub(super) fn digest(&self, name: &impl Fn(&R) -> Option<u64>, into: &mut impl Hasher) {
        for answers in [&self.on_written, &self.on_synced] {
            let heard: Vec<_> = answers.iter().filter_map(|(reply, answer)| Some((name(reply)?, answer))).collect();
            heard.hash(into);
        }
    }
}

/// A group is padded to the next block of the disk.
const PADDING_BYTES_MAX: usize = 4096;
/// What a change takes beside the data of a batch, in a group of its own: no less than that. An append may come with the creation
/// of its topic.
pub(super) const CHANGE_BYTES_MAX: usize = PADDING_BYTES_MAX + 1024;
