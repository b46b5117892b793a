//! What the records say: a value carries its number, so that it can be told whether each one came back, once, byte for byte.

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use bytes::{Bytes, BytesMut};
use oncelog_proto::{
    Compression, PackedBatch, RecordCount,
    v1::{PackedRecords, Record},
};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Values of one length. The same number always gives the same bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Values {
    /// Value `n` is cut out of it at `n * step % places`.
    source: Arc<[u8]>,
    step: u64,
    places: u64,
    bytes: usize,
    /// Where the number goes.
    stamp: usize,
}

impl Values {
    /// Bytes that no compression makes smaller, neither those of one value nor those of many beside each other: whoever
    /// compresses by default must have no less to write than the others.
    ///
    /// # Panics
    /// `bytes` is below [`MIN_BYTES`] or above a megabyte.
    pub fn random(bytes: usize) -> Self {
        assert!((MIN_BYTES..=MAX_BYTES).contains(&bytes), "a value of {bytes} bytes: {MIN_BYTES} to {MAX_BYTES} are possible");
        Self { source: Arc::clone(&NOISE), step: NOISE_STEP, places: (NOISE_BYTES - bytes) as u64, bytes, stamp: 0 }
    }

    /// Events as services write them, in JSON: names repeat, ids and amounts do not.
    ///
    /// # Panics
    /// `bytes` is below [`MIN_JSON_BYTES`].
    pub fn json(bytes: usize) -> Self {
        assert!(bytes >= MIN_JSON_BYTES, "a value of {bytes} bytes has no room for an event");
        let variant = |number: usize| {
            let mut text = String::from("{\"id\":\"0000000000000000\"");
            let mut item = 0;
            while text.len() + 2 < bytes {
                let mix = (number * 7919 + item * 104_729) % 1_000_003;
                let field = match item % 6 {
                    0 => format!(",\"customer\":\"customer-{}\"", mix % 5_000),
                    1 => format!(",\"status\":\"{}\"", ["created", "paid", "shipped", "returned"][mix % 4]),
                    2 => format!(",\"amount\":{}.{:02}", mix % 900, mix % 100),
                    3 => format!(",\"country\":\"{}\"", ["DE", "FR", "JP", "BR", "US"][mix % 5]),
                    4 => format!(",\"product\":\"sku-{mix:07}\""),
                    _ => format!(",\"note{}\":\"delivered to the neighbour on floor {}\"", item / 6, mix % 9),
                };
                item += 1;
                if text.len() + field.len() + 2 > bytes {
                    break;
                }
                text.push_str(&field);
            }
            // The rest of the length goes into spaces, as pretty printing would.
            let _ = write!(text, "{:1$}}}", "", bytes - text.len() - 1);
            text.into_bytes()
        };
        let source: Vec<u8> = (0..JSON_VARIANTS).flat_map(variant).collect();
        let (step, places) = (bytes as u64, source.len() as u64);
        Self { source: source.into(), step, places, bytes, stamp: JSON_STAMP }
    }

    /// Length of each.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// False: a value has at least a number.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Length of a record as it is encoded within a `RecordSet`.
    pub fn encoded_len(&self) -> usize {
        let record = 1 + encoded_len_varint(self.len() as u64) + self.len();
        1 + encoded_len_varint(record as u64) + record
    }

    /// The record of this number.
    pub fn record(&self, number: u64) -> Record {
        let mut value = self.variant(number).to_vec();
        self.stamp(&mut value, number);
        Record { value: Some(value.into()), ..Record::default() }
    }

    /// The records `first`, `first + step`, … packed as producer-svc packs them.
    ///
    /// # Panics
    /// `count` is 0, or they are larger than 64 MiB.
    pub fn packed(&self, first: u64, step: u64, count: usize, compression: Compression) -> PackedRecords {
        let mut out = BytesMut::with_capacity(count * self.encoded_len());
        let len = self.len() as u64;
        let record_len = 1 + encoded_len_varint(len) as u64 + len;
        for number in (0..count as u64).map(|i| first + i * step) {
            encode_key(1, WireType::LengthDelimited, &mut out);
            encode_varint(record_len, &mut out);
            encode_key(2, WireType::LengthDelimited, &mut out);
            encode_varint(len, &mut out);
            let start = out.len();
            out.extend_from_slice(self.variant(number));
            self.stamp(&mut out[start..], number);
        }
        let encoded = out.freeze();
        let record_count = RecordCount::of_len(count).expect("at least one");
        if compression == Compression::None {
            // Without the checksum, which the broker makes anyway.
            let uncompressed_bytes = i32::try_from(encoded.len()).expect("below 64 MiB");
            return PackedRecords { compression: 0, record_count: record_count.get(), uncompressed_bytes, data: encoded };
        }
        PackedBatch::pack(&encoded, record_count, compression).expect("below 64 MiB").to_proto()
    }

    /// The number of a value that came back. None if not every byte is as it was sent.
    pub fn number(&self, value: &Bytes) -> Option<u64> {
        let digits = value.get(self.stamp..self.stamp + STAMP_BYTES)?;
        let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let variant = self.variant(number);
        let before = value[..self.stamp] == variant[..self.stamp];
        let after = value[self.stamp + STAMP_BYTES..] == variant[self.stamp + STAMP_BYTES..];
        (value.len() == variant.len() && before && after).then_some(number)
    }

    fn variant(&self, number: u64) -> &[u8] {
        let start = usize::try_from(number.wrapping_mul(self.step) % self.places).expect("within the source");
        &self.source[start..start + self.bytes]
    }

    fn stamp(&self, value: &mut [u8], number: u64) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (place, byte) in value[self.stamp..self.stamp + STAMP_BYTES].iter_mut().enumerate() {
            *byte = DIGITS[(number >> (60 - 4 * place)) as usize & 0xf];
        }
    }
}

/// Consecutive values lie so far apart, with a prime that no length of a record divides.
const NOISE_STEP: u64 = 4_099;
/// Values come by the same place again after some thousands: after more than any batch holds of records of 1 KiB.
const NOISE_BYTES: usize = 16 << 20;
static NOISE: LazyLock<Arc<[u8]>> = LazyLock::new(|| {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The generator's low bits are the weaker ones.
        random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    (0..NOISE_BYTES / 8).flat_map(|_| next()).collect()
});
/// Longest random value, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Shortest random value, in bytes: the number in hexadecimal digits.
pub const MIN_BYTES: usize = STAMP_BYTES;
/// Shortest event, in bytes.
pub const MIN_JSON_BYTES: usize = 32;
const STAMP_BYTES: usize = 16;
const JSON_STAMP: usize = 7;
const JSON_VARIANTS: usize = 512;

#[cfg(test)]
mod tests {
    use oncelog_proto::record_set;

    use super::*;

    #[test]
    fn a_value_is_known_by_its_number_and_no_other_byte_may_differ() {
        for values in [Values::random(100), Values::json(300), Values::random(MIN_BYTES)] {
            let number = 0x0123_4567_89ab_cdef;
            let value = values.record(number).value.expect("it has one");
            assert_eq!(value.len(), values.len());
            assert_eq!(values.number(&value), Some(number));
            for at in (0..values.stamp).chain(values.stamp + STAMP_BYTES..values.len()) {
                let mut wrong = value.to_vec();
                wrong[at] ^= 1;
                assert_eq!(values.number(&wrong.into()), None, "byte {at}");
            }
            assert_eq!(values.number(&value.slice(1..)), None);
        }
    }

    #[test]
    fn what_is_packed_by_hand_is_what_the_contract_encodes() {
        for values in [Values::random(100), Values::json(1024)] {
            let records: Vec<_> = [5, 8, 11].map(|number| values.record(number)).to_vec();
            for compression in [Compression::None, Compression::Snappy] {
                let packed = values.packed(5, 3, 3, compression);
                let batch = PackedBatch::from_proto(packed).expect("in range");
                assert_eq!(batch.verify(), Ok(()));
                assert_eq!(batch.records().expect("verified"), records);
                assert_eq!(batch.uncompressed_bytes() as usize, 3 * values.encoded_len());
            }
            assert_eq!(record_set::encode(&records).len(), 3 * values.encoded_len());
        }
    }

    #[test]
    fn events_can_be_compressed_and_random_values_cannot_however_many_stand_beside_each_other() {
        let share = |values: &Values, step, count, compression| {
            values.packed(7, step, count, compression).data.len() as f64 / (count * values.encoded_len()) as f64
        };
        for compression in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            assert!(share(&Values::json(1024), 1, 32, compression) < 0.5, "{compression:?}");
            // The number itself is sixteen digits, and what frames a record is always the same.
            for (bytes, least) in [(1024, 0.97), (100, 0.8)] {
                // As a producer packs them that sends to eight partitions in turn.
                for step in [1, 8] {
                    let share = share(&Values::random(bytes), step, (512 << 10) / bytes, compression);
                    assert!(share > least, "{compression:?} makes {bytes} bytes to {share}");
                }
            }
        }
        assert!(serde_json::from_slice::<serde_json::Value>(&Values::json(1024).record(77).value.expect("one")).is_ok());
    }
}
