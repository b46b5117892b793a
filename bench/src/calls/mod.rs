//! Those who call: the same for oncelog and for the bare servers beside it, so that a ratio compares nothing else.

pub mod fetch;
pub mod produce;
pub mod send;
pub mod stream;

use std::{net::SocketAddr, time::Duration};

use hdrhistogram::Histogram;
use tonic::transport::{Channel, Endpoint};

use crate::{
    load::Load,
    measured::{Measured, Percentiles},
};

/// What those who called saw.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Records acknowledged.
    pub records: u64,
    /// From the first message to the last answer.
    pub took: Duration,
    /// From when a message was due to its answer, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Timed {
    /// As the first part of what was measured; processes and the read-back follow.
    pub fn measured(&self, load: &Load) -> Measured {
        Measured {
            records: self.records,
            payload_bytes: self.records * load.record_bytes as u64,
            seconds: self.took.as_secs_f64(),
            latency_us: Percentiles::of_nanos(&self.latency),
            ..Measured::default()
        }
    }
}

/// A connection, with windows as large as the services' own.
///
/// # Errors
/// Nobody answers.
pub async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20);
    Ok(endpoint.connect().await?)
}

fn nanos_since(due: std::time::Instant) -> u64 {
    u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
