//! What is sent: the same for every candidate of a row.

use serde::{Deserialize, Serialize};

/// A load. A record's number, from 0, is its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Bytes of each record's value; records have no key, unless a row says so.
    pub record_bytes: usize,
    /// Record `i` goes to partition `i % partitions`; where records travel together, message `m` goes to `m % partitions`.
    pub partitions: u32,
    /// How many.
    pub records: u64,
    /// Records that may be unacknowledged at once.
    pub unacknowledged: usize,
    /// Records a second, open loop: latency counts from when a record was due. None: as fast as it goes.
    pub rate: Option<f64>,
}

impl Load {
    /// Bytes of all values together.
    pub fn payload_bytes(&self) -> u64 {
        self.records * self.record_bytes as u64
    }
}
