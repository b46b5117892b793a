//! Records packed: encoded, maybe compressed, checksummed. The bytes that a producer packed are the bytes that the journal
//! keeps and `Fetch` serves.

use bytes::Bytes;

use crate::{
    Compression, ErrorCode, Fault, RecordCount,
    record_set::{self, RecordSetError, Records},
    v1,
};

/// Most bytes that a batch may have before compression: 64 MiB. Bounds what a reader has to hold.
pub const MAX_UNCOMPRESSED_BYTES: usize = 64 << 20;

/// A batch's records without its tag. The claims about them are within their ranges; whether they are true is found by
/// [`Self::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PackedBatch {
    compression: Compression,
    count: RecordCount,
    uncompressed_bytes: u32,
    checksum: u32,
    data: Bytes,
}

impl PackedBatch {
    /// Packs an encoded `RecordSet` of `count` records.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE`: more than [`MAX_UNCOMPRESSED_BYTES`].
    pub fn pack(encoded: &Bytes, count: RecordCount, compression: Compression) -> Result<Self, Fault> {
        let uncompressed_bytes = checked_uncompressed(encoded.len())?;
        let data = compression.compress(encoded);
        Ok(Self { compression, count, uncompressed_bytes, checksum: crc32c::crc32c(&data), data })
    }

    /// Packs records that came as they are, without compression.
    ///
    /// # Errors
    /// `INVALID_RECORD`: none, or one beyond the limits of its headers; `MESSAGE_TOO_LARGE`: more than 64 MiB.
    pub fn from_records(records: &[v1::Record]) -> Result<Self, Fault> {
        let count = RecordCount::of_len(records.len())
            .map_err(|_| Fault::new(ErrorCode::InvalidRecord, "the batch has no records; send at least one"))?;
        let encoded = record_set::encode(records);
        let packed = Self::pack(&encoded, count, Compression::None)?;
        packed.verify()?;
        Ok(packed)
    }

    /// Takes packed records from the wire. The claims are checked against their ranges, and not yet against the data.
    ///
    /// # Errors
    /// `UNSUPPORTED_COMPRESSION_TYPE`, `INVALID_RECORD` (a count below 1), `CORRUPT_MESSAGE` (a length below 1),
    /// `MESSAGE_TOO_LARGE` (a length above 64 MiB).
    pub fn from_proto(packed: v1::PackedRecords) -> Result<Self, Fault> {
        let compression = Compression::from_number(packed.compression).ok_or_else(|| {
            let message =
                format!("compression {} is not offered; use 0 (none), 2 (snappy), 3 (lz4) or 4 (zstd)", packed.compression);
            Fault::new(ErrorCode::UnsupportedCompressionType, message)
        })?;
        let count = RecordCount::new(packed.record_count).map_err(|e| Fault::new(ErrorCode::InvalidRecord, e.to_string()))?;
        let uncompressed = usize::try_from(packed.uncompressed_bytes).unwrap_or(0);
        if uncompressed == 0 {
            let message =
                format!("uncompressed_bytes is {}; allowed is 1 to {MAX_UNCOMPRESSED_BYTES}", packed.uncompressed_bytes);
            return Err(Fault::new(ErrorCode::CorruptMessage, message));
        }
        Ok(Self {
            compression,
            count,
            uncompressed_bytes: checked_uncompressed(uncompressed)?,
            checksum: crc32c::crc32c(&packed.data),
            data: packed.data,
        })
    }

    /// Puts together what was taken apart for the journal. None if a number is out of its range or the checksum is another.
    pub fn from_stored(
        compression: Compression,
        count: RecordCount,
        uncompressed_bytes: u32,
        checksum: u32,
        data: Bytes,
    ) -> Option<Self> {
        let in_range = (1..=MAX_UNCOMPRESSED_BYTES).contains(&(uncompressed_bytes as usize));
        (in_range && crc32c::crc32c(&data) == checksum).then_some(Self { compression, count, uncompressed_bytes, checksum, data })
    }

    /// Uncompresses the data and walks its records: proves every claim.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE`: it does not uncompress to the claimed length; `INVALID_RECORD`: it does not hold the claimed number
    /// of readable records.
    pub fn verify(&self) -> Result<(), Fault> {
        let encoded = self.uncompressed()?;
        record_set::verify(&encoded, self.count).map_err(|e: RecordSetError| Fault::new(ErrorCode::InvalidRecord, e.to_string()))
    }

    /// The records.
    ///
    /// # Errors
    /// As [`Self::verify`]; none for a batch that was verified.
    pub fn records(&self) -> Result<Vec<v1::Record>, Fault> {
        record_set::decode(self.uncompressed()?).map_err(|e| Fault::new(ErrorCode::InvalidRecord, e.to_string()))
    }

    /// The records, one by one.
    ///
    /// # Errors
    /// As [`Self::verify`]; none for a batch that was verified.
    pub fn read(&self) -> Result<Records, Fault> {
        Ok(Records::new(self.uncompressed()?))
    }

    fn uncompressed(&self) -> Result<Bytes, Fault> {
        self.compression
            .decompress(&self.data, self.uncompressed_bytes as usize)
            .map_err(|e| Fault::new(ErrorCode::CorruptMessage, e.to_string()))
    }

    /// The wire's form.
    pub fn to_proto(&self) -> v1::PackedRecords {
        v1::PackedRecords {
            compression: self.compression.to_proto().into(),
            record_count: self.count.get(),
            uncompressed_bytes: i32::try_from(self.uncompressed_bytes).expect("at most 64 MiB"),
            data: self.data.clone(),
        }
    }

    /// How the data is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Number of records.
    pub fn count(&self) -> RecordCount {
        self.count
    }

    /// Length before compression, in bytes.
    pub fn uncompressed_bytes(&self) -> u32 {
        self.uncompressed_bytes
    }

    /// CRC-32C of [`Self::data`]. What two batches of one tag are compared by.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The bytes as sent and stored.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

fn checked_uncompressed(len: usize) -> Result<u32, Fault> {
    if len <= MAX_UNCOMPRESSED_BYTES {
        return Ok(u32::try_from(len).expect("at most 64 MiB"));
    }
    let message = format!("the batch has {len} bytes before compression; the limit is {MAX_UNCOMPRESSED_BYTES}");
    Err(Fault::new(ErrorCode::MessageTooLarge, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<v1::Record> {
        ["a", "b"].map(|v| v1::Record { value: Some(v.into()), ..v1::Record::default() }).to_vec()
    }

    #[test]
    fn a_false_claim_is_refused_and_a_true_one_is_taken() {
        let encoded = record_set::encode(&records());
        for compression in [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let honest = PackedBatch::pack(&encoded, RecordCount::of_len(2).expect("2"), compression).expect("small").to_proto();
            let judge = |change: &dyn Fn(&mut v1::PackedRecords)| {
                let mut packed = honest.clone();
                change(&mut packed);
                PackedBatch::from_proto(packed).and_then(|p| p.verify()).map_err(|f| f.code())
            };
            assert_eq!(judge(&|_| {}), Ok(()));
            assert_eq!(judge(&|p| p.record_count = 3), Err(ErrorCode::InvalidRecord));
            assert_eq!(judge(&|p| p.record_count = 0), Err(ErrorCode::InvalidRecord));
            assert_eq!(judge(&|p| p.uncompressed_bytes += 1), Err(ErrorCode::CorruptMessage));
            assert_eq!(judge(&|p| p.uncompressed_bytes = 0), Err(ErrorCode::CorruptMessage));
            assert_eq!(judge(&|p| p.uncompressed_bytes = i32::MAX), Err(ErrorCode::MessageTooLarge));
            assert_eq!(judge(&|p| p.compression = 1), Err(ErrorCode::UnsupportedCompressionType));
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let packed = PackedBatch::from_records(&records()).expect("valid");
        assert_eq!(packed.records().expect("valid"), records());
        assert_eq!(packed.read().expect("valid").collect::<Result<Vec<_>, _>>(), Ok(records()));
        assert_eq!(PackedBatch::from_records(&[]).map_err(|f| f.code()), Err(ErrorCode::InvalidRecord));
    }
}
