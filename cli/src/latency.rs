//! How long things took: percentiles over all of them, in little memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A distribution. Three digits, from a microsecond to an hour.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

/// Of it, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(LONGEST_MICROS, 3).expect("the bounds are valid"))
    }

    /// So many took so long; longer than an hour counts as an hour.
    pub(crate) fn record(&mut self, took: Duration, many: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record_n(micros, many);
    }

    /// None: nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        })
    }
}

const LONGEST_MICROS: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        latency.record(Duration::from_micros(100), 98);
        latency.record(Duration::from_micros(900), 1);
        latency.record(Duration::from_secs(7_200), 1);
        let told = latency.percentiles().expect("a hundred");
        assert_eq!((told.p50, told.p90, told.p99), (100, 100, 900));
        // Three digits.
        assert!(told.max.abs_diff(LONGEST_MICROS) < LONGEST_MICROS / 1_000, "{told:?}");
    }
}
