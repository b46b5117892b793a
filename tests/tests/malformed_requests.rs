//! What is wrong with a request in itself: each is refused with its code and reason, leaves nothing behind, and the broker
//! serves on.

use axum::body::Body;
use oncelog_proto::{Compression, fault::ERROR_DOMAIN, v1};
use oncelog_tests::{
    footprint::Footprint,
    lone_broker::{self, Client, LoneBroker},
    produce::{batch, pack, packed, record, sequenced, tagged, untagged},
    transcript::{Call, live::try_call},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Status, client::GrpcService, transport::Channel};
use tonic_types::StatusExt;
use v1::{
    CreateTopicRequest, DeleteTopicRequest, DescribeProducersRequest, DescribeTopicsRequest, FetchRequest, InitProducerIdRequest,
    PackedRecords, ProduceRequest, Record,
};

/// Topic `t` with two partitions and a record in the first, and producer 1 at epoch 0 that wrote it.
async fn broker() -> (LoneBroker, Client) {
    let broker = LoneBroker::start(&["--hold-ms=0"]).await.expect("it starts");
    let mut client = broker.client();
    client.create_topic(CreateTopicRequest { topic: "t".into(), partitions: 2 }).await.expect("created");
    let granted = client.init_producer_id(InitProducerIdRequest::default()).await.expect("granted").into_inner();
    assert_eq!((granted.producer_id, granted.producer_epoch), (1, 0));
    let lines = try_call(client.clone(), Call::Produce(tagged(1, 0, vec![one()]))).await.expect("well-formed");
    assert_eq!(lines, ["t/0 appended 0"]);
    (broker, client)
}

fn one() -> v1::Batch {
    batch("t", 0, vec![record("a")])
}

fn honest(compression: Compression) -> PackedRecords {
    pack(&[record("a"), record("b")], compression)
}

/// What is wrong, the call, and the answer.
type Row = (String, Call, &'static str);

fn row(what: impl Into<String>, call: Call, answer: &'static str) -> Row {
    (what.into(), call, answer)
}

const INVALID_REQUEST: &str = "refused INVALID_ARGUMENT INVALID_REQUEST";
const INVALID_REQUIRED_ACKS: &str = "refused INVALID_ARGUMENT INVALID_REQUIRED_ACKS";
const INVALID_PARTITIONS: &str = "refused INVALID_ARGUMENT INVALID_PARTITIONS";
const INVALID_TOPIC: &str = "refused INVALID_ARGUMENT INVALID_TOPIC_EXCEPTION";
const INVALID_EPOCH: &str = "refused FAILED_PRECONDITION INVALID_PRODUCER_EPOCH";
const NO_TOPIC: &str = "refused NOT_FOUND UNKNOWN_TOPIC_OR_PARTITION";
const NO_PRODUCER: &str = "refused NOT_FOUND UNKNOWN_PRODUCER_ID";
const OUT_OF_RANGE: &str = "refused OUT_OF_RANGE OFFSET_OUT_OF_RANGE";

fn produce_calls() -> Vec<Row> {
    let call = |what: &str, change: &dyn Fn(&mut ProduceRequest), answer| {
        let mut request = tagged(1, 0, vec![sequenced("t", 0, 1, vec![record("b")])]);
        change(&mut request);
        row(what, Call::Produce(request), answer)
    };
    vec![
        call("no batches", &|r| r.batches.clear(), INVALID_REQUEST),
        call("two tagged batches for a partition", &|r| r.batches.push(one()), INVALID_REQUEST),
        call("producer -1", &|r| r.producer_id = Some(-1), INVALID_REQUEST),
        call("epoch -1", &|r| r.producer_epoch = -1, INVALID_REQUEST),
        call("an epoch without a producer", &|r| (r.producer_id, r.producer_epoch) = (None, 1), INVALID_REQUEST),
        call("acks 4", &|r| r.acks = 4, INVALID_REQUEST),
        call("acks -1", &|r| r.acks = -1, INVALID_REQUEST),
        call("tagged, acks one", &|r| r.acks = v1::Acks::One.into(), INVALID_REQUIRED_ACKS),
        call("tagged, acks zero", &|r| r.acks = v1::Acks::Zero.into(), INVALID_REQUIRED_ACKS),
    ]
}

fn batches() -> Vec<Row> {
    let tag = |what: &str, change: &dyn Fn(&mut v1::Batch), answer| {
        let mut batch = sequenced("t", 0, 1, vec![record("b")]);
        change(&mut batch);
        row(what, Call::Produce(tagged(1, 0, vec![batch])), answer)
    };
    let mut rows = vec![
        tag("records and packed", &|b| b.packed = Some(honest(Compression::None)), "t/0 INVALID_RECORD"),
        tag("neither records nor packed", &|b| b.records.clear(), "t/0 INVALID_RECORD"),
        tag("sequence -1", &|b| b.base_sequence = -1, "t/0 INVALID_RECORD"),
        tag("the lowest sequence", &|b| b.base_sequence = i64::MIN, "t/0 INVALID_RECORD"),
        tag("a sequence beyond the highest", &|b| b.base_sequence = i64::MAX, "t/0 INVALID_RECORD"),
        tag("partition -1", &|b| b.partition = -1, "t/-1 UNKNOWN_TOPIC_OR_PARTITION"),
        tag("a partition too many", &|b| b.partition = 2, "t/2 UNKNOWN_TOPIC_OR_PARTITION"),
        tag("the highest partition", &|b| b.partition = i32::MAX, "t/2147483647 UNKNOWN_TOPIC_OR_PARTITION"),
        tag(
            "a partition that a new topic would not have",
            &|b| (b.topic, b.partition) = ("new".into(), 1),
            "new/1 UNKNOWN_TOPIC_OR_PARTITION",
        ),
    ];
    for compression in [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut pack = |what: &str, change: &dyn Fn(&mut PackedRecords), answer| {
            let mut records = honest(compression);
            change(&mut records);
            rows.push(row(format!("{compression:?}: {what}"), Call::Produce(untagged(vec![packed("t", 0, records)])), answer));
        };
        pack("a record too few", &|p| p.record_count = 3, "t/0 INVALID_RECORD");
        pack("a record too many", &|p| p.record_count = 1, "t/0 INVALID_RECORD");
        pack("0 records", &|p| p.record_count = 0, "t/0 INVALID_RECORD");
        pack("-1 records", &|p| p.record_count = -1, "t/0 INVALID_RECORD");
        pack("the most records", &|p| p.record_count = i32::MAX, "t/0 INVALID_RECORD");
        pack("a byte too many", &|p| p.uncompressed_bytes -= 1, "t/0 CORRUPT_MESSAGE");
        pack("a byte too few", &|p| p.uncompressed_bytes += 1, "t/0 CORRUPT_MESSAGE");
        pack("0 bytes", &|p| p.uncompressed_bytes = 0, "t/0 CORRUPT_MESSAGE");
        pack("-1 bytes", &|p| p.uncompressed_bytes = -1, "t/0 CORRUPT_MESSAGE");
        pack("a claim of 64 MiB", &|p| p.uncompressed_bytes = 64 << 20, "t/0 CORRUPT_MESSAGE");
        pack("a claim above 64 MiB", &|p| p.uncompressed_bytes = (64 << 20) + 1, "t/0 MESSAGE_TOO_LARGE");
        pack("no data", &|p| p.data.clear(), "t/0 CORRUPT_MESSAGE");
        pack("cut data", &|p| p.data.truncate(p.data.len() - 1), "t/0 CORRUPT_MESSAGE");
        pack("compression 1, gzip", &|p| p.compression = 1, "t/0 UNSUPPORTED_COMPRESSION_TYPE");
        pack("compression 5", &|p| p.compression = 5, "t/0 UNSUPPORTED_COMPRESSION_TYPE");
        pack("compression -1", &|p| p.compression = -1, "t/0 UNSUPPORTED_COMPRESSION_TYPE");
    }
    for compression in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let garbage = PackedRecords { data: vec![0xa5; 40].into(), ..honest(compression) };
        rows.push(row(
            format!("{compression:?}: garbage"),
            Call::Produce(untagged(vec![packed("t", 0, garbage)])),
            "t/0 CORRUPT_MESSAGE",
        ));
    }
    // What the walk over the records finds; the claim about the length is true.
    let encodings: [(&str, &[u8]); 8] = [
        ("garbage", &[0xa5; 9]),
        ("a second field beside the records", &[0x0a, 0, 0x12, 0]),
        ("a record that is longer than what holds it", &[0x0a, 9, 0x12, 1]),
        ("a record with a field 5", &[0x0a, 2, 0x2a, 0]),
        ("a key that is a number", &[0x0a, 2, 0x08, 0]),
        ("a fixed-width field", &[0x0a, 5, 0x0d, 0, 0, 0, 0]),
        ("a header key that is not UTF-8", &[0x0a, 5, 0x1a, 3, 0x0a, 1, 0xff]),
        ("a timestamp that is text", &[0x0a, 5, 0x22, 3, 0x0a, 1, b'x']),
    ];
    for (what, bytes) in encodings {
        let uncompressed_bytes = i32::try_from(bytes.len()).expect("short");
        let records = PackedRecords { record_count: 1, uncompressed_bytes, data: bytes.to_vec().into(), compression: 0 };
        rows.push(row(what, Call::Produce(untagged(vec![packed("t", 0, records)])), "t/0 INVALID_RECORD"));
    }
    rows
}

fn names() -> Vec<Row> {
    let bad = ["", ".", "..", "a/b", "a b", "ä", "a\0", &"x".repeat(250)];
    let calls = |topic: &str| {
        let topic = topic.to_owned();
        [
            Call::Create(CreateTopicRequest { topic: topic.clone(), partitions: 1 }),
            Call::Delete(DeleteTopicRequest { topic: topic.clone() }),
            Call::Fetch(FetchRequest { topic: topic.clone(), ..Default::default() }),
            Call::Describe(DescribeTopicsRequest {
                topics: vec!["t".into(), topic.clone()],
                allow_auto_create: true,
                ..Default::default()
            }),
            Call::Producers(DescribeProducersRequest { topic, ..Default::default() }),
        ]
    };
    let rows = bad.iter().flat_map(|&name| {
        // Without a name DescribeProducers describes those of all topics.
        let calls = calls(name).into_iter().filter(move |call| !name.is_empty() || !matches!(call, Call::Producers(_)));
        calls.map(move |call| row(format!("the name {name:?}"), call, INVALID_TOPIC))
    });
    rows.collect()
}

fn init_calls() -> Vec<Row> {
    let init = |what: &str, change: &dyn Fn(&mut InitProducerIdRequest), answer| {
        let mut request = InitProducerIdRequest {
            producer_id: Some(1),
            producer_epoch: Some(0),
            recovery_token: "mine".into(),
            ..Default::default()
        };
        change(&mut request);
        row(what, Call::Init(request), answer)
    };
    vec![
        init("a producer without an epoch", &|r| r.producer_epoch = None, INVALID_REQUEST),
        init("an epoch without a producer", &|r| r.producer_id = None, INVALID_REQUEST),
        init("producer -1", &|r| r.producer_id = Some(-1), INVALID_REQUEST),
        init("epoch -1", &|r| r.producer_epoch = Some(-1), INVALID_REQUEST),
        init("no token", &|r| r.recovery_token.clear(), INVALID_REQUEST),
        init("a token of 65 bytes", &|r| r.recovery_token = "x".repeat(65), INVALID_REQUEST),
        init(
            "a fresh id with a token of 65 bytes",
            &|r| (r.producer_id, r.producer_epoch, r.recovery_token) = (None, None, "x".repeat(65)),
            INVALID_REQUEST,
        ),
        init(
            "a page of a fresh id",
            &|r| (r.producer_id, r.producer_epoch, r.page_token) = (None, None, "t/0".into()),
            INVALID_REQUEST,
        ),
        init("a page token without a partition", &|r| r.page_token = "t".into(), INVALID_REQUEST),
        init("a page token with a negative one", &|r| r.page_token = "t/-1".into(), INVALID_REQUEST),
        init("a page token with text", &|r| r.page_token = "t/one".into(), INVALID_REQUEST),
        init("a page token with a bad name", &|r| r.page_token = "a b/0".into(), INVALID_REQUEST),
        init("an id that was never handed out", &|r| r.producer_id = Some(2), NO_PRODUCER),
        init("the highest id", &|r| r.producer_id = Some(i64::MAX), NO_PRODUCER),
        init("an epoch that was never handed out", &|r| r.producer_epoch = Some(1), INVALID_EPOCH),
        init("the highest epoch", &|r| r.producer_epoch = Some(i32::MAX), INVALID_EPOCH),
    ]
}

fn other_calls() -> Vec<Row> {
    let fetch = |what: &str, change: &dyn Fn(&mut FetchRequest), answer| {
        let mut request = FetchRequest { topic: "t".into(), ..Default::default() };
        change(&mut request);
        row(what, Call::Fetch(request), answer)
    };
    let create = |topic: &str, partitions, answer| {
        row(format!("{topic} with {partitions}"), Call::Create(CreateTopicRequest { topic: topic.into(), partitions }), answer)
    };
    let describe = |what: &str, topics: &[&str], answer| {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        row(what, Call::Describe(DescribeTopicsRequest { topics, allow_auto_create: false, ..Default::default() }), answer)
    };
    let producers = |what: &str, change: &dyn Fn(&mut DescribeProducersRequest)| {
        let mut request = DescribeProducersRequest::default();
        change(&mut request);
        row(what, Call::Producers(request), INVALID_REQUEST)
    };
    vec![
        fetch("offset -1", &|r| r.offset = Some(-1), OUT_OF_RANGE),
        fetch("an offset above the end", &|r| r.offset = Some(2), OUT_OF_RANGE),
        fetch("the highest offset", &|r| r.offset = Some(i64::MAX), OUT_OF_RANGE),
        fetch("0 records", &|r| r.max_records = Some(0), INVALID_REQUEST),
        fetch("-1 records", &|r| r.max_records = Some(-1), INVALID_REQUEST),
        fetch("partition -1", &|r| r.partition = -1, NO_TOPIC),
        fetch("a partition too many", &|r| r.partition = 2, NO_TOPIC),
        fetch("no such topic", &|r| r.topic = "new".into(), NO_TOPIC),
        create("new", -1, INVALID_PARTITIONS),
        create("new", i32::MIN, INVALID_PARTITIONS),
        create("new", 10_001, INVALID_PARTITIONS),
        create("t", 2, "refused ALREADY_EXISTS TOPIC_ALREADY_EXISTS"),
        row("no such topic to delete", Call::Delete(DeleteTopicRequest { topic: "new".into() }), NO_TOPIC),
        describe("no such topic to describe", &["t", "new"], NO_TOPIC),
        describe("a topic twice", &["t", "t"], INVALID_REQUEST),
        producers("producer -1", &|r| r.producer_id = Some(-1)),
        producers("a page token that is text", &|r| r.page_token = "x".into()),
        producers("a page token that is negative", &|r| r.page_token = "-1".into()),
        producers("a page token beyond all numbers", &|r| r.page_token = "9223372036854775808".into()),
        producers("a page of -1", &|r| r.page_size = -1),
        producers("a page of 1,001", &|r| r.page_size = 1_001),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_malformed_request_is_refused_with_its_reason_and_leaves_nothing_behind() {
    let (_broker, mut client) = broker().await;
    let before = Footprint::of(&mut client).await.expect("told");
    for (what, call, answer) in [produce_calls(), batches(), names(), init_calls(), other_calls()].concat() {
        let lines = match try_call(client.clone(), call).await {
            Ok(lines) => lines,
            Err(status) => vec![refused(&what, &status)],
        };
        assert_eq!(lines, [answer], "{what}");
        assert_eq!(Footprint::of(&mut client).await.expect("it serves on"), before, "{what}");
    }
    // One that is well-formed goes through, and follows what was there.
    let next = Call::Produce(tagged(1, 0, vec![sequenced("t", 0, 1, vec![record("b")])]));
    assert_eq!(try_call(client.clone(), next).await.expect("well-formed"), ["t/0 appended 1"]);
    let fetched = lone_broker::fetch(&mut client, FetchRequest { topic: "t".into(), ..Default::default() }).await.expect("there");
    let values: Vec<_> = fetched.into_iter().flat_map(|r| r.records).filter_map(|r| r.record?.value).collect();
    assert_eq!(values, ["a", "b"]);
}

/// The line of a refusal, after a look at what every refusal has.
fn refused(what: &str, status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, ERROR_DOMAIN, "{what}");
    assert!(status.message().len() > 20, "{what}: a message that teaches nothing: {:?}", status.message());
    format!("refused {} {}", oncelog_tests::transcript::code_name(status.code()), info.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_one_batch_is_answered_in_its_place_and_the_others_are_appended() {
    let (_broker, client) = broker().await;
    let good = |partition, base| sequenced("t", partition, base, vec![record("b")]);
    let batches = vec![batch("a b", 0, vec![record("x")]), good(0, 1), batch("t", 9, vec![record("x")]), good(1, 0)];
    let lines = try_call(client, Call::Produce(tagged(1, 0, batches))).await.expect("the call is well-formed");
    assert_eq!(lines, ["a b/0 INVALID_TOPIC_EXCEPTION", "t/0 appended 1", "t/9 UNKNOWN_TOPIC_OR_PARTITION", "t/1 appended 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_machines_what_it_tells_people() {
    let (_broker, client) = broker().await;
    let told = |call, keys: &'static [(&str, &str)]| {
        let client = client.clone();
        async move {
            let status = try_call(client, call).await.expect_err("refused");
            let details = status.get_error_details();
            let metadata = &details.error_info().expect("always there").metadata;
            for (key, value) in keys {
                assert_eq!(metadata.get(*key).map(String::as_str), Some(*value), "{key} in {metadata:?}");
            }
            assert_eq!(metadata.len(), keys.len(), "{metadata:?}");
        }
    };
    let fetch = FetchRequest { topic: "t".into(), offset: Some(7), ..Default::default() };
    told(Call::Fetch(fetch), &[("offset", "7"), ("log_start_offset", "0"), ("log_end_offset", "1")]).await;
    let fetch = FetchRequest { topic: "t".into(), partition: 2, ..Default::default() };
    told(Call::Fetch(fetch), &[("topic", "t"), ("partition", "2")]).await;
    told(Call::Delete(DeleteTopicRequest { topic: "new".into() }), &[("topic", "new")]).await;
    let recovery = |id, epoch| {
        let (producer_id, producer_epoch) = (Some(id), Some(epoch));
        Call::Init(InitProducerIdRequest { producer_id, producer_epoch, recovery_token: "mine".into(), ..Default::default() })
    };
    told(recovery(2, 0), &[("producer_id", "2")]).await;
    told(recovery(1, 5), &[("current_epoch", "0")]).await;
}

/// Bytes on the wire: a gRPC request to a path; its status.
async fn raw(channel: &mut Channel, path: &str, body: Vec<u8>) -> Code {
    let request = axum::http::Request::post(format!("http://broker{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(tonic::body::Body::new(Body::from(body))).expect("a request");
    std::future::poll_fn(|cx| GrpcService::<tonic::body::Body>::poll_ready(channel, cx)).await.expect("connected");
    let response = GrpcService::call(channel, request).await.expect("an answer");
    Status::from_header_map(response.headers()).expect("an error comes in the headers").code()
}

/// A gRPC frame.
fn frame(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &len[..], message].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_are_refused_and_the_connection_lives_on() {
    let (broker, mut client) = broker().await;
    let before = Footprint::of(&mut client).await.expect("told");
    let mut channel = broker.channel();
    let methods = ["InitProducerId", "Produce", "Fetch", "CreateTopic", "DeleteTopic", "DescribeTopics", "DescribeProducers"];
    let bodies = [
        ("a message that is no protobuf", frame(&[0xff; 20])),
        ("a field that is longer than its message", frame(&[0x0a, 200, 1, 2])),
        ("a frame that is cut", vec![0, 0, 0, 0, 9, 1]),
        ("a frame's head that is cut", vec![0, 0]),
        ("no message", Vec::new()),
        ("a compression flag without a compression", [&[1], &frame(&[])[1..]].concat()),
        ("a flag that means nothing", [&[7], &frame(&[])[1..]].concat()),
    ];
    for method in methods {
        for (what, body) in &bodies {
            let path = format!("/oncelog.v1.BrokerService/{method}");
            let code = raw(&mut channel, &path, body.clone()).await;
            assert_eq!(code, Code::Internal, "{method}: {what}");
        }
    }
    // Text that is not UTF-8: a topic, a page token.
    for (method, message) in [("CreateTopic", [0x0a, 1, 0xff]), ("DescribeProducers", [0x1a, 1, 0xff])] {
        let path = format!("/oncelog.v1.BrokerService/{method}");
        assert_eq!(raw(&mut channel, &path, frame(&message)).await, Code::Internal, "{method}");
    }
    for path in ["/oncelog.v1.BrokerService/Nothing", "/oncelog.v1.NothingService/Produce", "/"] {
        assert_eq!(raw(&mut channel, path, frame(&[])).await, Code::Unimplemented, "{path}");
    }
    assert_eq!(Footprint::of(&mut client).await.expect("it serves on"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_speaks_something_else_is_closed() {
    let (broker, mut client) = broker().await;
    for words in [
        &b"GET / HTTP/1.1\r\nhost: broker\r\n\r\n"[..],
        &[0xff; 64],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(broker.addr()).await.expect("it listens");
        stream.write_all(words).await.expect("open");
        let mut answer = Vec::new();
        // Closed in order or cut off: its end comes either way.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(Footprint::of(&mut client).await.is_ok());
    }
}

#[test]
fn an_empty_record_is_a_record() {
    // So the rows above are about what is around the records.
    assert_eq!(pack(&[Record::default()], Compression::None).data, [0x0a, 0].as_slice());
}
