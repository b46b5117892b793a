//! Records become batches: what waits, untagged, for its turn in one partition.
//!
//! Invariant: order of arrival is order in the queue, across batches and within them. A batch that comes back (its tag is
//! void and it is certainly not in the log) goes before everything that arrived later.

mod batch;

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
    time::Duration,
};

use oncelog_proto::{Compression, Monotonic, record_set::RecordSetEncoder, v1::Record};

pub use batch::record_cost;
pub(crate) use batch::{Batch, Share};

use crate::session::{Moment, SendId};

/// The untagged records of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accumulator {
    closed: VecDeque<Batch>,
    open: Option<OpenBatch>,
}

/// When an open batch takes no further record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseRule {
    /// The record would bring it above this many bytes before compression. The first record of a batch always fits.
    pub(crate) bytes: usize,
    /// It was created this long ago: who joined it now would share its delivery timeout and be left with the rest of it.
    pub(crate) age: Duration,
    /// How it is compressed once it is closed.
    pub(crate) compression: Compression,
}

/// When an open batch may go out: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyRule {
    /// It has lingered this long for more records.
    pub(crate) linger: Duration,
    /// It has this many bytes before compression.
    pub(crate) bytes: usize,
}

/// A batch that takes records.
#[derive(Clone, Debug)]
struct OpenBatch {
    encoder: RecordSetEncoder,
    shares: Vec<Share>,
    created: Monotonic,
    compression: Compression,
}

impl Accumulator {
    /// Appends the record at `index` of a `Send`. True if it opened a batch; else only [`ReadyRule::bytes`] may have been
    /// reached.
    pub(crate) fn push(&mut self, record: &Record, send: SendId, index: usize, rule: CloseRule, now: Monotonic) -> bool {
        let added = RecordSetEncoder::added_len(record);
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.encoder.encoded_len() + added > rule.bytes || now.since(open.created) > rule.age)
        {
            self.close();
        }
        let opens = self.open.is_none();
        let open = self.open.get_or_insert_with(|| OpenBatch {
            encoder: RecordSetEncoder::default(),
            shares: Vec::new(),
            created: now,
            compression: rule.compression,
        });
        open.encoder.push(record);
        match open.shares.last_mut() {
            Some(share) if share.send == send && share.first + share.count == index => share.count += 1,
            _ => open.shares.push(Share { send, first: index, count: 1 }),
        }
        opens
    }

    /// When its first batch may go out: a closed one at once, an open one by the rule.
    pub(crate) fn ready_at(&self, rule: ReadyRule) -> Option<Monotonic> {
        match (self.closed.front(), &self.open) {
            (Some(_), _) => Some(Monotonic::default()),
            (None, Some(_)) if self.is_full(rule.bytes) => Some(Monotonic::default()),
            (None, Some(open)) => Some(open.created.plus(rule.linger)),
            (None, None) => None,
        }
    }

    /// Has the batch that takes records so many bytes?
    pub(crate) fn is_full(&self, bytes: usize) -> bool {
        self.open.as_ref().is_some_and(|open| open.encoder.encoded_len() >= bytes)
    }

    /// The batch that is next, closed if it was still open.
    pub(crate) fn front(&mut self) -> Option<&Batch> {
        if self.closed.is_empty() {
            self.close();
        }
        self.closed.front()
    }

    /// Takes the batch that is next.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        self.front()?;
        self.closed.pop_front()
    }

    /// Puts a batch back, before all that are as old or younger. Without tags batches come back one by one, as their answers
    /// do: an older one may have come back before and still be waiting here.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        let place = self.closed.partition_point(|waiting| waiting.created() < batch.created());
        self.closed.insert(place, batch);
    }

    /// When its oldest batch was created.
    pub(crate) fn oldest(&self) -> Option<Monotonic> {
        self.closed.front().map(Batch::created).or_else(|| self.open.as_ref().map(|open| open.created))
    }

    /// Closed batches in it.
    pub(crate) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// Does nothing wait?
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_none()
    }

    /// What decides its future.
    pub(crate) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        self.closed.len().hash(into);
        self.closed.iter().for_each(|batch| batch.digest(moment, into));
        self.open.as_ref().map(|open| (&open.shares, moment.age(open.created))).hash(into);
    }

    fn close(&mut self) {
        if let Some(OpenBatch { encoder, shares, created, compression }) = self.open.take() {
            self.closed.push_back(Batch::pack(encoder, shares, created, compression));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: ReadyRule = ReadyRule { linger: Duration::from_millis(5), bytes: 20 };

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_micros(ms * 1000)
    }

    fn record(len: usize) -> Record {
        Record { value: Some(vec![b'x'; len].into()), ..Record::default() }
    }

    fn rule(bytes: usize) -> CloseRule {
        CloseRule { bytes, age: Duration::from_secs(1), compression: Compression::None }
    }

    fn sizes(mut accumulator: Accumulator) -> Vec<i32> {
        std::iter::from_fn(|| accumulator.take()).map(|b| b.record_count().get()).collect()
    }

    #[test]
    fn a_batch_takes_exactly_its_limit() {
        let added = RecordSetEncoder::added_len(&record(10));
        for (limit, expected) in [(3 * added, vec![3, 1]), (3 * added - 1, vec![2, 2])] {
            let mut accumulator = Accumulator::default();
            for i in 0..4 {
                accumulator.push(&record(10), SendId(0), i, rule(limit), at(0));
            }
            assert_eq!(sizes(accumulator), expected, "{limit}");
        }
    }

    #[test]
    fn a_record_above_the_limit_has_its_own_batch() {
        let mut accumulator = Accumulator::default();
        for (i, len) in [10, 500, 10].into_iter().enumerate() {
            accumulator.push(&record(len), SendId(0), i, rule(100), at(0));
        }
        assert_eq!(sizes(accumulator), [1, 1, 1]);
    }

    #[test]
    fn an_open_batch_is_ready_after_linger_and_a_closed_one_at_once() {
        let mut accumulator = Accumulator::default();
        assert_eq!(accumulator.ready_at(READY), None);
        assert!(accumulator.push(&record(10), SendId(0), 0, rule(20), at(3)), "opens a batch");
        assert_eq!(accumulator.ready_at(READY), Some(at(8)));
        assert!(!accumulator.push(&record(1), SendId(0), 1, rule(20), at(4)), "joins it");
        assert_eq!(accumulator.ready_at(READY), Some(at(8)));
        assert!(accumulator.push(&record(10), SendId(0), 2, rule(20), at(5)), "opens the next");
        assert_eq!(accumulator.ready_at(READY), Some(at(0)));
    }

    #[test]
    fn an_open_batch_is_ready_at_once_when_it_is_full() {
        let added = RecordSetEncoder::added_len(&record(10));
        for (bytes, ready) in [(2 * added, at(0)), (2 * added + 1, at(8))] {
            let mut accumulator = Accumulator::default();
            for index in 0..2 {
                accumulator.push(&record(10), SendId(0), index, rule(1000), at(3));
            }
            assert_eq!(accumulator.ready_at(ReadyRule { bytes, ..READY }), Some(ready), "{bytes}");
        }
    }

    #[test]
    fn nobody_joins_a_batch_whose_time_has_mostly_passed() {
        for (ms, expected) in [(1000, vec![2]), (1001, vec![1, 1])] {
            let mut accumulator = Accumulator::default();
            accumulator.push(&record(1), SendId(0), 0, rule(1000), at(0));
            accumulator.push(&record(1), SendId(0), 1, rule(1000), at(ms));
            assert_eq!(sizes(accumulator), expected, "{ms}");
        }
    }

    #[test]
    fn neighbours_of_one_send_share_an_entry() {
        let mut accumulator = Accumulator::default();
        for (send, index) in [(1, 0), (1, 1), (2, 0), (2, 2), (2, 3)] {
            accumulator.push(&record(1), SendId(send), index, rule(1000), at(0));
        }
        let shares: Vec<_> = accumulator.take().expect("one").shares().iter().map(|s| (s.send.0, s.first, s.count)).collect();
        assert_eq!(shares, [(1, 0, 2), (2, 0, 1), (2, 2, 2)]);
    }

    #[test]
    fn what_comes_back_goes_to_its_place_by_age() {
        for order in [[0, 1], [1, 0]] {
            let mut accumulator = Accumulator::default();
            for send in 0..3 {
                accumulator.push(&record(1), SendId(send), 0, rule(0), at(send));
            }
            let mut taken = [accumulator.take(), accumulator.take()];
            for index in order {
                accumulator.put_back(taken[index].take().expect("taken once"));
            }
            let sends: Vec<_> = std::iter::from_fn(|| accumulator.take()).map(|b| b.shares()[0].send.0).collect();
            assert_eq!(sends, [0, 1, 2], "{order:?}");
            assert!(accumulator.is_empty());
        }
    }
}
