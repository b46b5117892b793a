//! The table of settings: one row each, from which flags, environment variables, properties, defaults, help and messages are
//! made. Kafka's settings have Kafka's names and ranges; where Kafka allows a zero that can never work, the range starts at 1,
//! and so does a pause without which a broker that is away would be asked as fast as a connection is refused.

use std::fmt;

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name: what producer.properties calls it, and Kafka if it knows it.
    pub(crate) name: &'static str,
    /// Its flag, where that is not the name in kebab-case.
    flag: Option<&'static str>,
    /// What holds if nobody says anything; empty: nothing.
    pub(crate) default: &'static str,
    /// The allowed values.
    pub(crate) allowed: Allowed,
    /// What it does, with its unit.
    pub(crate) help: &'static str,
}

/// The values that a setting may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allowed {
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds, both included.
    Whole(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// An address to listen on.
    Listen,
    /// An address to listen on, or `off`.
    ListenOrOff,
    /// Where the broker is.
    Broker,
    /// The name of a file.
    File,
}

impl Key {
    /// The flag, without its dashes.
    pub(crate) fn flag(&self) -> String {
        self.flag.map_or_else(|| self.name.replace('.', "-"), ToOwned::to_owned)
    }

    /// The environment variable. `producer.` is not said twice.
    pub(crate) fn env(&self) -> String {
        let flag = self.flag();
        let own = flag.strip_prefix("producer-").unwrap_or(&flag);
        format!("ONCELOG_PRODUCER_{}", own.replace('-', "_").to_uppercase())
    }

    /// May it stand in producer.properties? All may, but the name of that file.
    pub(crate) fn in_file(&self) -> bool {
        self.name != PRODUCER_PROPERTIES.name
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("true or false"),
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Word(words) => f.write_str(&words.join(", ")),
            Self::Listen => f.write_str("IP:PORT, with port 0 for a free one"),
            Self::ListenOrOff => f.write_str("IP:PORT, or off"),
            Self::Broker => f.write_str("HOST:PORT or http://HOST:PORT, or https://HOST:PORT for TLS"),
            Self::File => f.write_str("the name of a file"),
        }
    }
}

const fn key(name: &'static str, default: &'static str, allowed: Allowed, help: &'static str) -> Key {
    Key { name, flag: None, default, allowed, help }
}

/// Kafka's int.
const INT: i64 = i32::MAX as i64;
/// A batch may have 64 MiB before compression, and a batch has to hold the largest record.
const BATCH: i64 = oncelog_proto::packed::MAX_UNCOMPRESSED_BYTES as i64;
/// What a semaphore of one permit a byte can count, and more memory than there is.
const MEMORY: i64 = 1 << 40;

pub(crate) const LISTEN: Key = key("listen", "127.0.0.1:50052", Allowed::Listen, "Where callers reach ProducerService");
pub(crate) const ADMIN_LISTEN: Key =
    key("admin.listen", "127.0.0.1:9465", Allowed::ListenOrOff, "Where probes and metrics are served over plain HTTP");
pub(crate) const BOOTSTRAP_SERVERS: Key =
    Key { flag: Some("broker"), ..key("bootstrap.servers", "http://127.0.0.1:50051", Allowed::Broker, "Where the broker is") };
pub(crate) const PRODUCER_PROPERTIES: Key =
    key("producer.properties", "", Allowed::File, "A file of settings as Kafka's producers read it");

pub(crate) const ENABLE_IDEMPOTENCE: Key = key(
    "enable.idempotence",
    "true",
    Allowed::Bool,
    "Write each accepted record exactly once; false: a retry may write it twice",
);
pub(crate) const ACKS: Key = key(
    "acks",
    "all",
    Allowed::Word(&["all", "-1", "1", "0"]),
    "A record is acknowledged when it is: all (or -1) on disk, 1 written, 0 accepted",
);
pub(crate) const RETRIES: Key = key(
    "retries",
    "2147483647",
    Allowed::Whole(0, INT),
    "How often a batch is sent again; delivery.timeout.ms is the better bound",
);
pub(crate) const MAX_IN_FLIGHT: Key = key(
    "max.in.flight.requests.per.connection",
    "5",
    Allowed::Whole(1, INT),
    "How many calls to the broker may be unanswered at once",
);
pub(crate) const DELIVERY_TIMEOUT_MS: Key = key(
    "delivery.timeout.ms",
    "120000",
    Allowed::Whole(0, INT),
    "How long a caller waits at most for an outcome, in milliseconds",
);
pub(crate) const REQUEST_TIMEOUT_MS: Key =
    key("request.timeout.ms", "30000", Allowed::Whole(1, INT), "How long a call to the broker may take, in milliseconds");
pub(crate) const LINGER_MS: Key =
    key("linger.ms", "5", Allowed::Whole(0, INT), "How long a batch waits for more records before it is sent, in milliseconds");
pub(crate) const BATCH_SIZE: Key = key(
    "batch.size",
    "32768",
    Allowed::Whole(0, BATCH),
    "A batch is sent at once when it has this many bytes, before compression",
);
pub(crate) const COMPRESSION_TYPE: Key =
    key("compression.type", "snappy", Allowed::Word(&["none", "snappy", "lz4", "zstd"]), "How batches are compressed");
pub(crate) const BUFFER_MEMORY: Key =
    key("buffer.memory", "33554432", Allowed::Whole(1, MEMORY), "Bytes of records that may wait for their outcome at once");
pub(crate) const MAX_BLOCK_MS: Key = key(
    "max.block.ms",
    "60000",
    Allowed::Whole(0, INT),
    "How long a Send waits for buffer.memory or for the topic's partitions, in milliseconds",
);
pub(crate) const MAX_REQUEST_SIZE: Key = key(
    "max.request.size",
    "1048576",
    Allowed::Whole(1, BATCH),
    "Largest record, before compression, and largest call to the broker, in bytes",
);
pub(crate) const RETRY_BACKOFF_MS: Key = key(
    "retry.backoff.ms",
    "100",
    Allowed::Whole(1, INT),
    "Pause before the first repetition, in milliseconds; it doubles each time",
);
pub(crate) const RETRY_BACKOFF_MAX_MS: Key =
    key("retry.backoff.max.ms", "1000", Allowed::Whole(1, INT), "Longest pause before a repetition, in milliseconds");

pub(crate) const TLS_CERT: Key = key(
    "tls.cert",
    "",
    Allowed::File,
    "Certificate for TLS with its chain, in PEM; with it callers' connections are encrypted. All files of security are read again \
     when they change",
);
pub(crate) const TLS_KEY: Key = key("tls.key", "", Allowed::File, "Key of tls.cert, in PEM");
pub(crate) const TLS_CLIENT_CA: Key = key(
    "tls.client.ca",
    "",
    Allowed::File,
    "Callers show a certificate that one of these vouches for, in PEM, or a token of tokens.file; others are refused",
);
pub(crate) const TOKENS_FILE: Key = key(
    "tokens.file",
    "",
    Allowed::File,
    "Callers show one of these tokens: a name and a token, or sha256: and its hash, on each line; others are refused",
);
pub(crate) const PERMISSIONS_FILE: Key = key(
    "permissions.file",
    "",
    Allowed::File,
    "Who may do what: a name or *, read,write,administer, and topics on each line; without it whoever is let in may do everything",
);
pub(crate) const BROKER_TLS_CA: Key = key(
    "broker.tls.ca",
    "",
    Allowed::File,
    "Who vouches for an https broker, certificates in PEM; without it, whom this machine trusts",
);
pub(crate) const BROKER_TLS_CERT: Key =
    key("broker.tls.cert", "", Allowed::File, "Certificate with its chain to show to the broker, in PEM");
pub(crate) const BROKER_TLS_KEY: Key = key("broker.tls.key", "", Allowed::File, "Key of broker.tls.cert, in PEM");
pub(crate) const BROKER_TOKEN_FILE: Key =
    key("broker.token.file", "", Allowed::File, "A file with the token to show to the broker, and nothing else");
pub(crate) const REFLECTION: Key =
    key("reflection", "true", Allowed::Bool, "Tell callers what can be called (gRPC server reflection)");

pub(crate) const CONNECTION_MAX_AGE_MS: Key = key(
    "connection.max.age.ms",
    "1800000",
    Allowed::Whole(0, 31_536_000_000),
    "Age at which a connection is asked to end once its calls have, give or take a tenth, in milliseconds; 0: never",
);
pub(crate) const DRAIN_WAIT_MS: Key = key(
    "drain.wait.ms",
    "0",
    Allowed::Whole(0, 600_000),
    "How long a stop goes on serving after it said that it is not ready, so that load balancers see it, in milliseconds",
);
pub(crate) const SHUTDOWN_TIMEOUT_MS: Key = key(
    "shutdown.timeout.ms",
    "30000",
    Allowed::Whole(0, INT),
    "How long a stop waits for the outcome of what was accepted, in milliseconds",
);
pub(crate) const MAX_CONNECTIONS: Key =
    key("max.connections", "1000", Allowed::Whole(1, 1_000_000), "How many callers may be connected at once");

/// All of them, in the order in which they are told.
pub(crate) const KEYS: [&Key; 32] = [
    &LISTEN,
    &ADMIN_LISTEN,
    &BOOTSTRAP_SERVERS,
    &PRODUCER_PROPERTIES,
    &ENABLE_IDEMPOTENCE,
    &ACKS,
    &RETRIES,
    &MAX_IN_FLIGHT,
    &DELIVERY_TIMEOUT_MS,
    &REQUEST_TIMEOUT_MS,
    &LINGER_MS,
    &BATCH_SIZE,
    &COMPRESSION_TYPE,
    &BUFFER_MEMORY,
    &MAX_BLOCK_MS,
    &MAX_REQUEST_SIZE,
    &RETRY_BACKOFF_MS,
    &RETRY_BACKOFF_MAX_MS,
    &TLS_CERT,
    &TLS_KEY,
    &TLS_CLIENT_CA,
    &TOKENS_FILE,
    &PERMISSIONS_FILE,
    &BROKER_TLS_CA,
    &BROKER_TLS_CERT,
    &BROKER_TLS_KEY,
    &BROKER_TOKEN_FILE,
    &REFLECTION,
    &CONNECTION_MAX_AGE_MS,
    &DRAIN_WAIT_MS,
    &SHUTDOWN_TIMEOUT_MS,
    &MAX_CONNECTIONS,
];

/// What a Kafka producer knows and what means nothing here: there is one broker at one address, one partitioner, and callers
/// serialize. Names that end with a dot stand for all that start with them.
pub const WITHOUT_MEANING: &[&str] = &[
    "auto.include.jmx.reporter",
    "client.dns.lookup",
    "client.id",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "config.providers",
    "connections.max.idle.ms",
    "enable.metrics.push",
    "interceptor.classes",
    "key.serializer",
    "metadata.max.age.ms",
    "metadata.max.idle.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "metric.reporters",
    "metrics.num.samples",
    "metrics.recording.level",
    "metrics.sample.window.ms",
    "partitioner.adaptive.partitioning.enable",
    "partitioner.availability.timeout.ms",
    "partitioner.class",
    "partitioner.ignore.keys",
    "receive.buffer.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.",
    "security.protocol",
    "security.providers",
    "send.buffer.bytes",
    "socket.connection.setup.timeout.max.ms",
    "socket.connection.setup.timeout.ms",
    "ssl.",
    "transaction.timeout.ms",
    "transaction.two.phase.commit.enable",
    "value.serializer",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_variables_follow_from_names() {
        assert_eq!(LINGER_MS.flag(), "linger-ms");
        assert_eq!(LINGER_MS.env(), "ONCELOG_PRODUCER_LINGER_MS");
        assert_eq!(BOOTSTRAP_SERVERS.flag(), "broker");
        assert_eq!(BOOTSTRAP_SERVERS.env(), "ONCELOG_PRODUCER_BROKER");
        assert_eq!(PRODUCER_PROPERTIES.env(), "ONCELOG_PRODUCER_PROPERTIES");
    }
}
