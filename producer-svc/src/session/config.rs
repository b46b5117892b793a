//! What a session is told once: the typed part of Kafka's producer configuration that concerns batching, tagging and retrying.

use std::time::Duration;

use oncelog_proto::{Compression, v1::Acks};

/// The settings of a session. Whoever builds it has checked the configuration's conflicts; what would break a promise is
/// asserted once more by [`super::Session::new`].
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// How long a batch waits for more records. Default 5 ms.
    pub linger: Duration,
    /// Bytes before compression at which a batch is full and goes out without lingering, as long as a call is free to take it.
    /// Default 32,768; 0 means one record a batch (C58).
    pub batch_size: usize,
    /// Most bytes of a `Produce` call, as sent, and of a batch. Default 1,048,576. A single batch always gets its call.
    pub max_request_size: usize,
    /// Most outstanding `Produce` calls, 1 to 5 with idempotence. Default 5.
    pub max_in_flight: usize,
    /// How long a call may take. Default 30 s.
    pub request_timeout: Duration,
    /// How long callers wait for an outcome, from the creation of the batch. Default 120 s.
    pub delivery_timeout: Duration,
    /// How often a batch may fail and be sent again. Default 2,147,483,647.
    pub retries: u32,
    /// Pause before the first resend; it doubles with each one. Default 100 ms.
    pub retry_backoff: Duration,
    /// Longest such pause. Default 1 s.
    pub retry_backoff_max: Duration,
    /// Default snappy.
    pub compression: Compression,
    /// Tag batches, so that the broker knows those that arrive again. Default true. Without it a resent batch may be in the
    /// log twice, and order holds only with one call in flight.
    pub idempotence: bool,
    /// What an acknowledgement means. Default all; with idempotence nothing else.
    pub acks: Acks,
    /// Random text of this process, 1 to 64 bytes: makes a repeated recovery call recognisable (R13).
    pub token: String,
}

impl SessionConfig {
    pub(super) fn assert_sound(&self) {
        assert!(self.max_in_flight >= 1, "no call could ever be made");
        assert!((1..=64).contains(&self.token.len()), "a recovery token has 1 to 64 bytes, not {}", self.token.len());
        if self.idempotence {
            assert!(self.max_in_flight <= 5, "the broker remembers five batches, max_in_flight is {}", self.max_in_flight);
            assert!(matches!(self.acks, Acks::All | Acks::Unspecified), "a tagged batch is acknowledged when it is durable");
        }
    }
}
