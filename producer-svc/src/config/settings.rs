//! The settings in their types, and which of them contradict each other.

use std::{net::SocketAddr, time::Duration};

use oncelog_edge::security::{self, dial};
use oncelog_proto::{Compression, v1::Acks};
use tonic::transport::Uri;

use super::{
    key::{
        ACKS, ADMIN_LISTEN, BATCH_SIZE, BOOTSTRAP_SERVERS, BROKER_TLS_CA, BROKER_TLS_CERT, BROKER_TLS_KEY, BROKER_TOKEN_FILE,
        BUFFER_MEMORY, COMPRESSION_TYPE, CONNECTION_MAX_AGE_MS, DELIVERY_TIMEOUT_MS, DRAIN_WAIT_MS, ENABLE_IDEMPOTENCE, KEYS,
        Key, LINGER_MS, LISTEN, MAX_BLOCK_MS, MAX_CONNECTIONS, MAX_IN_FLIGHT, MAX_REQUEST_SIZE, PERMISSIONS_FILE, REFLECTION,
        REQUEST_TIMEOUT_MS, RETRIES, RETRY_BACKOFF_MAX_MS, RETRY_BACKOFF_MS, SHUTDOWN_TIMEOUT_MS, TLS_CERT, TLS_CLIENT_CA,
        TLS_KEY, TOKENS_FILE,
    },
    reading::Reading,
};
use crate::session::SessionConfig;

/// A configuration without contradictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `listen`.
    pub listen: SocketAddr,
    /// `admin.listen`; none is `off`.
    pub admin_listen: Option<SocketAddr>,
    /// `bootstrap.servers`, or `--broker`.
    pub broker: Uri,
    /// `enable.idempotence`.
    pub idempotence: bool,
    /// `acks`.
    pub acks: Acks,
    /// `retries`.
    pub retries: u32,
    /// `max.in.flight.requests.per.connection`, from 1; with idempotence at most 5.
    pub max_in_flight: usize,
    /// `delivery.timeout.ms`, at least linger and request timeout together.
    pub delivery_timeout: Duration,
    /// `request.timeout.ms`.
    pub request_timeout: Duration,
    /// `linger.ms`.
    pub linger: Duration,
    /// `batch.size` in bytes, at most `max_request_size`; 0 makes every record a batch (C58).
    pub batch_size: usize,
    /// `compression.type`.
    pub compression: Compression,
    /// `buffer.memory` in bytes, at least `max_request_size`.
    pub buffer_memory: usize,
    /// `max.block.ms`.
    pub max_block: Duration,
    /// `max.request.size` in bytes.
    pub max_request_size: usize,
    /// `retry.backoff.ms`, at most `retry_backoff_max`.
    pub retry_backoff: Duration,
    /// `retry.backoff.max.ms`.
    pub retry_backoff_max: Duration,
    /// `tls.cert`, `tls.key`, `tls.client.ca`, `tokens.file` and `permissions.file`.
    pub security: security::Files,
    /// `broker.tls.ca`, `broker.tls.cert`, `broker.tls.key` and `broker.token.file`.
    pub broker_security: dial::Files,
    /// `reflection`.
    pub reflection: bool,
    /// `connection.max.age.ms`; zero: never.
    pub connection_max_age: Duration,
    /// `drain.wait.ms`.
    pub drain_wait: Duration,
    /// `shutdown.timeout.ms`.
    pub shutdown_timeout: Duration,
    /// `max.connections`.
    pub max_connections: usize,
    /// Every setting as it was written, for the log.
    pub effective: Vec<Effective>,
    /// What was ignored, in words.
    pub warnings: Vec<String>,
}

/// One setting as it is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub name: &'static str,
    /// Its value as it was written.
    pub value: String,
    /// Where it was written.
    pub source: String,
}

impl Settings {
    /// What concerns the session. `token` is random text of this process, 1 to 64 bytes.
    pub fn session(&self, token: String) -> SessionConfig {
        SessionConfig {
            linger: self.linger,
            batch_size: self.batch_size,
            max_request_size: self.max_request_size,
            max_in_flight: self.max_in_flight,
            request_timeout: self.request_timeout,
            delivery_timeout: self.delivery_timeout,
            retries: self.retries,
            retry_backoff: self.retry_backoff,
            retry_backoff_max: self.retry_backoff_max,
            compression: self.compression,
            idempotence: self.idempotence,
            acks: self.acks,
            token,
        }
    }

    /// Reads every setting, then looks for contradictions between those that could be read. None if one could not.
    pub(super) fn read(reading: &mut Reading<'_>) -> Option<Self> {
        let listen = reading.listen(&LISTEN);
        let admin_listen = reading.listen_or_off(&ADMIN_LISTEN);
        let broker = reading.broker(&BOOTSTRAP_SERVERS);
        let idempotence = reading.flag(&ENABLE_IDEMPOTENCE);
        let acks = reading.word(&ACKS).map(|word| match word {
            "0" => Acks::Zero,
            "1" => Acks::One,
            _ => Acks::All,
        });
        let retries = reading.whole(&RETRIES);
        let max_in_flight = reading.size(&MAX_IN_FLIGHT);
        let delivery_timeout = reading.millis(&DELIVERY_TIMEOUT_MS);
        let request_timeout = reading.millis(&REQUEST_TIMEOUT_MS);
        let linger = reading.millis(&LINGER_MS);
        let batch_size = reading.size(&BATCH_SIZE);
        let compression = reading.word(&COMPRESSION_TYPE).map(|word| match word {
            "snappy" => Compression::Snappy,
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd,
            _ => Compression::None,
        });
        let buffer_memory = reading.size(&BUFFER_MEMORY);
        let max_block = reading.millis(&MAX_BLOCK_MS);
        let max_request_size = reading.size(&MAX_REQUEST_SIZE);
        let retry_backoff = reading.millis(&RETRY_BACKOFF_MS);
        let retry_backoff_max = reading.millis(&RETRY_BACKOFF_MAX_MS);
        let security = security::Files {
            cert: reading.file(&TLS_CERT),
            key: reading.file(&TLS_KEY),
            client_ca: reading.file(&TLS_CLIENT_CA),
            tokens: reading.file(&TOKENS_FILE),
            permissions: reading.file(&PERMISSIONS_FILE),
        };
        let broker_security = dial::Files {
            ca: reading.file(&BROKER_TLS_CA),
            cert: reading.file(&BROKER_TLS_CERT),
            key: reading.file(&BROKER_TLS_KEY),
            token: reading.file(&BROKER_TOKEN_FILE),
        };
        let reflection = reading.flag(&REFLECTION);
        let connection_max_age = reading.millis(&CONNECTION_MAX_AGE_MS);
        let drain_wait = reading.millis(&DRAIN_WAIT_MS);
        let shutdown_timeout = reading.millis(&SHUTDOWN_TIMEOUT_MS);
        let max_connections = reading.size(&MAX_CONNECTIONS);

        let mut conflict = |found: bool, of: &[&Key], rule: String| {
            if found {
                let told: Vec<_> = of.iter().map(|key| reading.told(key)).collect();
                reading.problems.push(format!("{}: {rule}", told.join(", but ")));
            }
        };
        // A value that could not be read contradicts nothing; it is a problem of its own.
        let exactly_once = idempotence == Some(true);
        conflict(
            exactly_once && acks.is_some_and(|acks| acks != Acks::All),
            &[&ENABLE_IDEMPOTENCE, &ACKS],
            "idempotence needs acks=all (or -1), or an acknowledged record could be lost; set it, or enable.idempotence=false"
                .to_owned(),
        );
        conflict(
            exactly_once && retries == Some(0),
            &[&ENABLE_IDEMPOTENCE, &RETRIES],
            "idempotence needs retries from 1, because only a repetition tells what became of a batch; set it, or enable.idempotence=false"
                .to_owned(),
        );
        conflict(
            exactly_once && max_in_flight.is_some_and(|calls| calls > MAX_IN_FLIGHT_IDEMPOTENT),
            &[&ENABLE_IDEMPOTENCE, &MAX_IN_FLIGHT],
            format!(
                "idempotence allows 1 to {MAX_IN_FLIGHT_IDEMPOTENT}, the number of batches that the broker remembers; set it, or enable.idempotence=false"
            ),
        );
        if let (Some(delivery), Some(linger), Some(request)) = (delivery_timeout, linger, request_timeout) {
            conflict(
                delivery < linger + request,
                &[&DELIVERY_TIMEOUT_MS, &LINGER_MS, &REQUEST_TIMEOUT_MS],
                format!(
                    "delivery.timeout.ms has to be at least linger.ms + request.timeout.ms, which is {}",
                    (linger + request).as_millis()
                ),
            );
        }
        let mut at_most = |small: &Key, large: &Key, holds: Option<bool>| {
            conflict(holds == Some(false), &[small, large], format!("{} may be at most {}", small.name, large.name));
        };
        at_most(&BATCH_SIZE, &MAX_REQUEST_SIZE, batch_size.zip(max_request_size).map(|(a, b)| a <= b));
        at_most(&MAX_REQUEST_SIZE, &BUFFER_MEMORY, max_request_size.zip(buffer_memory).map(|(a, b)| a <= b));
        at_most(&RETRY_BACKOFF_MS, &RETRY_BACKOFF_MAX_MS, retry_backoff.zip(retry_backoff_max).map(|(a, b)| a <= b));

        let names = security::Names {
            cert: TLS_CERT.name,
            key: TLS_KEY.name,
            client_ca: TLS_CLIENT_CA.name,
            tokens: TOKENS_FILE.name,
            permissions: PERMISSIONS_FILE.name,
        };
        reading.problems.extend(security.conflicts(&names));
        let is_tls = broker.as_ref().is_none_or(|broker| broker.scheme_str() == Some("https"));
        let mut conflict = |found: bool, of: &[&Key], rule: &str| {
            if found {
                let told: Vec<_> = of.iter().map(|key| reading.told(key)).collect();
                reading.problems.push(format!("{}: {rule}", told.join(", but ")));
            }
        };
        let dial::Files { ca, cert, key, .. } = &broker_security;
        conflict(cert.is_some() != key.is_some(), &[&BROKER_TLS_CERT, &BROKER_TLS_KEY], security::UNPAIRED);
        for (file, key) in [(ca, &BROKER_TLS_CA), (cert, &BROKER_TLS_CERT)] {
            conflict(
                file.is_some() && !is_tls,
                &[key, &BOOTSTRAP_SERVERS],
                "the way to the broker has TLS if its address begins with https://",
            );
        }

        reading.warnings.extend(broker.as_ref().and_then(|broker| broker_security.warning(broker)));
        for (file, key) in [(&broker_security.cert, &BROKER_TLS_CERT), (&broker_security.token, &BROKER_TOKEN_FILE)] {
            if file.is_some() && !security.ask() {
                let told = reading.told(key);
                reading.warnings.push(format!(
                    "{told}, but nobody who calls is asked who they are: whoever can reach producer-svc writes in its name, with what the \
                     broker lets it do; set up {} or {}",
                    TOKENS_FILE.name, TLS_CLIENT_CA.name
                ));
            }
        }

        let effective = KEYS.iter().map(|key| {
            let given = reading.layers.find(key);
            Effective { name: key.name, value: given.value, source: given.source.to_string() }
        });
        Some(Self {
            effective: effective.collect(),
            warnings: std::mem::take(&mut reading.warnings),
            listen: listen?,
            admin_listen: admin_listen?,
            broker: broker?,
            idempotence: idempotence?,
            acks: acks?,
            retries: retries.and_then(|n| u32::try_from(n).ok())?,
            max_in_flight: max_in_flight?,
            delivery_timeout: delivery_timeout?,
            request_timeout: request_timeout?,
            linger: linger?,
            batch_size: batch_size?,
            compression: compression?,
            buffer_memory: buffer_memory?,
            max_block: max_block?,
            max_request_size: max_request_size?,
            retry_backoff: retry_backoff?,
            retry_backoff_max: retry_backoff_max?,
            security,
            broker_security,
            reflection: reflection?,
            connection_max_age: connection_max_age?,
            drain_wait: drain_wait?,
            shutdown_timeout: shutdown_timeout?,
            max_connections: max_connections?,
        })
    }
}

/// The window of batches that the broker remembers for each producer and partition.
const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;
