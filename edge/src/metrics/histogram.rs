//! How long and how large: buckets that many threads count into without waiting for each other.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;

/// A histogram. Counts whole numbers of its unit; of time nanoseconds, of shares thousandths.
#[derive(Debug)]
pub struct Histogram {
    /// The largest values that fall into the buckets; one more bucket takes the rest.
    bounds: &'static [u64],
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
    /// OTLP has no histogram that is read; so where there is an exporter, it is told each value.
    exported: OnceLock<Exported>,
}

#[derive(Debug)]
struct Exported {
    instrument: opentelemetry::metrics::Histogram<f64>,
    attributes: Vec<KeyValue>,
    /// How many whole numbers make one of what it is told in.
    per_whole: f64,
}

/// What it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// For each bound how many were no larger, and at the end how many there were.
    pub(super) cumulative: Vec<u64>,
    pub(super) sum: u64,
}

impl Histogram {
    /// For time: the bounds that OpenTelemetry's conventions give for calls, 5 ms to 10 s.
    pub fn of_calls() -> Self {
        Self::new(CALL_BOUNDS)
    }

    /// For the time of a sync: from 50 µs, which a fast disk takes, to 10 s.
    pub fn of_syncs() -> Self {
        Self::new(SYNC_BOUNDS)
    }

    /// For sizes in bytes, 256 B to 16 MiB.
    pub fn of_bytes() -> Self {
        Self::new(BYTE_BOUNDS)
    }

    /// For numbers of things, 1 to 10,000.
    pub fn of_counts() -> Self {
        Self::new(COUNT_BOUNDS)
    }

    /// For shares of a limit that may be passed: a hundredth to four times it.
    pub fn of_shares() -> Self {
        Self::new(SHARE_BOUNDS)
    }

    fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0), exported: OnceLock::new() }
    }

    /// Counts a value.
    pub fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        if let Some(exported) = self.exported.get() {
            exported.instrument.record(value as f64 / exported.per_whole, &exported.attributes);
        }
    }

    /// Counts a time.
    pub fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    pub(super) fn counted(&self) -> Counted {
        let mut total = 0;
        let cumulative = self.buckets.iter().map(|bucket| {
            total += bucket.load(Ordering::Relaxed);
            total
        });
        Counted { cumulative: cumulative.collect(), sum: self.sum.load(Ordering::Relaxed) }
    }

    /// From now on the values are told to `instrument`, too. The first instrument stays.
    pub(super) fn export(&self, instrument: opentelemetry::metrics::Histogram<f64>, attributes: Vec<KeyValue>, per_whole: f64) {
        let _ = self.exported.set(Exported { instrument, attributes, per_whole });
    }
}

const MS: u64 = 1_000_000;
const US: u64 = 1_000;
const CALL_BOUNDS: &[u64] = &[
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    750 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    7_500 * MS,
    10_000 * MS,
];
const SYNC_BOUNDS: &[u64] = &[
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    10_000 * MS,
];
const BYTE_BOUNDS: &[u64] = &[256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
const SHARE_BOUNDS: &[u64] = &[10, 50, 100, 250, 500, 750, 900, 1_000, 2_000, 4_000];
const COUNT_BOUNDS: &[u64] = &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_bucket_of_its_bound_and_the_next_one_behind_it() {
        let histogram = Histogram::of_counts();
        for value in [0, 1, 2, 3, 10_000, 10_001] {
            histogram.record(value);
        }
        let counted = histogram.counted();
        assert_eq!(counted.cumulative, [2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6]);
        assert_eq!(counted.sum, 20_007);
    }
}
