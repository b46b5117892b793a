//! Each limit that a caller of the broker can reach, on both sides: what is just allowed goes through, what is just beyond is
//! refused with its code, its reason and its numbers, and the broker serves on.

use std::{collections::BTreeMap, io, time::Duration};

use oncelog_proto::{Compression, v1};
use oncelog_tests::{
    footprint::Footprint,
    lone_broker::{self, Client, LoneBroker},
    produce::{batch, pack, packed, record, record_filling, sequenced, tagged, untagged},
    transcript::{Call, live::try_call},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;
use v1::{
    CreateTopicRequest, DescribeProducersRequest, DescribeTopicsRequest, FetchRequest, FetchResponse, Header,
    InitProducerIdRequest, ProduceRequest, Record,
};

async fn start(flags: &[&str]) -> (LoneBroker, Client) {
    let broker = LoneBroker::start(flags).await.expect("it starts");
    let client = broker.client();
    (broker, client)
}

/// The answer to a Produce, as the lines of a transcript.
async fn produce(client: &Client, request: ProduceRequest) -> Vec<String> {
    try_call(client.clone(), Call::Produce(request)).await.expect("the call is taken")
}

async fn create(client: &mut Client, topic: &str, partitions: i32) -> Result<i32, Status> {
    let request = CreateTopicRequest { topic: topic.into(), partitions };
    Ok(client.create_topic(request).await?.into_inner().partitions)
}

async fn init(client: &mut Client) -> Result<i64, Status> {
    Ok(client.init_producer_id(InitProducerIdRequest::default()).await?.into_inner().producer_id)
}

/// `RESOURCE_EXHAUSTED`, with its limit by name; after how long to try again.
fn assert_exhausted(status: &Status, limit: &str, value: &str) -> Option<Duration> {
    let details = status.get_error_details();
    let info = details.error_info().expect("always there");
    assert_eq!((status.code(), info.reason.as_str()), (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"), "{status:?}");
    assert_eq!(info.metadata.get(limit).map(String::as_str), Some(value), "{status:?}");
    assert!(status.message().contains(&limit.replace('_', "-")), "the message names the setting: {}", status.message());
    details.retry_info().and_then(|retry| retry.retry_delay)
}

/// Does again what is refused until it is not: something else has to end first, and ends in its own time.
async fn eventually<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let again = async {
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_max_message_bytes_is_taken_and_one_byte_more_is_not() {
    let (_broker, client) = start(&["--max-message-bytes=2000"]).await;
    let of = |len| vec![record_filling(len)];
    assert_eq!(produce(&client, untagged(vec![batch("t", 0, of(2000))])).await, ["t/0 appended 0"]);
    assert_eq!(produce(&client, untagged(vec![batch("t", 0, of(2001))])).await, ["t/0 MESSAGE_TOO_LARGE"]);
    let of = |len| pack(&[record_filling(len)], Compression::None);
    assert_eq!(produce(&client, untagged(vec![packed("t", 0, of(2000))])).await, ["t/0 appended 1"]);
    assert_eq!(produce(&client, untagged(vec![packed("t", 0, of(2001))])).await, ["t/0 MESSAGE_TOO_LARGE"]);
    // Bytes as sent are what counts.
    let zeros = pack(&[record(vec![0; 1 << 20])], Compression::Zstd);
    assert_eq!(produce(&client, untagged(vec![packed("t", 0, zeros)])).await, ["t/0 appended 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_log_is_acknowledged_although_a_limit_was_lowered_since() {
    let (mut broker, mut client) = start(&["--max-message-bytes=4000"]).await;
    let id = init(&mut client).await.expect("granted");
    let large = |base| tagged(id, 0, vec![sequenced("t", 0, base, vec![record_filling(4000)])]);
    assert_eq!(produce(&client, large(0)).await, ["t/0 appended 0"]);
    broker.set("--max-message-bytes=1024");
    broker.kill_and_restart().await.expect("it starts again");
    assert_eq!(produce(&broker.client(), large(0)).await, ["t/0 duplicate 0"]);
    assert_eq!(produce(&broker.client(), large(1)).await, ["t/0 MESSAGE_TOO_LARGE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_max_request_bytes_is_taken_and_one_byte_more_is_not() {
    let most = (64 << 10) + 1024;
    let (_broker, mut client) = start(&["--max-message-bytes=1024", &format!("--max-request-bytes={most}")]).await;
    let of = |len: usize| {
        let mut request = untagged(vec![batch("t", 0, vec![record("a")])]);
        let padding = (len - 20..len).find(|padding| {
            request.batches[0].traceparent = "x".repeat(*padding);
            request.encoded_len() == len
        });
        assert!(padding.is_some(), "no padding makes {len} bytes");
        request
    };
    assert_eq!(produce(&client, of(most)).await, ["t/0 appended 0"]);
    let before = Footprint::of(&mut client).await.expect("told");
    let status = client.produce(of(most + 1)).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    assert_eq!(Footprint::of(&mut client).await.expect("it serves on"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_being_worked_on_take_queued_max_request_bytes_and_no_more() {
    let flags =
        ["--queued-max-request-bytes=1048576", "--max-request-bytes=1048576", "--max-message-bytes=900000", "--hold-ms=10000"];
    let (broker, mut client) = start(&flags).await;
    let id = init(&mut client).await.expect("granted");
    // One that waits for its turn is worked on as long as it waits.
    let early = tagged(id, 0, vec![sequenced("t", 0, 1, vec![record_filling(600_000)])]);
    let held = tokio::spawn({
        let client = client.clone();
        async move { produce(&client, early).await }
    });
    broker.metric_reaches("oncelog_broker_held_batches", 1).await.expect("held");
    let of = |len| untagged(vec![batch("t", 0, vec![record_filling(len)])]);
    let status = client.produce(of(600_000)).await.expect_err("no room for both");
    let retry = assert_exhausted(&status, "queued_max_request_bytes", "1048576");
    assert_eq!(retry, Some(Duration::from_millis(100)));
    assert_eq!(produce(&client, of(400_000)).await, ["t/0 appended 0"]);
    assert_eq!(produce(&client, tagged(id, 0, vec![sequenced("t", 0, 0, vec![record("a")])])).await, ["t/0 appended 1"]);
    assert_eq!(held.await.expect("no panic"), ["t/0 appended 2"]);
    let response = eventually(async || client.clone().produce(of(600_000)).await).await;
    assert_eq!(response.into_inner().results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_fits_a_queue_of_its_own_size() {
    // No multiple of what memory is counted in.
    let most = (1 << 20) + 1;
    let flags = [
        format!("--queued-max-request-bytes={most}"),
        format!("--max-request-bytes={most}"),
        "--max-message-bytes=900000".into(),
    ];
    let (_broker, client) = start(&flags.each_ref().map(String::as_str)).await;
    let mut request = untagged(vec![batch("t", 0, vec![record("a")])]);
    request.batches[0].traceparent = "x".repeat(most - 30);
    while request.encoded_len() < most {
        request.batches[0].traceparent.push('x');
    }
    assert_eq!(request.encoded_len(), most);
    assert_eq!(produce(&client, request).await, ["t/0 appended 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_above_max_fetches_is_refused_until_one_ends() {
    let (_broker, mut client) = start(&["--max-fetches=2"]).await;
    create(&mut client, "t", 1).await.expect("created");
    let follow = || FetchRequest { topic: "t".into(), follow: true, ..Default::default() };
    // Those that are refused or come to their end take no place.
    for _ in 0..3 {
        assert!(client.fetch(FetchRequest { topic: "nothing".into(), ..Default::default() }).await.is_err());
        lone_broker::fetch(&mut client, FetchRequest { topic: "t".into(), ..Default::default() }).await.expect("to its end");
    }
    let open = async |client: &Client| -> Streaming<FetchResponse> {
        let mut stream = eventually(async || client.clone().fetch(follow()).await).await.into_inner();
        stream.message().await.expect("open").expect("the ends of an empty log");
        stream
    };
    let (first, _second) = (open(&client).await, open(&client).await);
    let status = client.fetch(follow()).await.expect_err("there are two");
    assert_exhausted(&status, "max_fetches", "2");
    drop(first);
    open(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_above_max_connections_is_closed_until_one_ends() {
    let (broker, mut client) = start(&["--max-connections=2"]).await;
    create(&mut client, "t", 1).await.expect("the first connection");
    let mut second = broker.client();
    assert!(Footprint::of(&mut second).await.is_ok());
    let mut third = TcpStream::connect(broker.addr()).await.expect("the socket listens");
    let end = third.read_u8().await.expect_err("closed at once");
    assert!(matches!(end.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{end}");
    assert!(Footprint::of(&mut client).await.is_ok());
    drop(second);
    let again = async {
        while Footprint::of(&mut broker.client()).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_end_at_max_partitions_whoever_creates_them() {
    let (_broker, mut client) = start(&["--max-partitions=5", "--default-partitions=2"]).await;
    assert_exhausted(&create(&mut client, "a", 6).await.expect_err("one too many"), "max_partitions", "5");
    assert_eq!(create(&mut client, "a", 4).await.expect("room for one more"), 4);
    let describe =
        |topic: &str| DescribeTopicsRequest { topics: vec![topic.into()], allow_auto_create: true, ..Default::default() };
    let status = client.describe_topics(describe("b")).await.expect_err("two would be six");
    assert_exhausted(&status, "max_partitions", "5");
    assert_eq!(produce(&client, untagged(vec![batch("b", 0, vec![record("a")])])).await, ["b/0 RESOURCE_EXHAUSTED"]);
    assert_eq!(create(&mut client, "c", 1).await.expect("the fifth"), 1);
    assert_exhausted(&create(&mut client, "d", 1).await.expect_err("the sixth"), "max_partitions", "5");
    client.delete_topic(v1::DeleteTopicRequest { topic: "a".into() }).await.expect("deleted");
    assert_eq!(client.describe_topics(describe("b")).await.expect("room again").into_inner().topics[0].partitions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_has_10000_partitions_at_most() {
    let (_broker, mut client) = start(&[]).await;
    let status = create(&mut client, "t", 10_001).await.expect_err("one too many");
    assert_eq!(status.get_error_details().error_info().expect("always there").reason, "INVALID_PARTITIONS");
    assert_eq!(create(&mut client, "t", 10_000).await.expect("allowed"), 10_000);
    assert_eq!(produce(&client, untagged(vec![batch("t", 9_999, vec![record("a")])])).await, ["t/9999 appended 0"]);
    assert_eq!(
        produce(&client, untagged(vec![batch("t", 10_000, vec![record("a")])])).await,
        ["t/10000 UNKNOWN_TOPIC_OR_PARTITION"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_end_at_max_producers_and_windows_at_max_windows() {
    let (mut broker, mut client) = start(&["--max-producers=2", "--max-windows=2"]).await;
    create(&mut client, "t", 3).await.expect("created");
    let (one, two) = (init(&mut client).await.expect("the first"), init(&mut client).await.expect("the second"));
    assert_exhausted(&init(&mut client).await.expect_err("the third"), "max_producers", "2");
    let first = |id, partition| tagged(id, 0, vec![sequenced("t", partition, 0, vec![record("a")])]);
    assert_eq!(produce(&client, first(one, 0)).await, ["t/0 appended 0"]);
    assert_eq!(produce(&client, first(two, 0)).await, ["t/0 appended 1"]);
    assert_eq!(produce(&client, first(two, 1)).await, ["t/1 RESOURCE_EXHAUSTED"]);
    // Nobody is forgotten for the sake of a new one, and the caps hold over a restart.
    broker.kill_and_restart().await.expect("it starts again");
    let mut client = broker.client();
    assert_exhausted(&init(&mut client).await.expect_err("the third"), "max_producers", "2");
    assert_eq!(produce(&client, first(one, 2)).await, ["t/2 RESOURCE_EXHAUSTED"]);
    assert_eq!(produce(&client, first(one, 0)).await, ["t/0 duplicate 0"]);
    let next = tagged(two, 0, vec![sequenced("t", 0, 1, vec![record("b")])]);
    assert_eq!(produce(&client, next).await, ["t/0 appended 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_100000_partitions_are_described_in_pages_that_every_client_takes() {
    let (broker, mut client) = start(&[]).await;
    let names: Vec<_> = (0..10).map(|n| format!("topic-{n}")).collect();
    for name in &names {
        create(&mut client, name, 10_000).await.expect("100,000 are allowed");
    }
    let mut client = ordinary(&broker);
    for topics in [Vec::new(), names.clone()] {
        let (mut described, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = DescribeTopicsRequest { topics: topics.clone(), page_token, ..Default::default() };
            let page = client.describe_topics(request).await.expect("a page").into_inner();
            assert!(page.topics.iter().all(|topic| topic.partitions.len() == 10_000));
            described.extend(page.topics.into_iter().map(|topic| topic.topic));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(described, names);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_10000_batches_at_most() {
    let (_broker, mut client) = start(&[]).await;
    let of = |count: usize| untagged(vec![batch("t", 0, vec![record("a")]); count]);
    let results = client.produce(of(10_000)).await.expect("allowed").into_inner().results;
    assert_eq!(results.len(), 10_000);
    let status = client.produce(of(10_001)).await.expect_err("one too many");
    assert_eq!(status.get_error_details().error_info().expect("always there").reason, "INVALID_REQUEST");
    let topics = client.describe_topics(DescribeTopicsRequest::default()).await.expect("told").into_inner().topics;
    assert_eq!(topics[0].partitions[0].log_end_offset, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn early_batches_wait_in_hold_bytes_and_a_further_one_is_refused_at_once() {
    let (broker, mut client) = start(&["--hold-ms=10000", "--hold-bytes=3024"]).await;
    let id = init(&mut client).await.expect("granted");
    let early = move |base| tagged(id, 0, vec![sequenced("t", 0, base, vec![record_filling(1000)])]);
    let mut held = Vec::new();
    for base in [1, 2] {
        let client = client.clone();
        held.push(tokio::spawn(async move { produce(&client, early(base)).await }));
        broker.metric_reaches("oncelog_broker_held_batches", held.len() as u64).await.expect("held");
    }
    // A waiting batch counts 512 bytes beside its data.
    assert_eq!(broker.metric("oncelog_broker_held_bytes").await.expect("told"), 3024);
    let small = tagged(id, 0, vec![sequenced("t", 0, 3, vec![record_filling(10)])]);
    assert_eq!(produce(&client, small).await, ["t/0 OUT_OF_ORDER_SEQUENCE_NUMBER expected 0"]);
    assert_eq!(produce(&client, early(0)).await, ["t/0 appended 0"]);
    for (held, answer) in held.into_iter().zip(["t/0 appended 1", "t/0 appended 2"]) {
        assert_eq!(held.await.expect("no panic"), [answer]);
    }
    assert_eq!(broker.metric("oncelog_broker_held_bytes").await.expect("told"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_has_1000_headers_with_keys_of_32767_bytes_at_most() {
    let (_broker, mut client) = start(&[]).await;
    let with = |headers: usize, key: usize| Record {
        headers: vec![Header { key: "k".repeat(key), value: "v".into() }; headers],
        ..record("a")
    };
    let allowed = [with(1000, 1), with(1, 32_767), with(1, 0)];
    let refused = [with(1001, 1), with(1, 32_768)];
    for record in &refused {
        let records = vec![record.clone()];
        assert_eq!(produce(&client, untagged(vec![batch("t", 0, records.clone())])).await, ["t/0 INVALID_RECORD"]);
        let records = pack(&records, Compression::Zstd);
        assert_eq!(produce(&client, untagged(vec![packed("t", 0, records)])).await, ["t/0 INVALID_RECORD"]);
    }
    assert_eq!(produce(&client, untagged(vec![batch("t", 0, allowed.to_vec())])).await, ["t/0 appended 0"]);
    let fetched = lone_broker::fetch(&mut client, FetchRequest { topic: "t".into(), ..Default::default() }).await.expect("there");
    let records: Vec<_> = fetched.into_iter().flat_map(|response| response.records).filter_map(|f| f.record).collect();
    assert_eq!(records, allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_uncompresses_to_64_mib_at_most() {
    let (_broker, client) = start(&[]).await;
    let most = 64 << 20;
    let mut zeros = pack(&[record_filling(most)], Compression::Zstd);
    assert_eq!(produce(&client, untagged(vec![packed("t", 0, zeros.clone())])).await, ["t/0 appended 0"]);
    zeros.uncompressed_bytes += 1;
    assert_eq!(produce(&client, untagged(vec![packed("t", 0, zeros)])).await, ["t/0 MESSAGE_TOO_LARGE"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_tokens_end_at_their_lengths() {
    let (_broker, mut client) = start(&[]).await;
    assert_eq!(create(&mut client, &"x".repeat(249), 1).await.expect("allowed"), 1);
    assert!(create(&mut client, &"x".repeat(250), 1).await.is_err());
    let id = init(&mut client).await.expect("granted");
    let mut recover = async |epoch, len| {
        let (producer_id, producer_epoch) = (Some(id), Some(epoch));
        let request =
            InitProducerIdRequest { producer_id, producer_epoch, recovery_token: "x".repeat(len), ..Default::default() };
        client.init_producer_id(request).await.map(|granted| granted.into_inner().producer_epoch).map_err(|s| s.code())
    };
    assert_eq!(recover(0, 0).await, Err(Code::InvalidArgument));
    assert_eq!(recover(0, 1).await, Ok(1));
    assert_eq!(recover(1, 65).await, Err(Code::InvalidArgument));
    assert_eq!(recover(1, 64).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_are_described_page_by_page() {
    let (_broker, mut client) = start(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..101 {
        ids.push(init(&mut client).await.expect("granted"));
    }
    for (page_size, sizes) in [(0, vec![100, 1]), (1_000, vec![101]), (50, vec![50, 50, 1])] {
        let (mut seen, mut pages, mut page_token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let request = DescribeProducersRequest { page_size, page_token, ..Default::default() };
            let page = client.describe_producers(request).await.expect("a page").into_inner();
            pages.push(page.producers.len());
            seen.extend(page.producers.iter().map(|producer| producer.producer_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!((&seen, &pages), (&ids, &sizes), "pages of {page_size}");
    }
}

/// A client as most are: it takes answers of 4 MiB.
fn ordinary(broker: &LoneBroker) -> Client {
    v1::broker_service_client::BrokerServiceClient::new(broker.channel()).max_decoding_message_size(4 << 20)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_producer_in_10000_partitions_comes_in_pages_that_every_client_takes() {
    let (broker, mut client) = start(&[]).await;
    let topic = "x".repeat(249);
    create(&mut client, &topic, 10_000).await.expect("created");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = init(&mut client).await.expect("granted");
        let batches = (0..10_000).map(|partition| sequenced(&topic, partition, 0, vec![record("a")])).collect();
        let results = client.produce(tagged(id, 0, batches)).await.expect("10,000 are allowed").into_inner().results;
        assert!(results.iter().all(|result| matches!(result.outcome, Some(v1::batch_result::Outcome::Ack(_)))));
        ids.push(id);
    }
    let mut client = ordinary(&broker);
    let (mut pages, mut page_token, mut described) = (0, String::new(), Vec::new());
    loop {
        let request = DescribeProducersRequest { page_token, ..Default::default() };
        let page = client.describe_producers(request).await.expect("a page").into_inner();
        described.extend(page.producers.into_iter().map(|p| (p.producer_id, p.partitions.len())));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(described, [(ids[0], 10_000), (ids[1], 10_000)]);
    assert!(pages > 1, "both do not fit a page");

    let mut recovered = BTreeMap::new();
    let mut request = InitProducerIdRequest {
        producer_id: Some(ids[0]),
        producer_epoch: Some(0),
        recovery_token: "mine".into(),
        ..Default::default()
    };
    let mut pages = 0;
    loop {
        let page = client.init_producer_id(request.clone()).await.expect("a page").into_inner();
        assert!(page.encoded_len() < 2 << 20);
        assert_eq!(page.producer_epoch, 1);
        recovered.extend(page.partitions.into_iter().map(|p| (p.partition, (p.next_sequence, p.window.len()))));
        pages += 1;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 1);
    assert_eq!(recovered, (0..10_000).map(|partition| (partition, (1, 1))).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_of_this_moment() {
    let (broker, mut client) = start(&[]).await;
    let id = init(&mut client).await.expect("granted");
    for expected in 1..=3 {
        assert_eq!(produce(&client, tagged(id, 0, vec![sequenced("t", 0, expected - 1, vec![record("a")])])).await.len(), 1);
        let appended = broker.metric("oncelog_broker_batches_total{outcome=\"appended\"}").await.expect("told");
        assert_eq!(appended, expected.unsigned_abs());
    }
    assert_eq!(broker.metric("oncelog_broker_windows").await.expect("told"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_keeps_nobody_from_being_served() {
    let (broker, mut client) = start(&[]).await;
    let mut silent = TcpStream::connect(broker.addr()).await.expect("the socket listens");
    silent.write_all(b"PRI").await.expect("open");
    assert!(Footprint::of(&mut client).await.is_ok());
}

const PATIENCE: Duration = Duration::from_secs(30);
