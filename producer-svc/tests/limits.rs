//! Requests that are wrong or too much: each is told so as documented, nothing of it is appended, and the service goes on.

mod broker;

use broker::{Answer, FakeBroker, Plan, admin, client, request};
use bytes::{Buf, BufMut, Bytes};
use oncelog_edge::telemetry::Telemetry;
use oncelog_proto::{
    record_set::RecordSetEncoder,
    v1::{
        Header, Record, SendFailure, SendRequest, SendStreamRequest, producer_service_client::ProducerServiceClient,
        send_stream_response::Outcome,
    },
};
use producer_svc::{Config, Producer};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use tonic_types::{StatusExt, pb};

fn sized(bytes: usize) -> Record {
    Record { value: Some(vec![b'x'; bytes].into()), ..Record::default() }
}

fn with(records: Vec<Record>) -> SendRequest {
    SendRequest { topic: "t".to_owned(), partition: Some(0), records }
}

fn failure(status: &Status) -> SendFailure {
    let details = pb::Status::decode(status.details()).expect("a google.rpc.Status");
    let any = details.details.iter().find(|any| any.type_url == "type.googleapis.com/oncelog.v1.SendFailure");
    SendFailure::decode(any.expect("every refusal carries one").value.as_slice()).expect("a SendFailure")
}

/// Expects that nothing was appended, and that the next request is served.
async fn goes_on(broker: &FakeBroker, client: &mut ProducerServiceClient<Channel>) {
    assert!(broker.all_values("t").is_empty(), "something of a refused request was appended");
    client.send(request("alive", None, "x")).await.expect("still serving");
}

#[tokio::test]
async fn a_wrong_request_is_refused_whole_and_says_why() {
    let broker = FakeBroker::honest(2).await;
    let (_producer, mut client) = broker.producer(&[("max.request.size", "1000"), ("batch.size", "100")]).await;
    let good = || sized(1);
    let many_headers = Record { headers: vec![Header::default(); 1_001], ..Record::default() };
    let cases = [
        (
            with(vec![good(), sized(1_000)]),
            Code::InvalidArgument,
            "MESSAGE_TOO_LARGE",
            "record 1 has 1006 bytes; max.request.size is 1000",
        ),
        (with(vec![]), Code::InvalidArgument, "INVALID_REQUEST", "0 records; allowed is 1 to 10000"),
        (with(vec![good(); 10_001]), Code::InvalidArgument, "INVALID_REQUEST", "10001 records; allowed is 1 to 10000"),
        (with(vec![good(), many_headers]), Code::InvalidArgument, "MESSAGE_TOO_LARGE", "record 1"),
        (SendRequest { topic: String::new(), ..with(vec![good()]) }, Code::InvalidArgument, "INVALID_TOPIC_EXCEPTION", "empty"),
        (SendRequest { topic: "a b".to_owned(), ..with(vec![good()]) }, Code::InvalidArgument, "INVALID_TOPIC_EXCEPTION", "' '"),
        (
            SendRequest { topic: "missing".to_owned(), ..with(vec![good()]) },
            Code::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            "missing",
        ),
        (
            SendRequest { partition: Some(2), ..with(vec![good()]) },
            Code::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            "partition is 2, but topic t has 2",
        ),
        (SendRequest { partition: Some(-1), ..with(vec![good()]) }, Code::NotFound, "UNKNOWN_TOPIC_OR_PARTITION", "-1"),
    ];
    for (request, code, reason, words) in cases {
        let count = request.records.len();
        let status = client.send(request).await.expect_err(words);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(words), "{status:?} does not say {words:?}");
        assert_eq!(status.get_error_details().error_info().expect("always there").reason, reason);
        let failure = failure(&status);
        assert_eq!((failure.appended_count, failure.unknown_count, failure.refused_count), (0, 0, count as i32));
        goes_on(&broker, &mut client).await;
    }
    client
        .send(SendRequest { partition: Some(1), ..with(vec![good(); 10_000]) })
        .await
        .expect("both limits themselves are allowed");
}

#[tokio::test]
async fn headers_have_a_limit_within_a_record_that_is_not_too_large() {
    let broker = FakeBroker::honest(1).await;
    let (_producer, mut client) = broker.producer(&[]).await;
    let headers = |count: usize| Record { headers: vec![Header::default(); count], ..Record::default() };
    let status = client.send(with(vec![headers(1_001)])).await.expect_err("too many");
    assert_eq!((status.code(), failure(&status).refused_count), (Code::InvalidArgument, 1));
    goes_on(&broker, &mut client).await;
    client.send(with(vec![headers(1_000)])).await.expect("the limit itself is allowed");
}

#[tokio::test]
async fn the_largest_record_goes_through() {
    let broker = FakeBroker::honest(1).await;
    let (_producer, mut client) = broker.producer(&[("compression.type", "none")]).await;
    let largest = (1_048_500..1_048_576).map(sized).find(|record| RecordSetEncoder::added_len(record) == 1_048_576);
    client.send(with(vec![largest.expect("one fits exactly")])).await.expect("appended");
    assert_eq!(broker.values("t", 0).len(), 1);
}

#[tokio::test]
async fn a_message_beyond_the_transports_limit_ends_its_call_and_nothing_else() {
    let broker = FakeBroker::honest(1).await;
    let (_producer, mut client) = broker.producer(&[]).await;
    // Every record is small enough, all together they are not.
    let status = client.send(with(vec![sized(1 << 20); 5])).await.expect_err("above 4 MiB");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    goes_on(&broker, &mut client).await;

    let small = SendStreamRequest { topic: "alive".to_owned(), records: vec![sized(1)], ..SendStreamRequest::default() };
    let large = SendStreamRequest { topic: "t".to_owned(), records: vec![sized(1 << 20); 5], ..SendStreamRequest::default() };
    let mut answers = client.send_stream(tokio_stream::iter([small, large])).await.expect("a stream").into_inner();
    let first = answers.next().await.expect("an answer").expect("no status");
    assert!(matches!(first.outcome, Some(Outcome::Sent(_))), "{first:?}");
    assert_eq!(answers.next().await.expect("an end").expect_err("cannot go on").code(), Code::OutOfRange);
    goes_on(&broker, &mut client).await;
}

/// Bytes as they are, in place of a message.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let broker = FakeBroker::honest(1).await;
    let (producer, mut client) = broker.producer(&[]).await;
    let channel = Channel::from_shared(format!("http://{}", producer.local_addr())).expect("an address").connect_lazy();
    let good = with(vec![sized(10)]).encode_to_vec();
    let mut twisted: Vec<Vec<u8>> = (1..good.len()).map(|cut| good[..cut].to_vec()).collect();
    twisted.extend((0..good.len()).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    }));
    for bytes in twisted {
        // Some of them are messages by chance, and then they are served; none may do any harm.
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("listens");
        let path = http::uri::PathAndQuery::from_static("/oncelog.v1.ProducerService/Send");
        if let Err(status) = grpc.unary(Request::new(Bytes::from(bytes)), path, Raw).await {
            let expected = [Code::Internal, Code::InvalidArgument, Code::NotFound];
            assert!(expected.contains(&status.code()), "{status:?}");
        }
    }
    client.send(request("alive", None, "x")).await.expect("still serving");
}

#[tokio::test]
async fn bytes_that_are_no_http2_close_their_connection() {
    let broker = FakeBroker::honest(1).await;
    let (producer, mut client) = broker.producer(&[]).await;
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff\xff\xff\xff\xff\xff\xff"]
    {
        let mut stream = TcpStream::connect(producer.local_addr()).await.expect("listens");
        stream.write_all(garbage).await.expect("open");
        let _ = stream.shutdown().await;
        // Whatever it says before, it ends.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    goes_on(&broker, &mut client).await;
}

#[tokio::test]
async fn a_full_buffer_refuses_after_max_block_ms_and_serves_again_when_it_is_free() {
    let (open, gate) = watch::channel(false);
    let broker = FakeBroker::start(1, move |_, _| Plan::gated(&gate)).await;
    let settings = [
        ("linger.ms", "0"),
        ("batch.size", "100"),
        ("max.request.size", "5000"),
        ("buffer.memory", "5000"),
        ("max.block.ms", "200"),
        ("max.in.flight.requests.per.connection", "1"),
    ];
    let (_producer, mut client) = broker.producer(&settings).await;
    let first = tokio::spawn({
        let mut client = client.clone();
        async move { client.send(with(vec![sized(4_000)])).await }
    });
    broker.until(|broker| !broker.seen().is_empty()).await;
    let status = client.send(with(vec![sized(4_001)])).await.expect_err("full");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("buffer.memory") && status.message().contains("max.block.ms"), "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
    assert_eq!(failure(&status).refused_count, 1);
    open.send_replace(true);
    first.await.expect("no panic").expect("appended");
    client.send(with(vec![sized(4_002)])).await.expect("free again");
    assert_eq!(broker.values("t", 0).iter().map(String::len).collect::<Vec<_>>(), [4_000, 4_002]);

    let status = client.send(with(vec![sized(3_000), sized(3_000)])).await.expect_err("never fits");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("buffer.memory is 5000"), "{status:?}");
}

/// While the broker is away nobody knows a new topic; requests for it would pile up for max.block.ms, whatever their size.
#[tokio::test]
async fn requests_that_wait_for_their_topic_have_a_limit() {
    let config = Config::default().listen(([127, 0, 0, 1], 0).into()).admin_listen(None).broker("127.0.0.1:1");
    let producer = Producer::start(config.with("buffer.memory", 2_000_000), Telemetry::off()).await.expect("starts");
    let client = client(&producer).await;
    let mut three = JoinSet::new();
    for _ in 0..3 {
        let mut client = client.clone();
        three.spawn(async move { client.send(with(vec![sized(900_000)])).await });
    }
    let status = three.join_next().await.expect("three").expect("no panic").expect_err("two fill the line");
    assert_eq!((status.code(), failure(&status).refused_count), (Code::ResourceExhausted, 1), "{status:?}");
    assert!(status.message().contains("2000000"), "{status:?}");
    assert!(three.try_join_next().is_none(), "the other two wait");
}

#[tokio::test]
async fn a_record_whose_outcome_stays_unknown_is_told_so() {
    let broker = FakeBroker::start(1, |_, _| Plan::not_carried_out(Answer::Never)).await;
    let settings = [("linger.ms", "0"), ("request.timeout.ms", "50"), ("delivery.timeout.ms", "200")];
    let (_producer, mut client) = broker.producer(&settings).await;
    let status = client.send(with(vec![sized(1), sized(2)])).await.expect_err("no answer");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let failure = failure(&status);
    assert_eq!((failure.unknown_count, failure.refused_count, failure.appended_count), (2, 0, 0));
}

#[tokio::test]
async fn a_partly_refused_request_tells_of_each_record() {
    let broker = FakeBroker::start(2, |call, _| match call {
        0 => Plan::not_carried_out(Answer::Refuse(oncelog_proto::ErrorCode::InvalidRecord)),
        _ => Plan::default(),
    })
    .await;
    let settings = [("linger.ms", "0"), ("batch.size", "1"), ("max.in.flight.requests.per.connection", "1")];
    let (_producer, mut client) = broker.producer(&settings).await;
    // Three batches of one partition, one call each; the first is refused for good.
    let status = client.send(with(vec![sized(1), sized(2), sized(3)])).await.expect_err("one is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let failure = failure(&status);
    assert_eq!((failure.unknown_count, failure.refused_count, failure.appended_count), (0, 1, 2));
    assert_eq!(failure.outcomes.iter().map(|o| (o.first_index, o.count)).collect::<Vec<_>>()[0], (0, 1));
    assert_eq!(broker.values("t", 0).iter().map(String::len).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn what_is_answered_gives_its_memory_back_and_is_counted() {
    let broker = FakeBroker::honest(1).await;
    let (producer, mut client) = broker.producer(&[]).await;
    client.send(with(vec![sized(10), sized(20)])).await.expect("appended");
    client.send(with(vec![])).await.expect_err("refused");
    assert!(admin(&producer, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = admin(&producer, "/metrics").await;
    for line in [
        "oncelog_producer_records_total{outcome=\"appended\"} 2",
        "oncelog_producer_records_total{outcome=\"unknown\"} 0",
        "oncelog_producer_produce_calls_total 1",
        "oncelog_producer_buffer_memory_bytes 33554432",
        "oncelog_producer_buffer_available_bytes 33554432",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let broker = FakeBroker::honest(1).await;
    let (producer, mut first) = broker.producer(&[("max.connections", "2")]).await;
    let mut second = client(&producer).await;
    for client in [&mut first, &mut second] {
        client.send(request("t", None, "x")).await.expect("within the limit");
    }
    let mut third = TcpStream::connect(producer.local_addr()).await.expect("the socket listens");
    assert!(matches!(third.read(&mut [0; 64]).await, Ok(0) | Err(_)), "the third connection was served");
    first.send(request("t", None, "x")).await.expect("still serving");
}
