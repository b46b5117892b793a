//! The contract of oncelog: what callers, producer-svc and broker-svc agree on.
//!
//! [`v1`] is generated from `proto/oncelog/v1/*.proto` and belongs to the edge: a service parses a message once, into the
//! domain types of the other modules, and speaks in those from there on. A value of a domain type is valid; where one cannot
//! be built, the caller is told why by a [`Fault`].
//!
//! | module | owns |
//! |---|---|
//! | [`ids`] | producer id, epoch, sequence, offset, partition index: numbers that must not be mixed up |
//! | [`topic`] | which topic names and partition counts are allowed |
//! | [`record_set`] | the encoding of records, and the walk that proves a record count |
//! | [`compression`] | the three compressions, with bounded decompression |
//! | [`packed`] | records packed, checksummed, and verified |
//! | [`tag`] | producer id + epoch + base sequence |
//! | [`time`] | instants as the log keeps them |
//! | [`trace`] | which trace something belongs to, carried along and never looked into |
//! | [`bearer`] | the token that a caller shows, and a channel that shows it |
//! | [`fault`] | the table of errors: code, gRPC status, retry or not, outcome known or not |

pub mod bearer;
pub mod compression;
pub mod fault;
pub mod ids;
pub mod packed;
pub mod record_set;
pub mod tag;
pub mod time;
pub mod topic;
pub mod trace;

pub use bearer::{Bearer, Link};
pub use compression::Compression;
pub use fault::Fault;
pub use ids::{Epoch, Offset, PartitionIndex, ProducerId, RecordCount, Sequence};
pub use packed::PackedBatch;
pub use tag::Tag;
pub use time::{Monotonic, Timestamp};
pub use topic::{TopicName, TopicPartition};
pub use trace::TraceContext;
pub use v1::ErrorCode;

/// Messages, clients and servers generated from the protobuf files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::or_fun_call, clippy::use_self)]
pub mod v1 {
    tonic::include_proto!("oncelog.v1");
}

/// The protobuf files with their imports, as server reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("oncelog");
