//! Ten times what the limits allow, against real processes with small limits: what is too much is refused with the documented
//! error, memory stays below a bound that follows from the limits, and what was accepted meanwhile is in the log, once, in order.
//!
//! Memory is the most that the process ever had (`VmHWM`). Its bound is what it had when it was ready, and [`FACTOR`] times the
//! limits in bytes, and for each connection and each call what the transport may hold of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use oncelog_chaos::{
    recorder::Recorder,
    stage::{Stage, channel},
};
use oncelog_proto::{
    Bearer, PackedBatch,
    v1::{
        Batch, CreateTopicRequest, FetchRequest, InitProducerIdRequest, SendRequest, batch_result::Outcome,
        producer_service_client::ProducerServiceClient,
    },
};
use oncelog_tests::{
    binaries,
    lone_broker::{Client, LoneBroker},
    produce::{record, record_filling, sequenced, tagged},
    workplace::Workplace,
};
use oncelog_verify::{
    HistoryFile, Report,
    history::{CallerId, Digest, Event, InitAnswer, InitCalled, Partition, ProduceAnswer, ProduceCalled, SendCalled, Tag},
    judge, live, wire,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status, client::GrpcService, transport::Channel};
use tonic_types::StatusExt;

const TIMES: usize = 10;
const CONNECTIONS: usize = 8;
const PRODUCERS: usize = 10;
const PARTITIONS: usize = 10;
const WINDOWS: usize = 10;
const FETCHES: usize = 4;
const HOLD_BYTES: usize = 64 << 10;
const QUEUED_BYTES: usize = 2 << 20;
const REQUEST_BYTES: usize = 1 << 20;
const BUFFER_MEMORY: usize = 1 << 20;
/// Calls at a time, where the limit in bytes has room for fewer.
const CALLS: usize = 1_024;
/// Calls at a time on one connection.
const CALLS_OF_CONNECTION: usize = 1_000;

/// Between what the limits count and what the process has: lists that grow by doubling, and what an allocator keeps for later.
const FACTOR: usize = 3;
/// Bytes that a caller may send on one connection before anybody reads them.
const CONNECTION_WINDOW: usize = 16 << 20;
/// Headers of a call, and what the transport remembers of it.
const CALL_BYTES: usize = 16 << 10;
/// A read, and the answers that are made ahead of their reader.
const FETCH_BYTES: usize = 4 << 20;

/// Most memory of a process, by what it had at first and the sum of its limits in bytes.
fn bound(at_first: u64, limits: usize) -> u64 {
    at_first + (FACTOR * limits + CONNECTIONS * CONNECTION_WINDOW + CALLS * CALL_BYTES) as u64
}

fn assert_bounded(what: &str, at_first: u64, peak: u64, limits: usize) {
    let bound = bound(at_first, limits);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    eprintln!("{what}: {} MiB when ready, {} MiB at most, bound {} MiB", mib(at_first), mib(peak), mib(bound));
    assert!(peak <= bound, "{what} had {peak} bytes; its limits allow {bound}");
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map_or_else(|| format!("{status:?}"), |info| info.reason.clone())
}

fn is_exhausted(status: &Status, limit: &str) {
    let metadata = status.get_error_details().error_info().expect("always there").metadata.clone();
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"), "{status:?}");
    assert!(metadata.contains_key(limit), "{limit} in {metadata:?}");
}

/// Bytes of a call's body, and then silence, or the end.
async fn raw(mut to: Channel, path: &'static str, bytes: Bytes, ends: bool) -> Status {
    let pieces: Vec<_> = bytes.chunks(REQUEST_BYTES / 8).map(|piece| Ok::<_, Status>(bytes.slice_ref(piece))).collect();
    let pieces = tokio_stream::iter(pieces);
    let body = if ends { Body::from_stream(pieces) } else { Body::from_stream(pieces.chain(tokio_stream::pending())) };
    let request = axum::http::Request::post(format!("http://service{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let request = request.body(tonic::body::Body::new(body)).expect("a request");
    std::future::poll_fn(|cx| GrpcService::<tonic::body::Body>::poll_ready(&mut to, cx)).await.expect("connected");
    let response = GrpcService::call(&mut to, request).await.expect("an answer");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    // A stream that was opened ends with its status in the trailers.
    let mut body =
        tonic::codec::Streaming::<()>::new_response(NoMessage, response.into_body(), axum::http::StatusCode::OK, None, None);
    body.message().await.expect_err("nothing of it is right")
}

/// Reads trailers alone.
struct NoMessage;

impl tonic::codec::Decoder for NoMessage {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Err(Status::internal("an answer, to a call that had to be refused"))
    }
}

/// A message behind its length; `cut` bytes of it are missing.
fn framed(message: &[u8], cut: usize) -> Bytes {
    let len = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &len[..], &message[..message.len() - cut]].concat().into()
}

/// Opens ten times as many connections as are allowed while `taken` places are taken; all but those that found a place are
/// closed.
async fn connections_are_closed(addr: std::net::SocketAddr, taken: usize) -> usize {
    let mut ended = JoinSet::new();
    for _ in 0..TIMES * CONNECTIONS {
        let mut stream = TcpStream::connect(addr).await.expect("the socket listens");
        ended.spawn(async move {
            let mut said = Vec::new();
            // Cut off or closed in order: who found a place has at least been greeted before.
            let _ = stream.read_to_end(&mut said).await;
            said.is_empty()
        });
    }
    let expected = TIMES * CONNECTIONS - (CONNECTIONS - taken);
    let mut closed = 0;
    while closed < expected {
        let unheard = timeout(PATIENCE, ended.join_next()).await.expect("closed at once").expect("one more");
        closed += usize::from(unheard.expect("no panic"));
    }
    expected
}

/// Calls that are too much, one of them a bomb: all are refused, by the errors that are named.
async fn refused(calls: JoinSet<Status>, allowed: &[&str]) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for status in timeout(PATIENCE, calls.join_all()).await.expect("refused at once") {
        *told.entry(reason(&status)).or_default() += 1;
    }
    assert!(told.keys().all(|reason| allowed.contains(&reason.as_str())), "{told:?}");
    told
}

/// A producer that repeats each batch until it is acknowledged, while everybody else asks for too much.
struct Honest {
    client: Client,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Honest {
    async fn run(mut self) {
        let call = self.recorder.call();
        self.recorder.saw(Event::InitCalled(InitCalled { call, recover: None, token: String::new() }));
        let granted = self.client.init_producer_id(InitProducerIdRequest::default()).await.expect("granted").into_inner();
        let answer = wire::init(&[granted]);
        self.recorder.saw(Event::InitAnswered { call, answer: answer.clone() });
        let InitAnswer::Granted { producer, .. } = answer else { panic!("{answer:?}") };
        let mut name = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let packed = PackedBatch::from_records(&[record(format!("honest {name}"))]).expect("small");
            let base_sequence = i64::try_from(name).expect("few");
            let tag = Tag { producer, base_sequence };
            loop {
                let call = self.recorder.call();
                self.recorder.saw(Event::ProduceCalled(ProduceCalled {
                    call,
                    partition: Partition::new(HONEST, 0),
                    tag: Some(tag),
                    record_count: 1,
                    checksum: packed.checksum(),
                    batch: Some(name),
                }));
                let batch = Batch { topic: HONEST.into(), base_sequence, packed: Some(packed.to_proto()), ..Batch::default() };
                let answer = match self.client.produce(tagged(producer.id, producer.epoch, vec![batch])).await {
                    Ok(response) => response.into_inner().results.first().map_or(ProduceAnswer::Unknown, wire::produce),
                    Err(status) => wire::produce_failed(&status),
                };
                self.recorder.saw(Event::ProduceAnswered { call, answer });
                if matches!(answer, ProduceAnswer::Acknowledged { .. }) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
            name += 1;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn verdict(channel: Channel, workplace: &Workplace, recorder: &Recorder) -> Report {
    let mut client = live::Client::new(Bearer::none().on(channel)).max_decoding_message_size(usize::MAX);
    recorder.finish().expect("written");
    let topics = [HONEST.to_owned()];
    let mut log = None;
    while log.is_none() {
        // Streams that were open a moment ago may still have their places.
        log = match live::read(&mut client, &topics, &mut |_| {}).await {
            Ok(read) => Some(read.log),
            Err(live::ReadError::Call { status, .. }) if status.code() == Code::ResourceExhausted => {
                sleep(Duration::from_millis(5)).await;
                None
            }
            Err(error) => panic!("{error}"),
        };
    }
    let report = judge(&log.expect("read"), &HistoryFile::new(workplace.path("history.jsonl"))).expect("a history");
    assert!(report.is_clean() && report.counts.lost == 0 && report.counts.duplicated == 0, "{report:#?}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_refuses_ten_times_its_limits_and_what_it_accepts_is_in_the_log() {
    let flags = [
        format!("--max-connections={CONNECTIONS}"),
        format!("--max-producers={PRODUCERS}"),
        format!("--max-partitions={PARTITIONS}"),
        format!("--max-windows={WINDOWS}"),
        format!("--max-fetches={FETCHES}"),
        format!("--hold-bytes={HOLD_BYTES}"),
        "--hold-ms=500".to_owned(),
        format!("--queued-max-request-bytes={QUEUED_BYTES}"),
        format!("--max-request-bytes={REQUEST_BYTES}"),
        "--max-message-bytes=524288".to_owned(),
        "--segment-bytes=4194304".to_owned(),
    ];
    let broker = LoneBroker::start(&flags.each_ref().map(String::as_str)).await.expect("it starts");
    let at_first = broker.peak_memory().expect("it runs");
    let workplace = Workplace::new();
    let recorder = Recorder::create(&workplace.path("history.jsonl"), 86_400_000).expect("a file");
    let mut client = broker.client();
    client.create_topic(CreateTopicRequest { topic: HONEST.into(), partitions: 1 }).await.expect("the first");
    let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let honest = Honest {
        client: broker.client(),
        recorder: recorder.clone(),
        stop: Arc::clone(&stop),
        acknowledged: Arc::clone(&acknowledged),
    };
    let honest = tokio::spawn(honest.run());
    let goes_on = async || {
        let before = acknowledged.load(Ordering::Relaxed);
        let next = async {
            while acknowledged.load(Ordering::Relaxed) <= before + 1 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, next).await.expect("the honest producer goes on");
    };
    goes_on().await;

    // The first client's and the honest one's.
    let closed = connections_are_closed(broker.addr(), 2).await;
    goes_on().await;

    let mut ids = Vec::new();
    let mut refused_producers = 0;
    for _ in 0..TIMES * PRODUCERS {
        match client.init_producer_id(InitProducerIdRequest::default()).await {
            Ok(granted) => ids.push(granted.into_inner().producer_id),
            Err(status) => {
                is_exhausted(&status, "max_producers");
                refused_producers += 1;
            }
        }
    }
    assert_eq!((ids.len(), refused_producers), (PRODUCERS - 1, (TIMES - 1) * PRODUCERS + 1));

    let (mut topics, mut refused_topics) = (Vec::new(), 0);
    for number in 0..TIMES * PARTITIONS {
        let topic = format!("topic-{number}");
        match client.create_topic(CreateTopicRequest { topic: topic.clone(), partitions: 1 }).await {
            Ok(_) => topics.push(topic),
            Err(status) => {
                is_exhausted(&status, "max_partitions");
                refused_topics += 1;
            }
        }
    }
    assert_eq!((topics.len(), refused_topics), (PARTITIONS - 1, (TIMES - 1) * PARTITIONS + 1));

    let mut windows = BTreeMap::new();
    for id in &ids {
        let batches = topics.iter().map(|topic| sequenced(topic, 0, 0, vec![record("a")])).collect();
        for result in client.produce(tagged(*id, 0, batches)).await.expect("taken").into_inner().results {
            let told = match result.outcome.expect("told") {
                Outcome::Ack(_) => "appended",
                Outcome::Error(error) => error.code().reason(),
            };
            *windows.entry(told).or_insert(0) += 1;
        }
    }
    let pairs = ids.len() * topics.len();
    assert_eq!(windows, BTreeMap::from([("appended", WINDOWS - 1), ("RESOURCE_EXHAUSTED", pairs - (WINDOWS - 1))]));

    let mut streams = Vec::new();
    for _ in 0..TIMES * FETCHES {
        match client.fetch(FetchRequest { topic: HONEST.into(), follow: true, ..Default::default() }).await {
            Ok(stream) => streams.push(stream),
            Err(status) => is_exhausted(&status, "max_fetches"),
        }
    }
    assert_eq!(streams.len(), FETCHES);
    drop(streams);

    // Early batches of the first producer in the first topic, where it has a window: ten times what may be held.
    let mut held = JoinSet::new();
    let early = TIMES * HOLD_BYTES / EARLY_BYTES;
    for number in 0..early {
        let base = 2 + i64::try_from(number).expect("few");
        let request = tagged(ids[0], 0, vec![sequenced(&topics[0], 0, base, vec![record_filling(EARLY_BYTES)])]);
        let mut client = client.clone();
        held.spawn(async move { client.produce(request).await.map(|response| response.into_inner().results) });
    }
    let mut refused_early = 0;
    for answer in held.join_all().await {
        match answer {
            Ok(results) => {
                let Some(Outcome::Error(error)) = &results[0].outcome else { panic!("{results:?}") };
                assert_eq!((error.code().reason(), error.expected_sequence), ("OUT_OF_ORDER_SEQUENCE_NUMBER", Some(1)));
                refused_early += 1;
            }
            Err(status) => is_exhausted(&status, "queued_max_request_bytes"),
        }
    }
    assert!(refused_early > 0);
    goes_on().await;

    // Requests that never end: ten times the memory for requests, one byte short each.
    let halves = TIMES * QUEUED_BYTES / REQUEST_BYTES;
    let mut calls = JoinSet::new();
    let (slow, half) = (channel(broker.addr()), framed(&vec![0; REQUEST_BYTES], 1));
    for _ in 0..halves {
        calls.spawn(raw(slow.clone(), PRODUCE, half.clone(), false));
    }
    let mut refused_halves = 0;
    while refused_halves < halves - QUEUED_BYTES / REQUEST_BYTES {
        let status = timeout(PATIENCE, calls.join_next()).await.expect("refused").expect("more").expect("no panic");
        is_exhausted(&status, "queued_max_request_bytes");
        refused_halves += 1;
    }
    calls.shutdown().await;
    goes_on().await;

    // Two bytes each that become a struct: decoded, some hundred times the limit.
    let empty_batches = [0x22, 0].repeat(REQUEST_BYTES / 2 - 8);
    let mut streamed = vec![0x0a];
    prost::encode_length_delimiter(empty_batches.len(), &mut streamed).expect("there is room");
    streamed.extend(&empty_batches);
    let (unary, streamed) = (framed(&empty_batches, 0), framed(&streamed, 0));
    let bombs = channel(broker.addr());
    let mut calls = JoinSet::new();
    for _ in 0..halves {
        calls.spawn(raw(bombs.clone(), PRODUCE, unary.clone(), true));
        calls.spawn(raw(bombs.clone(), PRODUCE_STREAM, streamed.clone(), true));
    }
    let bombs = refused(calls, &["MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED"]).await;
    goes_on().await;

    // Calls that say nothing: as many as three connections can carry, which is about three times what is allowed.
    let mut calls = JoinSet::new();
    let silent = 3 * CALLS_OF_CONNECTION;
    for connection in (0..3).map(|_| channel(broker.addr())).collect::<Vec<_>>() {
        for _ in 0..CALLS_OF_CONNECTION {
            calls.spawn(raw(connection.clone(), PRODUCE, Bytes::new(), false));
        }
    }
    for _ in 0..silent - CALLS {
        let status = timeout(PATIENCE, calls.join_next()).await.expect("refused").expect("more").expect("no panic");
        is_exhausted(&status, "calls");
    }
    calls.shutdown().await;
    goes_on().await;

    stop.store(true, Ordering::Relaxed);
    honest.await.expect("no panic");
    let report = verdict(broker.channel(), &workplace, &recorder).await;
    assert_eq!(report.counts.in_log, acknowledged.load(Ordering::Relaxed));
    eprintln!(
        "refused: {closed} connections, {refused_producers} producers, {refused_topics} topics, {} windows, {} streams, {early} early \
         batches, {refused_halves} half requests, bombs {bombs:?}, {} silent calls; {} records acknowledged meanwhile, all in the log",
        windows["RESOURCE_EXHAUSTED"],
        (TIMES - 1) * FETCHES,
        silent - CALLS,
        report.counts.in_log
    );
    let limits = 2 * QUEUED_BYTES + HOLD_BYTES + FETCHES * FETCH_BYTES;
    assert_bounded("broker-svc", at_first, broker.peak_memory().expect("it runs"), limits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_refuses_ten_times_its_memory_and_what_it_accepts_is_in_the_log() {
    let workplace = Workplace::new();
    let producer_args = [
        format!("--max-connections={CONNECTIONS}"),
        format!("--buffer-memory={BUFFER_MEMORY}"),
        "--max-request-size=262144".to_owned(),
        "--max-block-ms=2000".to_owned(),
    ];
    let (data, logs) = (workplace.path("data"), workplace.path(""));
    let mut stage = Stage::start(binaries::programs(), &data, &logs, &[], &producer_args).await.expect("it starts");
    let at_first = stage.producer().expect("it runs").peak_memory().expect("on Linux");
    let recorder = Recorder::create(&workplace.path("history.jsonl"), 86_400_000).expect("a file");
    let connection = channel(stage.producer_addr());
    let send = |caller: u64, bytes: usize| {
        let mut client = ProducerServiceClient::new(connection.clone());
        let recorder = recorder.clone();
        async move {
            let records = vec![record([caller.to_string().into_bytes(), vec![b'x'; bytes]].concat())];
            let call = recorder.call();
            let digests = records.iter().map(Digest::of).collect();
            let called = SendCalled {
                call,
                caller: CallerId(caller),
                streamed: false,
                repeats: false,
                topic: HONEST.into(),
                partition: None,
                records: digests,
            };
            recorder.saw(Event::SendCalled(called));
            let answer = client.send(SendRequest { topic: HONEST.into(), partition: None, records }).await;
            let answer = answer.map(tonic::Response::into_inner);
            recorder.saw(Event::SendAnswered { call, outcomes: wire::send(1, &answer) });
            answer.map(|_| ())
        }
    };
    send(0, 1).await.expect("appended");
    let closed = connections_are_closed(stage.producer_addr(), 1).await;

    // The broker stands still, so that nothing leaves the buffer while ten times as much comes.
    stage.broker().expect("it runs").pause().expect("paused");
    let mut calls = JoinSet::new();
    let callers = TIMES * BUFFER_MEMORY / SENT_BYTES;
    for caller in 1..=callers {
        calls.spawn(send(caller as u64, SENT_BYTES));
    }
    // One buffer is full, and another one is waiting for it.
    let (mut accepted, mut refused_sends) = (0, 0);
    while refused_sends < callers - 2 * BUFFER_MEMORY / SENT_BYTES {
        let answer = timeout(PATIENCE, calls.join_next()).await.expect("refused").expect("more").expect("no panic");
        is_exhausted(&answer.expect_err("the broker stands still"), "buffer_memory");
        refused_sends += 1;
    }
    stage.broker().expect("it runs").go_on().expect("goes on");
    for answer in timeout(PATIENCE, calls.join_all()).await.expect("answered") {
        match answer {
            Ok(()) => accepted += 1,
            Err(status) => {
                is_exhausted(&status, "buffer_memory");
                refused_sends += 1;
            }
        }
    }
    assert!(accepted >= BUFFER_MEMORY / SENT_BYTES / 2, "{accepted} of {callers}");

    let bomb = framed(&[0x1a, 0].repeat(MESSAGE_BYTES / 2 - 8), 0);
    let mut calls = JoinSet::new();
    for _ in 0..TIMES {
        calls.spawn(raw(connection.clone(), SEND, bomb.clone(), true));
        calls.spawn(raw(connection.clone(), SEND_STREAM, bomb.clone(), true));
    }
    let bombs = refused(calls, &["MESSAGE_TOO_LARGE", "RESOURCE_EXHAUSTED"]).await;
    send(u64::MAX, 1).await.expect("it serves on");

    let report = verdict(channel(stage.broker_addr()), &workplace, &recorder).await;
    assert_eq!(report.counts.accepted, accepted as u64 + 2);
    eprintln!(
        "refused: {closed} connections, {refused_sends} of {callers} Sends, bombs {bombs:?}; {accepted} Sends accepted, all in the log"
    );
    let limits = 4 * MESSAGE_BYTES + 2 * BUFFER_MEMORY;
    let peak = stage.producer().expect("it runs").peak_memory().expect("on Linux");
    assert_bounded("producer-svc", at_first, peak, limits);
}

const HONEST: &str = "honest";
const EARLY_BYTES: usize = 4 << 10;
const SENT_BYTES: usize = 64 << 10;
/// Largest message that producer-svc takes.
const MESSAGE_BYTES: usize = 4 << 20;
const PRODUCE: &str = "/oncelog.v1.BrokerService/Produce";
const PRODUCE_STREAM: &str = "/oncelog.v1.BrokerService/ProduceStream";
const SEND: &str = "/oncelog.v1.ProducerService/Send";
const SEND_STREAM: &str = "/oncelog.v1.ProducerService/SendStream";
const PATIENCE: Duration = Duration::from_secs(60);
