//! A history: what was asked of the services and what they answered, in the order in which whoever recorded it saw it.
//!
//! A call is two events. The first stands before the call is made, the second after its answer was heard, so if an answer stands
//! above a call, the answer was known when the call was made. A call without an answer has an unknown outcome; where a history
//! breaks off, all open calls have. That is all the order says: a call may have been carried out at any moment between the two.
//!
//! On disk an event is a line of JSON. Nothing here depends on the services' code: only on their contract.

use oncelog_proto::{
    trace::{TRACEPARENT, Traceparent},
    v1::{Header, Record},
};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One event and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the history began, by a clock that only goes forward.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

/// Something that whoever records saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first line.
    Began(Began),

    /// `InitProducerId` is called.
    InitCalled(InitCalled),
    /// And answered.
    InitAnswered {
        /// Which call.
        call: CallId,
        /// With what.
        answer: InitAnswer,
    },

    /// One batch goes out in a `Produce`. Each batch of a call is a call of its own here, and so is each repetition.
    ProduceCalled(ProduceCalled),
    /// And is answered.
    ProduceAnswered {
        /// Which call.
        call: CallId,
        /// With what.
        answer: ProduceAnswer,
    },

    /// A `Send` goes out, or a request of a `SendStream`.
    SendCalled(SendCalled),
    /// And is answered.
    SendAnswered {
        /// Which call.
        call: CallId,
        /// What became of its records, in their order. Records that no outcome speaks of are unknown.
        outcomes: Vec<SendOutcome>,
    },

    /// A partition, or a producer, is about to be looked at: `Fetch`, `DescribeTopics`, `DescribeProducers`.
    LookCalled {
        /// Which call.
        call: CallId,
    },
    /// And is seen. One call may see many things.
    Saw {
        /// Which call.
        call: CallId,
        /// What.
        sight: Sight,
    },

    /// `DeleteTopic` is called.
    DeleteCalled {
        /// Which call.
        call: CallId,
        /// The topic.
        topic: String,
    },
    /// And answered.
    DeleteAnswered {
        /// Which call.
        call: CallId,
        /// The topic is gone; else nobody knows.
        done: bool,
    },

    /// The broker has ended: it was killed, or stopped.
    BrokerDied,
    /// The broker starts; from here on another life of it answers.
    BrokerStarted,
    /// A write or a sync of the broker's disk has failed.
    DiskFailed,
    /// producer-svc has ended. What it had taken in is unknown.
    ProducerDied,
    /// producer-svc starts.
    ProducerStarted,
}

/// What a history says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// Version of this format: [`FORMAT`].
    pub format: u32,
    /// Nobody else wrote to the topics of this history since they were empty. Then a record that nobody sent is a fault.
    pub alone: bool,
    /// A call arrives at most once: no network between the callers and the broker repeats one by itself. Then a batch of which
    /// every call was refused is not in the log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// The broker's `--producer-id-expiration-ms`, if it is known. Without it an unknown producer id cannot be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_ms: Option<u64>,
}

/// Names a call; no two calls of a history have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// Names a caller of `Send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallerId(pub u64);

/// `InitProducerId`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitCalled {
    /// Which call.
    pub call: CallId,
    /// The id and epoch to recover. None: a fresh id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Producer>,
    /// The recovery token; empty for a fresh id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
}

/// A producer id in one of its epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i32,
}

/// The answer to `InitProducerId`, all pages together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitAnswer {
    /// An epoch to write with.
    Granted {
        /// The id and its epoch.
        producer: Producer,
        /// What the log holds of the fenced epoch. Empty for a fresh id.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fenced: Vec<FencedPartition>,
    },
    /// The id is not known.
    UnknownProducer,
    /// Refused in another way; certainly nothing was done.
    Refused,
    /// No answer, or one that says nothing.
    Unknown,
}

/// What a recovery says of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedPartition {
    /// Which one.
    #[serde(flatten)]
    pub partition: Partition,
    /// Sequences below are in the log; this one and all above never will be.
    pub next_sequence: i64,
    /// The last batches.
    pub window: Vec<WindowEntry>,
}

/// A batch that a recovery says is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowEntry {
    /// Sequence of its first record.
    pub base_sequence: i64,
    /// How many records it has.
    pub record_count: u32,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// CRC-32C of the stored data.
    pub checksum: u32,
}

/// A partition by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// The number.
    pub partition: i32,
}

/// Where a batch is in its partition, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Offset of its first record.
    pub offset: i64,
    /// When it was appended, in microseconds since 1970.
    pub append_time: u64,
}

/// One batch of a `Produce` with acks=all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProduceCalled {
    /// Which call.
    pub call: CallId,
    /// Where to.
    #[serde(flatten)]
    pub partition: Partition,
    /// Its tag. None: it is appended as often as it arrives, and only what is acknowledged is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    /// How many records it has.
    pub record_count: u32,
    /// CRC-32C of the data as stored.
    pub checksum: u32,
    /// The caller's own name for these records: the same if they are sent again, also if they are tagged anew after a recovery.
    /// The records of one name are in the log at most once. None: every tag is on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
}

/// Producer id, epoch and base sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// Whose.
    #[serde(flatten)]
    pub producer: Producer,
    /// Sequence of the first record.
    pub base_sequence: i64,
}

/// The answer to one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProduceAnswer {
    /// It is in the log.
    Acknowledged {
        /// Where.
        #[serde(flatten)]
        place: Place,
        /// It was there before.
        duplicate: bool,
    },
    /// Another sequence is expected.
    OutOfOrder {
        /// Which.
        expected_sequence: i64,
    },
    /// It is in the log, its place forgotten.
    DuplicateBelowWindow,
    /// The epoch is not the producer's.
    Fenced,
    /// The id is not known.
    UnknownProducer,
    /// The sequences are in the log with other content.
    Conflict,
    /// Refused in another way: certainly not appended by this call.
    Refused,
    /// No answer, or one that says nothing.
    Unknown,
}

/// A `Send`, or a request of a `SendStream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendCalled {
    /// Which call.
    pub call: CallId,
    /// Who calls. What one caller sent and had answered before, stands before this in each partition.
    pub caller: CallerId,
    /// Requests of a stream: what this caller sent before, answered or not, stands before this in each partition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streamed: bool,
    /// The service runs without idempotence: what it accepts is there at least once, in any order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
    /// Where to.
    pub topic: String,
    /// The partition that the request names. None: the service chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// The records.
    pub records: Vec<Digest>,
}

/// What became of neighbouring records of a `Send`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SendOutcome {
    /// One record is in the log.
    Accepted {
        /// In this partition of the topic.
        partition: i32,
        /// Where; an offset of -1: the service does not know.
        #[serde(flatten)]
        place: Place,
    },
    /// So many records are certainly not in the log.
    Refused(u32),
    /// So many records are in the log once or not at all.
    Unknown(u32),
}

/// What was seen while calls were going on. It has to be true of the log in the end (I7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// Records, by `Fetch`.
    Records {
        /// Where.
        #[serde(flatten)]
        partition: Partition,
        /// Offset of the first.
        offset: i64,
        /// What they are.
        records: Vec<Digest>,
    },
    /// The ends of a partition, by `Fetch` or `DescribeTopics`.
    Ends {
        /// Where.
        #[serde(flatten)]
        partition: Partition,
        /// Lowest offset that can be read.
        log_start: i64,
        /// One above the last record.
        log_end: i64,
    },
    /// Where a producer stands in a partition, by `DescribeProducers`.
    Next {
        /// Where.
        #[serde(flatten)]
        partition: Partition,
        /// Who.
        #[serde(flatten)]
        producer: Producer,
        /// The sequence that is expected next.
        next_sequence: i64,
    },
}

/// What a record is, in 8 bytes: the first 8 of the SHA-256 of its protobuf encoding, big-endian. Two of ten million different
/// records have the same with a probability of 1 in 300,000. A trace context as its last header is no part of it, if that is the only
/// one: a producer adds one so to what is sent in a trace, and the record that is read is the one that was sent, with or without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub u64);

impl Digest {
    /// Of a record.
    pub fn of(record: &Record) -> Self {
        let encoded = match record.headers.split_last() {
            Some((last, rest)) if is_added(last, rest) => Record { headers: rest.to_vec(), ..record.clone() }.encode_to_vec(),
            _ => record.encode_to_vec(),
        };
        let hash = Sha256::digest(encoded);
        Self(u64::from_be_bytes(*hash.first_chunk().expect("SHA-256 has 32 bytes")))
    }
}

/// May a producer have put this header behind the others?
fn is_added(last: &Header, others: &[Header]) -> bool {
    let is_context = std::str::from_utf8(&last.value).is_ok_and(|value| Traceparent::parse(value).is_some());
    last.key == TRACEPARENT && is_context && !others.iter().any(|header| header.key.eq_ignore_ascii_case(TRACEPARENT))
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        format!("{:016x}", digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u64::from_str_radix(&text, 16) {
            // A sign would be taken as a digit.
            Ok(number) if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Self(number)),
            _ => Err(format!("a digest is 16 hex digits, not {text:?}")),
        }
    }
}

/// The version of the format that this code writes and reads.
pub const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: Event) -> String {
        serde_json::to_string(&Line { at: 7, event }).expect("plain data")
    }

    #[test]
    fn an_event_is_a_flat_object_and_reads_back() {
        let partition = Partition { topic: "t".into(), partition: 3 };
        let tag = Tag { producer: Producer { id: 5, epoch: 1 }, base_sequence: 9 };
        let called = ProduceCalled {
            call: CallId(2),
            partition: partition.clone(),
            tag: Some(tag),
            record_count: 4,
            checksum: 6,
            batch: None,
        };
        let expected = r#"{"at":7,"event":{"produce_called":{"call":2,"topic":"t","partition":3,"tag":{"id":5,"epoch":1,"base_sequence":9},"record_count":4,"checksum":6}}}"#;
        assert_eq!(line(Event::ProduceCalled(called)), expected);
        let place = Place { offset: 1, append_time: 2 };
        let events = [
            Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms: None }),
            Event::InitCalled(InitCalled { call: CallId(1), recover: Some(tag.producer), token: "x".into() }),
            Event::InitAnswered {
                call: CallId(1),
                answer: InitAnswer::Granted {
                    producer: tag.producer,
                    fenced: vec![FencedPartition {
                        partition: partition.clone(),
                        next_sequence: 4,
                        window: vec![WindowEntry { base_sequence: 0, record_count: 4, place, checksum: 1 }],
                    }],
                },
            },
            Event::ProduceAnswered { call: CallId(2), answer: ProduceAnswer::Acknowledged { place, duplicate: true } },
            Event::ProduceAnswered { call: CallId(2), answer: ProduceAnswer::OutOfOrder { expected_sequence: 4 } },
            Event::ProduceAnswered { call: CallId(2), answer: ProduceAnswer::Fenced },
            Event::SendCalled(SendCalled {
                call: CallId(3),
                caller: CallerId(0),
                streamed: true,
                repeats: true,
                topic: "t".into(),
                partition: Some(3),
                records: vec![Digest(1)],
            }),
            Event::SendAnswered {
                call: CallId(3),
                outcomes: vec![SendOutcome::Accepted { partition: 0, place }, SendOutcome::Unknown(2), SendOutcome::Refused(1)],
            },
            Event::Saw { call: CallId(4), sight: Sight::Ends { partition: partition.clone(), log_start: 0, log_end: 8 } },
            Event::Saw { call: CallId(4), sight: Sight::Next { partition, producer: tag.producer, next_sequence: 8 } },
            Event::BrokerDied,
        ];
        for event in events {
            let text = line(event.clone());
            assert_eq!(serde_json::from_str::<Line>(&text).expect(&text), Line { at: 7, event });
        }
    }

    #[test]
    fn a_history_that_says_less_is_read() {
        let old = r#"{"at":7,"event":{"send_called":{"call":3,"caller":0,"topic":"t","records":["0000000000000001"]}}}"#;
        let Ok(Line { event: Event::SendCalled(send), .. }) = serde_json::from_str(old) else { panic!("it is a call") };
        assert_eq!((send.partition, send.streamed, send.repeats), (None, false, false));
        assert_eq!(line(Event::SendCalled(send)), old);
    }

    #[test]
    fn a_trace_context_that_a_producer_added_is_no_other_record() {
        let header = |key: &str, value: &'static str| Header { key: key.to_owned(), value: value.into() };
        let sent = Record { headers: vec![header("kind", "order")], ..Record::default() };
        let mut read = sent.clone();
        read.headers.push(header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(Digest::of(&read), Digest::of(&sent));
        read.headers[0] = header("kind", "other");
        assert_ne!(Digest::of(&read), Digest::of(&sent));
    }

    #[test]
    fn every_other_trace_context_is_a_part_of_the_record() {
        const CONTEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let header = |key: &str, value: &'static str| Header { key: key.to_owned(), value: value.into() };
        let of = |headers: &[Header]| Digest::of(&Record { headers: headers.to_vec(), ..Record::default() });
        let (context, kind) = (header("traceparent", CONTEXT), header("kind", "order"));
        assert_eq!(of(&[kind.clone(), context.clone()]), of(std::slice::from_ref(&kind)));
        // Not the last, not alone, not as a producer writes it, and none at all.
        assert_ne!(of(&[context.clone(), kind.clone()]), of(std::slice::from_ref(&kind)));
        assert_ne!(of(&[context.clone(), context.clone()]), of(std::slice::from_ref(&context)));
        assert_ne!(of(&[header("Traceparent", CONTEXT), context.clone()]), of(&[header("Traceparent", CONTEXT)]));
        assert_ne!(of(&[kind.clone(), header("Traceparent", CONTEXT)]), of(std::slice::from_ref(&kind)));
        assert_ne!(of(&[kind.clone(), header("traceparent", "nonsense")]), of(&[kind]));
    }

    #[test]
    fn a_digest_tells_absent_from_empty_and_is_16_digits() {
        let empty = Record { value: Some(bytes::Bytes::new()), ..Record::default() };
        assert_ne!(Digest::of(&Record::default()), Digest::of(&empty));
        assert_eq!(String::from(Digest(0x1f)), "000000000000001f");
        assert_eq!(Digest::try_from("000000000000001f".to_owned()), Ok(Digest(0x1f)));
        assert!(Digest::try_from("1f".to_owned()).is_err());
        assert!(Digest::try_from("+00000000000001f".to_owned()).is_err());
    }
}
