//! One batch: records of one partition that travel together, and whom to tell what became of them.
//!
//! A batch is packed once. However often it is tagged and sent, its bytes stay the same (W17), because the broker tells a
//! duplicate from a conflict by their checksum. Only [`Batch::split`] makes new bytes, of a batch that has no living tag.

use std::hash::{Hash, Hasher};

use oncelog_proto::{Compression, Monotonic, PackedBatch, RecordCount, record_set::RecordSetEncoder, v1::Record};

use crate::session::{Moment, SendId};

/// Records of one partition, packed.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    packed: PackedBatch,
    shares: Vec<Share>,
    created: Monotonic,
}

/// Neighbouring records of one `Send`, as far as they are neighbours in a batch too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    /// Whose records.
    pub(crate) send: SendId,
    /// Index of the first of them in its `Send`.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
}

/// Bytes of `buffer.memory` that a record takes until its outcome is known: its encoding, and what is remembered to report
/// the outcome.
pub fn record_cost(record: &Record) -> usize {
    RecordSetEncoder::added_len(record) + OUTCOME_COST
}

impl Batch {
    /// Packs what an encoder holds. It has at least one record and at most 64 MiB.
    pub(super) fn pack(encoder: RecordSetEncoder, shares: Vec<Share>, created: Monotonic, compression: Compression) -> Self {
        let count =
            RecordCount::of_len(encoder.count()).expect("a batch is opened with its first record, and bytes bound the rest");
        assert_eq!(encoder.count(), shares.iter().map(|s| s.count).sum::<usize>(), "each record has one owner");
        let encoded = encoder.finish();
        let pack = |compression| {
            PackedBatch::pack(&encoded, count, compression)
                .expect("the session takes no record above 64 MiB and fills no batch beyond it")
        };
        // Incompressible records would grow beyond the limits that their plain bytes were held to.
        let packed = match pack(compression) {
            grown if grown.data().len() > encoded.len() => pack(Compression::None),
            packed => packed,
        };
        Self { packed, shares, created }
    }

    /// The bytes to send.
    pub(crate) fn packed(&self) -> &PackedBatch {
        &self.packed
    }

    /// Who waits for the outcome, in the order of the records.
    pub(crate) fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// When its first record arrived. Linger and delivery timeout count from here (C41).
    pub(crate) fn created(&self) -> Monotonic {
        self.created
    }

    /// Number of records.
    pub(crate) fn record_count(&self) -> RecordCount {
        self.packed.count()
    }

    /// Bytes of `buffer.memory`: the sum of [`record_cost`] over its records.
    pub(crate) fn cost(&self) -> usize {
        let records = usize::try_from(self.packed.count().get()).expect("a count is positive");
        self.packed.uncompressed_bytes() as usize + records * OUTCOME_COST
    }

    /// What decides its future: whose records it holds names them, so their bytes are not looked at.
    pub(crate) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        (&self.shares, moment.age(self.created)).hash(into);
    }

    /// Makes two batches of it, in order; they keep its creation time, hence its delivery timeout (C37).
    ///
    /// # Panics
    /// It has a single record.
    pub(crate) fn split(self, compression: Compression) -> [Self; 2] {
        assert!(self.record_count() > RecordCount::MIN, "a single record cannot be split");
        let records = self.packed.records().expect("these bytes were packed here");
        let middle = records.len() / 2;
        let (left, right) = split_shares(&self.shares, middle);
        let half = |records: &[Record], shares| {
            let mut encoder = RecordSetEncoder::default();
            records.iter().for_each(|record| encoder.push(record));
            Self::pack(encoder, shares, self.created, compression)
        };
        [half(&records[..middle], left), half(&records[middle..], right)]
    }
}

/// Cuts the owners of a batch after `middle` records.
fn split_shares(shares: &[Share], middle: usize) -> (Vec<Share>, Vec<Share>) {
    let (mut left, mut right, mut at) = (Vec::new(), Vec::new(), 0);
    for share in shares {
        let before = middle.saturating_sub(at).min(share.count);
        if before > 0 {
            left.push(Share { count: before, ..*share });
        }
        if before < share.count {
            right.push(Share { first: share.first + before, count: share.count - before, ..*share });
        }
        at += share.count;
    }
    (left, right)
}

/// What is remembered of a record beside its encoding, in bytes: its outcome, and its part of a share.
const OUTCOME_COST: usize = 128;

// Keeps the constant above honest when an outcome grows.
const _: () = assert!(size_of::<crate::session::RecordOutcome>() + size_of::<Share>() <= OUTCOME_COST);

#[cfg(test)]
mod tests {
    use super::*;

    fn values(packed: &PackedBatch) -> Vec<bytes::Bytes> {
        packed.records().expect("valid").into_iter().map(|r| r.value.unwrap_or_default()).collect()
    }

    fn batch(records: usize, compression: Compression) -> Batch {
        let mut encoder = RecordSetEncoder::default();
        for i in 0..records {
            encoder.push(&Record { value: Some(vec![b'0' + u8::try_from(i).expect("few"); 20].into()), ..Record::default() });
        }
        let shares = vec![Share { send: SendId(1), first: 0, count: 1 }, Share { send: SendId(2), first: 5, count: records - 1 }];
        Batch::pack(encoder, shares, Monotonic::from_micros(7), compression)
    }

    #[test]
    fn halves_have_all_records_in_order_and_each_its_owner() {
        let whole = batch(5, Compression::Snappy);
        let (before, created) = (values(whole.packed()), whole.created());
        let cost = whole.cost();
        let [left, right] = whole.split(Compression::Snappy);
        assert_eq!([values(left.packed()), values(right.packed())].concat(), before);
        assert_eq!(left.shares(), [Share { send: SendId(1), first: 0, count: 1 }, Share { send: SendId(2), first: 5, count: 1 }]);
        assert_eq!(right.shares(), [Share { send: SendId(2), first: 6, count: 3 }]);
        assert_eq!((left.created(), right.created()), (created, created));
        assert_eq!(left.cost() + right.cost(), cost);
    }

    #[test]
    fn cost_is_the_sum_of_its_records() {
        let record = Record { value: Some(vec![b'0'; 20].into()), ..Record::default() };
        for compression in [Compression::None, Compression::Zstd] {
            assert_eq!(batch(4, compression).cost(), 4 * record_cost(&record));
        }
    }

    #[test]
    fn what_does_not_shrink_is_sent_plain() {
        let packed = |value: Vec<u8>| {
            let mut encoder = RecordSetEncoder::default();
            encoder.push(&Record { value: Some(value.into()), ..Record::default() });
            let share = Share { send: SendId(1), first: 0, count: 1 };
            Batch::pack(encoder, vec![share], Monotonic::default(), Compression::Snappy).packed.compression()
        };
        assert_eq!(packed(vec![1]), Compression::None);
        assert_eq!(packed(vec![1; 1000]), Compression::Snappy);
    }
}
