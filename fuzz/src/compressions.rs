//! Compressed data: the first byte chooses the compression, the next three are the claimed length, the others the data.

use bytes::Bytes;
use oncelog_proto::Compression;

/// What uncompresses has exactly the claimed length, and comes back from being compressed again.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Some(([kind, claim @ ..], data)) = bytes.split_first_chunk::<4>() else { return };
    let compression = [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd][usize::from(kind % 4)];
    // 16 MiB at most: a bomb, but one of many in a second.
    let claim = claim.iter().fold(0, |claim, byte| claim << 8 | usize::from(*byte));
    let Ok(uncompressed) = compression.decompress(&Bytes::copy_from_slice(data), claim) else { return };
    assert_eq!(uncompressed.len(), claim, "{compression:?} gives what was claimed");
    if claim <= 1 << 16 {
        let again = compression.decompress(&compression.compress(&uncompressed), claim);
        assert_eq!(again.expect("it was compressed here"), uncompressed, "{compression:?}");
    }
}
