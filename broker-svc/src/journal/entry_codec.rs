//! How an entry stands in a group's directory. The facts of a batch, never its data.
//!
//! What is decoded is valid: numbers are within their ranges, and a sum that a later reader would form does not overflow.

use std::time::Duration;

use bytes::{Buf, BufMut, TryGetError};
use oncelog_proto::{
    Compression, Epoch, Offset, ProducerId, RecordCount, Sequence, Tag, TopicName, packed::MAX_UNCOMPRESSED_BYTES,
    topic::PartitionCount,
};

use crate::entry::{Append, Entry, OwnerHash, PartitionId, TokenHash, Trimmed};

/// What stood in a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// An entry.
    Entry(Entry),
    /// One of a later version, which said that who does not know it may pass over it.
    Ignored,
}

/// Why an entry could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryFault {
    #[error("an entry of kind {0}, which this version does not know and must not pass over")]
    Unknown(u8),
    #[error("an entry that is cut")]
    Cut,
    #[error("an entry of kind {kind} whose {what} is not valid")]
    Invalid { kind: u8, what: &'static str },
}

impl From<TryGetError> for EntryFault {
    fn from(_: TryGetError) -> Self {
        Self::Cut
    }
}

/// Bytes that the entry takes in a directory.
pub(super) fn encoded_len(entry: &Entry) -> usize {
    HEAD_LEN
        + match entry {
            Entry::CreateTopic { topic, .. } => 8 + topic.as_str().len(),
            Entry::DeleteTopic { topic } => topic.as_str().len(),
            Entry::InitProducer { token, .. } => 8 + 4 + token.map_or(0, |t| t.0.len()),
            Entry::GrantProducer { owner, .. } => 8 + owner.0.len(),
            Entry::Append(append) => APPEND_LEN + if append.tag.is_some() { TAG_LEN } else { 0 },
            Entry::Expire { .. } | Entry::Seen { .. } => 8,
            Entry::Opened { .. } => 8 + 1,
            Entry::Trim { partitions, .. } => 8 + partitions.len() * TRIMMED_LEN,
            Entry::LostRange { .. } => 4 + 8 + 8,
        }
}

/// Appends the entry to a directory.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let kind = match entry {
        Entry::CreateTopic { .. } => CREATE_TOPIC,
        Entry::DeleteTopic { .. } => DELETE_TOPIC,
        Entry::InitProducer { .. } => INIT_PRODUCER,
        Entry::GrantProducer { .. } => GRANT_PRODUCER,
        Entry::Append(_) => APPEND,
        Entry::Expire { .. } => EXPIRE,
        Entry::Seen { .. } => SEEN,
        Entry::Trim { .. } => TRIM,
        Entry::LostRange { .. } => LOST_RANGE,
        Entry::Opened { .. } => OPENED,
    };
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(encoded_len(entry) - HEAD_LEN).expect("a group is below 4 GiB"));
    match entry {
        Entry::CreateTopic { topic, first_partition, partitions } => {
            out.put_u32_le(first_partition.0);
            out.put_i32_le(partitions.get());
            out.put_slice(topic.as_str().as_bytes());
        }
        Entry::DeleteTopic { topic } => out.put_slice(topic.as_str().as_bytes()),
        Entry::InitProducer { producer, epoch, token } => {
            out.put_i64_le(producer.get());
            out.put_i32_le(epoch.get());
            if let Some(token) = token {
                out.put_slice(&token.0);
            }
        }
        Entry::GrantProducer { producer, owner } => {
            out.put_i64_le(producer.get());
            out.put_slice(&owner.0);
        }
        Entry::Append(append) => encode_append(append, out),
        Entry::Expire { producer } | Entry::Seen { producer } => out.put_i64_le(producer.get()),
        Entry::Trim { through_segment, partitions } => {
            out.put_u64_le(*through_segment);
            for trimmed in partitions {
                out.put_u32_le(trimmed.partition.0);
                out.put_i64_le(trimmed.log_start.get());
                out.put_u64_le(trimmed.bytes);
            }
        }
        Entry::LostRange { partition, from, to } => {
            out.put_u32_le(partition.0);
            out.put_i64_le(from.get());
            out.put_i64_le(to.get());
        }
        Entry::Opened { downtime, is_clock_doubtful } => {
            out.put_u64_le(u64::try_from(downtime.as_micros()).unwrap_or(u64::MAX));
            out.put_u8(u8::from(*is_clock_doubtful));
        }
    }
}

fn encode_append(append: &Append, out: &mut Vec<u8>) {
    out.put_u32_le(append.partition.0);
    out.put_i64_le(append.base_offset.get());
    out.put_i32_le(append.count.get());
    out.put_u32_le(append.uncompressed_bytes);
    out.put_u32_le(append.data_len);
    out.put_u32_le(append.checksum);
    out.put_u8(append.compression.number());
    out.put_bytes(0, 3);
    if let Some(tag) = append.tag {
        out.put_i64_le(tag.producer.get());
        out.put_i32_le(tag.epoch.get());
        out.put_i64_le(tag.base.get());
    }
}

/// Takes an entry off the front of a directory.
pub(super) fn decode(directory: &mut &[u8]) -> Result<Decoded, EntryFault> {
    let kind = directory.try_get_u8()?;
    let flags = directory.try_get_u8()?;
    directory.try_get_u16_le()?;
    let len = directory.try_get_u32_le()? as usize;
    let (mut body, rest) = directory.split_at_checked(len).ok_or(EntryFault::Cut)?;
    *directory = rest;
    let mut fields = Fields { kind, rest: &mut body };
    let entry = match kind {
        CREATE_TOPIC => {
            let first_partition = fields.partition()?;
            let partitions = fields.valid("partition count", |b| Ok(PartitionCount::new(b.try_get_i32_le()?).ok()))?;
            if first_partition.0.checked_add(partitions.get().unsigned_abs()).is_none() {
                return Err(fields.invalid("first partition"));
            }
            Entry::CreateTopic { topic: fields.topic()?, first_partition, partitions }
        }
        DELETE_TOPIC => Entry::DeleteTopic { topic: fields.topic()? },
        INIT_PRODUCER => {
            let (producer, epoch) = (fields.producer()?, fields.epoch()?);
            Entry::InitProducer { producer, epoch, token: fields.token()? }
        }
        GRANT_PRODUCER => Entry::GrantProducer { producer: fields.producer()?, owner: fields.owner()? },
        APPEND => Entry::Append(fields.append()?),
        EXPIRE => Entry::Expire { producer: fields.producer()? },
        SEEN => Entry::Seen { producer: fields.producer()? },
        TRIM => {
            let through_segment = fields.rest.try_get_u64_le()?;
            Entry::Trim { through_segment, partitions: fields.trimmed()? }
        }
        LOST_RANGE => Entry::LostRange { partition: fields.partition()?, from: fields.offset()?, to: fields.offset()? },
        OPENED => {
            let downtime = Duration::from_micros(fields.rest.try_get_u64_le()?);
            let is_clock_doubtful = fields.valid("doubt", |b| {
                Ok(match b.try_get_u8()? {
                    0 => Some(false),
                    1 => Some(true),
                    _ => None,
                })
            })?;
            Entry::Opened { downtime, is_clock_doubtful }
        }
        _ if flags & IGNORABLE != 0 => return Ok(Decoded::Ignored),
        _ => return Err(EntryFault::Unknown(kind)),
    };
    if fields.rest.is_empty() { Ok(Decoded::Entry(entry)) } else { Err(EntryFault::Invalid { kind, what: "length" }) }
}

/// The body of an entry, read field by field.
struct Fields<'a, 'b> {
    kind: u8,
    rest: &'b mut &'a [u8],
}

impl Fields<'_, '_> {
    fn invalid(&self, what: &'static str) -> EntryFault {
        EntryFault::Invalid { kind: self.kind, what }
    }

    fn valid<T>(
        &mut self,
        what: &'static str,
        take: impl FnOnce(&mut &[u8]) -> Result<Option<T>, TryGetError>,
    ) -> Result<T, EntryFault> {
        take(self.rest)?.ok_or_else(|| self.invalid(what))
    }

    fn partition(&mut self) -> Result<PartitionId, EntryFault> {
        Ok(PartitionId(self.rest.try_get_u32_le()?))
    }

    fn producer(&mut self) -> Result<ProducerId, EntryFault> {
        self.valid("producer id", |b| Ok(ProducerId::new(b.try_get_i64_le()?).ok()))
    }

    fn epoch(&mut self) -> Result<Epoch, EntryFault> {
        self.valid("epoch", |b| Ok(Epoch::new(b.try_get_i32_le()?).ok()))
    }

    fn offset(&mut self) -> Result<Offset, EntryFault> {
        self.valid("offset", |b| Ok(Offset::new(b.try_get_i64_le()?).ok()))
    }

    fn topic(&mut self) -> Result<TopicName, EntryFault> {
        let name = std::str::from_utf8(std::mem::take(self.rest)).map_err(|_| self.invalid("topic name"))?;
        TopicName::parse(name).map_err(|_| self.invalid("topic name"))
    }

    fn token(&mut self) -> Result<Option<TokenHash>, EntryFault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut hash = [0; 16];
        self.rest.try_copy_to_slice(&mut hash)?;
        Ok(Some(TokenHash(hash)))
    }

    fn owner(&mut self) -> Result<OwnerHash, EntryFault> {
        let mut hash = [0; 16];
        self.rest.try_copy_to_slice(&mut hash)?;
        Ok(OwnerHash(hash))
    }

    fn trimmed(&mut self) -> Result<Vec<Trimmed>, EntryFault> {
        let mut partitions = Vec::with_capacity(self.rest.len() / TRIMMED_LEN);
        while !self.rest.is_empty() {
            let (partition, log_start) = (self.partition()?, self.offset()?);
            partitions.push(Trimmed { partition, log_start, bytes: self.rest.try_get_u64_le()? });
        }
        Ok(partitions)
    }

    fn append(&mut self) -> Result<Append, EntryFault> {
        let (partition, base_offset) = (self.partition()?, self.offset()?);
        let count = self.valid("record count", |b| Ok(RecordCount::new(b.try_get_i32_le()?).ok()))?;
        let uncompressed_bytes = self.rest.try_get_u32_le()?;
        let data_len = self.rest.try_get_u32_le()?;
        let checksum = self.rest.try_get_u32_le()?;
        let compression = self.valid("compression", |b| Ok(Compression::from_number(b.try_get_u8()?.into())))?;
        self.valid("padding", |b| Ok((b.try_get_u8()? == 0 && b.try_get_u16_le()? == 0).then_some(())))?;
        let tag = if self.rest.is_empty() {
            None
        } else {
            let (producer, epoch) = (self.producer()?, self.epoch()?);
            let base = self.valid("base sequence", |b| Ok(Sequence::new(b.try_get_i64_le()?).ok()))?;
            Some(Tag { producer, epoch, base })
        };
        if uncompressed_bytes as usize > MAX_UNCOMPRESSED_BYTES {
            return Err(self.invalid("uncompressed length"));
        }
        if base_offset.checked_add(count).is_none() || tag.is_some_and(|t| t.end(count).is_none()) {
            return Err(self.invalid("range"));
        }
        Ok(Append { partition, base_offset, tag, count, compression, uncompressed_bytes, data_len, checksum })
    }
}

/// Bytes that the entry of a tagged batch takes in a directory.
pub(super) const TAGGED_APPEND_LEN: usize = HEAD_LEN + APPEND_LEN + TAG_LEN;
/// Bytes that one partition takes in a Trim.
pub(super) const TRIMMED_LEN: usize = 4 + 8 + 8;

/// Kind, flags, two bytes of zero, length of what follows.
const HEAD_LEN: usize = 8;
const APPEND_LEN: usize = 32;
const TAG_LEN: usize = 20;
/// Flag: who does not know the kind may pass over it.
const IGNORABLE: u8 = 1;

const CREATE_TOPIC: u8 = 1;
const DELETE_TOPIC: u8 = 2;
const INIT_PRODUCER: u8 = 3;
const APPEND: u8 = 4;
const EXPIRE: u8 = 5;
const SEEN: u8 = 6;
const TRIM: u8 = 7;
const LOST_RANGE: u8 = 8;
const OPENED: u8 = 9;
/// From format 1.1 on.
const GRANT_PRODUCER: u8 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic() -> impl Strategy<Value = TopicName> {
        "[a-zA-Z0-9_-]{1,249}".prop_map(|name| TopicName::parse(&name).expect("allowed"))
    }

    fn producer() -> impl Strategy<Value = ProducerId> {
        (0..=i64::MAX).prop_map(|n| ProducerId::new(n).expect("not negative"))
    }

    fn epoch() -> impl Strategy<Value = Epoch> {
        (0..=i32::MAX).prop_map(|n| Epoch::new(n).expect("not negative"))
    }

    fn offset() -> impl Strategy<Value = Offset> {
        (0..=i64::MAX - i64::from(i32::MAX)).prop_map(|n| Offset::new(n).expect("not negative"))
    }

    fn append() -> impl Strategy<Value = Append> {
        let tag = (producer(), epoch(), offset()).prop_map(|(producer, epoch, n)| Tag {
            producer,
            epoch,
            base: Sequence::new(n.get()).expect("not negative"),
        });
        let compression = prop::sample::select(vec![0, 2, 3, 4]).prop_map(|n| Compression::from_number(n).expect("offered"));
        let numbers = (1..=i32::MAX, 0..=64_u32 << 20, any::<u32>(), any::<u32>());
        (any::<u32>(), offset(), prop::option::of(tag), numbers, compression).prop_map(
            |(partition, base_offset, tag, (count, uncompressed_bytes, data_len, checksum), compression)| Append {
                partition: PartitionId(partition),
                base_offset,
                tag,
                count: RecordCount::new(count).expect("from 1"),
                compression,
                uncompressed_bytes,
                data_len,
                checksum,
            },
        )
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let trimmed = (any::<u32>(), offset(), any::<u64>()).prop_map(|(partition, log_start, bytes)| Trimmed {
            partition: PartitionId(partition),
            log_start,
            bytes,
        });
        prop_oneof![
            (topic(), 0..u32::MAX - 10_000, 1..=10_000).prop_map(|(topic, first, n)| Entry::CreateTopic {
                topic,
                first_partition: PartitionId(first),
                partitions: PartitionCount::new(n).expect("allowed"),
            }),
            topic().prop_map(|topic| Entry::DeleteTopic { topic }),
            (producer(), epoch(), prop::option::of(any::<[u8; 16]>()))
                .prop_map(|(producer, epoch, token)| { Entry::InitProducer { producer, epoch, token: token.map(TokenHash) } }),
            (producer(), any::<[u8; 16]>())
                .prop_map(|(producer, owner)| Entry::GrantProducer { producer, owner: OwnerHash(owner) }),
            append().prop_map(Entry::Append),
            producer().prop_map(|producer| Entry::Expire { producer }),
            producer().prop_map(|producer| Entry::Seen { producer }),
            (any::<u64>(), prop::collection::vec(trimmed, 0..20))
                .prop_map(|(through_segment, partitions)| Entry::Trim { through_segment, partitions }),
            (any::<u32>(), offset(), offset()).prop_map(|(partition, from, to)| Entry::LostRange {
                partition: PartitionId(partition),
                from,
                to
            }),
            (any::<u64>(), any::<bool>()).prop_map(|(micros, is_clock_doubtful)| Entry::Opened {
                downtime: Duration::from_micros(micros),
                is_clock_doubtful
            }),
        ]
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_were(entries in prop::collection::vec(entry(), 1..10)) {
            let mut directory = Vec::new();
            for entry in &entries {
                let before = directory.len();
                encode(entry, &mut directory);
                prop_assert_eq!(directory.len() - before, encoded_len(entry));
            }
            let mut rest = &directory[..];
            for entry in entries {
                prop_assert_eq!(decode(&mut rest), Ok(Decoded::Entry(entry)));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn no_bytes_panic_and_a_cut_entry_is_refused(
            entry in entry(),
            cut: prop::sample::Index,
            at: prop::sample::Index,
            with: u8,
        ) {
            let mut directory = Vec::new();
            encode(&entry, &mut directory);
            prop_assert!(decode(&mut &directory[..cut.index(directory.len())]).is_err());
            let at = at.index(directory.len());
            directory[at] ^= with;
            let _ = decode(&mut &directory[..]);
        }
    }

    /// Byte for byte as format 1.0 wrote them, before ids had owners.
    #[test]
    fn producer_ids_of_format_1_0_are_read_as_nobodys() {
        let producer = ProducerId::new(7).expect("not negative");
        let fresh = [3, 0, 0, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let expected = Entry::InitProducer { producer, epoch: Epoch::ZERO, token: None };
        assert_eq!(decode(&mut &fresh[..]), Ok(Decoded::Entry(expected)));
        let raised = [&[3, 0, 0, 0, 28, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], &[9; 16]].concat();
        let epoch = Epoch::new(1).expect("not negative");
        let expected = Entry::InitProducer { producer, epoch, token: Some(TokenHash([9; 16])) };
        assert_eq!(decode(&mut &raised[..]), Ok(Decoded::Entry(expected)));
    }

    #[test]
    fn an_unknown_kind_is_refused_unless_it_may_be_passed_over() {
        let mut directory = vec![200, 0, 0, 0, 2, 0, 0, 0, 1, 2, 9];
        assert_eq!(decode(&mut &directory[..]), Err(EntryFault::Unknown(200)));
        directory[1] = IGNORABLE;
        let mut rest = &directory[..];
        assert_eq!(decode(&mut rest), Ok(Decoded::Ignored));
        assert_eq!(rest, &[9]);
    }

    #[test]
    fn a_range_that_overflows_is_refused() {
        let at = |base_offset: i64| {
            Entry::Append(Append {
                partition: PartitionId(0),
                base_offset: Offset::new(base_offset).expect("not negative"),
                tag: None,
                count: RecordCount::MIN,
                compression: Compression::None,
                uncompressed_bytes: 1,
                data_len: 1,
                checksum: 0,
            })
        };
        for (base_offset, taken) in [(i64::MAX - 1, true), (i64::MAX, false)] {
            let mut directory = Vec::new();
            encode(&at(base_offset), &mut directory);
            assert_eq!(decode(&mut &directory[..]).is_ok(), taken);
        }
    }
}
