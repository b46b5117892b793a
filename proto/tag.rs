//! The tag of a batch.

use std::fmt;

use crate::{Epoch, ProducerId, RecordCount, Sequence};

/// What makes a batch recognisable when it arrives again. A batch gets its tag once and keeps it until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Whose batch it is.
    pub producer: ProducerId,
    /// Of which incarnation of that producer.
    pub epoch: Epoch,
    /// Sequence of its first record.
    pub base: Sequence,
}

impl Tag {
    /// The sequence after the batch's last record; none if the batch would pass the highest sequence.
    pub fn end(self, count: RecordCount) -> Option<Sequence> {
        self.base.checked_add(count)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer {} epoch {} sequence {}", self.producer, self.epoch, self.base)
    }
}
