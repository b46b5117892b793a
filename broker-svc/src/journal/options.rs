//! What can be chosen about a journal, and the limits that follow from it.

use super::{
    entry_codec,
    group_header::{self, GroupHeader},
    segment_header::SegmentHeader,
};

/// How a journal keeps its files. Any of it may differ from one opening to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a segment file in bytes: 1 MiB to 4 GiB, a multiple of 4,096. Default 256 MiB.
    pub segment_bytes: u64,
    /// A snapshot is due after this many bytes of journal, from 1 MiB. Retention can only trim what is older than two snapshots,
    /// so this is well below what shall be retained. Default 512 MiB.
    pub snapshot_every_bytes: u64,
    /// How many files whose blocks have been written before are kept ready to become segments, 0 to 4; writing into them is about
    /// twice as fast. They are made of zeros, or of segments that retention gives up, and of these two more are kept; 0: none of
    /// either. Default 1.
    pub spares: usize,
    /// Space kept back so that a full disk can still take a snapshot and trim; 0 for none. Default 64 MiB.
    pub ballast_bytes: u64,
    /// Where salts and the cluster's id come from: random for each opening. Two openings of one directory never share a seed.
    pub seed: u64,
}

impl Options {
    /// The defaults, with a random number of the caller's.
    pub const fn new(seed: u64) -> Self {
        Self { segment_bytes: 256 << 20, snapshot_every_bytes: 512 << 20, spares: 1, ballast_bytes: 64 << 20, seed }
    }

    /// Most bytes that one group may have on disk: 8 MiB, or what fits a segment.
    pub fn group_limit(&self) -> GroupLimit {
        let fits = self.segment_bytes.saturating_sub(SegmentHeader::LEN as u64 + MARKER_ROOM);
        GroupLimit(usize::try_from(fits.min(MAX_GROUP_BYTES)).expect("at most 8 MiB"))
    }

    /// Largest stored data of a batch that fits a group of its own.
    pub fn max_batch_bytes(&self) -> usize {
        self.group_limit().0.saturating_sub(GroupHeader::LEN + entry_codec::TAGGED_APPEND_LEN)
    }

    /// What is wrong with them, in a sentence that names the value and what is allowed.
    pub(super) fn check(&self) -> Result<(), String> {
        let segment = self.segment_bytes;
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment) || !segment.is_multiple_of(group_header::BLOCK as u64) {
            return Err(format!(
                "segment_bytes is {segment}; allowed is {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES}, in multiples of 4096"
            ));
        }
        if self.snapshot_every_bytes < MIN_SEGMENT_BYTES {
            let every = self.snapshot_every_bytes;
            return Err(format!("snapshot_every_bytes is {every}; allowed is from {MIN_SEGMENT_BYTES}"));
        }
        if self.spares > MAX_SPARES {
            return Err(format!("spares is {}; allowed is 0 to {MAX_SPARES}", self.spares));
        }
        Ok(())
    }
}

/// Most bytes of a group on disk. A multiple of 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupLimit(usize);

impl GroupLimit {
    /// The plain number of bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Smallest segment; also what a segment has that is made from the ballast.
pub(super) const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Largest segment.
const MAX_SEGMENT_BYTES: u64 = 4 << 30;
/// Most spares kept.
const MAX_SPARES: usize = 4;
/// A group is whole in memory more than once, and a commit takes as long as its group.
pub(super) const MAX_GROUP_BYTES: u64 = 8 << 20;
/// What a marker takes, in bytes on disk.
pub const MARKER_BYTES: u64 = group_header::BLOCK as u64;
/// Kept free behind every group: a MARKER when it gets quiet and a CLEAN one at the end never need a new segment, and behind the
/// last group of a segment there is always a block of zeros.
pub(super) const MARKER_ROOM: u64 = 3 * group_header::BLOCK as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_on_both_sides() {
        let with = |change: &dyn Fn(&mut Options)| {
            let mut options = Options::new(0);
            change(&mut options);
            options.check().is_ok()
        };
        assert!(with(&|_| {}));
        assert!(with(&|o| o.segment_bytes = MIN_SEGMENT_BYTES));
        assert!(!with(&|o| o.segment_bytes = MIN_SEGMENT_BYTES - 4096));
        assert!(with(&|o| o.segment_bytes = MAX_SEGMENT_BYTES));
        assert!(!with(&|o| o.segment_bytes = MAX_SEGMENT_BYTES + 4096));
        assert!(!with(&|o| o.segment_bytes = MIN_SEGMENT_BYTES + 1));
        assert!(with(&|o| o.spares = MAX_SPARES));
        assert!(!with(&|o| o.spares = MAX_SPARES + 1));
        assert!(!with(&|o| o.snapshot_every_bytes = MIN_SEGMENT_BYTES - 1));
    }

    #[test]
    fn a_group_is_at_most_8_mib_and_fits_its_segment() {
        assert_eq!(Options::new(0).group_limit().get(), 8 << 20);
        let small = Options { segment_bytes: 1 << 20, ..Options::new(0) };
        assert_eq!(small.group_limit().get(), (1 << 20) - 4096 - 3 * 4096);
    }
}
