//! A broker to converse with in the words of the contract: requests as messages, a journal driven by hand, crashes at will.
//!
//! One producer, id 1. A call is known by a name; the value of a record is the letter a and its sequence.

use std::{collections::HashMap, time::Duration};

pub(crate) use broker_svc::pipeline::Options;
use broker_svc::{
    entry::{Append, Entry},
    journal::{self, Group},
    pipeline::{Answer, Now, Output, Pipeline, Request},
    state::{InitRequest, Limits, State},
    wire::{parse, reply},
};
use bytes::Bytes;
use oncelog_proto::{
    ErrorCode, Monotonic, PackedBatch, Timestamp, TopicName, TopicPartition,
    topic::PartitionCount,
    v1::{self, InitProducerIdResponse, batch_result::Outcome},
};

/// What was heard of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Acked {
        offset: i64,
        duplicate: bool,
    },
    /// With the sequence that was expected instead, if that was said.
    Refused(ErrorCode, Option<i64>),
}

/// Appended by this call.
pub(crate) fn acked(offset: i64) -> Option<Heard> {
    Some(Heard::Acked { offset, duplicate: false })
}

/// Appended before.
pub(crate) fn again(offset: i64) -> Option<Heard> {
    Some(Heard::Acked { offset, duplicate: true })
}

pub(crate) fn refused(code: ErrorCode) -> Option<Heard> {
    Some(Heard::Refused(code, None))
}

/// One record with a value for `topic/partition`.
pub(crate) fn with_value(partition: &str, base: i64, value: &str) -> v1::Batch {
    let (topic, partition) = partition.split_once('/').expect("topic/partition");
    v1::Batch {
        topic: topic.to_owned(),
        partition: partition.parse().expect("a number"),
        base_sequence: base,
        records: vec![v1::Record { value: Some(value.to_owned().into()), ..Default::default() }],
        ..Default::default()
    }
}

/// One record for `topic/partition`.
pub(crate) fn batch(partition: &str, base: i64) -> v1::Batch {
    with_value(partition, base, &format!("a{base}"))
}

/// The same, beyond the limit of [`options`] and below twice that.
pub(crate) fn too_large(partition: &str, base: i64) -> v1::Batch {
    with_value(partition, base, &format!("a{base:0>MAX_MESSAGE_BYTES$}"))
}

/// 200 ms of hold, and room for what the tests send.
pub(crate) fn options() -> Options {
    Options {
        limits: Limits {
            max_message_bytes: MAX_MESSAGE_BYTES,
            auto_create_topics: true,
            default_partitions: PartitionCount::new(2).expect("2"),
            max_partitions: 100,
            max_producers: 100,
            max_windows: 100,
            producer_id_expiration: EXPIRATION,
        },
        hold: Duration::from_millis(200),
        hold_bytes: 1 << 20,
        group_limit: journal::Options { segment_bytes: 1 << 20, ..journal::Options::new(0) }.group_limit(),
        incarnation: 0,
        accept_clock_jump: false,
    }
}

/// [`options`] with other limits.
pub(crate) fn with_limits(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = options();
    change(&mut options.limits);
    options
}

const MAX_MESSAGE_BYTES: usize = 1_000;
pub(crate) const EXPIRATION: Duration = Duration::from_secs(3600);
/// When a producer is forgotten that was last heard of at the beginning: its last sign of life is known to a 24th of the
/// expiration.
pub(crate) const FORGOTTEN: Duration = Duration::from_secs(3600 + 3600 / 24);

/// The state machine with its journal.
pub(crate) struct Stage {
    pipeline: Pipeline<&'static str>,
    options: Options,
    now: Now,
    durable: Vec<Group>,
    writing: Option<Group>,
    answers: HashMap<&'static str, Answer>,
}

impl Stage {
    /// A fresh broker that has handed out producer id 1.
    pub(crate) fn new(options: Options) -> Self {
        let now = Now { monotonic: Monotonic::from_micros(0), wall: Timestamp::from_micros(1_000_000_000_000_000) };
        let pipeline = Pipeline::open(options.clone(), State::default(), None, now);
        let mut stage = Self { pipeline, options, now, durable: Vec::new(), writing: None, answers: HashMap::new() };
        stage.ask("fresh id", Request::InitProducer(InitRequest::Fresh));
        stage.sync_all();
        assert_eq!(stage.granted("fresh id").map(|granted| granted.producer_id), Some(1));
        stage
    }

    fn ask(&mut self, who: &'static str, request: Request) {
        self.pipeline.on_request(who, request, self.now);
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(output) = self.pipeline.poll_output() {
            if let Output::Answer(who, answer) = output {
                self.answers.insert(who, answer);
            }
        }
    }

    /// One call with batches of this epoch.
    pub(crate) fn produce(&mut self, who: &'static str, epoch: i32, batches: &[v1::Batch]) {
        let (producer_id, producer_epoch) = (Some(1), epoch);
        let request = v1::ProduceRequest { producer_id, producer_epoch, batches: batches.to_vec(), ..Default::default() };
        let request = parse::produce(request, self.options.limits.max_message_bytes).expect("well-formed");
        self.ask(who, request);
    }

    /// Asks for a recovery and does not wait for the answer.
    pub(crate) fn ask_recovery(&mut self, who: &'static str, epoch: i32, token: &str) {
        let request = self.recovery(epoch, token).expect("well-formed");
        self.ask(who, request);
    }

    /// Recovers and waits until the answer is there.
    pub(crate) fn recover(&mut self, who: &'static str, epoch: i32, token: &str) -> Result<InitProducerIdResponse, ErrorCode> {
        let request = self.recovery(epoch, token)?;
        self.ask(who, request);
        self.sync_all();
        match &self.answers[who] {
            Answer::Refused(fault) => Err(fault.code()),
            _ => Ok(self.granted(who).expect("it was answered")),
        }
    }

    fn recovery(&self, epoch: i32, token: &str) -> Result<Request, ErrorCode> {
        let (producer_id, producer_epoch, recovery_token) = (Some(1), Some(epoch), token.to_owned());
        let request = v1::InitProducerIdRequest { producer_id, producer_epoch, recovery_token, ..Default::default() };
        let (request, _) = parse::init_producer(&request).map_err(|fault| fault.code())?;
        Ok(Request::InitProducer(request))
    }

    /// Asks for a description of all topics.
    pub(crate) fn describe(&mut self, who: &'static str) {
        self.ask(who, Request::DescribeTopics { topics: Vec::new(), create: false, after: None });
    }

    pub(crate) fn is_answered(&self, who: &str) -> bool {
        self.answers.contains_key(who)
    }

    pub(crate) fn create(&mut self, topic: &str, partitions: i32) {
        let request = v1::CreateTopicRequest { topic: topic.to_owned(), partitions };
        self.ask("create", parse::create_topic(&request).expect("well-formed"));
    }

    pub(crate) fn delete(&mut self, topic: &str) {
        self.ask("delete", Request::DeleteTopic(TopicName::parse(topic).expect("allowed")));
    }

    /// The journal takes the next group.
    pub(crate) fn write(&mut self) {
        assert!(self.writing.is_none(), "one group at a time");
        self.writing = self.pipeline.poll_group();
        assert!(self.writing.is_some(), "there is something to write");
        self.pipeline.on_written();
        self.hear();
    }

    /// What was written becomes durable.
    pub(crate) fn sync(&mut self) {
        self.durable.push(self.writing.take().expect("only what was written can be synced"));
        self.pipeline.on_synced(u64::MAX);
        self.hear();
    }

    /// Everything becomes durable.
    pub(crate) fn sync_all(&mut self) {
        if self.writing.is_some() {
            self.sync();
        }
        while let Some(group) = self.pipeline.poll_group() {
            self.writing = Some(group);
            self.sync();
        }
        self.hear();
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = Now { monotonic: self.now.monotonic.plus(time), wall: self.now.wall.plus(time) };
        self.pipeline.on_tick(self.now);
        self.sync_all();
    }

    /// Stops in order, and starts again with these options.
    pub(crate) fn restart(&mut self, options: Options) {
        self.sync_all();
        self.crash(options);
    }

    /// Stops in order, and starts again after this time.
    pub(crate) fn stay_down(&mut self, time: Duration) {
        self.sync_all();
        self.now = Now { monotonic: self.now.monotonic.plus(time), wall: self.now.wall.plus(time) };
        self.crash(self.options.clone());
    }

    /// What is not durable is gone, and so is who waits; then it starts again, from a snapshot taken halfway.
    pub(crate) fn crash(&mut self, options: Options) {
        self.writing = None;
        let mut state = State::default();
        for (index, group) in self.durable.iter().enumerate() {
            if index == self.durable.len() / 2 {
                state = State::from_chunks(state.to_chunks()).expect("a snapshot can be read back");
            }
            for entry in group.entries() {
                state.apply(entry, group.time()).expect("the journal does not contradict itself");
            }
        }
        let last = self.durable.last().map(Group::time);
        self.options = options;
        self.pipeline = Pipeline::open(self.options.clone(), state, last, self.now);
        self.sync_all();
    }

    /// What a call with one batch heard; the first of many otherwise.
    pub(crate) fn heard(&self, who: &str) -> Option<Heard> {
        let Answer::Produced(outcomes) = self.answers.get(who)? else { panic!("{who} is no produce call") };
        let response = reply::produced(outcomes.clone());
        Some(match response.results[0].outcome.as_ref().expect("always there") {
            Outcome::Ack(ack) => Heard::Acked { offset: ack.base_offset, duplicate: ack.duplicate },
            Outcome::Error(error) => Heard::Refused(error.code(), error.expected_sequence),
        })
    }

    /// What an `InitProducerId` call was granted.
    pub(crate) fn granted(&self, who: &str) -> Option<InitProducerIdResponse> {
        let Answer::Granted(granted) = self.answers.get(who)? else { panic!("{who} was not granted anything") };
        Some(reply::granted(granted.clone(), None, self.options.limits.max_message_bytes))
    }

    pub(crate) fn has_topic(&self, topic: &str) -> bool {
        self.pipeline.state().topic_names().iter().any(|name| name.as_str() == topic)
    }

    /// The durable values of a partition in its present life.
    pub(crate) fn log(&self, partition: &str) -> Vec<String> {
        let value = |record: v1::Record| String::from_utf8(record.value.expect("given").to_vec()).expect("text");
        let stored = self.stored(partition).into_iter();
        stored.flat_map(|(packed, _)| packed.records().expect("it was verified")).map(value).collect()
    }

    /// Checksum and time of each durable batch of a partition.
    pub(crate) fn appends(&self, partition: &str) -> Vec<(u32, Timestamp)> {
        self.stored(partition).into_iter().map(|(packed, time)| (packed.checksum(), time)).collect()
    }

    fn stored(&self, partition: &str) -> Vec<(PackedBatch, Timestamp)> {
        let (topic, index) = partition.split_once('/').expect("topic/partition");
        let name = TopicPartition::parse(topic, index.parse().expect("a number")).expect("allowed");
        let Ok((id, _)) = self.pipeline.state().find_partition(&name) else { return Vec::new() };
        let mut stored = Vec::new();
        for group in &self.durable {
            let mut payloads = group.payloads().iter();
            for entry in group.entries() {
                let Entry::Append(append) = entry else { continue };
                let data = payloads.next().expect("an append has its data");
                if append.partition == id {
                    stored.push((unpacked(append, data), group.time()));
                }
            }
        }
        stored
    }
}

fn unpacked(append: &Append, data: &Bytes) -> PackedBatch {
    PackedBatch::from_stored(append.compression, append.count, append.uncompressed_bytes, append.checksum, data.clone())
        .expect("what is in the journal was verified")
}
