//! What is read off a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measured::Measured;

/// A number of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// Bytes of values a second, in MB (10^6).
    PayloadRate,
    /// Records a second.
    RecordRate,
    /// Median of the latency, in microseconds.
    P50,
    /// 99 of 100 are faster, in microseconds.
    P99,
    /// How long it took.
    Seconds,
    /// CPU seconds of a million records, of the servers together.
    CpuPerMillion(Servers),
    /// CPU seconds of a million records on the client's side.
    ClientCpuPerMillion,
    /// Resident memory of all servers before the load, in MB.
    Idle,
    /// The most resident memory of all servers there ever was, in MB.
    Loaded,
    /// Bytes on disk for each byte of values.
    DiskPerByte,
}

/// Whose time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Servers {
    /// Of all of them.
    All,
    /// Of broker-svc alone.
    Broker,
}

impl Metric {
    /// The number; none if the run does not tell it.
    pub fn of(self, run: &Measured) -> Option<f64> {
        let per_million = |seconds: f64| Some(seconds * 1e6 / run.records as f64).filter(|_| run.records > 0);
        let number = match self {
            Self::PayloadRate => Some(run.payload_bytes as f64 / 1e6 / run.seconds),
            Self::RecordRate => Some(run.records as f64 / run.seconds),
            Self::P50 => run.latency_us.map(|latency| latency.p50),
            Self::P99 => run.latency_us.map(|latency| latency.p99),
            Self::Seconds => Some(run.seconds),
            Self::CpuPerMillion(server) => {
                let of = run.server_cpu_seconds.iter().filter(|(name, _)| server == Servers::All || *name == BROKER);
                let seconds: Vec<f64> = of.map(|(_, seconds)| *seconds).collect();
                if seconds.is_empty() { None } else { per_million(seconds.iter().sum()) }
            }
            Self::ClientCpuPerMillion => per_million(run.client_cpu_seconds).filter(|seconds| *seconds > 0.0),
            Self::Idle => total_mb(&run.idle_bytes),
            Self::Loaded => total_mb(&run.loaded_bytes),
            Self::DiskPerByte => run.disk_bytes.map(|bytes| bytes as f64 / run.payload_bytes as f64),
        };
        number.filter(|number| number.is_finite())
    }

    /// What it is counted in.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::PayloadRate => "MB/s",
            Self::RecordRate => "records/s",
            Self::P50 => "µs, p50",
            Self::P99 => "µs, p99",
            Self::Seconds => "s",
            Self::CpuPerMillion(_) | Self::ClientCpuPerMillion => "CPU s per million records",
            Self::Idle | Self::Loaded => "MB",
            Self::DiskPerByte => "bytes per byte",
        }
    }
}

fn total_mb(processes: &BTreeMap<String, u64>) -> Option<f64> {
    (!processes.is_empty()).then(|| processes.values().map(|bytes| *bytes as f64 / 1e6).sum())
}

/// The process of the broker.
pub(crate) const BROKER: &str = "broker-svc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_the_run_does_not_tell_is_none_and_never_zero() {
        let run = Measured { records: 2_000_000, payload_bytes: 200_000_000, seconds: 2.0, ..Measured::default() };
        assert_eq!(Metric::PayloadRate.of(&run), Some(100.0));
        assert_eq!(Metric::RecordRate.of(&run), Some(1e6));
        for metric in
            [Metric::P50, Metric::Loaded, Metric::CpuPerMillion(Servers::All), Metric::ClientCpuPerMillion, Metric::DiskPerByte]
        {
            assert_eq!(metric.of(&run), None, "{metric:?}");
        }
        let servers = BTreeMap::from([(BROKER.to_owned(), 3.0), ("producer-svc".to_owned(), 1.0)]);
        let run = Measured { server_cpu_seconds: servers, ..run };
        assert_eq!(Metric::CpuPerMillion(Servers::Broker).of(&run), Some(1.5));
        assert_eq!(Metric::CpuPerMillion(Servers::All).of(&run), Some(2.0));
        assert_eq!(Metric::RecordRate.of(&Measured::default()), None);
    }
}
