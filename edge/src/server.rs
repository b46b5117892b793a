//! The HTTP/2 settings of every gRPC server, chosen once.
//!
//! Keepalive finds peers that went away without a word. Windows and frames are large enough that a batch of 1 MiB travels
//! without waiting for a window update. A connection ends at a certain age, gracefully, so that callers behind a load
//! balancer for connections spread over new replicas; the age is jittered, or all replicas would say goodbye together. A grace
//! beyond the age is left unset on purpose: with one, tonic cuts the connection instead of announcing its end.

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

use crate::{deadline::DeadlineLayer, observe::ObserveLayer};

/// What one connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that are open at once on one connection, from 1.
    pub concurrent_streams: u32,
    /// Age at which a connection is told to end after its open calls, ±10 %. Zero: never.
    pub connection_age: Duration,
}

impl Default for Limits {
    /// 1,000 calls; 30 minutes.
    fn default() -> Self {
        Self { concurrent_streams: 1_000, connection_age: Duration::from_secs(30 * 60) }
    }
}

/// A tonic server with these settings; add services to it and serve it with [`crate::accept::Incoming`].
///
/// # Panics
/// If `limits.concurrent_streams` is 0.
pub fn builder(limits: Limits) -> Server<Stack<DeadlineLayer, Identity>> {
    settings(limits).layer(DeadlineLayer)
}

/// The same, with every call observed, those included that ran into their deadline.
///
/// # Panics
/// As [`builder`].
pub fn observed(limits: Limits, observe: ObserveLayer) -> Server<Stack<DeadlineLayer, Stack<ObserveLayer, Identity>>> {
    settings(limits).layer(observe).layer(DeadlineLayer)
}

fn settings(limits: Limits) -> Server {
    assert!(limits.concurrent_streams > 0, "a connection that can carry no call");
    let mut server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits.concurrent_streams);
    if !limits.connection_age.is_zero() {
        server = server.max_connection_age(jittered(limits.connection_age, random()));
    }
    server
}

/// `age`, by up to 10 % longer or shorter.
fn jittered(age: Duration, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    age.mul_f64(0.9 + 0.2 * share)
}

fn random() -> u32 {
    // Without randomness there is only less jitter.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_FRAME_BYTES: u32 = 1 << 20;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let age = Duration::from_secs(100);
        let seconds = |random| jittered(age, random).as_secs_f64().round() as u64;
        assert_eq!((seconds(0), seconds(u32::MAX / 2), seconds(u32::MAX)), (90, 100, 110));
    }
}
