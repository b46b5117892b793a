//! The encoding of records, and the walk that proves how many there are.
//!
//! A false record count would become durable and poison its partition for ever: offsets and sequences count records. So the
//! broker walks every batch before it admits it. The walk reads the protobuf framing by hand, because decoding every record
//! only to count it costs several times as much; it accepts exactly what the decoder accepts, which a property test compares.

use bytes::{Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len},
};

use crate::{
    RecordCount,
    ids::OutOfRange,
    v1::{Record, RecordSet},
};

/// Most headers of one record.
pub const MAX_HEADERS: usize = 1_000;
/// Longest key of a header, in bytes (Kafka's short string).
pub const MAX_HEADER_KEY_BYTES: usize = 32_767;

/// Why bytes are not an encoded `RecordSet`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordSetError {
    /// The protobuf framing is broken.
    #[error("record {index}: {reason}")]
    Malformed {
        /// Index of the record in which it broke.
        index: usize,
        /// How.
        reason: &'static str,
    },
    /// The count is not the one claimed.
    #[error("there are {actual} records, not the {claimed} that record_count claims")]
    Count {
        /// As claimed.
        claimed: RecordCount,
        /// As found.
        actual: usize,
    },
    /// There is no record, or more than a count holds.
    #[error("{0}")]
    OutOfRange(#[from] OutOfRange),
}

/// Encodes records one by one, as they arrive.
#[derive(Clone, Debug, Default)]
pub struct RecordSetEncoder {
    out: BytesMut,
    count: usize,
}

impl RecordSetEncoder {
    /// Bytes that `record` adds.
    pub fn added_len(record: &Record) -> usize {
        let len = record.encoded_len();
        key_len(RECORDS) + encoded_len_varint(len as u64) + len
    }

    /// Adds a record.
    pub fn push(&mut self, record: &Record) {
        let len = record.encoded_len();
        self.out.reserve(len + 16);
        encode_key(RECORDS, WireType::LengthDelimited, &mut self.out);
        encode_varint(len as u64, &mut self.out);
        record.encode_raw(&mut self.out);
        self.count += 1;
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far.
    pub fn encoded_len(&self) -> usize {
        self.out.len()
    }

    /// The encoded `RecordSet`.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// Encodes records at once, fields in number order.
pub fn encode(records: &[Record]) -> Bytes {
    let mut encoder = RecordSetEncoder::default();
    for record in records {
        encoder.push(record);
    }
    encoder.finish()
}

/// Decodes what [`verify`] accepted.
///
/// # Errors
/// The bytes are not an encoded `RecordSet`.
pub fn decode(encoded: Bytes) -> Result<Vec<Record>, prost::DecodeError> {
    RecordSet::decode(encoded).map(|set| set.records)
}

/// The records of what [`verify`] accepted, one by one: a few kilobytes may uncompress to millions of them.
#[derive(Clone, Debug)]
pub struct Records {
    rest: Bytes,
    index: usize,
}

impl Records {
    /// Reads an encoded `RecordSet`.
    pub const fn new(encoded: Bytes) -> Self {
        Self { rest: encoded, index: 0 }
    }

    /// Takes the bytes of the next record out of the rest.
    fn take_encoded(&mut self) -> Result<Bytes, RecordSetError> {
        match decode_key(&mut self.rest) {
            Ok((RECORDS, WireType::LengthDelimited)) => {}
            _ => return Err(self.malformed("field 1 is not a record")),
        }
        let len = decode_varint(&mut self.rest).map_err(|_| self.malformed("a varint is malformed or cut"))?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => Ok(self.rest.split_to(len)),
            _ => Err(self.malformed("a field is longer than what holds it")),
        }
    }

    fn malformed(&self, reason: &'static str) -> RecordSetError {
        RecordSetError::Malformed { index: self.index, reason }
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordSetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.nth(0)
    }

    /// Does not decode what it passes over. An error is the last item, also if it stands before the one that was asked for.
    fn nth(&mut self, passed_over: usize) -> Option<Self::Item> {
        for _ in 0..passed_over {
            if self.rest.is_empty() {
                return None;
            }
            if let Err(error) = self.take_encoded() {
                self.rest.clear();
                return Some(Err(error));
            }
            self.index += 1;
        }
        if self.rest.is_empty() {
            return None;
        }
        let record =
            self.take_encoded().and_then(|encoded| Record::decode(encoded).map_err(|_| self.malformed("it cannot be decoded")));
        if record.is_err() {
            self.rest.clear();
        }
        self.index += 1;
        Some(record)
    }
}

/// Checks that `encoded` is a `RecordSet` of exactly `claimed` records, each within the limits of a record's headers.
///
/// # Errors
/// It is not; the error names the record.
pub fn verify(encoded: &[u8], claimed: RecordCount) -> Result<(), RecordSetError> {
    let mut walk = Walk { rest: encoded, index: 0 };
    while !walk.rest.is_empty() {
        match walk.field()? {
            Field { number: RECORDS, value: Value::Bytes(record) } => {
                walk.record(record)?;
                walk.index += 1;
            }
            Field { number: RECORDS, .. } => return Err(walk.malformed("field 1 is not a record")),
            Field { .. } => return Err(walk.malformed("a RecordSet has no other field than 1")),
        }
    }
    if walk.index != usize::try_from(claimed.get()).unwrap_or(usize::MAX) {
        return Err(RecordSetError::Count { claimed, actual: walk.index });
    }
    Ok(())
}

struct Walk<'a> {
    rest: &'a [u8],
    index: usize,
}

struct Field<'a> {
    number: u32,
    value: Value<'a>,
}

enum Value<'a> {
    Varint,
    Bytes(&'a [u8]),
}

impl<'a> Walk<'a> {
    fn malformed(&self, reason: &'static str) -> RecordSetError {
        RecordSetError::Malformed { index: self.index, reason }
    }

    /// Reads one field. Only the two wire types that records use are known: a fixed-width or group field is none of ours.
    fn field(&mut self) -> Result<Field<'a>, RecordSetError> {
        let (number, wire) = decode_key(&mut self.rest).map_err(|_| self.malformed("a field key is malformed"))?;
        let varint = decode_varint(&mut self.rest).map_err(|_| self.malformed("a varint is malformed or cut"))?;
        let value = match wire {
            WireType::Varint => Value::Varint,
            WireType::LengthDelimited => {
                let len = usize::try_from(varint).unwrap_or(usize::MAX);
                if len > self.rest.len() {
                    return Err(self.malformed("a field is longer than what holds it"));
                }
                let (bytes, rest) = self.rest.split_at(len);
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(self.malformed("a field has a wire type that no field of a record has")),
        };
        Ok(Field { number, value })
    }

    fn inside(&self, bytes: &'a [u8]) -> Self {
        Walk { rest: bytes, index: self.index }
    }

    fn record(&self, bytes: &'a [u8]) -> Result<(), RecordSetError> {
        let mut inner = self.inside(bytes);
        let mut headers = 0;
        while !inner.rest.is_empty() {
            match inner.field()? {
                Field { number: 1 | 2, value: Value::Bytes(_) } => {}
                Field { number: 3, value: Value::Bytes(header) } => {
                    headers += 1;
                    if headers > MAX_HEADERS {
                        return Err(self.malformed("more than 1,000 headers"));
                    }
                    self.header(header)?;
                }
                Field { number: 4, value: Value::Bytes(timestamp) } => self.timestamp(timestamp)?,
                Field { .. } => return Err(self.malformed("a field that a Record does not have")),
            }
        }
        Ok(())
    }

    fn header(&self, bytes: &'a [u8]) -> Result<(), RecordSetError> {
        let mut inner = self.inside(bytes);
        while !inner.rest.is_empty() {
            match inner.field()? {
                Field { number: 1, value: Value::Bytes(key) } => {
                    if key.len() > MAX_HEADER_KEY_BYTES {
                        return Err(self.malformed("a header key is longer than 32,767 bytes"));
                    }
                    std::str::from_utf8(key).map_err(|_| self.malformed("a header key is not UTF-8"))?;
                }
                Field { number: 2, value: Value::Bytes(_) } => {}
                Field { .. } => return Err(self.malformed("a field that a Header does not have")),
            }
        }
        Ok(())
    }

    fn timestamp(&self, bytes: &'a [u8]) -> Result<(), RecordSetError> {
        let mut inner = self.inside(bytes);
        while !inner.rest.is_empty() {
            match inner.field()? {
                Field { number: 1 | 2, value: Value::Varint } => {}
                Field { .. } => return Err(self.malformed("a field that a Timestamp does not have")),
            }
        }
        Ok(())
    }
}

/// Field number of `RecordSet.records`.
const RECORDS: u32 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::Header;

    fn count(n: usize) -> RecordCount {
        RecordCount::of_len(n).expect("small")
    }

    fn record() -> impl Strategy<Value = Record> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from));
        let header =
            (".{0,8}", prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(key, value)| Header { key, value: value.into() });
        let time = prop::option::of((any::<i64>(), any::<i32>()))
            .prop_map(|t| t.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }));
        (bytes(), bytes(), prop::collection::vec(header, 0..4), time).prop_map(|(key, value, headers, timestamp)| Record {
            key,
            value,
            headers,
            timestamp,
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_verified_and_decoded(records in prop::collection::vec(record(), 1..20)) {
            let encoded = encode(&records);
            prop_assert_eq!(&encoded, &RecordSet { records: records.clone() }.encode_to_vec());
            let added: usize = records.iter().map(RecordSetEncoder::added_len).sum();
            prop_assert_eq!(added, encoded.len());
            prop_assert_eq!(verify(&encoded, count(records.len())), Ok(()));
            for passed_over in 0..=records.len() {
                let rest: Result<Vec<_>, _> = Records::new(encoded.clone()).skip(passed_over).collect();
                prop_assert_eq!(rest.as_deref(), Ok(&records[passed_over..]));
            }
            prop_assert_eq!(decode(encoded).expect("verified"), records);
        }

        #[test]
        fn what_is_verified_is_decoded_to_as_many(
            records in prop::collection::vec(record(), 1..4),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut encoded = encode(&records).to_vec();
            prop_assume!(!encoded.is_empty());
            for (at, with) in flips {
                let at = at.index(encoded.len());
                encoded[at] ^= with;
            }
            for claimed in 1..8 {
                if verify(&encoded, count(claimed)).is_ok() {
                    let decoded = decode(Bytes::from(encoded.clone())).expect("the walk accepted it");
                    prop_assert_eq!(decoded.len(), claimed);
                    let one_by_one = Records::new(Bytes::from(encoded.clone())).collect::<Result<Vec<_>, _>>();
                    prop_assert_eq!(one_by_one, Ok(decoded));
                }
            }
        }
    }

    #[test]
    fn a_false_count_is_refused_on_both_sides() {
        let encoded = encode(&[Record::default(), Record::default()]);
        assert_eq!(verify(&encoded, count(2)), Ok(()));
        for claimed in [1, 3] {
            let error = RecordSetError::Count { claimed: count(claimed), actual: 2 };
            assert_eq!(verify(&encoded, count(claimed)), Err(error));
        }
    }

    #[test]
    fn header_limits_are_exact() {
        let with = |headers: usize, key: usize| Record {
            headers: vec![Header { key: "k".repeat(key), value: Bytes::new() }; headers],
            ..Record::default()
        };
        assert!(verify(&encode(&[with(MAX_HEADERS, 1)]), count(1)).is_ok());
        assert!(verify(&encode(&[with(MAX_HEADERS + 1, 1)]), count(1)).is_err());
        assert!(verify(&encode(&[with(1, MAX_HEADER_KEY_BYTES)]), count(1)).is_ok());
        assert!(verify(&encode(&[with(1, MAX_HEADER_KEY_BYTES + 1)]), count(1)).is_err());
    }
}
