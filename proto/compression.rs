//! The three compressions of a batch. Decompression is bounded by the length that the batch claims: a bomb costs no more
//! memory than its own claim, and that claim has a limit.

use std::io::{Cursor, Read, Write};

use bytes::Bytes;

use crate::v1;

/// How the data of a batch is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Snappy, one raw block.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard frame.
    Zstd,
}

/// Why data could not be compressed or uncompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not of the format, or are cut.
    #[error("the data is not valid {format}: {reason}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What its decoder said.
        reason: String,
    },
    /// The length is not the one claimed.
    #[error("the data uncompresses to {actual} bytes, not to the {claimed} that uncompressed_bytes claims")]
    Length {
        /// As claimed.
        claimed: usize,
        /// As found; where it is larger than claimed, how far the decoder went.
        actual: String,
    },
}

impl Compression {
    /// Compresses `data`.
    pub fn compress(self, data: &Bytes) -> Bytes {
        match self {
            Self::None => data.clone(),
            Self::Snappy => snap::raw::Encoder::new()
                .compress_vec(data)
                .expect("snappy takes any input below 4 GiB, and a batch is below 64 MiB")
                .into(),
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::with_capacity(data.len() / 2));
                encoder.write_all(data).expect("writing to memory does not fail");
                encoder.finish().expect("writing to memory does not fail").into()
            }
            Self::Zstd => zstd::bulk::compress(data, ZSTD_LEVEL).expect("writing to memory does not fail").into(),
        }
    }

    /// Uncompresses `data` to exactly `claimed` bytes.
    ///
    /// # Errors
    /// The data is not of this format, or has another length. No more than `claimed` + 1 bytes are ever produced.
    pub fn decompress(self, data: &Bytes, claimed: usize) -> Result<Bytes, CompressionError> {
        let length = |actual: String| CompressionError::Length { claimed, actual };
        match self {
            Self::None if data.len() == claimed => Ok(data.clone()),
            Self::None => Err(length(data.len().to_string())),
            Self::Snappy => {
                let malformed = |e: snap::Error| CompressionError::Malformed { format: "snappy", reason: e.to_string() };
                // The block names its length up front; nothing is allocated for one that lies.
                let named = snap::raw::decompress_len(data).map_err(malformed)?;
                if named != claimed {
                    return Err(length(named.to_string()));
                }
                Ok(snap::raw::Decoder::new().decompress_vec(data).map_err(malformed)?.into())
            }
            Self::Lz4 if !is_whole_lz4_frame(data) => Err(CompressionError::Malformed {
                format: "lz4",
                reason: "the frame is cut, or is followed by something else".to_owned(),
            }),
            Self::Lz4 => read_exactly(lz4_flex::frame::FrameDecoder::new(Cursor::new(data)), "lz4", claimed),
            Self::Zstd => {
                let malformed = |e: std::io::Error| CompressionError::Malformed { format: "zstd", reason: e.to_string() };
                let mut decoder = zstd::stream::Decoder::with_buffer(Cursor::new(data)).map_err(malformed)?;
                // A frame may ask for a window of gigabytes whatever it holds.
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
                read_exactly(decoder, "zstd", claimed)
            }
        }
    }

    /// Kafka's number of this compression, as in the protobuf enum and in the journal.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The compression of a number; none if it is not offered.
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The wire's form.
    pub const fn to_proto(self) -> v1::Compression {
        match self {
            Self::None => v1::Compression::Unspecified,
            Self::Snappy => v1::Compression::Snappy,
            Self::Lz4 => v1::Compression::Lz4,
            Self::Zstd => v1::Compression::Zstd,
        }
    }
}

/// Is `data` one whole LZ4 frame, from its magic number to its end mark, and nothing else?
///
/// A frame cut within its end mark still yields all its bytes from this decoder, but not from every other one; and what is
/// stored is served to readers of every language. So the frame is walked, block by block.
fn is_whole_lz4_frame(data: &[u8]) -> bool {
    let Some(&flags) = data.get(4) else { return false };
    let has = |bit: u8| usize::from(flags >> bit & 1);
    let (dictionary, content_checksum, content_size, block_checksum) = (has(0), has(2), has(3), has(4));
    let mut at = 7 + 8 * content_size + 4 * dictionary;
    while let Some(size) = data.get(at..at + 4) {
        let size = u32::from_le_bytes(size.try_into().expect("four bytes")) & 0x7fff_ffff;
        at += 4;
        if size == 0 {
            return at + 4 * content_checksum == data.len();
        }
        at += size as usize + 4 * block_checksum;
    }
    false
}

fn read_exactly(source: impl Read, format: &'static str, claimed: usize) -> Result<Bytes, CompressionError> {
    let mut out = Vec::with_capacity(claimed);
    let limit = claimed as u64 + 1;
    source.take(limit).read_to_end(&mut out).map_err(|e| CompressionError::Malformed { format, reason: e.to_string() })?;
    match out.len() {
        n if n == claimed => Ok(out.into()),
        n if n > claimed => Err(CompressionError::Length { claimed, actual: format!("more than {claimed}") }),
        n => Err(CompressionError::Length { claimed, actual: n.to_string() }),
    }
}

/// Kafka's default level.
const ZSTD_LEVEL: i32 = 3;
/// 8 MiB: what the Zstandard specification asks every decoder to take, and no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 4] = [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    #[test]
    fn what_is_compressed_comes_back() {
        for len in [0, 1, 100, 70_000, 1 << 20] {
            let data: Bytes = (0..len).map(|i| (i * i % 251) as u8).collect::<Vec<_>>().into();
            for compression in ALL {
                let packed = compression.compress(&data);
                assert_eq!(compression.decompress(&packed, len).expect("valid"), data, "{compression:?} {len}");
            }
        }
    }

    #[test]
    fn a_wrong_length_claim_is_refused_on_both_sides() {
        let data = Bytes::from(vec![7; 1000]);
        for compression in ALL {
            let packed = compression.compress(&data);
            for claimed in [999, 1001] {
                assert!(compression.decompress(&packed, claimed).is_err(), "{compression:?} {claimed}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_its_claim() {
        let bomb = Compression::Zstd.compress(&Bytes::from(vec![0; 60 << 20]));
        assert!(bomb.len() < 10_000);
        let error = Compression::Zstd.decompress(&bomb, 1000).expect_err("the claim is a lie");
        assert!(error.to_string().contains("more than 1000"), "{error}");
    }

    #[test]
    fn cut_data_is_malformed() {
        let data = Bytes::from((0..5000u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        for compression in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let packed = compression.compress(&data);
            for cut in [0, 1, packed.len() / 2, packed.len() - 1] {
                assert!(compression.decompress(&packed.slice(..cut), data.len()).is_err(), "{compression:?} {cut}");
            }
        }
    }
}
