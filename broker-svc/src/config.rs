//! The broker's settings: each is a flag and an environment variable, parsed and checked before any port is opened.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, FromArgMatches};
use oncelog_edge::{security, server};
use oncelog_proto::topic::PartitionCount;

use crate::{journal, pipeline, state::Limits};

/// Settings of broker-svc. The defaults are Kafka's where Kafka has the setting.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Address for gRPC.
    #[arg(
        id = "broker_listen",
        long = "listen",
        env = "ONCELOG_BROKER_LISTEN",
        default_value = "127.0.0.1:50051",
        value_name = "ADDR"
    )]
    pub listen: SocketAddr,

    /// Address for health, readiness and metrics over plain HTTP.
    #[arg(
        id = "broker_admin_listen",
        long = "admin-listen",
        env = "ONCELOG_BROKER_ADMIN_LISTEN",
        default_value = "127.0.0.1:9464",
        value_name = "ADDR"
    )]
    pub admin_listen: SocketAddr,

    /// Directory of the journal; made if it is not there. One broker at a time.
    #[arg(long, env = "ONCELOG_BROKER_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Create a topic when the first batch for it arrives.
    #[arg(long, env = "ONCELOG_BROKER_AUTO_CREATE_TOPICS", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub auto_create_topics: bool,

    /// Partitions of a topic that is created without a number: 1 to 10,000.
    #[arg(long, env = "ONCELOG_BROKER_DEFAULT_PARTITIONS", default_value = "1", value_parser = partition_count, value_name = "N")]
    pub default_partitions: PartitionCount,

    /// How long a batch that arrived before its predecessors waits for them, in milliseconds: 0 (not at all) to 10,000.
    #[arg(long, env = "ONCELOG_BROKER_HOLD_MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(0..=10_000), value_name = "MS")]
    pub hold_ms: u64,

    /// Memory for all batches that wait like that, in bytes: their data and 512 each.
    #[arg(long, env = "ONCELOG_BROKER_HOLD_BYTES", default_value_t = 64 << 20, value_name = "BYTES")]
    pub hold_bytes: usize,

    /// Size of a segment file of the journal, in bytes: 1 MiB to 4 GiB, a multiple of 4,096.
    #[arg(long, env = "ONCELOG_BROKER_SEGMENT_BYTES", default_value_t = 256 << 20, value_parser = segment_bytes, value_name = "BYTES")]
    pub segment_bytes: u64,

    /// A snapshot of the state is written after so many bytes of journal. Less means faster starts and more writing.
    #[arg(long, env = "ONCELOG_BROKER_SNAPSHOT_BYTES", default_value_t = 512 << 20, value_parser = clap::value_parser!(u64).range(1 << 20..), value_name = "BYTES")]
    pub snapshot_bytes: u64,

    /// The oldest segments go when the journal is larger than this, in bytes. Default: no limit.
    #[arg(long, env = "ONCELOG_BROKER_RETENTION_BYTES", value_name = "BYTES")]
    pub retention_bytes: Option<u64>,

    /// The oldest segments go when all their records are older than this, in milliseconds; -1: never. The one that is written to
    /// stays, so a broker that writes little keeps records until they fill a segment. Default: 7 days.
    #[arg(long, env = "ONCELOG_BROKER_RETENTION_MS", default_value_t = 604_800_000, value_parser = clap::value_parser!(i64).range(-1..), allow_negative_numbers = true, value_name = "MS")]
    pub retention_ms: i64,

    /// Largest batch, in bytes as sent: 1 KiB to 7 MiB, and at most half a segment.
    #[arg(long, env = "ONCELOG_BROKER_MAX_MESSAGE_BYTES", default_value_t = 1_048_588, value_parser = range(1 << 10, 7 << 20), value_name = "BYTES")]
    pub max_message_bytes: usize,

    /// Largest request, in bytes: 64 KiB to 64 MiB, and at least 64 KiB more than --max-message-bytes.
    #[arg(long, env = "ONCELOG_BROKER_MAX_REQUEST_BYTES", default_value_t = 8 << 20, value_parser = range(64 << 10, 64 << 20), value_name = "BYTES")]
    pub max_request_bytes: usize,

    /// Memory for requests that are being worked on, all together, in bytes, where a batch counts 1,024 bytes at least; and as
    /// much again for those on their way in, where a submessage counts 256 bytes at least. More are refused with
    /// RESOURCE_EXHAUSTED.
    #[arg(long, env = "ONCELOG_BROKER_QUEUED_MAX_REQUEST_BYTES", default_value_t = 256 << 20, value_parser = range(1 << 20, 1 << 40), value_name = "BYTES")]
    pub queued_max_request_bytes: usize,

    /// Most connections, from 1; a further one is closed at once.
    #[arg(
        id = "broker_max_connections",
        long = "max-connections",
        env = "ONCELOG_BROKER_MAX_CONNECTIONS",
        default_value_t = 1_000,
        value_parser = range(1, MAX_COUNT),
        value_name = "N"
    )]
    pub max_connections: usize,

    /// Most Fetch streams at a time, from 1; a further one is refused with RESOURCE_EXHAUSTED. Each takes at most five times 1
    /// MiB and the largest batch. All together take at most 256 MiB for batches that are large when they are unpacked, and 256
    /// MiB for records above 1 MiB that their callers have not taken yet.
    #[arg(long, env = "ONCELOG_BROKER_MAX_FETCHES", default_value_t = 1_000, value_parser = range(1, MAX_COUNT), value_name = "N")]
    pub max_fetches: usize,

    /// Most partitions of all topics together, 1 to 200,000: what a trim may have to list in one group.
    #[arg(long, env = "ONCELOG_BROKER_MAX_PARTITIONS", default_value_t = 100_000, value_parser = range(1, 200_000), value_name = "N")]
    pub max_partitions: usize,

    /// Most producer ids known at a time, from 1. A fresh one above is refused with RESOURCE_EXHAUSTED.
    #[arg(long, env = "ONCELOG_BROKER_MAX_PRODUCERS", default_value_t = 2_000_000, value_parser = range(1, MAX_COUNT), value_name = "N")]
    pub max_producers: usize,

    /// Most pairs of producer and partition remembered at a time, from 1, at about 300 bytes each.
    #[arg(long, env = "ONCELOG_BROKER_MAX_WINDOWS", default_value_t = 4_000_000, value_parser = range(1, MAX_COUNT), value_name = "N")]
    pub max_windows: usize,

    /// A producer of which no batch was appended or recognised for so long is forgotten, in milliseconds. Time when the broker
    /// was down does not count. Keep it above two hours: producer-svc takes a fresh id after an hour of silence.
    #[arg(long, env = "ONCELOG_BROKER_PRODUCER_ID_EXPIRATION_MS", default_value_t = 86_400_000, value_parser = clap::value_parser!(u64).range(1..), value_name = "MS")]
    pub producer_id_expiration_ms: u64,

    /// The wall clock is right although it stands more than a day ahead of the journal's last entry. Until this is said at such a
    /// start, nothing expires and nothing is dropped for its age.
    #[arg(long, env = "ONCELOG_BROKER_ACCEPT_CLOCK_JUMP", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub accept_clock_jump: bool,

    /// Certificate for TLS with its chain, in PEM. With it connections are encrypted. This file and the other ones of security
    /// are read again when they change.
    #[arg(id = "broker_tls_cert", long = "tls-cert", env = "ONCELOG_BROKER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Key of --tls-cert, in PEM.
    #[arg(id = "broker_tls_key", long = "tls-key", env = "ONCELOG_BROKER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Callers show a certificate that one of these vouches for, in PEM, or a token of --tokens-file; others are refused.
    #[arg(id = "broker_tls_client_ca", long = "tls-client-ca", env = "ONCELOG_BROKER_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Callers show one of these tokens: a name and a token, or sha256: and its hash, on each line. Others are refused.
    #[arg(id = "broker_tokens_file", long = "tokens-file", env = "ONCELOG_BROKER_TOKENS_FILE", value_name = "FILE")]
    pub tokens_file: Option<PathBuf>,

    /// Who may do what: a name or *, read,write,administer, and topics on each line. Default: whoever is let in may do
    /// everything.
    #[arg(
        id = "broker_permissions_file",
        long = "permissions-file",
        env = "ONCELOG_BROKER_PERMISSIONS_FILE",
        value_name = "FILE"
    )]
    pub permissions_file: Option<PathBuf>,

    /// Tell callers what can be called (gRPC server reflection).
    #[arg(id = "broker_reflection", long = "reflection", env = "ONCELOG_BROKER_REFLECTION", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub reflection: bool,

    /// Age at which a connection is asked to end once its calls have, give or take a tenth, in milliseconds; 0: never. So callers
    /// spread over new addresses, and come back with new certificates.
    #[arg(
        id = "broker_connection_max_age_ms",
        long = "connection-max-age-ms",
        env = "ONCELOG_BROKER_CONNECTION_MAX_AGE_MS",
        default_value_t = 1_800_000,
        value_parser = clap::value_parser!(u64).range(0..=MAX_MS),
        value_name = "MS"
    )]
    pub connection_max_age_ms: u64,

    /// How long a stop goes on serving after it said that it is not ready, so that load balancers see it, in milliseconds.
    #[arg(
        id = "broker_drain_wait_ms",
        long = "drain-wait-ms",
        env = "ONCELOG_BROKER_DRAIN_WAIT_MS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=600_000),
        value_name = "MS"
    )]
    pub drain_wait_ms: u64,

    /// How long a stop waits for calls to end after that, in milliseconds.
    #[arg(
        id = "broker_shutdown_timeout_ms",
        long = "shutdown-timeout-ms",
        env = "ONCELOG_BROKER_SHUTDOWN_TIMEOUT_MS",
        default_value_t = 30_000,
        value_name = "MS"
    )]
    pub shutdown_timeout_ms: u64,
}

/// Two settings that cannot both hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Conflict(String);

impl Config {
    /// Reads flags; what they do not say is taken from the environment, or is the default.
    ///
    /// # Errors
    /// A flag is unknown, missing, or out of its range.
    pub fn parse_args<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("broker-svc").no_binary_name(true));
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    /// Checks settings against each other.
    ///
    /// # Errors
    /// Two of them conflict; names both and what is allowed.
    pub fn check(&self) -> Result<(), Conflict> {
        if let Some(problem) = self.security().conflicts(&SECURITY).into_iter().next() {
            return Err(Conflict(problem));
        }
        let half_segment = usize::try_from(self.segment_bytes / 2).unwrap_or(usize::MAX);
        if self.max_message_bytes > half_segment {
            return Err(Conflict(format!(
                "--max-message-bytes {} and --segment-bytes {} conflict: a batch may take at most half a segment, {half_segment} bytes",
                self.max_message_bytes, self.segment_bytes
            )));
        }
        let least = self.max_message_bytes + REQUEST_OVERHEAD_BYTES;
        if self.max_request_bytes < least {
            return Err(Conflict(format!(
                "--max-request-bytes {} and --max-message-bytes {} conflict: a request has to be allowed at least {least} bytes",
                self.max_request_bytes, self.max_message_bytes
            )));
        }
        if self.queued_max_request_bytes < self.max_request_bytes {
            return Err(Conflict(format!(
                "--queued-max-request-bytes {} and --max-request-bytes {} conflict: the first may not be the smaller",
                self.queued_max_request_bytes, self.max_request_bytes
            )));
        }
        if usize::try_from(self.default_partitions.get()).unwrap_or(usize::MAX) > self.max_partitions {
            return Err(Conflict(format!(
                "--default-partitions {} and --max-partitions {} conflict: the first may not be the larger",
                self.default_partitions.get(),
                self.max_partitions
            )));
        }
        Ok(())
    }

    /// The files of security.
    pub fn security(&self) -> security::Files {
        security::Files {
            cert: self.tls_cert.clone(),
            key: self.tls_key.clone(),
            client_ca: self.tls_client_ca.clone(),
            tokens: self.tokens_file.clone(),
            permissions: self.permissions_file.clone(),
        }
    }

    pub(crate) fn server_limits(&self) -> server::Limits {
        server::Limits { connection_age: Duration::from_millis(self.connection_max_age_ms), ..server::Limits::default() }
    }

    /// What the journal is opened with. `seed` is random.
    pub fn journal_options(&self, seed: u64) -> journal::Options {
        journal::Options {
            segment_bytes: self.segment_bytes,
            snapshot_every_bytes: self.snapshot_bytes,
            ballast_bytes: journal::Options::new(seed).ballast_bytes.min(self.segment_bytes),
            ..journal::Options::new(seed)
        }
    }

    /// What the pipeline is made with. `group_limit` and `incarnation` are the journal's.
    pub fn pipeline_options(&self, group_limit: journal::GroupLimit, incarnation: u16) -> pipeline::Options {
        pipeline::Options {
            limits: self.limits(),
            hold: Duration::from_millis(self.hold_ms),
            hold_bytes: self.hold_bytes,
            group_limit,
            incarnation,
            accept_clock_jump: self.accept_clock_jump,
        }
    }

    pub(crate) fn retention(&self) -> journal::Retention {
        journal::Retention { bytes: self.retention_bytes, age: u64::try_from(self.retention_ms).ok().map(Duration::from_millis) }
    }

    /// What the state may grow to.
    pub fn limits(&self) -> Limits {
        Limits {
            max_message_bytes: self.max_message_bytes,
            auto_create_topics: self.auto_create_topics,
            default_partitions: self.default_partitions,
            max_partitions: self.max_partitions,
            max_producers: self.max_producers,
            max_windows: self.max_windows,
            producer_id_expiration: Duration::from_millis(self.producer_id_expiration_ms),
        }
    }
}

fn partition_count(text: &str) -> Result<PartitionCount, String> {
    let count: i32 = text.parse().map_err(|e| format!("{e}"))?;
    PartitionCount::new(count).map_err(|fault| fault.message().to_owned())
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    let (least, most) = (1 << 20, 4 << 30);
    match text.parse::<u64>() {
        Ok(bytes) if (least..=most).contains(&bytes) && bytes.is_multiple_of(4096) => Ok(bytes),
        Ok(bytes) => Err(format!("{bytes} is not in {least} to {most}, or no multiple of 4096")),
        Err(e) => Err(e.to_string()),
    }
}

fn range(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| match text.parse::<usize>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(number) => Err(format!("{number} is not in {least} to {most}")),
        Err(e) => Err(e.to_string()),
    }
}

const SECURITY: security::Names = security::Names {
    cert: "--tls-cert",
    key: "--tls-key",
    client_ca: "--tls-client-ca",
    tokens: "--tokens-file",
    permissions: "--permissions-file",
};
/// A year.
const MAX_MS: u64 = 31_536_000_000;
/// More than any machine has room for, and less than what counting them could overflow.
const MAX_COUNT: usize = 1 << 40;
/// Room in a request for what is not a batch's data: names, tags, the producer, the framing of all of it.
const REQUEST_OVERHEAD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_name_both_settings_and_the_limit_is_allowed() {
        let with = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::parse_args(["--data-dir=somewhere"]).expect("the defaults are allowed");
            change(&mut config);
            config.check().map_err(|conflict| conflict.to_string())
        };
        assert_eq!(with(&|_| {}), Ok(()));
        assert_eq!(with(&|c| (c.segment_bytes, c.max_message_bytes) = (2 << 20, 1 << 20)), Ok(()));
        let error = with(&|c| (c.segment_bytes, c.max_message_bytes) = (2 << 20, (1 << 20) + 1)).expect_err("too large");
        assert!(error.contains("--max-message-bytes 1048577 and --segment-bytes 2097152"), "{error}");
        assert_eq!(with(&|c| c.max_request_bytes = c.max_message_bytes + (64 << 10)), Ok(()));
        assert!(with(&|c| c.max_request_bytes = c.max_message_bytes + (64 << 10) - 1).is_err());
        assert!(with(&|c| c.queued_max_request_bytes = c.max_request_bytes - 1).is_err());
        let error = with(&|c| c.tls_cert = Some("file".into())).expect_err("no key");
        assert!(error.starts_with("--tls-cert is given without --tls-key"), "{error}");
        assert_eq!(with(&|c| (c.tls_cert, c.tls_key) = (Some("file".into()), Some("file".into()))), Ok(()));
        assert!(with(&|c| (c.default_partitions, c.max_partitions) = (partition_count("3").expect("3"), 2)).is_err());
        assert_eq!(with(&|c| (c.default_partitions, c.max_partitions) = (partition_count("3").expect("3"), 3)), Ok(()));
    }

    #[test]
    fn each_flag_ends_at_its_limits() {
        let takes = |flag: &str, value: &str| Config::parse_args(["--data-dir=somewhere", &format!("--{flag}={value}")]).is_ok();
        let counts = ["max-connections", "max-fetches", "max-producers", "max-windows"];
        let ranges = [
            ("default-partitions", "1", "10000", "0", "10001"),
            ("max-partitions", "1", "200000", "0", "200001"),
            ("hold-ms", "0", "10000", "-1", "10001"),
            ("hold-bytes", "0", "18446744073709551615", "-1", "18446744073709551616"),
            ("segment-bytes", "1048576", "4294967296", "1044480", "4294971392"),
            ("snapshot-bytes", "1048576", "18446744073709551615", "1048575", "18446744073709551616"),
            ("retention-bytes", "0", "18446744073709551615", "-1", "18446744073709551616"),
            ("retention-ms", "-1", "9223372036854775807", "-2", "9223372036854775808"),
            ("max-message-bytes", "1024", "7340032", "1023", "7340033"),
            ("max-request-bytes", "65536", "67108864", "65535", "67108865"),
            ("queued-max-request-bytes", "1048576", "1099511627776", "1048575", "1099511627777"),
            ("producer-id-expiration-ms", "1", "18446744073709551615", "0", "18446744073709551616"),
            ("connection-max-age-ms", "0", "31536000000", "-1", "31536000001"),
            ("drain-wait-ms", "0", "600000", "-1", "600001"),
            ("shutdown-timeout-ms", "0", "18446744073709551615", "-1", "18446744073709551616"),
        ];
        let ranges = ranges.into_iter().chain(counts.map(|count| (count, "1", "1099511627776", "0", "1099511627777")));
        for (flag, least, most, below, above) in ranges {
            assert!(takes(flag, least) && takes(flag, most), "{flag} from {least} to {most}");
            assert!(!takes(flag, below) && !takes(flag, above), "{flag} ends at {least} and {most}");
        }
        assert!(takes("segment-bytes", "1052672") && !takes("segment-bytes", "1052671"), "whole blocks only");
    }
}
