//! Encoded records: the bytes are a `RecordSet`, or claim to be one.

use bytes::Bytes;
use oncelog_proto::{
    RecordCount,
    record_set::{self, RecordSetError, Records},
};

/// What the walk accepts, the decoder accepts, with as many records; a record is found by skipping as it is by reading.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let counted = match record_set::verify(bytes, RecordCount::MIN) {
        Ok(()) => 1,
        Err(RecordSetError::Count { actual, .. }) => actual,
        Err(_) => return,
    };
    let encoded = Bytes::copy_from_slice(bytes);
    let decoded = record_set::decode(encoded.clone()).expect("the walk accepted it");
    assert_eq!(decoded.len(), counted, "the decoder finds as many records as the walk");
    if let Ok(count) = RecordCount::of_len(counted) {
        record_set::verify(bytes, count).expect("that is how many there are");
    }
    let read: Vec<_> = Records::new(encoded.clone()).collect::<Result<_, _>>().expect("the walk accepted it");
    assert_eq!(read, decoded, "one by one as all at once");
    let middle = counted / 2;
    let skipped = Records::new(encoded).nth(middle).transpose().expect("the walk accepted it");
    assert_eq!(skipped.as_ref(), decoded.get(middle), "passed over or read, the next one is the same");
}
