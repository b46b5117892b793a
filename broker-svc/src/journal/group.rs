//! What is committed at once. A group never grows beyond its limit: whoever fills one asks first.

use bytes::Bytes;
use oncelog_proto::Timestamp;

use super::{
    entry_codec,
    group_header::{GroupHeader, round_up},
    options::GroupLimit,
};
use crate::entry::{Append, Entry};

/// A group that is being filled.
#[derive(Clone, Debug)]
pub struct GroupDraft {
    limit: GroupLimit,
    entries: Vec<Entry>,
    payloads: Vec<Bytes>,
    directory_len: usize,
    payload_len: usize,
}

impl GroupDraft {
    /// An empty one.
    pub const fn new(limit: GroupLimit) -> Self {
        Self { limit, entries: Vec::new(), payloads: Vec::new(), directory_len: 0, payload_len: 0 }
    }

    /// Is there room for this entry, with its data if it is an append?
    pub fn fits(&self, entry: &Entry) -> bool {
        self.bytes() + entry_codec::encoded_len(entry) + data_len(entry) <= self.limit.get()
    }

    /// The entries so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Nothing in it yet?
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes so far, before padding.
    pub const fn bytes(&self) -> usize {
        GroupHeader::LEN + self.directory_len + self.payload_len
    }

    /// Adds an entry other than an append.
    ///
    /// # Panics
    /// It is an append, or [`Self::fits`] was not asked.
    pub fn push(&mut self, entry: Entry) {
        assert!(!matches!(entry, Entry::Append(_)), "an append comes with its data");
        self.add(entry);
    }

    /// Adds an append and its data.
    ///
    /// # Panics
    /// The data has another length than the append says, or [`Self::fits`] was not asked.
    pub fn append(&mut self, append: Append, data: Bytes) {
        assert_eq!(append.data_len as usize, data.len(), "an append tells the length of its data");
        self.add(Entry::Append(append));
        self.payloads.push(data);
    }

    fn add(&mut self, entry: Entry) {
        assert!(self.fits(&entry), "a group of {} bytes has no room for {entry:?}", self.bytes());
        self.directory_len += entry_codec::encoded_len(&entry);
        self.payload_len += data_len(&entry);
        self.entries.push(entry);
    }

    /// Closes the group. `time` is the append time of everything in it, not before that of the group before.
    pub fn finish(self, time: Timestamp) -> Group {
        let Self { entries, payloads, directory_len, payload_len, .. } = self;
        Group { time, entries, payloads, directory_len, payload_len }
    }
}

/// Entries that become durable together, or not at all.
#[derive(Clone, Debug)]
pub struct Group {
    time: Timestamp,
    entries: Vec<Entry>,
    payloads: Vec<Bytes>,
    directory_len: usize,
    payload_len: usize,
}

impl Group {
    /// The append time of everything in it.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The data of the appends, in the order of their entries.
    pub fn payloads(&self) -> &[Bytes] {
        &self.payloads
    }

    /// Bytes it takes on disk, with padding.
    pub const fn bytes_on_disk(&self) -> u64 {
        self.encoded_len() as u64
    }

    /// Entries and data.
    pub fn into_parts(self) -> (Vec<Entry>, Vec<Bytes>) {
        (self.entries, self.payloads)
    }

    pub(super) const fn directory_len(&self) -> usize {
        self.directory_len
    }

    pub(super) const fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Bytes on disk, with padding.
    pub(super) const fn encoded_len(&self) -> usize {
        round_up(GroupHeader::LEN + self.directory_len + self.payload_len)
    }

    /// The highest segment that an entry of this group trims.
    pub(super) fn trims_through(&self) -> Option<u64> {
        let through = |entry: &Entry| match entry {
            Entry::Trim { through_segment, .. } => Some(*through_segment),
            _ => None,
        };
        self.entries.iter().filter_map(through).max()
    }
}

const fn data_len(entry: &Entry) -> usize {
    match entry {
        Entry::Append(append) => append.data_len as usize,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use oncelog_proto::ProducerId;

    use super::{super::options::Options, *};

    #[test]
    fn a_draft_is_full_exactly_at_its_limit() {
        let limit = Options { segment_bytes: 1 << 20, ..Options::new(0) }.group_limit();
        let mut draft = GroupDraft::new(limit);
        let entry = Entry::Seen { producer: ProducerId::MIN };
        while draft.fits(&entry) {
            draft.push(entry.clone());
        }
        let group = draft.finish(Timestamp::default());
        assert!(group.encoded_len() <= limit.get());
        assert!(group.encoded_len() + entry_codec::encoded_len(&entry) > limit.get());
    }
}
