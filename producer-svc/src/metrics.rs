//! What the service tells of itself in numbers: each metric's definition, and what is counted for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use oncelog_edge::metrics::{
    Histogram, Metric, Registry, Unit,
    calls::{Calls, Side},
};

use crate::{
    buffer::Buffer,
    session::{Counts, OutgoingBatch},
};

/// Counted since the start of the process. All of it is known from then on.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Calls that are made to the broker.
    pub(crate) broker_calls: Arc<Calls>,
    pub(crate) records_appended: Counter,
    pub(crate) records_refused: Counter,
    pub(crate) records_unknown: Counter,
    pub(crate) produce_calls: Counter,
    pub(crate) produce_failures: Counter,
    pub(crate) init_calls: Counter,
    pub(crate) alarms: Counter,
    pub(crate) duplicates: Counter,
    batches: Counter,
    resends: Counter,
    batch_bytes: Arc<Histogram>,
    batch_records: Arc<Histogram>,
    batch_fill: Arc<Histogram>,
    batch_size: usize,
}

/// Where a number is counted.
type Count = fn(&Metrics) -> &Counter;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// What its owner has counted so far.
    fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// Nothing is counted yet. A batch is full at `batch_size` bytes.
    pub(crate) fn new(batch_size: usize) -> Self {
        Self {
            broker_calls: Arc::new(Calls::of(&["oncelog.v1.BrokerService"])),
            records_appended: Counter::default(),
            records_refused: Counter::default(),
            records_unknown: Counter::default(),
            produce_calls: Counter::default(),
            produce_failures: Counter::default(),
            init_calls: Counter::default(),
            alarms: Counter::default(),
            duplicates: Counter::default(),
            batches: Counter::default(),
            resends: Counter::default(),
            batch_bytes: Arc::new(Histogram::of_bytes()),
            batch_records: Arc::new(Histogram::of_counts()),
            batch_fill: Arc::new(Histogram::of_shares()),
            batch_size,
        }
    }

    /// A batch leaves in a call.
    pub(crate) fn sent(&self, OutgoingBatch { packed, .. }: &OutgoingBatch) {
        let plain = u64::from(packed.uncompressed_bytes());
        self.batch_bytes.record(packed.data().len() as u64);
        self.batch_records.record(u64::from(packed.count().get().unsigned_abs()));
        // `batch.size` 0 means that no batch waits for a second record.
        self.batch_fill.record((plain * 1_000).checked_div(self.batch_size as u64).unwrap_or(1_000));
    }

    /// What the session has counted so far.
    pub(crate) fn session(&self, Counts { batches, resends }: Counts) {
        self.batches.set(batches);
        self.resends.set(resends);
    }

    /// All of them, as they are told.
    pub(crate) fn registry(self: &Arc<Self>, served: &Arc<Calls>, buffer: &Buffer) -> Registry {
        let mut all = Registry::default();
        all.info(&BUILD_INFO, env!("CARGO_PKG_VERSION"));
        served.register(&mut all, Side::Server, &CALLS_ACTIVE);
        self.broker_calls.register(&mut all, Side::Client, &BROKER_CALLS_ACTIVE);

        let counted = |counter: Count| {
            let metrics = Arc::clone(self);
            move || Some(counter(&metrics).get())
        };
        let outcomes: [(_, Count); 3] = [
            ("appended", |metrics| &metrics.records_appended),
            ("refused", |metrics| &metrics.records_refused),
            ("unknown", |metrics| &metrics.records_unknown),
        ];
        let metrics = Arc::clone(self);
        all.counters(&RECORDS, outcomes, move |counter| Some(counter(&metrics).get()));
        all.counter(&PRODUCE_CALLS, counted(|metrics| &metrics.produce_calls));
        all.counter(&PRODUCE_FAILURES, counted(|metrics| &metrics.produce_failures));
        all.counter(&INIT_CALLS, counted(|metrics| &metrics.init_calls));
        all.counter(&ALARMS, counted(|metrics| &metrics.alarms));
        all.counter(&BATCHES, counted(|metrics| &metrics.batches));
        all.counter(&RESENDS, counted(|metrics| &metrics.resends));
        all.counter(&DUPLICATES, counted(|metrics| &metrics.duplicates));
        all.histogram(&BATCH_BYTES, &self.batch_bytes);
        all.histogram(&BATCH_RECORDS, &self.batch_records);
        all.histogram(&BATCH_FILL, &self.batch_fill);

        let of_buffer = |bytes: fn(&Buffer) -> usize| {
            let buffer = buffer.clone();
            move || Some(bytes(&buffer) as u64)
        };
        all.gauge(&BUFFER_MEMORY, of_buffer(Buffer::capacity));
        all.gauge(&BUFFER_AVAILABLE, of_buffer(Buffer::available));
        all
    }
}

static BUILD_INFO: Metric =
    Metric::new("oncelog.producer.build_info", Unit::Count("build"), "Always 1; its label tells the version.").by(&["version"]);
static CALLS_ACTIVE: Metric = Metric::new("oncelog.producer.calls.active", Unit::Count("call"), "Calls that are being answered.");
static BROKER_CALLS_ACTIVE: Metric =
    Metric::new("oncelog.producer.broker_calls.active", Unit::Count("call"), "Calls to the broker that are in flight.");
static RECORDS: Metric =
    Metric::new("oncelog.producer.records", Unit::Count("record"), "Records that were taken in, by outcome.").by(&["outcome"]);
static PRODUCE_CALLS: Metric =
    Metric::new("oncelog.producer.produce_calls", Unit::Count("call"), "Produce calls sent to the broker.");
static PRODUCE_FAILURES: Metric =
    Metric::new("oncelog.producer.produce_failures", Unit::Count("call"), "Produce calls that failed as a whole.");
static INIT_CALLS: Metric =
    Metric::new("oncelog.producer.init_calls", Unit::Count("call"), "InitProducerId calls sent to the broker.");
static ALARMS: Metric =
    Metric::new("oncelog.producer.alarms", Unit::Count("alarm"), "What an operator has to hear of; see the log.");
static BATCHES: Metric = Metric::new("oncelog.producer.batches", Unit::Count("batch"), "Batches that were given a tag and sent.");
static RESENDS: Metric = Metric::new("oncelog.producer.batch.retries", Unit::Count("batch"), "Batches that were sent again.");
static DUPLICATES: Metric = Metric::new(
    "oncelog.producer.duplicates",
    Unit::Count("batch"),
    "Batches that the broker had already when they were sent again.",
);
static BATCH_BYTES: Metric =
    Metric::new("oncelog.producer.batch.bytes", Unit::Bytes, "Sizes of batches as sent, those sent again included.");
static BATCH_RECORDS: Metric =
    Metric::new("oncelog.producer.batch.records", Unit::Count("record"), "Records of batches as sent.");
static BATCH_FILL: Metric = Metric::new(
    "oncelog.producer.batch.fill_ratio",
    Unit::Ratio,
    "Sizes of batches before compression, as shares of batch.size.",
);
static BUFFER_MEMORY: Metric = Metric::new("oncelog.producer.buffer.memory", Unit::Bytes, "Bytes of buffer.memory.");
static BUFFER_AVAILABLE: Metric =
    Metric::new("oncelog.producer.buffer.available", Unit::Bytes, "Bytes of buffer.memory that are free.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_observability_shows_every_metric() {
        let metrics = Arc::new(Metrics::new(1));
        let table = metrics.registry(&Arc::new(Calls::of(&[])), &Buffer::new(1)).table();
        let page = include_str!("../../docs/observability.md");
        assert!(page.contains(&table), "docs/observability.md should have this table:\n{table}");
    }
}
