//! The names of OpenTelemetry's semantic conventions that are used here, each in one place: those for calls are about to be
//! stable, those for messaging are not, and some have changed before.

use oncelog_proto::ErrorCode;

/// Of a call: which kind it is.
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// Of a call: `package.Service/Method`.
pub const RPC_METHOD: &str = "rpc.method";
/// Of a call: its status, `OK` or `DEADLINE_EXCEEDED`.
pub const RPC_STATUS: &str = "rpc.response.status_code";
/// Of a call that is made: the host that was asked for.
pub const SERVER_ADDRESS: &str = "server.address";
/// And its port.
pub const SERVER_PORT: &str = "server.port";
/// Why something failed: a status or an error code.
pub const ERROR_TYPE: &str = "error.type";

/// Which messaging system.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// What is done, in the system's words.
pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
/// What is done, in everybody's words.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// The topic.
pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
/// The partition, as text.
pub const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
/// How many records.
pub const MESSAGING_COUNT: &str = "messaging.batch.message_count";

/// What became of a batch: `appended`, `duplicate`, `out_of_order`, `fenced`, `refused`, `split` or `unknown`.
pub const OUTCOME: &str = "oncelog.outcome";
/// Offset of the first record.
pub const BASE_OFFSET: &str = "oncelog.base_offset";
/// Whose batch.
pub const PRODUCER_ID: &str = "oncelog.producer.id";
/// In which epoch.
pub const PRODUCER_EPOCH: &str = "oncelog.producer.epoch";
/// Sequence of the first record.
pub const BASE_SEQUENCE: &str = "oncelog.base_sequence";
/// Which try it is, from 1.
pub const ATTEMPT: &str = "oncelog.attempt";
/// Bytes, as sent or as written.
pub const BYTES: &str = "oncelog.bytes";
/// Entries of a group.
pub const ENTRIES: &str = "oncelog.group.entries";
/// Which group.
pub const GROUP: &str = "oncelog.group.number";
/// How long the sync of a group took, in seconds.
pub const SYNC_SECONDS: &str = "oncelog.group.sync.duration";
/// Contexts that a span joins beyond those that it links to.
pub const MORE_LINKS: &str = "oncelog.links.more";

/// The [`OUTCOME`] of a batch that was refused with this code.
pub fn refusal(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::OutOfOrderSequenceNumber => "out_of_order",
        ErrorCode::InvalidProducerEpoch => "fenced",
        _ => "refused",
    }
}

/// What an attempt to deliver batches is called, made as a call or on a stream: they are the same to whoever follows a record.
/// Calls are counted by what they were made as.
pub const PRODUCE: &str = "oncelog.v1.BrokerService/Produce";
/// The value of [`RPC_SYSTEM`].
pub const GRPC: &str = "grpc";
/// The value of [`MESSAGING_SYSTEM`].
pub const ONCELOG: &str = "oncelog";
/// A method that is none of the service's own: a name that a caller makes up must not become a label. Also the [`ERROR_TYPE`] of
/// what has no other.
pub const OTHER: &str = "_OTHER";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const PAGE: &str = include_str!("../../docs/observability.md");
    /// Where names of attributes and metrics are defined.
    const SOURCES: [&str; 5] = [
        include_str!("names.rs"),
        include_str!("metrics/calls.rs"),
        include_str!("security/access.rs"),
        include_str!("../../broker-svc/src/metrics.rs"),
        include_str!("../../producer-svc/src/metrics.rs"),
    ];

    #[test]
    fn the_page_on_observability_explains_every_name() {
        let names = include_str!("names.rs").lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1));
        let missing: Vec<_> = names.filter(|name| !PAGE.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/observability.md says nothing of {missing:?}");
    }

    /// A name of an attribute or a metric as Prometheus may have it, without what the rule puts behind it.
    fn normal(name: &str) -> String {
        let name = name.replace('.', "_");
        let ends = ["_total", "_seconds", "_bytes", "_ratio"];
        ends.iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(&name).to_owned())
    }

    fn unknown(page: &str) -> Vec<&str> {
        let code = SOURCES.iter().filter_map(|source| source.split("#[cfg(test)]").next());
        let known: BTreeSet<_> = code.flat_map(|code| code.split('"')).map(normal).collect();
        let quoted = page.split('`').skip(1).step_by(2);
        let names = quoted.filter(|name| {
            let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
            let first = name.split(['.', '_']).next().unwrap_or_default();
            is_name && name.contains(['.', '_']) && ["oncelog", "rpc", "messaging", "server", "error"].contains(&first)
        });
        names.filter(|name| !known.contains(&normal(name))).collect()
    }

    #[test]
    fn the_page_on_observability_names_nothing_that_does_not_exist() {
        assert_eq!(unknown(PAGE), [""; 0], "docs/observability.md names what nobody tells");
        let page = "`oncelog.outcome` and `oncelog.outcomes`, `oncelog_broker_sync_duration_seconds` and `oncelog_broker_sync`";
        assert_eq!(unknown(page), ["oncelog.outcomes", "oncelog_broker_sync"]);
    }
}
