//! The vocabulary of the journal: everything that ever changes what the broker knows.
//!
//! The state is a fold over these entries, live and at replay by the same code (I5). What is decided by a clock (expiry,
//! trimming, how long the broker was down) is an entry too, never a decision at replay.

use std::time::Duration;

use oncelog_proto::{Compression, Epoch, Offset, PartitionIndex, ProducerId, RecordCount, Tag, TopicName, topic::PartitionCount};

/// Names a partition for ever: given out once, never reused, so that a deleted topic's partitions and those of a new topic of
/// the same name are never confused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The id of the partition `index` of a topic whose first partition has this id.
    pub fn nth(self, index: PartitionIndex) -> Self {
        Self(self.0 + u32::try_from(index.get()).expect("an index is not negative"))
    }
}

/// The first 16 bytes of a hash of a recovery token (R13). The token itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 16]);

/// The first 16 bytes of a hash of the name of an identity: whose a producer id is. The name itself is not kept; who owns an id
/// is only ever compared with who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerHash(pub [u8; 16]);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A topic comes into being. Its partitions have the ids from `first_partition` on.
    CreateTopic {
        /// Its name; no living topic has it.
        topic: TopicName,
        /// Id of its partition 0.
        first_partition: PartitionId,
        /// How many partitions it has.
        partitions: PartitionCount,
    },
    /// A topic and everything in it is gone. Each producer with an entry of its current epoch in it gets a closed marker (R12).
    DeleteTopic {
        /// Its name.
        topic: TopicName,
    },
    /// A producer id is handed out (epoch 0) to somebody who is nobody in particular, or the epoch of any id is raised.
    InitProducer {
        /// The id.
        producer: ProducerId,
        /// Its epoch from now on.
        epoch: Epoch,
        /// Of the call that raised it; none for a fresh id.
        token: Option<TokenHash>,
    },
    /// A producer id is handed out, at epoch 0, and belongs to whoever got it.
    GrantProducer {
        /// The id.
        producer: ProducerId,
        /// Whose it is.
        owner: OwnerHash,
    },
    /// Records are in the log.
    Append(Append),
    /// A producer id is forgotten whole (R11): every later call with it is refused.
    Expire {
        /// The id.
        producer: ProducerId,
    },
    /// A producer was heard of without having appended anything. Written at most hourly for each.
    Seen {
        /// The id.
        producer: ProducerId,
    },
    /// The oldest segments, up to and including `through_segment`, are no longer part of the log.
    Trim {
        /// The last segment that goes.
        through_segment: u64,
        /// What each partition loses. A partition without records in those segments is not listed.
        partitions: Vec<Trimmed>,
    },
    /// Records of a partition are lost for good and an operator said so. Their offsets are never given out again.
    LostRange {
        /// The partition.
        partition: PartitionId,
        /// The first lost offset.
        from: Offset,
        /// The offset after the last lost one.
        to: Offset,
    },
    /// The journal was opened after the broker had been down for this long; that time does not count for expiry.
    Opened {
        /// By the wall clock, since the last group before.
        downtime: Duration,
        /// Nobody can tell whether that was a downtime or a wrong clock, or could not at an earlier opening, and no operator has
        /// said. As long as that is so nothing is dropped for its age and nobody expires.
        is_clock_doubtful: bool,
    },
}

/// The facts of an appended batch. Its data stands behind the directory of its group, so that replay need not read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    /// Where to.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Whose it is; none if it was appended without idempotence.
    pub tag: Option<Tag>,
    /// Number of records.
    pub count: RecordCount,
    /// How the data is compressed.
    pub compression: Compression,
    /// Length of the data before compression, in bytes.
    pub uncompressed_bytes: u32,
    /// Length of the data as stored, in bytes.
    pub data_len: u32,
    /// CRC-32C of the data as stored.
    pub checksum: u32,
}

/// What one partition loses by a [`Entry::Trim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trimmed {
    /// The partition.
    pub partition: PartitionId,
    /// Its lowest offset from now on.
    pub log_start: Offset,
    /// Stored bytes of records that go.
    pub bytes: u64,
}
