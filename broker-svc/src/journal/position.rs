//! Where a group ends. The one form in which segments, indexes and snapshots point into the journal.

use std::fmt;

use bytes::{Buf, BufMut, TryGetError};
use oncelog_proto::Timestamp;

/// Counts groups, from 1, across segments. A group that was cut after a crash gives its number to the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNumber(u64);

impl GroupNumber {
    /// Before the first group.
    pub const NONE: Self = Self(0);

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn next(self) -> Self {
        // At a group each nanosecond this lasts for 580 years; a file that claims more is caught when it is read.
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for GroupNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The end of a group, with enough of its identity that it is never mistaken for a place of the same numbers in another history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the segment; 0 before the first one.
    pub(super) segment: u64,
    /// The segment's salt.
    pub(super) salt: u64,
    /// The byte of the segment at which the group ends.
    pub(super) byte: u64,
    /// The group.
    pub(super) group: GroupNumber,
    /// The group's time.
    pub(super) time: Timestamp,
    /// The group's header checksum, which covers that of the group before, and so on.
    pub(super) chain: u32,
}

impl Position {
    /// The group that ends here; [`GroupNumber::NONE`] before the first.
    pub const fn group(&self) -> GroupNumber {
        self.group
    }

    /// The group's time; 1970 before the first.
    pub const fn time(&self) -> Timestamp {
        self.time
    }

    /// Number of the segment that holds the group; 0 before the first.
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.segment);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.byte);
        out.put_u64_le(self.group.get());
        out.put_u64_le(self.time.as_micros());
        out.put_u32_le(self.chain);
        out.put_u32_le(0);
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Self, TryGetError> {
        let position = Self {
            segment: bytes.try_get_u64_le()?,
            salt: bytes.try_get_u64_le()?,
            byte: bytes.try_get_u64_le()?,
            group: GroupNumber::new(bytes.try_get_u64_le()?),
            time: Timestamp::from_micros(bytes.try_get_u64_le()?),
            chain: bytes.try_get_u32_le()?,
        };
        bytes.try_get_u32_le()?;
        Ok(position)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} at the end of byte {} of segment {}", self.group, self.byte, self.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position =
            Position { segment: 1, salt: 2, byte: 3, group: GroupNumber::new(4), time: Timestamp::from_micros(5), chain: 6 };
        let mut bytes = Vec::new();
        position.encode(&mut bytes);
        assert_eq!(bytes.len(), 48);
        assert_eq!(Position::decode(&mut &bytes[..]).expect("complete"), position);
    }
}
