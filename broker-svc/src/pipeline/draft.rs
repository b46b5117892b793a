//! A group that is being gathered, with everything that leaves once it is durable.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use oncelog_proto::Timestamp;

use super::Answer;
use crate::{
    entry::{Entry, PartitionId},
    journal::Group,
    state::Ends,
};

#[derive(Debug)]
pub(super) struct Draft<R> {
    pub(super) time: Timestamp,
    entries: Vec<Entry>,
    payloads: Vec<Bytes>,
    bytes: usize,
    /// Answers that leave when the group is written (acks=1).
    pub(super) on_written: Vec<(R, Answer)>,
    /// Answers that leave when the group is durable.
    pub(super) on_synced: Vec<(R, Answer)>,
    /// Where the logs of the touched partitions stand after this group; the state itself may be further by then.
    pub(super) ends: BTreeMap<PartitionId, Ends>,
    /// Partitions that this group deletes.
    pub(super) gone: Vec<PartitionId>,
}

impl<R> Draft<R> {
    pub(super) fn new(time: Timestamp) -> Self {
        Self {
            time,
            entries: Vec::new(),
            payloads: Vec::new(),
            bytes: 0,
            on_written: Vec::new(),
            on_synced: Vec::new(),
            ends: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry, payload: Option<Bytes>, bytes: usize) {
        assert_eq!(matches!(entry, Entry::Append(_)), payload.is_some(), "an append has a payload, nothing else has");
        self.entries.push(entry);
        self.payloads.extend(payload);
        self.bytes += bytes;
    }

    pub(super) fn last_entry(&self) -> Option<&Entry> {
        self.entries.last()
    }

    pub(super) fn has_no_entries(&self) -> bool {
        self.entries.is_empty()
    }

    /// No less than what the journal will write for it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn take_group(&mut self) -> Group {
        Group { time: self.time, entries: mem::take(&mut self.entries), payloads: mem::take(&mut self.payloads) }
    }
}

/// No less than what an entry and its payload take in the journal.
pub(super) fn encoded_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Append(append) => ENTRY_BYTES_MAX + append.data_len as usize,
        Entry::Trim { partitions, .. } => ENTRY_BYTES_MAX + 24 * partitions.len(),
        _ => ENTRY_BYTES_MAX,
    }
}

/// No entry but the exceptions of [`encoded_bytes`] is longer: the longest has a topic name.
pub(super) const ENTRY_BYTES_MAX: usize = 384;
