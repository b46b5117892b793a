//! What the service counts, and how `/metrics` tells it.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) records_appended: Counter,
    pub(crate) records_refused: Counter,
    pub(crate) records_unknown: Counter,
    pub(crate) produce_calls: Counter,
    pub(crate) produce_failures: Counter,
    pub(crate) init_calls: Counter,
    pub(crate) alarms: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Metrics {
    /// In Prometheus' text format.
    pub(crate) fn text(&self, buffer_capacity: usize, buffer_available: usize) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
            let name = format!("oncelog_producer_{name}");
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let outcomes = [
            ("{outcome=\"appended\"}", self.records_appended.get()),
            ("{outcome=\"refused\"}", self.records_refused.get()),
            ("{outcome=\"unknown\"}", self.records_unknown.get()),
        ];
        family("records_total", "counter", "Records whose outcome was told.", &outcomes);
        family("produce_calls_total", "counter", "Produce calls sent to the broker.", &[("", self.produce_calls.get())]);
        family(
            "produce_failures_total",
            "counter",
            "Produce calls that were not answered.",
            &[("", self.produce_failures.get())],
        );
        family("init_calls_total", "counter", "InitProducerId calls sent to the broker.", &[("", self.init_calls.get())]);
        family("alarms_total", "counter", "What an operator has to hear of; see the log.", &[("", self.alarms.get())]);
        family("buffer_memory_bytes", "gauge", "buffer.memory.", &[("", buffer_capacity as u64)]);
        family("buffer_available_bytes", "gauge", "Bytes of buffer.memory that are free.", &[("", buffer_available as u64)]);
        text
    }
}
