//! Keyed records, and their form on the stdin and stdout of `oncelog` (`length-prefixed`), written down here a second time so
//! that an error in the one is seen by the other.

use std::process::Command;

use anyhow::{Context, ensure};

/// A key and a value, any bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Keyed {
    /// Decides the partition.
    pub key: Vec<u8>,
    /// The payload.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.key.escape_ascii(), self.value.len())
    }
}

/// The descriptions of the packages that this machine could install, by package name, at most `limit` of them, of differing
/// length and in many scripts. On a machine without apt, generated ones; that is said on stderr.
///
/// # Panics
/// With `CI=true`, on a machine without apt or before `apt-get update`.
pub fn packages(limit: usize) -> Vec<Keyed> {
    let known = Command::new("apt-cache").arg("dumpavail").output();
    let known = known.ok().filter(|output| output.status.success()).map(|output| stanzas(&output.stdout, limit));
    match known {
        Some(packages) if packages.len() >= limit.min(FEWEST) => packages,
        _ => {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci, "apt-cache knows no packages on this machine; run apt-get update first");
            eprintln!("apt-cache knows no packages on this machine: the records are generated ones");
            generated(limit)
        }
    }
}

fn stanzas(text: &[u8], limit: usize) -> Vec<Keyed> {
    let mut stanzas = Vec::new();
    let mut stanza = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n').chain([&b"\n"[..]]) {
        if line != b"\n" {
            stanza.extend_from_slice(line);
            continue;
        }
        let value = std::mem::take(&mut stanza);
        let name = value.strip_prefix(b"Package: ").and_then(|rest| rest.split(|&byte| byte == b'\n').next());
        if let Some(name) = name {
            stanzas.push(Keyed { key: name.to_owned(), value });
        }
        if stanzas.len() == limit {
            break;
        }
    }
    stanzas
}

fn generated(count: usize) -> Vec<Keyed> {
    let keyed = |i: usize| {
        let key = format!("package-{}", i % (count / 2).max(1));
        let line = format!("{key} is number {i}, which is more than {}\n", i / 3);
        Keyed { value: line.repeat(1 + i * i % 40).into_bytes(), key: key.into_bytes() }
    };
    (0..count).map(keyed).collect()
}

/// As `oncelog send --format length-prefixed` reads them.
///
/// # Panics
/// If one is larger than 4 GiB.
pub fn to_bytes(records: &[Keyed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in records.iter().flat_map(|record| [&record.key, &record.value]) {
        bytes.extend_from_slice(&u32::try_from(field.len()).expect("below 4 GiB").to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes
}

/// As `oncelog fetch --output length-prefixed` writes them.
///
/// # Errors
/// They end within a record, or one has no key or no value.
pub fn from_bytes(mut bytes: &[u8]) -> anyhow::Result<Vec<Keyed>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let mut field = || {
            let (len, rest) = bytes.split_first_chunk::<4>().context("cut within a length")?;
            let len = u32::from_be_bytes(*len) as usize;
            ensure!(len <= rest.len(), "record {}: {len} bytes are told, {} are there", records.len(), rest.len());
            let (field, rest) = rest.split_at(len);
            bytes = rest;
            Ok(field.to_owned())
        };
        let (key, value) = (field()?, field()?);
        records.push(Keyed { key, value });
    }
    Ok(records)
}

const FEWEST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_keyed_by_package_name() {
        let text = b"Package: a\nVersion: 1\n\nPackage: b\n\n\nNo: package\n\nPackage: c\n";
        let keys = |limit| stanzas(text, limit).into_iter().map(|k| String::from_utf8(k.key).expect("text")).collect::<Vec<_>>();
        assert_eq!(keys(9), ["a", "b", "c"]);
        assert_eq!(keys(2), ["a", "b"]);
        assert_eq!(stanzas(text, 1)[0].value, b"Package: a\nVersion: 1\n");
    }

    #[test]
    fn bytes_and_back() {
        let records = generated(50);
        assert_eq!(from_bytes(&to_bytes(&records)).expect("whole"), records);
        assert!(from_bytes(&to_bytes(&records)[1..]).is_err());
    }
}
