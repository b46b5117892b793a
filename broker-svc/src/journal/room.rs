//! How much can certainly still be written. Whoever admits records asks before it promises them a place: a group that finds no
//! room once it is gathered is one that nobody can be told the truth about.

use super::{Journal, options::MARKER_ROOM, segment_header::SegmentHeader};

impl Journal {
    /// Bytes of groups that the journal can take: what is left of the active segment, the spares, and what the disk can still
    /// allocate beyond one segment, which is left to the others who use it.
    pub fn room(&self) -> u64 {
        let overhead = SegmentHeader::LEN as u64 + MARKER_ROOM;
        let segment = self.options().segment_bytes;
        let usable = segment.saturating_sub(overhead);
        let free = self.free_space().saturating_sub(segment);
        let segments = self.stats().spares as u64 + free / segment;
        // A group that does not fit what is left of a segment leaves that unused: less than its own length each time. And if
        // groups are nearly as long as segments, two segments one after the other still hold more than one's worth.
        let held = usable.saturating_sub(self.group_limit().get() as u64).max(usable / 2);
        self.left_in_segment().max(segments.saturating_mul(held))
    }
}
