//! What one run of one candidate gave.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One run. Everything is counted between the first record that was timed and the last acknowledgement, unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of their values.
    pub payload_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// CPU time of those who sent and received.
    pub client_cpu_seconds: f64,
    /// CPU time of the servers, by process.
    pub server_cpu_seconds: BTreeMap<String, f64>,
    /// Resident memory before the first record, by process, in bytes.
    pub idle_bytes: BTreeMap<String, u64>,
    /// The most resident memory there ever was (`VmHWM`), by process, in bytes.
    pub loaded_bytes: BTreeMap<String, u64>,
    /// Bytes of the log on disk afterwards. None: not on disk, or not known.
    pub disk_bytes: Option<u64>,
    /// How long acknowledgements took. None: not measured.
    pub latency_us: Option<Percentiles>,
    /// Records that were read back and found byte for byte, in order, once.
    pub verified: u64,
}

/// A distribution of durations, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten are shorter.
    pub p90: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// 999 of 1,000 are shorter.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of durations that were recorded in nanoseconds. None if there were none.
    pub fn of_nanos(histogram: &Histogram<u64>) -> Option<Self> {
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: micros(0.5),
            p90: micros(0.9),
            p99: micros(0.99),
            p99_9: micros(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

/// A histogram for durations in nanoseconds, up to ten minutes, with three digits kept.
pub fn nanos() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds and digits are allowed ones")
}
