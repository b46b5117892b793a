//! How a fetched record is written.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use oncelog_proto::v1::Record;
use serde::Serialize;

use crate::framing::write_length_prefixed;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    #[default]
    Raw,
    Json,
    LengthPrefixed,
}

/// A record and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) append_time: Option<prost_types::Timestamp>,
    /// None: it was appended untagged.
    pub(super) tag: Option<Tag>,
    pub(super) record: Record,
}

/// Who wrote it, and as which one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i32,
    pub(super) sequence: i64,
}

impl Output {
    pub(super) fn write(self, fetched: &Fetched, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Raw => {
                out.write_all(fetched.record.value.as_deref().unwrap_or_default())?;
                out.write_all(b"\n")
            }
            Self::Json => {
                // By way of a buffer: serde_json hides what kind of error writing had, and a broken pipe is none to report.
                let mut line = serde_json::to_vec(&Line::of(fetched)).expect("strings and numbers");
                line.push(b'\n');
                out.write_all(&line)
            }
            Self::LengthPrefixed => write_length_prefixed(&fetched.record, out),
        }
    }
}

/// The JSON form. Bytes that are not UTF-8 stand in base64 in a field of another name, so that neither is taken for the
/// other. What a record does not have is left out.
#[derive(Serialize)]
struct Line<'a> {
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    append_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer_epoch: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<i64>,
}

#[derive(Serialize)]
struct Header<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> Line<'a> {
    fn of(fetched: &'a Fetched) -> Self {
        let (key, key_base64) = text_or_base64(fetched.record.key.as_deref());
        let (value, value_base64) = text_or_base64(fetched.record.value.as_deref());
        let headers = fetched.record.headers.iter().map(|header| {
            let (value, value_base64) = text_or_base64(Some(&header.value));
            Header { key: &header.key, value, value_base64 }
        });
        Self {
            partition: fetched.partition,
            offset: fetched.offset,
            append_time: fetched.append_time.as_ref().map(ToString::to_string),
            key,
            key_base64,
            value,
            value_base64,
            headers: headers.collect(),
            timestamp: fetched.record.timestamp.as_ref().map(ToString::to_string),
            producer_id: fetched.tag.map(|t| t.producer_id),
            producer_epoch: fetched.tag.map(|t| t.producer_epoch),
            sequence: fetched.tag.map(|t| t.sequence),
        }
    }
}

fn text_or_base64(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (None, None),
        Some((_, Ok(text))) => (Some(text), None),
        Some((bytes, Err(_))) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use oncelog_proto::v1;
    use prost_types::Timestamp;

    use super::*;

    fn written(output: Output, fetched: &Fetched) -> String {
        let mut out = Vec::new();
        output.write(fetched, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    fn full() -> Fetched {
        Fetched {
            partition: 1,
            offset: 2,
            append_time: Some(Timestamp { seconds: 0, nanos: 0 }),
            tag: Some(Tag { producer_id: 3, producer_epoch: 4, sequence: 5 }),
            record: Record {
                key: Some(Bytes::from_static(b"\xff")),
                value: Some("v\"".into()),
                headers: vec![
                    v1::Header { key: "h".into(), value: "t".into() },
                    v1::Header { key: "h".into(), value: Bytes::from_static(b"\xfe") },
                ],
                timestamp: Some(Timestamp { seconds: 1, nanos: 500_000_000 }),
            },
        }
    }

    #[test]
    fn json_has_text_where_it_is_text_and_base64_where_it_is_not() {
        let expected = r#"{"partition":1,"offset":2,"append_time":"1970-01-01T00:00:00Z","key_base64":"/w==","value":"v\"","headers":[{"key":"h","value":"t"},{"key":"h","value_base64":"/g=="}],"timestamp":"1970-01-01T00:00:01.500Z","producer_id":3,"producer_epoch":4,"sequence":5}"#;
        assert_eq!(written(Output::Json, &full()), format!("{expected}\n"));
    }

    #[test]
    fn json_leaves_out_what_is_absent_but_not_what_is_empty() {
        let absent = Fetched { append_time: None, tag: None, record: Record::default(), ..full() };
        assert_eq!(written(Output::Json, &absent), "{\"partition\":1,\"offset\":2}\n");
        let record = Record { key: Some(Bytes::new()), value: Some(Bytes::new()), ..Record::default() };
        let empty = Fetched { record, ..absent };
        assert_eq!(written(Output::Json, &empty), "{\"partition\":1,\"offset\":2,\"key\":\"\",\"value\":\"\"}\n");
    }

    #[test]
    fn any_timestamp_of_a_caller_can_be_written() {
        for (seconds, nanos) in [(i64::MIN, i32::MIN), (i64::MAX, i32::MAX), (-1, -1), (0, 2_000_000_000)] {
            let record = Record { timestamp: Some(Timestamp { seconds, nanos }), ..Record::default() };
            assert!(written(Output::Json, &Fetched { record, ..full() }).contains("timestamp"));
        }
    }

    #[test]
    fn raw_is_the_value_and_a_newline() {
        assert_eq!(written(Output::Raw, &full()), "v\"\n");
    }
}
