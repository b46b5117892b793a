//! The first 4 KiB of a segment. Its `prev` says where the segment before ended, so that no hole between files goes unseen; it is
//! also the durable record of a cut that an opening made there.

use bytes::{Buf, BufMut};

use super::{
    group_header::BLOCK,
    identity::{self, FileFault, Identity},
    position::Position,
};

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    /// From 1, without gaps.
    pub(super) number: u64,
    /// Random. No bytes of another segment are ever taken for a group of this one.
    pub(super) salt: u64,
    /// The opening that made it, from 1.
    pub(super) opening: u64,
    /// The last segment that was no longer part of the log when this one was made; 0 for none.
    pub(super) trimmed_through: u64,
    /// Where the log ended before this segment; all zero in the first one.
    pub(super) prev: Position,
    /// The file was a segment before: behind the last group stands one block of zeros, and then old bytes.
    pub(super) recycled: bool,
}

impl SegmentHeader {
    /// Bytes of the header; the first group starts behind it.
    pub(super) const LEN: usize = BLOCK;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = identity::start(MAGIC, &self.identity);
        out.put_u64_le(self.number);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.opening);
        out.put_u64_le(self.trimmed_through);
        self.prev.encode(&mut out);
        out.put_u8(self.recycled.into());
        identity::seal(out, Self::LEN)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FileFault> {
        let (identity, mut fields) = identity::open(bytes, MAGIC, Self::LEN)?;
        Ok(Self {
            identity,
            number: fields.try_get_u64_le()?,
            salt: fields.try_get_u64_le()?,
            opening: fields.try_get_u64_le()?,
            trimmed_through: fields.try_get_u64_le()?,
            prev: Position::decode(&mut fields)?,
            recycled: match fields.try_get_u8()? {
                0 => false,
                1 => true,
                other => return Err(FileFault::Damaged(format!("it is made in the way {other}, which is none"))),
            },
        })
    }

    /// Where the first group of this segment starts: behind the header, after the last group of the segment before.
    pub(super) const fn start(&self) -> Position {
        Position {
            segment: self.number,
            salt: self.salt,
            byte: Self::LEN as u64,
            group: self.prev.group,
            time: self.prev.time,
            chain: self.prev.chain,
        }
    }
}

const MAGIC: &[u8; 8] = b"OLSEGMNT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        let header = SegmentHeader {
            identity: Identity { cluster: [1; 16], incarnation: 0 },
            number: 4,
            salt: 5,
            opening: 6,
            trimmed_through: 2,
            prev: Position { segment: 3, salt: 9, byte: 8192, ..Position::default() },
            recycled: true,
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), SegmentHeader::LEN);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    }
}
