//! Writes what is valid into the corpora, for a fuzzer to begin with: `cargo run -p oncelog-fuzz --example seeds`.

use std::{fs, path::Path};

use bytes::Bytes;
use oncelog_proto::{
    Compression, PackedBatch, RecordCount, record_set,
    v1::{self, batch_result::Outcome},
};
use prost::Message;

const COMPRESSIONS: [Compression; 4] = [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn main() -> std::io::Result<()> {
    let records = record_set::encode(&[record("a"), record("b"), v1::Record::default()]);
    keep("records", "three", &records)?;
    for (number, compression) in (0_u8..).zip(COMPRESSIONS) {
        let name = format!("{compression:?}").to_lowercase();
        let packed = pack(&records, 3, compression);
        keep("packed_records", &name, &packed.encode_to_vec())?;
        let claim = u8::try_from(records.len()).expect("short");
        keep("compressions", &name, &[&[number, 0, 0, claim], &packed.data[..]].concat())?;
        let batch = v1::Batch { packed: Some(packed), ..batch("t", 0) };
        keep("produce_request", &name, &tagged(0, vec![batch]).encode_to_vec())?;
    }
    let bomb = Compression::Zstd.compress(&Bytes::from(vec![0; 1 << 20]));
    keep("compressions", "bomb", &[&[3, 16, 0, 0], &bomb[..]].concat())?;
    let plain = v1::Batch { records: vec![record("a"), record("b")], ..batch("t", 1) };
    keep("produce_request", "plain", &tagged(1, vec![plain.clone()]).encode_to_vec())?;
    let untagged = v1::ProduceRequest { acks: 2, batches: vec![plain], ..Default::default() };
    keep("produce_request", "untagged", &untagged.encode_to_vec())?;
    let send = v1::SendRequest { topic: "t".into(), partition: Some(1), records: vec![record("a"), record("b")] };
    keep("send_request", "two", &send.encode_to_vec())?;

    let ack = v1::BatchAck { base_offset: 7, append_time: Some(prost_types::Timestamp::default()), duplicate: true };
    let error = v1::BatchError { code: 45, message: "m".into(), expected_sequence: Some(3), ..Default::default() };
    let results = [Outcome::Ack(ack), Outcome::Error(error)].map(|outcome| v1::BatchResult { outcome: Some(outcome) });
    keep("broker_answers", "produced", &[&[0], &v1::ProduceResponse { results: results.into() }.encode_to_vec()[..]].concat())?;
    keep("broker_answers", "granted", &[&[3], &granted().encode_to_vec()[..]].concat())?;
    let partitions = vec![v1::describe_topics_response::Partition::default(); 2];
    let topics = vec![v1::describe_topics_response::Topic { topic: "t".into(), partitions }];
    let described = v1::DescribeTopicsResponse { topics, ..Default::default() };
    keep("broker_answers", "described", &[&[4], &described.encode_to_vec()[..]].concat())?;

    for text in ["1S", "99999999H", "5m", "+1u"] {
        keep("grpc_timeout", text, text.as_bytes())?;
    }
    keep(
        "properties",
        "kafka",
        b"# Kafka's\nbootstrap.servers=a:1,b\\\n  :2\nlinger.ms = 5\nacks:all\n! end\nclient.id=\\u00e4\\ud83d\\ude00\n",
    )?;
    keep("properties", "conflict", b"enable.idempotence=true\nacks=1\nmax.in.flight.requests.per.connection=6\n")?;
    keep("broker_calls", "life", &calls())?;
    for (name, bytes) in
        [("sound", &[0][..]), ("mended", &[1]), ("cut", &[0, 1, 0x20, 0, 0]), ("entry", &[1, 1, 0x10, 100, 2, 9, 9])]
    {
        keep("journal_files", name, bytes)?;
    }
    keep("snapshot", "state", &state())
}

fn keep(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{name}")), bytes)
}

fn record(value: &'static str) -> v1::Record {
    let headers = vec![v1::Header { key: "h".into(), value: "x".into() }];
    v1::Record { key: Some("key".into()), value: Some(value.into()), headers, timestamp: Some(prost_types::Timestamp::default()) }
}

fn pack(records: &Bytes, count: usize, compression: Compression) -> v1::PackedRecords {
    PackedBatch::pack(records, RecordCount::of_len(count).expect("some"), compression).expect("small").to_proto()
}

fn batch(topic: &str, base_sequence: i64) -> v1::Batch {
    v1::Batch { topic: topic.into(), base_sequence, ..Default::default() }
}

fn tagged(producer_epoch: i32, batches: Vec<v1::Batch>) -> v1::ProduceRequest {
    v1::ProduceRequest { producer_id: Some(1), producer_epoch, batches, ..Default::default() }
}

fn granted() -> v1::InitProducerIdResponse {
    let entry = |base_sequence| v1::WindowEntry {
        base_sequence,
        record_count: 2,
        append_time: Some(prost_types::Timestamp::default()),
        ..Default::default()
    };
    let window = vec![entry(3), entry(5)];
    let partition = v1::init_producer_id_response::Partition { topic: "t".into(), partition: 0, next_sequence: 7, window };
    let partitions = vec![partition];
    v1::InitProducerIdResponse { producer_id: 1, max_batch_bytes: 9, partitions, ..Default::default() }
}

/// A producer's life: an id, batches in order and out of it, a recovery, a topic that goes, crashes in between.
fn calls() -> Vec<u8> {
    let mut steps = Vec::new();
    let mut step = |kind: u8, message: &[u8]| {
        steps.push(kind);
        steps.extend_from_slice(&u16::try_from(message.len()).expect("short").to_be_bytes());
        steps.extend_from_slice(message);
    };
    let of = |base, epoch| {
        let batch = v1::Batch { records: vec![record("a")], ..batch("t", base) };
        tagged(epoch, vec![batch]).encode_to_vec()
    };
    step(1, &v1::InitProducerIdRequest::default().encode_to_vec());
    step(7, &[]);
    for base in [0, 2, 1, 1] {
        step(0, &of(base, 0));
    }
    step(7, &[]);
    step(9, &[]);
    step(7, &[]);
    let recovery_token = "x".into();
    let recover =
        v1::InitProducerIdRequest { producer_id: Some(1), producer_epoch: Some(0), recovery_token, ..Default::default() };
    step(1, &recover.encode_to_vec());
    step(0, &of(0, 1));
    step(2, &v1::CreateTopicRequest { topic: "u".into(), partitions: 3 }.encode_to_vec());
    step(3, &v1::DeleteTopicRequest { topic: "t".into() }.encode_to_vec());
    step(4, &v1::DescribeTopicsRequest::default().encode_to_vec());
    step(5, &v1::DescribeProducersRequest::default().encode_to_vec());
    step(6, &v1::FetchRequest { topic: "u".into(), ..Default::default() }.encode_to_vec());
    step(8, &[0; 9]);
    step(9, &[]);
    steps
}

/// A chunk of a snapshot that a broker with topics and producers takes.
fn state() -> Vec<u8> {
    let directory = oncelog_fuzz::sound_snapshot();
    directory.into_iter().flatten().collect()
}
