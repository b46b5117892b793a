//! The pure parts, one operation each: for the micro-benchmarks (`cargo bench -p oncelog-bench`) and for counting instructions.
//!
//! An operation may be done any number of times, and costs the same each time.

use std::{collections::HashMap, hint::black_box, time::Duration};

use anyhow::Context;
use broker_svc::{
    journal::Options as JournalOptions,
    pipeline::{Now, Options, Output, Pipeline},
    state::{InitRequest, State},
    wire::parse,
};
use bytes::Bytes;
use oncelog_proto::{
    Compression, Epoch, Monotonic, Offset, PartitionIndex, ProducerId, RecordCount, Timestamp, TopicName,
    record_set::{self, RecordSetEncoder},
    topic::PartitionCount,
    v1::{self, Record},
};
use producer_svc::{
    partitioner::Partitioner,
    session::{Action, BatchAnswer, Event, InitAnswer, SendId, Session, SessionConfig},
};

use crate::values::Values;

/// Something that can be done again and again.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its name: no spaces.
    pub name: &'static str,
    /// What it is, in words.
    pub about: &'static str,
    /// Gets everything ready; what is returned does it once.
    pub make: fn() -> Box<dyn FnMut()>,
}

/// All of them.
pub const OPERATIONS: &[Operation] = &[
    Operation { name: "walk", about: "proving the count of 300 records of 100 B", make: walk },
    Operation { name: "decode", about: "decoding the same records instead", make: decode },
    Operation { name: "framing", about: "encoding a record of 100 B into a set", make: framing },
    Operation { name: "parse", about: "parsing a Produce call with one packed batch of 32 KiB", make: parse_produce },
    Operation { name: "admission", about: "a tagged batch: judged, grouped, released", make: admission },
    Operation { name: "duplicate", about: "a tagged batch that is in the log: judged, released", make: duplicate },
    Operation { name: "batching", about: "a Send of one record of 100 B: batched, tagged, sent, answered", make: batching },
    Operation { name: "partitioner-key", about: "the partition of a key of 16 bytes", make: partition_of_key },
    Operation { name: "partitioner-sticky", about: "the partition of a record without key", make: sticky_partition },
    Operation { name: "snappy", about: "compressing 32 KiB of JSON events", make: snappy },
];

/// Does one of them so many times.
///
/// # Errors
/// There is none of that name.
pub fn run(name: &str, times: u64) -> anyhow::Result<()> {
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let mut once = (operation.with_context(|| format!("there is no operation {name}"))?.make)();
    for _ in 0..times {
        once();
    }
    Ok(())
}

fn encoded_set() -> Bytes {
    Values::random(100).packed(0, 1, SET_RECORDS, Compression::None).data
}

fn walk() -> Box<dyn FnMut()> {
    let (set, count) = (encoded_set(), RecordCount::of_len(SET_RECORDS).expect("some"));
    Box::new(move || assert_eq!(record_set::verify(black_box(&set), count), Ok(())))
}

fn decode() -> Box<dyn FnMut()> {
    let set = encoded_set();
    Box::new(move || assert_eq!(record_set::decode(black_box(set.clone())).map(|records| records.len()), Ok(SET_RECORDS)))
}

fn framing() -> Box<dyn FnMut()> {
    let record = Values::random(100).record(7);
    let mut encoder = RecordSetEncoder::default();
    Box::new(move || {
        encoder.push(black_box(&record));
        if encoder.encoded_len() >= BATCH_BYTES {
            black_box(std::mem::take(&mut encoder).finish());
        }
    })
}

fn parse_produce() -> Box<dyn FnMut()> {
    let request = produce(1, 0, Values::random(1024).packed(0, 1, 31, Compression::None));
    Box::new(move || {
        black_box(parse::produce(black_box(request.clone()), 1 << 20)).map(drop).unwrap_or_else(|fault| panic!("{fault:?}"));
    })
}

fn produce(producer_id: i64, base_sequence: i64, packed: v1::PackedRecords) -> v1::ProduceRequest {
    let batch = v1::Batch { topic: "topic".to_owned(), base_sequence, packed: Some(packed), ..v1::Batch::default() };
    v1::ProduceRequest { producer_id: Some(producer_id), batches: vec![batch], ..v1::ProduceRequest::default() }
}

/// A broker without a disk: what it gathers is durable at once.
struct Broker {
    pipeline: Pipeline<u64>,
    now: Now,
}

impl Broker {
    /// Knows one producer, whose id is returned.
    fn new() -> (Self, i64) {
        let config = broker_svc::Config::parse_args(["--data-dir=nowhere"]).expect("the defaults are allowed");
        let options = Options {
            group_limit: JournalOptions::new(1).group_limit(),
            ..config.pipeline_options(JournalOptions::new(1).group_limit(), 1)
        };
        let now = Now { monotonic: Monotonic::from_micros(0), wall: Timestamp::from_micros(1_000_000_000_000_000) };
        let mut broker = Self { pipeline: Pipeline::open(options, State::default(), None, now), now };
        broker.pipeline.on_room(u64::MAX);
        broker.pipeline.on_request(0, broker_svc::pipeline::Request::InitProducer(InitRequest::Fresh), now);
        let mut id = None;
        broker.settle(|answer| {
            if let broker_svc::pipeline::Answer::Granted(granted) = answer {
                id = Some(granted.producer.get());
            }
        });
        (broker, id.expect("a fresh broker has room for a producer"))
    }

    fn settle(&mut self, mut answered: impl FnMut(broker_svc::pipeline::Answer)) {
        loop {
            while let Some(output) = self.pipeline.poll_output() {
                if let Output::Answer(_, answer) = output {
                    answered(answer);
                }
            }
            let Some(group) = self.pipeline.poll_group() else { return };
            black_box(group);
            self.pipeline.on_written();
            self.pipeline.on_synced(u64::MAX);
        }
    }
}

fn admission() -> Box<dyn FnMut()> {
    let (mut broker, id) = Broker::new();
    let packed = Values::random(100).packed(0, 1, 10, Compression::None);
    let mut sequence = 0;
    Box::new(move || {
        let request = parse::produce(produce(id, sequence, packed.clone()), 1 << 20).expect("well-formed");
        sequence += 10;
        broker.pipeline.on_request(1, request, broker.now);
        broker.settle(|answer| drop(black_box(answer)));
    })
}

fn duplicate() -> Box<dyn FnMut()> {
    let (mut broker, id) = Broker::new();
    let packed = Values::random(100).packed(0, 1, 10, Compression::None);
    Box::new(move || {
        let request = parse::produce(produce(id, 0, packed.clone()), 1 << 20).expect("well-formed");
        broker.pipeline.on_request(1, request, broker.now);
        broker.settle(|answer| drop(black_box(answer)));
    })
}

/// A session whose calls are answered at once, as if they had been appended.
struct Caller {
    session: Session,
    now: Monotonic,
    sends: u64,
    offsets: HashMap<PartitionIndex, i64>,
}

impl Caller {
    fn new() -> Self {
        let settings = producer_svc::Config::default().resolve(&|_| None).expect("the defaults agree");
        let config =
            SessionConfig { compression: Compression::None, linger: Duration::from_secs(1), ..settings.session("t".to_owned()) };
        Self { session: Session::new(config, 1), now: Monotonic::from_micros(0), sends: 0, offsets: HashMap::new() }
    }

    fn send(&mut self, topic: &TopicName, record: &Record) {
        let id = SendId(self.sends);
        self.sends += 1;
        let records = vec![(PartitionIndex::MIN, record.clone())];
        self.handle(Event::Send { id, topic: topic.clone(), records });
    }

    fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now);
        while let Some(action) = self.session.poll_action() {
            let answer = match action {
                Action::Init { init, .. } => {
                    let producer = ProducerId::new(7).expect("positive");
                    let epoch = Epoch::new(0).expect("not negative");
                    let answer = InitAnswer { producer, epoch, max_batch_bytes: 1 << 20, partitions: Vec::new() };
                    Event::InitAnswered { init, answer }
                }
                Action::Produce(call) => {
                    let results = call.batches.iter().map(|batch| {
                        let offset = self.offsets.entry(batch.partition.partition).or_default();
                        let base_offset = Offset::new(*offset).ok();
                        *offset += i64::from(batch.packed.count().get());
                        BatchAnswer::Acknowledged { base_offset, append_time: Timestamp::from_micros(1), duplicate: false }
                    });
                    Event::ProduceAnswered { call: call.call, results: results.collect() }
                }
                done => {
                    black_box(done);
                    continue;
                }
            };
            self.session.handle(answer, self.now);
        }
    }
}

fn batching() -> Box<dyn FnMut()> {
    let (topic, record) = (TopicName::parse("topic").expect("valid"), Values::random(100).record(7));
    let mut caller = Caller::new();
    caller.handle(Event::Tick);
    Box::new(move || caller.send(&topic, black_box(&record)))
}

fn partition_of_key() -> Box<dyn FnMut()> {
    let record = Record { key: Some(Bytes::from_static(b"customer-4711-ab")), ..Record::default() };
    choosing(record)
}

fn sticky_partition() -> Box<dyn FnMut()> {
    choosing(Values::random(100).record(7))
}

fn choosing(record: Record) -> Box<dyn FnMut()> {
    let mut partitioner = Partitioner::new(BATCH_BYTES, 1);
    let (topic, count) = (TopicName::parse("topic").expect("valid"), PartitionCount::new(8).expect("allowed"));
    Box::new(move || {
        black_box(partitioner.choose(&topic, count, black_box(&record)));
    })
}

fn snappy() -> Box<dyn FnMut()> {
    let set = Values::json(1024).packed(0, 1, 31, Compression::None).data;
    Box::new(move || drop(black_box(Compression::Snappy.compress(black_box(&set)))))
}

const SET_RECORDS: usize = 300;
const BATCH_BYTES: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_can_be_done_many_times() {
        for operation in OPERATIONS {
            run(operation.name, 1_000).unwrap_or_else(|error| panic!("{}: {error}", operation.name));
        }
        assert!(run("nothing", 1).is_err());
    }
}
