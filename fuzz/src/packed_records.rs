//! Packed records with their claims: the bytes are the message.

use oncelog_proto::{PackedBatch, v1::PackedRecords};
use prost::Message;

/// What is verified holds as many records as it claims, whichever way they are read.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Ok(message) = PackedRecords::decode(bytes) else { return };
    let Ok(packed) = PackedBatch::from_proto(message) else { return };
    if u64::from(packed.uncompressed_bytes()) <= crate::UNPACKED_BYTES {
        judge(&packed);
    }
}

/// Of a batch that may claim anything.
pub(crate) fn judge(packed: &PackedBatch) {
    if packed.verify().is_err() {
        return;
    }
    let count = usize::try_from(packed.count().get()).expect("positive");
    let decoded = packed.records().expect("verified");
    let read: Vec<_> = packed.read().expect("verified").collect::<Result<_, _>>().expect("verified");
    assert_eq!(decoded.len(), count, "the claim was verified");
    assert_eq!(decoded, read, "both ways to read it agree");
}
