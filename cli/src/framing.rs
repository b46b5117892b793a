//! How records stand in a stream of bytes, on stdin and on stdout.
//!
//! - `lines`: a record is a line; its newline is not part of it. With a key separator the key is what stands before the first
//!   one; a line without a separator is a value without a key.
//! - `length-prefixed`: key length, key, value length, value; lengths are 4 bytes, big-endian; 0xFFFFFFFF says that there is
//!   no key, or no value. For records that hold any bytes.

use std::io::{self, BufRead, Read, Write};

use anyhow::{Context, bail};
use bytes::Bytes;
use oncelog_proto::{packed::MAX_UNCOMPRESSED_BYTES, v1::Record};

/// How to read records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One a line.
    Lines {
        /// What ends the key.
        key_separator: Option<String>,
    },
    /// Key and value, each after its length.
    LengthPrefixed,
}

impl Framing {
    /// The next record; none at the end.
    ///
    /// # Errors
    /// The input cannot be read, ends within a record, or has one that no batch could hold.
    pub(crate) fn read(&self, input: &mut impl BufRead) -> anyhow::Result<Option<Record>> {
        match self {
            Self::Lines { key_separator } => read_line(input, key_separator.as_deref()),
            Self::LengthPrefixed => read_length_prefixed(input),
        }
    }
}

fn read_line(input: &mut impl BufRead, key_separator: Option<&str>) -> anyhow::Result<Option<Record>> {
    let mut line = Vec::new();
    let limit = MAX_UNCOMPRESSED_BYTES as u64 + 1;
    if input.take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_UNCOMPRESSED_BYTES {
        bail!("a line longer than {MAX_UNCOMPRESSED_BYTES} bytes, more than a batch can hold");
    }
    let line = Bytes::from(line);
    let separator = key_separator.map(str::as_bytes).and_then(|s| Some((find(&line, s)?, s.len())));
    Ok(Some(match separator {
        Some((at, len)) => Record { key: Some(line.slice(..at)), value: Some(line.slice(at + len..)), ..Record::default() },
        None => Record { value: Some(line), ..Record::default() },
    }))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn read_length_prefixed(input: &mut impl BufRead) -> anyhow::Result<Option<Record>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let key = read_prefixed(input).context("the key")?;
    let value = read_prefixed(input).context("the value")?;
    Ok(Some(Record { key, value, ..Record::default() }))
}

fn read_prefixed(input: &mut impl BufRead) -> anyhow::Result<Option<Bytes>> {
    let cut = || "the input ends within a record";
    let mut len = [0; 4];
    input.read_exact(&mut len).with_context(cut)?;
    let len = u32::from_be_bytes(len);
    if len == ABSENT {
        return Ok(None);
    }
    if len as usize > MAX_UNCOMPRESSED_BYTES {
        bail!(
            "a length of {len} bytes, more than the {MAX_UNCOMPRESSED_BYTES} that a batch can hold: is the input length-prefixed?"
        );
    }
    // Not allocated up front: the length is only a claim.
    let mut bytes = Vec::new();
    input.take(len.into()).read_to_end(&mut bytes)?;
    if bytes.len() < len as usize {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).with_context(cut);
    }
    Ok(Some(bytes.into()))
}

/// Writes one record, length-prefixed.
pub(crate) fn write_length_prefixed(record: &Record, out: &mut impl Write) -> io::Result<()> {
    for field in [&record.key, &record.value] {
        let Some(bytes) = field else {
            out.write_all(&ABSENT.to_be_bytes())?;
            continue;
        };
        let len = u32::try_from(bytes.len()).expect("a record is part of a batch, which is below 64 MiB");
        out.write_all(&len.to_be_bytes())?;
        out.write_all(bytes)?;
    }
    Ok(())
}

const ABSENT: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static str>, value: Option<&'static str>) -> Record {
        Record { key: key.map(Bytes::from), value: value.map(Bytes::from), ..Record::default() }
    }

    fn read_all(framing: &Framing, mut input: &[u8]) -> anyhow::Result<Vec<Record>> {
        std::iter::from_fn(|| framing.read(&mut input).transpose()).collect()
    }

    #[test]
    fn a_line_is_a_value_and_the_last_one_needs_no_newline() {
        let lines = Framing::Lines { key_separator: None };
        let expected = [record(None, Some("a")), record(None, Some("")), record(None, Some("b:c"))];
        assert_eq!(read_all(&lines, b"a\n\nb:c").expect("valid"), expected);
        assert_eq!(read_all(&lines, b"a\n\nb:c\n").expect("valid"), expected);
        assert_eq!(read_all(&lines, b"").expect("valid"), []);
    }

    #[test]
    fn the_key_ends_at_the_first_separator() {
        let lines = Framing::Lines { key_separator: Some("::".to_owned()) };
        let read = read_all(&lines, b"k::v::w\nno key\n::v\n").expect("valid");
        assert_eq!(read, [record(Some("k"), Some("v::w")), record(None, Some("no key")), record(Some(""), Some("v"))]);
    }

    #[test]
    fn what_is_written_length_prefixed_is_read_back() {
        let records = [record(Some("k"), Some("v\n\0")), record(None, Some("")), record(Some(""), None), record(None, None)];
        let mut bytes = Vec::new();
        for record in &records {
            write_length_prefixed(record, &mut bytes).expect("memory");
        }
        assert_eq!(read_all(&Framing::LengthPrefixed, &bytes).expect("valid"), records);
    }

    #[test]
    fn a_cut_record_is_an_error_at_every_cut() {
        let mut bytes = Vec::new();
        write_length_prefixed(&record(Some("key"), Some("value")), &mut bytes).expect("memory");
        for cut in 1..bytes.len() {
            assert!(read_all(&Framing::LengthPrefixed, &bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_length_above_the_limit_is_an_error_before_it_is_believed() {
        let error = read_all(&Framing::LengthPrefixed, b"GET / HTTP/1.1").expect_err("not length-prefixed");
        assert!(format!("{error:#}").contains("1195725856"), "{error:#}");
    }
}
