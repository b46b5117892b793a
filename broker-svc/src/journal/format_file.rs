//! The FORMAT file: what the directory is, in a form that people can read.
//!
//! It is written when the first segment exists, so a directory with a FORMAT file has segments; one without segments lost them.

use std::fmt::Write as _;

use super::identity::{FileFault, Identity, KNOWN_FEATURES, MAJOR, MINOR};

/// The text of the file.
pub(super) fn encode(identity: &Identity) -> String {
    let cluster = identity.cluster.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to memory does not fail");
        hex
    });
    let Identity { incarnation, .. } = identity;
    let body =
        format!("{TITLE}\nformat {MAJOR}.{MINOR}\nfeatures {KNOWN_FEATURES}\ncluster {cluster}\nincarnation {incarnation}\n");
    format!("{body}checksum {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

/// Reads the file.
pub(super) fn decode(bytes: &[u8]) -> Result<Identity, FileFault> {
    let damaged = |what: &str| FileFault::Damaged(what.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("its first line is not the one expected"));
    }
    let mut field = |name: &str| {
        let value = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.ok_or_else(|| FileFault::Damaged(format!("the line \"{name} …\" is missing")))
    };
    let format = field("format")?;
    let features: u64 = field("features")?.parse().map_err(|_| damaged("features is not a number"))?;
    let major: u16 = format
        .split_once('.')
        .and_then(|(major, minor)| minor.parse::<u16>().ok().and_then(|_| major.parse().ok()))
        .ok_or_else(|| damaged("format is not two numbers"))?;
    if major > MAJOR || features & !KNOWN_FEATURES != 0 {
        return Err(FileFault::Newer { major, features });
    }
    let cluster = field("cluster")?;
    let incarnation = field("incarnation")?.parse().map_err(|_| damaged("incarnation is not a number"))?;
    let checksum = field("checksum")?;
    let body = text.find("\nchecksum ").map_or("", |at| &text[..=at]);
    if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) || lines.next().is_some() {
        return Err(damaged("it does not match its checksum"));
    }
    let number = u128::from_str_radix(cluster, 16).ok().filter(|_| cluster.len() == 32);
    let cluster = number.ok_or_else(|| damaged("cluster is not 32 hexadecimal digits"))?.to_be_bytes();
    Ok(Identity { cluster, incarnation })
}

/// More than any version will need.
pub(super) const MAX_LEN: usize = 4096;

const TITLE: &str = "oncelog journal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_it_is_written() {
        let identity = Identity { cluster: *b"0123456789abcdef", incarnation: 3 };
        let text = encode(&identity);
        assert!(text.starts_with("oncelog journal\nformat 1.1\n"), "{text}");
        assert_eq!(decode(text.as_bytes()), Ok(identity));
    }

    #[test]
    fn a_changed_or_cut_file_is_refused_and_a_newer_one_is_named() {
        let text = encode(&Identity { cluster: [0xAB; 16], incarnation: 0 });
        assert!(matches!(decode(text.replace("format 1", "format 2").as_bytes()), Err(FileFault::Newer { major: 2, .. })));
        assert!(matches!(decode(text.replace("features 0", "features 4").as_bytes()), Err(FileFault::Newer { .. })));
        assert!(matches!(decode(text.replace("abab", "abac").as_bytes()), Err(FileFault::Damaged(_))));
        assert!(matches!(decode(text.replace("incarnation 0", "incarnation 1").as_bytes()), Err(FileFault::Damaged(_))));
        for len in 0..text.len() - 1 {
            assert!(decode(&text.as_bytes()[..len]).is_err(), "{len} bytes");
        }
    }
}
