//! Up to 1,024 batches of one partition in one segment, packed: each is told by how it differs from the one before.
//!
//! The first batch of a block is told by how it differs from nothing, so a block is read without any other. A block holds all
//! facts of its batches, so that a reader needs the segment for nothing but data.

use oncelog_proto::{Compression, Epoch, Offset, ProducerId, RecordCount, Sequence, Tag, Timestamp};

use super::varint;
use crate::entry::{Append, PartitionId};

/// A batch, when it was appended, and where its data starts in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexedBatch {
    pub(super) append: Append,
    pub(super) time: Timestamp,
    pub(super) position: u64,
}

impl IndexedBatch {
    /// The offset behind its last record.
    pub(super) fn end(&self) -> Offset {
        self.append.base_offset.checked_add(self.append.count).expect("checked when it was admitted, and when it was read")
    }
}

/// A block, full or still growing. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Block {
    first: Offset,
    batches: u32,
    stored: u64,
    bytes: Vec<u8>,
    last: Previous,
}

impl Block {
    /// A block of one batch.
    pub(super) fn new(batch: &IndexedBatch) -> Self {
        let mut block =
            Self { first: batch.append.base_offset, batches: 0, stored: 0, bytes: Vec::new(), last: Previous::default() };
        block.push(batch);
        block
    }

    /// Takes no more?
    pub(super) const fn is_full(&self) -> bool {
        self.batches >= MAX_BATCHES
    }

    /// Adds the partition's next batch.
    pub(super) fn push(&mut self, batch: &IndexedBatch) {
        assert!(!self.is_full(), "a full block takes no more");
        self.last.write(batch, &mut self.bytes);
        self.batches += 1;
        self.stored += u64::from(batch.append.data_len);
    }

    /// Offset of the first record.
    pub(super) const fn first(&self) -> Offset {
        self.first
    }

    /// Offset behind the last record.
    pub(super) fn end(&self) -> Offset {
        self.last.end_offset()
    }

    /// Number of batches.
    pub(super) const fn batches(&self) -> u32 {
        self.batches
    }

    /// Bytes of data that the batches have in the segment.
    pub(super) const fn stored(&self) -> u64 {
        self.stored
    }

    /// The packed batches.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Unpacks the batches of a block.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    partition: PartitionId,
    rest: &'a [u8],
    previous: Previous,
}

impl<'a> Batches<'a> {
    pub(super) fn new(partition: PartitionId, bytes: &'a [u8]) -> Self {
        Self { partition, rest: bytes, previous: Previous::default() }
    }

    /// The next batch; none at the end. An error: these bytes were never a block.
    pub(super) fn next(&mut self) -> Result<Option<IndexedBatch>, NotABlock> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.previous.read(self.partition, &mut self.rest).map(Some).ok_or(NotABlock)
    }
}

/// The bytes are not a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotABlock;

/// What the next batch is compared with.
#[derive(Clone, Copy, Debug, Default)]
struct Previous {
    end: i64,
    data_end: u64,
    time: u64,
    tag: Option<TagEnd>,
}

#[derive(Clone, Copy, Debug)]
struct TagEnd {
    producer: ProducerId,
    epoch: Epoch,
    next: i64,
}

impl Previous {
    fn end_offset(&self) -> Offset {
        Offset::new(self.end).expect("it is the end of a batch")
    }

    fn write(&mut self, batch: &IndexedBatch, out: &mut Vec<u8>) {
        let append = &batch.append;
        let distance =
            |from: u64, to: u64| to.checked_sub(from).expect("a partition's batches go forward in offset, byte and time");
        let number = |n: i64| u64::try_from(n).expect("the numbers of a batch are not negative");
        let (known_tag, tag_flags) = match (append.tag, self.tag) {
            (None, _) => (true, 0),
            (Some(tag), Some(last)) if (tag.producer, tag.epoch) == (last.producer, last.epoch) => {
                let follows = if tag.base.get() == last.next { FOLLOWS } else { 0 };
                (true, TAGGED | SAME_PRODUCER | follows)
            }
            (Some(_), _) => (false, TAGGED),
        };
        out.push(append.compression.number() | tag_flags);
        varint::put(out, distance(number(self.end), number(append.base_offset.get())));
        varint::put(out, number(append.count.get().into()));
        varint::put(out, append.uncompressed_bytes.into());
        varint::put(out, append.data_len.into());
        varint::put(out, distance(self.data_end, batch.position));
        varint::put(out, distance(self.time, batch.time.as_micros()));
        out.extend_from_slice(&append.checksum.to_le_bytes());
        if let Some(tag) = append.tag {
            if !known_tag {
                varint::put(out, number(tag.producer.get()));
                varint::put(out, number(tag.epoch.get().into()));
            }
            if tag_flags & FOLLOWS == 0 {
                varint::put(out, number(tag.base.get()));
            }
        }
        self.advance(batch);
    }

    fn read(&mut self, partition: PartitionId, bytes: &mut &[u8]) -> Option<IndexedBatch> {
        let (&flags, rest) = bytes.split_first()?;
        *bytes = rest;
        let compression = Compression::from_number((flags & COMPRESSION).into())?;
        let base_offset = i64::try_from(varint::take(bytes)?).ok().and_then(|gap| self.end.checked_add(gap))?;
        let count = RecordCount::new(varint::take(bytes)?.try_into().ok()?).ok()?;
        let uncompressed_bytes = varint::take(bytes)?.try_into().ok()?;
        let data_len = varint::take(bytes)?.try_into().ok()?;
        let position = self.data_end.checked_add(varint::take(bytes)?)?;
        let time = Timestamp::from_micros(self.time.checked_add(varint::take(bytes)?)?);
        let (checksum, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        let tag = if flags & TAGGED == 0 {
            None
        } else {
            let (producer, epoch, next) = if flags & SAME_PRODUCER == 0 {
                let producer = ProducerId::new(varint::take(bytes)?.try_into().ok()?).ok()?;
                (producer, Epoch::new(varint::take(bytes)?.try_into().ok()?).ok()?, None)
            } else {
                let last = self.tag?;
                (last.producer, last.epoch, Some(last.next))
            };
            let base = if flags & FOLLOWS == 0 { varint::take(bytes)?.try_into().ok()? } else { next? };
            Some(Tag { producer, epoch, base: Sequence::new(base).ok()? })
        };
        let append = Append {
            partition,
            base_offset: Offset::new(base_offset).ok()?,
            tag,
            count,
            compression,
            uncompressed_bytes,
            data_len,
            checksum: u32::from_le_bytes(*checksum),
        };
        // What `advance` adds up must not overflow.
        append.base_offset.checked_add(count)?;
        position.checked_add(data_len.into())?;
        if let Some(tag) = tag {
            tag.end(count)?;
        }
        let batch = IndexedBatch { append, time, position };
        self.advance(&batch);
        Some(batch)
    }

    fn advance(&mut self, batch: &IndexedBatch) {
        let append = &batch.append;
        self.end = batch.end().get();
        self.data_end = batch.position + u64::from(append.data_len);
        self.time = batch.time.as_micros();
        if let Some(tag) = append.tag {
            let next = tag.end(append.count).expect("checked when it was admitted, and when it was read");
            self.tag = Some(TagEnd { producer: tag.producer, epoch: tag.epoch, next: next.get() });
        }
    }
}

/// A reader that looks for an offset unpacks half of this on average.
pub(super) const MAX_BATCHES: u32 = 1024;

/// The first byte of a batch: its compression's number, and how much of its tag is told by the one before.
const COMPRESSION: u8 = 0x07;
const TAGGED: u8 = 0x10;
const SAME_PRODUCER: u8 = 0x20;
const FOLLOWS: u8 = 0x40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batches() -> impl Strategy<Value = Vec<IndexedBatch>> {
        let step =
            (0..3_i64, 1..100_i32, 0..5000_u32, 0..9000_u64, 0..10_u64, any::<u32>(), prop::option::of((0..3_i64, 0..2_i64)));
        prop::collection::vec(step, 1..60).prop_map(|steps| {
            let (mut offset, mut position, mut time, mut sequences) = (0, 4096, 1_764_000_000_000_000, [0; 3]);
            let mut made = Vec::new();
            for (gap, count, data_len, distance, later, checksum, tagged) in steps {
                offset += gap;
                position += distance;
                time += later;
                let tag = tagged.map(|(producer, gap)| {
                    let next = &mut sequences[usize::try_from(producer).expect("small")];
                    let base = *next + gap;
                    *next = base + i64::from(count);
                    Tag {
                        producer: ProducerId::new(producer).expect("small"),
                        epoch: Epoch::ZERO,
                        base: Sequence::new(base).expect("small"),
                    }
                });
                let append = Append {
                    partition: PartitionId(9),
                    base_offset: Offset::new(offset).expect("small"),
                    tag,
                    count: RecordCount::new(count).expect("small"),
                    compression: Compression::Zstd,
                    uncompressed_bytes: data_len * 2,
                    data_len,
                    checksum,
                };
                made.push(IndexedBatch { append, time: Timestamp::from_micros(time), position });
                offset += i64::from(count);
                position += u64::from(data_len);
            }
            made
        })
    }

    proptest! {
        #[test]
        fn batches_come_back_as_they_were(batches in batches()) {
            let mut block = Block::new(&batches[0]);
            for batch in &batches[1..] {
                block.push(batch);
            }
            prop_assert_eq!(block.first(), batches[0].append.base_offset);
            prop_assert_eq!(block.end(), batches[batches.len() - 1].end());
            prop_assert_eq!(block.stored(), batches.iter().map(|b| u64::from(b.append.data_len)).sum::<u64>());
            let mut unpacked = Batches::new(PartitionId(9), block.bytes());
            for batch in batches {
                prop_assert_eq!(unpacked.next(), Ok(Some(batch)));
            }
            prop_assert_eq!(unpacked.next(), Ok(None));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut unpacked = Batches::new(PartitionId(0), &bytes);
            while let Ok(Some(_)) = unpacked.next() {}
        }
    }
}
