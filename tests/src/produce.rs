//! Produce requests, in a line each.

use oncelog_proto::{Compression, PackedBatch, RecordCount, record_set, v1};

/// A record of this value.
pub fn record(value: impl Into<bytes::Bytes>) -> v1::Record {
    v1::Record { value: Some(value.into()), ..Default::default() }
}

/// A batch of plain records for `topic/partition`.
pub fn batch(topic: &str, partition: i32, records: Vec<v1::Record>) -> v1::Batch {
    v1::Batch { topic: topic.to_owned(), partition, records, ..Default::default() }
}

/// The same with a base sequence.
pub fn sequenced(topic: &str, partition: i32, base_sequence: i64, records: Vec<v1::Record>) -> v1::Batch {
    v1::Batch { base_sequence, ..batch(topic, partition, records) }
}

/// A batch of packed records for `topic/partition`.
pub fn packed(topic: &str, partition: i32, packed: v1::PackedRecords) -> v1::Batch {
    v1::Batch { packed: Some(packed), ..batch(topic, partition, Vec::new()) }
}

/// Records, packed.
///
/// # Panics
/// There is none, or they are larger than a batch may be.
pub fn pack(records: &[v1::Record], compression: Compression) -> v1::PackedRecords {
    let count = RecordCount::of_len(records.len()).expect("at least one record");
    PackedBatch::pack(&record_set::encode(records), count, compression).expect("below 64 MiB").to_proto()
}

/// A record of which a batch that holds it alone, and uncompressed, has exactly `len` bytes of data.
///
/// # Panics
/// No record is of that length.
pub fn record_filling(len: usize) -> v1::Record {
    let fits = |value: &usize| record_set::RecordSetEncoder::added_len(&record(vec![b'x'; *value])) == len;
    let value = (len.saturating_sub(32)..len).find(fits).unwrap_or_else(|| panic!("no record fills {len} bytes"));
    record(vec![b'x'; value])
}

/// A call without a producer.
pub fn untagged(batches: Vec<v1::Batch>) -> v1::ProduceRequest {
    v1::ProduceRequest { batches, ..Default::default() }
}

/// A call of a producer in its epoch.
pub fn tagged(producer_id: i64, producer_epoch: i32, batches: Vec<v1::Batch>) -> v1::ProduceRequest {
    v1::ProduceRequest { producer_id: Some(producer_id), producer_epoch, batches, ..Default::default() }
}
