//! The index of a sealed segment: a derived file. If it is missing or is not the one of its segment, it is made anew.
//!
//! Header, then one line for each block, sorted by partition and offset, then the blocks. In memory stay partition and first
//! offset of each block, 12 bytes; the rest is read when it is needed, and the page cache is its cache.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice},
};

use bytes::{Buf, BufMut};
use oncelog_proto::Offset;

use super::{
    disk::{self, Disk, read_vec},
    identity::{self, Identity},
    memory_index::{MemoryIndex, add_trimmed},
    names::FileName,
    position::Position,
};
use crate::entry::{PartitionId, Trimmed};

/// What stays in memory of an index file.
#[derive(Debug)]
pub(super) struct IndexFile {
    segment: u64,
    lines_checksum: u32,
    partitions: Vec<u32>,
    firsts: Vec<i64>,
}

/// Why a part of an index file could not be read.
#[derive(Debug)]
pub(super) enum IndexFault {
    /// Not just now; the file may be sound.
    Io(io::Error),
    /// It is not what was written, or is not there, or cannot be read: the index has to be made anew.
    Damaged,
}

impl From<io::Error> for IndexFault {
    fn from(e: io::Error) -> Self {
        if disk::is_passing(&e) { Self::Io(e) } else { Self::Damaged }
    }
}

impl IndexFile {
    /// Writes the index of a segment that ends at `end`. The directory is not synced: a file that is lost is made anew.
    pub(super) fn write(disk: &dyn Disk, identity: &Identity, end: &Position, index: &MemoryIndex) -> io::Result<()> {
        let blocks = index.iter().count();
        let mut lines = Vec::with_capacity(blocks * LINE_LEN);
        let mut position = (HEADER_LEN + blocks * LINE_LEN) as u64;
        for (partition, block) in index.iter() {
            lines.put_u32_le(partition.0);
            lines.put_u32_le(block.batches());
            lines.put_i64_le(block.first().get());
            lines.put_i64_le(block.end().get());
            lines.put_u64_le(block.stored());
            lines.put_u64_le(position);
            lines.put_u32_le(u32::try_from(block.bytes().len()).expect("1,024 batches are below 100 KiB"));
            lines.put_u32_le(block_checksum(partition, block.first(), block.bytes()));
            position += block.bytes().len() as u64;
        }
        let mut header = identity::start(MAGIC, identity);
        end.encode(&mut header);
        header.put_u64_le(blocks as u64);
        header.put_u32_le(crc32c::crc32c(&lines));
        header.put_u64_le(position);
        let header = identity::seal(header, HEADER_LEN);
        let mut slices = vec![IoSlice::new(&header), IoSlice::new(&lines)];
        slices.extend(index.iter().map(|(_, block)| IoSlice::new(block.bytes())));
        disk::write_aside(disk, &FileName::Index(end.segment).to_string(), &slices)
    }

    /// Loads the index of the segment that ends at `end`; none if there is none that fits and can be read.
    ///
    /// # Errors
    /// Not just now.
    pub(super) fn load(disk: &dyn Disk, identity: &Identity, end: &Position) -> io::Result<Option<Self>> {
        match Self::read(disk, identity, end) {
            Err(e) if !disk::is_passing(&e) => Ok(None),
            result => result,
        }
    }

    fn read(disk: &dyn Disk, identity: &Identity, end: &Position) -> io::Result<Option<Self>> {
        let name = FileName::Index(end.segment).to_string();
        let file = disk.open(&name)?;
        let header = read_vec(&*file, 0, HEADER_LEN)?;
        let Ok((owner, mut fields)) = identity::open(&header, MAGIC, HEADER_LEN) else { return Ok(None) };
        let fits = owner.cluster == identity.cluster && Position::decode(&mut fields) == Ok(*end);
        let (Ok(blocks), Ok(checksum)) = (fields.try_get_u64_le(), fields.try_get_u32_le()) else { return Ok(None) };
        let len = file.len()?;
        // The header's checksum vouches for the number; the file's length bounds it all the same.
        if !fits || fields.try_get_u64_le() != Ok(len) || blocks > len / LINE_LEN as u64 {
            return Ok(None);
        }
        let blocks = usize::try_from(blocks).expect("fewer than the file has bytes, and those are in memory soon");
        let lines = read_vec(&*file, HEADER_LEN as u64, blocks * LINE_LEN)?;
        if lines.len() != blocks * LINE_LEN || crc32c::crc32c(&lines) != checksum {
            return Ok(None);
        }
        let (partitions, firsts) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
        let mut index = Self { segment: end.segment, lines_checksum: checksum, partitions, firsts };
        for line in lines.chunks(LINE_LEN).map(Line::decode) {
            index.partitions.push(line.partition.0);
            index.firsts.push(line.first);
        }
        Ok(Some(index))
    }

    /// Number of the partition's last block that starts at or below the offset.
    pub(super) fn find(&self, partition: PartitionId, offset: Offset) -> Option<usize> {
        let blocks = self.range(partition);
        self.firsts[blocks].partition_point(|first| *first <= offset.get()).checked_sub(1)
    }

    /// How many blocks the partition has.
    pub(super) fn count(&self, partition: PartitionId) -> usize {
        self.range(partition).len()
    }

    /// The packed batches of the partition's block of this number, which exists.
    pub(super) fn block(&self, disk: &dyn Disk, partition: PartitionId, number: usize) -> Result<Vec<u8>, IndexFault> {
        let at = self.range(partition).start + number;
        let file = disk.open(&FileName::Index(self.segment).to_string())?;
        let bytes = read_vec(&*file, (HEADER_LEN + at * LINE_LEN) as u64, LINE_LEN)?;
        if bytes.len() != LINE_LEN {
            return Err(IndexFault::Damaged);
        }
        let line = Line::decode(&bytes);
        if line.len > MAX_BLOCK_BYTES {
            return Err(IndexFault::Damaged);
        }
        let block = read_vec(&*file, line.position, line.len as usize)?;
        // The checksum covers whose block it is, so a line that changed since it was loaded is noticed too.
        let first = Offset::new(self.firsts[at]).map_err(|_| IndexFault::Damaged)?;
        if block.len() != line.len as usize || block_checksum(partition, first, &block) != line.checksum {
            return Err(IndexFault::Damaged);
        }
        Ok(block)
    }

    /// What each partition loses if the segment goes.
    pub(super) fn contents(&self, disk: &dyn Disk) -> Result<Vec<Trimmed>, IndexFault> {
        let file = disk.open(&FileName::Index(self.segment).to_string())?;
        let lines = read_vec(&*file, HEADER_LEN as u64, self.partitions.len() * LINE_LEN)?;
        if lines.len() != self.partitions.len() * LINE_LEN || crc32c::crc32c(&lines) != self.lines_checksum {
            return Err(IndexFault::Damaged);
        }
        let mut contents = Vec::new();
        for line in lines.chunks_exact(LINE_LEN).map(Line::decode) {
            let log_start = Offset::new(line.end).map_err(|_| IndexFault::Damaged)?;
            add_trimmed(&mut contents, Trimmed { partition: line.partition, log_start, bytes: line.stored });
        }
        Ok(contents)
    }

    /// Does it say exactly what this index says? What cannot be read says nothing.
    pub(super) fn holds(&self, disk: &dyn Disk, expected: &MemoryIndex) -> bool {
        let mut numbers = BTreeMap::new();
        let is_same = expected.iter().all(|(partition, block)| {
            let number: &mut usize = numbers.entry(partition).or_default();
            *number += 1;
            *number <= self.count(partition) && self.block(disk, partition, *number - 1).is_ok_and(|bytes| bytes == block.bytes())
        });
        is_same && expected.iter().count() == self.partitions.len()
    }

    fn range(&self, partition: PartitionId) -> std::ops::Range<usize> {
        let start = self.partitions.partition_point(|p| *p < partition.0);
        start..start + self.partitions[start..].partition_point(|p| *p == partition.0)
    }
}

struct Line {
    partition: PartitionId,
    first: i64,
    end: i64,
    stored: u64,
    position: u64,
    len: u32,
    checksum: u32,
}

impl Line {
    fn decode(mut bytes: &[u8]) -> Self {
        let partition = PartitionId(bytes.get_u32_le());
        bytes.advance(4);
        Self {
            partition,
            first: bytes.get_i64_le(),
            end: bytes.get_i64_le(),
            stored: bytes.get_u64_le(),
            position: bytes.get_u64_le(),
            len: bytes.get_u32_le(),
            checksum: bytes.get_u32_le(),
        }
    }
}

fn block_checksum(partition: PartitionId, first: Offset, bytes: &[u8]) -> u32 {
    let mut whose = [0; 12];
    whose[..4].copy_from_slice(&partition.0.to_le_bytes());
    whose[4..].copy_from_slice(&first.get().to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&whose), bytes)
}

const MAGIC: &[u8; 8] = b"OLINDEX\0";
const HEADER_LEN: usize = 128;
const LINE_LEN: usize = 48;
/// 1,024 batches of at most 73 bytes each.
const MAX_BLOCK_BYTES: u32 = 128 << 10;
