//! Proves that what came back is what was sent: every record once, byte for byte, in order.
//!
//! Order is promised to one sender within one partition. So the numbers of each *lane* (what one connection, stream or caller
//! sent, one after the other) have to rise within each partition; between lanes there is no order.

use anyhow::{Context, ensure};
use bytes::Bytes;

use crate::values::Values;

/// Which lane a record was sent in, by its number.
pub type LaneOf = dyn Fn(u64) -> usize;

/// What has been read back so far.
pub struct Ledger<'a> {
    values: &'a Values,
    lane_of: &'a LaneOf,
    seen: Vec<u64>,
    records: u64,
    count: u64,
    /// The last number of each lane in the partition that is being read.
    last: Vec<Option<u64>>,
}

impl std::fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} records", self.count, self.records)
    }
}

impl<'a> Ledger<'a> {
    /// For `records` records, sent in `lanes` lanes.
    pub fn new(values: &'a Values, records: u64, lanes: usize, lane_of: &'a LaneOf) -> Self {
        let words = usize::try_from(records.div_ceil(64)).expect("as many as were sent");
        Self { values, lane_of, seen: vec![0; words], records, count: 0, last: vec![None; lanes] }
    }

    /// What follows was read from another partition.
    pub fn next_partition(&mut self) {
        self.last.fill(None);
    }

    /// The next record of the partition.
    ///
    /// # Errors
    /// It was changed on the way, was not sent, came before, or came too late.
    pub fn enter(&mut self, value: Option<&Bytes>) -> anyhow::Result<()> {
        let value = value.context("a record came back without a value")?;
        let number = self
            .values
            .number(value)
            .with_context(|| format!("after {} records one came back that was never sent: {} bytes", self.count, value.len()))?;
        ensure!(number < self.records, "record {number} came back; only {} were sent", self.records);
        let (word, bit) = (usize::try_from(number / 64)?, 1 << (number % 64));
        ensure!(self.seen[word] & bit == 0, "record {number} is in the log twice");
        self.seen[word] |= bit;
        let last = &mut self.last[(self.lane_of)(number)];
        ensure!(last.is_none_or(|last| last < number), "record {number} came back after {last:?} of the same sender");
        *last = Some(number);
        self.count += 1;
        Ok(())
    }

    /// How many were sent.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many came back so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many came back: all of them.
    ///
    /// # Errors
    /// Some did not.
    pub fn close(self) -> anyhow::Result<u64> {
        let is_seen = |number: &u64| self.seen[usize::try_from(number / 64).expect("an index")] >> (number % 64) & 1 == 1;
        if let Some(lost) = (0..self.records).find(|number| !is_seen(number)) {
            anyhow::bail!("record {lost} was acknowledged and is not in the log; {} of {} are", self.count, self.records);
        }
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(partitions: &[&[u64]], records: u64) -> Result<u64, String> {
        let values = Values::random(20);
        let by_parity = |number: u64| usize::from(number % 2 == 1);
        let mut ledger = Ledger::new(&values, records, 2, &by_parity);
        let mut enter = || -> anyhow::Result<()> {
            for partition in partitions {
                ledger.next_partition();
                for number in *partition {
                    ledger.enter(values.record(*number).value.as_ref())?;
                }
            }
            Ok(())
        };
        enter().and_then(|()| ledger.close()).map_err(|e| e.to_string())
    }

    #[test]
    fn lanes_interleave_and_partitions_begin_anew() {
        assert_eq!(read(&[&[1, 0, 3, 2], &[5, 4]], 6), Ok(6));
        assert_eq!(read(&[&[4], &[0, 1, 2, 3]], 5), Ok(5));
    }

    #[test]
    fn what_is_lost_doubled_reordered_or_foreign_is_found() {
        assert_eq!(read(&[&[0, 2]], 3), Err("record 1 was acknowledged and is not in the log; 2 of 3 are".to_owned()));
        assert_eq!(read(&[&[0, 1], &[0]], 2), Err("record 0 is in the log twice".to_owned()));
        assert!(read(&[&[2, 0, 1]], 3).is_err_and(|e| e.starts_with("record 0 came back after Some(2)")));
        assert_eq!(read(&[&[3]], 3), Err("record 3 came back; only 3 were sent".to_owned()));
    }
}
