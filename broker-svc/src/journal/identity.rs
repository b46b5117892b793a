//! What a file of the journal says of itself in its first bytes: its kind, its format, and whose it is.
//!
//! Segments, indexes and snapshots start alike, in every version that will ever be: magic, checksum, major and minor format,
//! features. So an older program recognises a newer file before it changes anything.

use bytes::{Buf, BufMut, TryGetError};

/// The highest format that this version reads, and the one it writes.
pub(super) const MAJOR: u16 = 1;
pub(super) const MINOR: u16 = 1;
/// Features that this version knows, of those that an older program must not pass over.
pub(super) const KNOWN_FEATURES: u64 = 0;

/// Which broker's journal this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Random, from the first opening on.
    pub(super) cluster: [u8; 16],
    /// How often the directory was restored from a backup: what a copy gives out, another copy never does.
    pub(super) incarnation: u64,
}

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileFault {
    #[error("{0}")]
    Damaged(String),
    #[error("it is of format {major} with features {features:#x}; this version reads up to format {MAJOR} without any")]
    Newer { major: u16, features: u64 },
}

impl From<TryGetError> for FileFault {
    fn from(_: TryGetError) -> Self {
        Self::Damaged("it ends within its header".to_owned())
    }
}

/// Starts a file's header; [`seal`] ends it.
pub(super) fn start(magic: &[u8; 8], identity: &Identity) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.put_slice(magic);
    out.put_u32_le(0);
    out.put_u16_le(MAJOR);
    out.put_u16_le(MINOR);
    out.put_u64_le(KNOWN_FEATURES);
    out.put_slice(&identity.cluster);
    out.put_u64_le(identity.incarnation);
    out
}

/// Pads a header to `len` bytes and puts its checksum in.
pub(super) fn seal(mut header: Vec<u8>, len: usize) -> Vec<u8> {
    assert!(header.len() <= len, "a header has a fixed length");
    header.resize(len, 0);
    let checksum = crc32c::crc32c(&header[12..]);
    header[8..12].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Checks a header of `len` bytes; returns whose it is and the fields behind.
pub(super) fn open<'a>(bytes: &'a [u8], magic: &[u8; 8], len: usize) -> Result<(Identity, &'a [u8]), FileFault> {
    let damaged = |what: &str| FileFault::Damaged(what.to_owned());
    let mut rest = bytes.strip_prefix(magic).ok_or_else(|| damaged("it does not start with the mark of its kind"))?;
    let checksum = rest.try_get_u32_le()?;
    let major = rest.try_get_u16_le()?;
    rest.try_get_u16_le()?;
    let features = rest.try_get_u64_le()?;
    // A newer format may have another length and another checksum: neither is looked at.
    if major > MAJOR {
        return Err(FileFault::Newer { major, features });
    }
    if bytes.get(12..len).map(crc32c::crc32c) != Some(checksum) {
        return Err(damaged("its header does not match its checksum"));
    }
    if features & !KNOWN_FEATURES != 0 {
        return Err(FileFault::Newer { major, features });
    }
    let mut cluster = [0; 16];
    rest.try_copy_to_slice(&mut cluster)?;
    let incarnation = rest.try_get_u64_le()?;
    Ok((Identity { cluster, incarnation }, &rest[..len - (bytes.len() - rest.len())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"TESTTEST";

    fn sealed(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut header = start(MAGIC, &Identity { cluster: [7; 16], incarnation: 2 });
        header.put_u64_le(42);
        change(&mut header);
        seal(header, 128)
    }

    #[test]
    fn a_header_is_read_as_it_is_written() {
        let bytes = sealed(|_| {});
        let (identity, mut fields) = open(&bytes, MAGIC, 128).expect("whole");
        assert_eq!(identity, Identity { cluster: [7; 16], incarnation: 2 });
        assert_eq!(fields.get_u64_le(), 42);
    }

    #[test]
    fn a_newer_major_or_an_unknown_feature_is_newer_and_a_newer_minor_is_not() {
        let newer_major = sealed(|h| h[12] = 2);
        assert!(matches!(open(&newer_major, MAGIC, 128), Err(FileFault::Newer { major: 2, .. })));
        let feature = sealed(|h| h[16] = 1);
        assert!(matches!(open(&feature, MAGIC, 128), Err(FileFault::Newer { features: 1, .. })));
        assert!(open(&sealed(|h| h[14] = 9), MAGIC, 128).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut bytes = sealed(|_| {});
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bytes, MAGIC, 128).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len], MAGIC, 128).is_err(), "{len} bytes");
        }
    }
}
