//! A snapshot's bytes: a header with the position it was taken at, chunks of state each with a checksum, and a footer that counts
//! them. What the chunks say is the state's business.

use std::io;

use bytes::{Buf, BufMut};
use oncelog_defects::{Defect, is_on};

use super::{
    disk::{DiskFile, read_vec},
    identity::{self, FileFault, Identity},
    position::Position,
};

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotHeader {
    pub(super) identity: Identity,
    /// The state is the one after this group.
    pub(super) position: Position,
    /// The last segment that was no longer part of the log when it was taken; 0 for none.
    pub(super) trimmed_through: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    File(#[from] FileFault),
}

impl SnapshotHeader {
    pub(super) const LEN: usize = 4096;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = identity::start(MAGIC, &self.identity);
        self.position.encode(&mut out);
        out.put_u64_le(self.trimmed_through);
        identity::seal(out, Self::LEN)
    }

    fn decode(bytes: &[u8]) -> Result<Self, FileFault> {
        let (identity, mut fields) = identity::open(bytes, MAGIC, Self::LEN)?;
        let position = Position::decode(&mut fields)?;
        Ok(Self { identity, position, trimmed_through: fields.try_get_u64_le()? })
    }
}

/// What stands before a chunk: its length and its checksum, seeded with where it belongs.
pub(super) fn chunk_head(position: &Position, number: u64, chunk: &[u8]) -> [u8; CHUNK_HEAD_LEN] {
    assert!((1..=MAX_CHUNK_BYTES).contains(&chunk.len()), "a chunk has 1 byte to 16 MiB");
    let mut head = [0; CHUNK_HEAD_LEN];
    head[..4].copy_from_slice(&u32::try_from(chunk.len()).expect("at most 16 MiB").to_le_bytes());
    head[4..].copy_from_slice(&checksum(position, number, chunk).to_le_bytes());
    head
}

/// What stands behind the last chunk.
pub(super) fn footer(position: &Position, chunks: u64) -> [u8; FOOTER_LEN] {
    let mut footer = [0; FOOTER_LEN];
    footer[4..12].copy_from_slice(&chunks.to_le_bytes());
    let checksum = checksum(position, chunks, &footer[..12]);
    footer[12..].copy_from_slice(&checksum.to_le_bytes());
    footer
}

/// Reads a snapshot chunk by chunk, in constant memory.
#[derive(Debug)]
pub(super) struct SnapshotReader<'a> {
    file: &'a dyn DiskFile,
    header: SnapshotHeader,
    at: u64,
    chunks: u64,
}

impl<'a> SnapshotReader<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> Result<Self, SnapshotFault> {
        let header = SnapshotHeader::decode(&read_vec(file, 0, SnapshotHeader::LEN)?)?;
        Ok(Self { file, header, at: SnapshotHeader::LEN as u64, chunks: 0 })
    }

    /// Reads a snapshot to its end: every checksum is right, and nothing is missing or too much.
    pub(super) fn verify(file: &'a dyn DiskFile) -> Result<SnapshotHeader, SnapshotFault> {
        let mut reader = Self::new(file)?;
        while reader.next()?.is_some() {}
        Ok(reader.header)
    }

    /// The next chunk; none behind a whole last one.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, SnapshotFault> {
        let damaged = |at: u64, what: &str| SnapshotFault::File(FileFault::Damaged(format!("{what} at byte {at}")));
        let head = read_vec(self.file, self.at, FOOTER_LEN)?;
        let (Some(len), Some(found)) = (field(&head, 0), field(&head, 4)) else {
            return Err(damaged(self.at, "it ends within a chunk"));
        };
        let position = self.header.position;
        if len == 0 {
            let at_end = self.at + FOOTER_LEN as u64 == self.file.len()?;
            let whole = at_end && head == footer(&position, self.chunks);
            return if whole { Ok(None) } else { Err(damaged(self.at, "its footer is not the one expected")) };
        }
        if len as usize > MAX_CHUNK_BYTES {
            return Err(damaged(self.at, "a chunk claims more than 16 MiB"));
        }
        let chunk = read_vec(self.file, self.at + CHUNK_HEAD_LEN as u64, len as usize)?;
        let matches = || checksum(&position, self.chunks, &chunk) == found || is_on(Defect::SnapshotIsNotChecked);
        if chunk.len() != len as usize || !matches() {
            return Err(damaged(self.at, "a chunk does not match its checksum"));
        }
        self.at += CHUNK_HEAD_LEN as u64 + u64::from(len);
        self.chunks += 1;
        Ok(Some(chunk))
    }
}

fn field(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|mut field| field.get_u32_le())
}

fn checksum(position: &Position, number: u64, bytes: &[u8]) -> u32 {
    let seed = [position.salt, position.byte, number].map(u64::to_le_bytes).concat();
    crc32c::crc32c_append(crc32c::crc32c(&seed), bytes)
}

/// Largest chunk of a state.
pub(super) const MAX_CHUNK_BYTES: usize = 16 << 20;

const MAGIC: &[u8; 8] = b"OLSNAPSH";
const CHUNK_HEAD_LEN: usize = 8;
/// Zero for a length, the number of chunks, a checksum.
const FOOTER_LEN: usize = 16;
