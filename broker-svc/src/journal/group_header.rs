//! The first 96 bytes of a group: what it is, where it belongs, and what it is proof of.
//!
//! A header stands for itself: its checksum covers nothing but its own bytes, seeded with the segment's salt, and among them the
//! directory's checksum. So it testifies to the groups before it (its durable number) even where its own directory is damaged.

use bytes::{Buf, BufMut};
use oncelog_proto::Timestamp;

use super::position::{GroupNumber, Position};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// The segment it was written to, and the byte it starts at: a misdirected write is noticed.
    pub(super) segment: u64,
    pub(super) start: u64,
    pub(super) group: GroupNumber,
    /// The last group whose sync had returned when this one was written. That group can never be a torn one.
    pub(super) durable: GroupNumber,
    pub(super) time: Timestamp,
    /// The header checksum of the group before.
    pub(super) chain: u32,
    pub(super) mark: Mark,
    pub(super) entries: u32,
    pub(super) directory_len: u32,
    pub(super) directory_checksum: u32,
    pub(super) payload_len: u32,
}

/// What a group is besides its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Only its entries.
    None,
    /// A witness for the groups before it, without entries, written when it got quiet.
    Marker,
    /// The last group before a clean stop, without entries.
    Clean,
}

/// Why bytes are not a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    #[error("there is no group header")]
    Absent,
    #[error("the group header does not match its checksum")]
    Checksum,
    #[error("the group is of version {0} with flags {1:#x}; this version reads version 1 with flags up to 0x3")]
    Newer(u16, u16),
}

impl GroupHeader {
    /// Bytes of a header.
    pub(super) const LEN: usize = 96;

    /// Appends the header; returns its checksum, which the next group's header names as its chain.
    pub(super) fn encode(&self, salt: u64, out: &mut Vec<u8>) -> u32 {
        let start = out.len();
        out.put_slice(MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(self.chain);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.start);
        out.put_u64_le(self.group.get());
        out.put_u64_le(self.durable.get());
        out.put_u64_le(self.time.as_micros());
        out.put_u16_le(VERSION);
        out.put_u16_le(match self.mark {
            Mark::None => 0,
            Mark::Marker => MARKER,
            Mark::Clean => MARKER | CLEAN,
        });
        out.put_u32_le(self.entries);
        out.put_u32_le(self.directory_len);
        out.put_u32_le(self.directory_checksum);
        out.put_u32_le(self.payload_len);
        out.resize(start + Self::LEN, 0);
        let checksum = checksum(salt, &out[start..]);
        out[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// Reads a header and its checksum. Whether it is the one expected here is the caller's question.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Result<(Self, u32), HeaderFault> {
        let header = bytes.get(..Self::LEN).ok_or(HeaderFault::Absent)?;
        let mut rest = header.strip_prefix(MAGIC).ok_or(HeaderFault::Absent)?;
        let found = rest.get_u32_le();
        if found != checksum(salt, header) {
            return Err(HeaderFault::Checksum);
        }
        let chain = rest.get_u32_le();
        let (segment, start) = (rest.get_u64_le(), rest.get_u64_le());
        let (group, durable) = (GroupNumber::new(rest.get_u64_le()), GroupNumber::new(rest.get_u64_le()));
        let time = Timestamp::from_micros(rest.get_u64_le());
        let (version, flags) = (rest.get_u16_le(), rest.get_u16_le());
        let mark = match (version, flags) {
            (VERSION, 0) => Mark::None,
            (VERSION, MARKER) => Mark::Marker,
            (VERSION, 3) => Mark::Clean,
            _ => return Err(HeaderFault::Newer(version, flags)),
        };
        let (entries, directory_len) = (rest.get_u32_le(), rest.get_u32_le());
        let (directory_checksum, payload_len) = (rest.get_u32_le(), rest.get_u32_le());
        let header =
            Self { segment, start, group, durable, time, chain, mark, entries, directory_len, directory_checksum, payload_len };
        Ok((header, found))
    }

    /// Where the directory starts in the segment.
    pub(super) const fn directory_start(&self) -> u64 {
        self.start + Self::LEN as u64
    }

    /// Where the data starts in the segment.
    pub(super) const fn payload_start(&self) -> u64 {
        self.directory_start() + self.directory_len as u64
    }

    /// Where the next group starts in the segment.
    pub(super) const fn end(&self) -> u64 {
        round_up_u64(self.payload_start() + self.payload_len as u64)
    }

    /// The position behind this group, in a segment of this salt.
    pub(super) const fn position(&self, salt: u64, checksum: u32) -> Position {
        Position { segment: self.segment, salt, byte: self.end(), group: self.group, time: self.time, chain: checksum }
    }
}

fn checksum(salt: u64, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &header[12..])
}

/// `len` up to the next block.
pub(super) const fn round_up(len: usize) -> usize {
    len.next_multiple_of(BLOCK)
}

const fn round_up_u64(len: u64) -> u64 {
    len.next_multiple_of(BLOCK as u64)
}

/// Groups start at multiples of this and are padded with zeros, so that no commit rewrites a page with acknowledged bytes.
pub(super) const BLOCK: usize = 4096;
/// An empty block, or what pads one.
pub(super) static ZEROS: [u8; BLOCK] = [0; BLOCK];

const MAGIC: &[u8; 8] = b"OLGROUP\0";
const VERSION: u16 = 1;
const MARKER: u16 = 1;
const CLEAN: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> GroupHeader {
        GroupHeader {
            segment: 3,
            start: 8192,
            group: GroupNumber::new(7),
            durable: GroupNumber::new(6),
            time: Timestamp::from_micros(99),
            chain: 5,
            mark: Mark::Clean,
            entries: 2,
            directory_len: 100,
            directory_checksum: 77,
            payload_len: 4000,
        }
    }

    #[test]
    fn a_header_is_read_as_it_is_written_and_only_with_its_salt() {
        let mut bytes = Vec::new();
        let checksum = header().encode(1, &mut bytes);
        assert_eq!(bytes.len(), GroupHeader::LEN);
        assert_eq!(GroupHeader::decode(&bytes, 1), Ok((header(), checksum)));
        assert_eq!(GroupHeader::decode(&bytes, 2), Err(HeaderFault::Checksum));
        assert_eq!(header().end(), 8192 + 8192);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut bytes = Vec::new();
        header().encode(1, &mut bytes);
        for bit in 0..GroupHeader::LEN * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::decode(&bytes, 1).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
