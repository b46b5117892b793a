//! Fetch over a live broker: from any offset, bounded, following, packed or not, and to an end that is told.

use std::time::Duration;

use oncelog_proto::{Compression, PackedBatch, RecordCount, record_set, v1};
use oncelog_tests::{
    lone_broker::{self, Client, LoneBroker},
    produce::{batch, pack, packed, record, tagged, untagged},
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;
use v1::{CreateTopicRequest, DeleteTopicRequest, FetchRequest, FetchResponse, fetch_response::FetchedRecord};

async fn start() -> (LoneBroker, Client) {
    let broker = LoneBroker::start(&[]).await.expect("it starts");
    let mut client = broker.client();
    client.create_topic(CreateTopicRequest { topic: "t".into(), partitions: 2 }).await.expect("created");
    (broker, client)
}

async fn produce(client: &mut Client, request: v1::ProduceRequest) {
    let results = client.produce(request).await.expect("taken").into_inner().results;
    assert!(results.iter().all(|r| matches!(r.outcome, Some(v1::batch_result::Outcome::Ack(_)))), "{results:?}");
}

fn from(offset: i64) -> FetchRequest {
    FetchRequest { topic: "t".into(), offset: Some(offset), ..Default::default() }
}

fn records(responses: impl IntoIterator<Item = FetchResponse>) -> Vec<FetchedRecord> {
    responses.into_iter().flat_map(|response| response.records).collect()
}

fn offsets(records: &[FetchedRecord]) -> Vec<i64> {
    records.iter().map(|record| record.offset).collect()
}

fn values(records: &[FetchedRecord]) -> Vec<String> {
    let value = |record: &FetchedRecord| record.record.clone()?.value;
    records.iter().map(|record| String::from_utf8_lossy(&value(record).expect("each has one")).into_owned()).collect()
}

/// Records `a0 a1 a2`, `b0 b1 b2` and so on: a batch for each compression, offsets 0 to 11.
async fn four_batches(client: &mut Client) {
    for (name, compression) in ["a", "b", "c", "d"].into_iter().zip(ALL) {
        let three: Vec<_> = (0..3).map(|index| record(format!("{name}{index}"))).collect();
        produce(client, untagged(vec![packed("t", 0, pack(&three, compression))])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_offset_and_any_number_of_records_can_be_asked_for() {
    let (_broker, mut client) = start().await;
    four_batches(&mut client).await;
    for first in 0..=12 {
        for most in [None, Some(1), Some(2), Some(4), Some(12), Some(i64::MAX)] {
            let request = FetchRequest { max_records: most, ..from(first) };
            let fetched = lone_broker::fetch(&mut client, request).await.expect("in range");
            let last = &fetched[fetched.len() - 1];
            assert_eq!((last.log_start_offset, last.log_end_offset), (0, 12));
            let expected: Vec<_> =
                (first..12).take(most.map_or(usize::MAX, |most| usize::try_from(most).expect("64 bits"))).collect();
            assert_eq!(offsets(&records(fetched)), expected, "from {first}, {most:?}");
        }
    }
    // Without an offset, from the log start.
    let all = lone_broker::fetch(&mut client, FetchRequest { offset: None, ..from(0) }).await.expect("there");
    let names: Vec<_> = ["a", "b", "c", "d"].iter().flat_map(|name| (0..3).map(move |index| format!("{name}{index}"))).collect();
    assert_eq!(values(&records(all)), names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_comes_back_as_it_was_sent_with_its_place_and_tag() {
    let (_broker, mut client) = start().await;
    let granted = client.init_producer_id(v1::InitProducerIdRequest::default()).await.expect("granted").into_inner();
    let full = v1::Record {
        key: Some("k".into()),
        value: Some(vec![0, 0xff].into()),
        headers: vec![v1::Header { key: "h".into(), value: "1".into() }, v1::Header { key: "h".into(), value: "2".into() }],
        timestamp: Some(prost_types::Timestamp { seconds: -1, nanos: 5 }),
    };
    let empty = v1::Record { key: Some("".into()), value: None, ..Default::default() };
    let sent = vec![full, empty, v1::Record::default()];
    produce(&mut client, untagged(vec![batch("t", 1, vec![record("before")])])).await;
    produce(&mut client, tagged(granted.producer_id, 0, vec![batch("t", 1, sent.clone())])).await;

    let fetched = lone_broker::fetch(&mut client, FetchRequest { partition: 1, ..from(0) }).await.expect("there");
    let fetched = records(fetched);
    assert_eq!(offsets(&fetched), [0, 1, 2, 3]);
    let tag = |record: &FetchedRecord| (record.producer_id, record.producer_epoch, record.sequence);
    assert_eq!(tag(&fetched[0]), (None, None, None));
    for (fetched, (sequence, sent)) in fetched[1..].iter().zip((0..).zip(sent)) {
        assert_eq!(tag(fetched), (Some(granted.producer_id), Some(0), Some(sequence)));
        assert_eq!(fetched.record.as_ref(), Some(&sent));
    }
    assert!(fetched.is_sorted_by_key(|record| record.append_time.map(|time| (time.seconds, time.nanos))));
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_batches_leave_as_they_came_in_and_are_never_cut() {
    let (_broker, mut client) = start().await;
    four_batches(&mut client).await;
    let request = FetchRequest { packed: true, max_records: Some(4), ..from(4) };
    let fetched = lone_broker::fetch(&mut client, request).await.expect("there");
    let batches: Vec<_> = fetched.into_iter().flat_map(|response| response.batches).collect();
    // The batch that holds offset 4 starts at 3; the fourth record is in the one that starts at 6.
    assert_eq!(batches.iter().map(|batch| batch.base_offset).collect::<Vec<_>>(), [3, 6]);

    let all = lone_broker::fetch(&mut client, FetchRequest { packed: true, ..from(0) }).await.expect("there");
    let batches: Vec<_> = all.into_iter().flat_map(|response| response.batches).collect();
    assert_eq!(batches.len(), ALL.len());
    for ((name, compression), fetched) in ["a", "b", "c", "d"].into_iter().zip(ALL).zip(batches) {
        let three: Vec<_> = (0..3).map(|index| record(format!("{name}{index}"))).collect();
        let packed = fetched.packed.expect("it is packed");
        assert_eq!(packed, pack(&three, compression));
        let count = RecordCount::new(packed.record_count).expect("3");
        let uncompressed = packed.uncompressed_bytes.unsigned_abs();
        let stored = PackedBatch::from_stored(compression, count, uncompressed, fetched.checksum, packed.data);
        assert_eq!(stored.expect("the checksum is that of the data").records().expect("readable"), three);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_records_is_answered_once_with_its_ends() {
    let (_broker, mut client) = start().await;
    for request in [from(0), FetchRequest { offset: None, ..from(0) }, FetchRequest { packed: true, ..from(0) }] {
        let fetched = lone_broker::fetch(&mut client, request).await.expect("there");
        assert_eq!(fetched, [FetchResponse::default()]);
    }
    // So is the end of one that has some.
    four_batches(&mut client).await;
    let fetched = lone_broker::fetch(&mut client, from(12)).await.expect("there");
    assert_eq!(fetched, [FetchResponse { log_end_offset: 12, ..Default::default() }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_outside_the_log_is_told_both_of_its_ends() {
    let (_broker, mut client) = start().await;
    four_batches(&mut client).await;
    for outside in [-1, 13, i64::MIN, i64::MAX] {
        for follow in [false, true] {
            let status = lone_broker::fetch(&mut client, FetchRequest { follow, ..from(outside) }).await.expect_err("outside");
            assert_out_of_range(&status, outside, 0, 12);
        }
    }
}

fn assert_out_of_range(status: &Status, offset: i64, start: i64, end: i64) {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("always there");
    assert_eq!(info.reason, "OFFSET_OUT_OF_RANGE");
    let number = |key: &str| info.metadata[key].parse::<i64>().expect("a number");
    assert_eq!((number("offset"), number("log_start_offset"), number("log_end_offset")), (offset, start, end));
}

async fn next(stream: &mut Streaming<FetchResponse>) -> Result<Option<FetchResponse>, Status> {
    timeout(PATIENCE, stream.message()).await.expect("a response comes in time")
}

/// So many records, however they are spread over responses.
async fn next_records(stream: &mut Streaming<FetchResponse>, count: usize) -> Vec<FetchedRecord> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(next(stream).await.expect("open").expect("it follows").records);
    }
    assert_eq!(seen.len(), count);
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_told_what_comes_later_of_its_partition_and_nothing_else() {
    let (_broker, mut client) = start().await;
    let mut follower = client.fetch(FetchRequest { follow: true, ..from(0) }).await.expect("there").into_inner();
    assert_eq!(next(&mut follower).await.expect("open"), Some(FetchResponse::default()));
    for round in 0..20_i64 {
        let other = batch("t", 1, vec![record("other")]);
        produce(&mut client, untagged(vec![other, batch("t", 0, vec![record(round.to_string()), record("x")])])).await;
        let seen = next_records(&mut follower, 2).await;
        assert_eq!((offsets(&seen), values(&seen)), (vec![2 * round, 2 * round + 1], vec![round.to_string(), "x".into()]));
    }
    // From the end on, and bounded: it ends by itself.
    let request = FetchRequest { follow: true, max_records: Some(3), ..from(40) };
    let mut bounded = client.fetch(request).await.expect("the end can be read from").into_inner();
    assert_eq!(next(&mut bounded).await.expect("open").expect("its ends").log_end_offset, 40);
    four_batches(&mut client).await;
    assert_eq!(offsets(&next_records(&mut bounded, 3).await), [40, 41, 42]);
    assert_eq!(next(&mut bounded).await.expect("no error"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_its_topic_ends_a_follower_and_the_next_topic_of_that_name_is_another() {
    let (_broker, mut client) = start().await;
    four_batches(&mut client).await;
    let mut follower = client.fetch(FetchRequest { follow: true, ..from(0) }).await.expect("there").into_inner();
    next_records(&mut follower, 12).await;
    client.delete_topic(DeleteTopicRequest { topic: "t".into() }).await.expect("deleted");
    client.create_topic(CreateTopicRequest { topic: "t".into(), partitions: 2 }).await.expect("created");
    let status = next(&mut follower).await.expect_err("its topic is gone");
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert_eq!(status.get_error_details().error_info().expect("always there").reason, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(lone_broker::fetch(&mut client, from(0)).await.expect("there"), [FetchResponse::default()]);
    let status = lone_broker::fetch(&mut client, from(12)).await.expect_err("no offset of the old one is one of the new");
    assert_out_of_range(&status, 12, 0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_follower_with_a_word_and_the_log_goes_on_where_it_was() {
    let (mut broker, mut client) = start().await;
    four_batches(&mut client).await;
    let mut follower = client.fetch(FetchRequest { follow: true, ..from(0) }).await.expect("there").into_inner();
    next_records(&mut follower, 12).await;
    broker.stop_and_restart().await.expect("it starts again");
    let status = next(&mut follower).await.expect_err("the broker stopped");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.get_error_details().error_info().expect("always there").reason, "BROKER_NOT_AVAILABLE");
    let mut client = broker.client();
    let mut follower = client.fetch(FetchRequest { follow: true, ..from(11) }).await.expect("there").into_inner();
    assert_eq!(values(&next_records(&mut follower, 1).await), ["d2"]);
    four_batches(&mut client).await;
    assert_eq!(offsets(&next_records(&mut follower, 12).await), (12..24).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_response_holds_comes_in_many_that_every_client_takes() {
    let (broker, mut client) = start().await;
    let record_of = |size: usize, index: usize| record(vec![b'a' + u8::try_from(index % 26).expect("below 26"); size]);
    let sent: Vec<_> = (0..60).map(|index| record_of(100_000, index)).collect();
    for six in sent.chunks(6) {
        produce(&mut client, untagged(vec![batch("t", 0, six.to_vec())])).await;
    }
    let ordinary = v1::broker_service_client::BrokerServiceClient::new(broker.channel());
    for packed in [false, true] {
        let mut client = ordinary.clone().max_decoding_message_size(4 << 20);
        let fetched = lone_broker::fetch(&mut client, FetchRequest { packed, ..from(0) }).await.expect("there");
        assert!(fetched.len() > 3, "{} responses", fetched.len());
        let of_batches = fetched.iter().flat_map(|r| &r.batches).flat_map(|b| {
            let packed = b.packed.clone().expect("it is packed");
            record_set::decode(packed.data).expect("readable")
        });
        let of_records = fetched.iter().flat_map(|r| &r.records).map(|r| r.record.clone().expect("a record"));
        assert!(of_records.chain(of_batches).eq(sent.iter().cloned()), "packed {packed}");
    }
}

/// Two bytes each; a broker that decoded all of them at once would need gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn millions_of_empty_records_in_a_few_kilobytes_are_read_in_bounded_memory() {
    let (broker, mut client) = start().await;
    let count = 8 << 20;
    let encoded = bytes::Bytes::from([0x0a, 0].repeat(count));
    let count = RecordCount::of_len(count).expect("8 million");
    let bomb = PackedBatch::pack(&encoded, count, Compression::Zstd).expect("below 64 MiB").to_proto();
    assert!(bomb.data.len() < 10_000, "{} bytes", bomb.data.len());
    for _ in 0..4 {
        produce(&mut client, untagged(vec![packed("t", 0, bomb.clone())])).await;
    }
    let mut stream = client.fetch(from(0)).await.expect("there").into_inner();
    let first = next(&mut stream).await.expect("open").expect("records");
    assert_eq!(first.records.first().map(|record| record.offset), Some(0));
    // It has been read as far ahead as it ever is when the first response is here and nobody takes the next ones.
    let peak = broker.peak_memory().expect("Linux says");
    assert!(peak < 256 << 20, "the broker took {} MiB", peak >> 20);
    let end = i64::from(count.get()) * 4;
    assert_eq!(first.log_end_offset, end);
    let last = lone_broker::fetch(&mut client, FetchRequest { max_records: Some(2), ..from(end - 2) }).await.expect("there");
    assert_eq!(offsets(&records(last)), [end - 2, end - 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_of_a_batch_that_unpacks_to_64_mib_share_a_bounded_memory() {
    const READERS: usize = 20;
    let (broker, mut client) = start().await;
    let zeros = vec![record(vec![0; (1 << 20) - 1024]); 64];
    produce(&mut client, untagged(vec![packed("t", 0, pack(&zeros, Compression::Zstd))])).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        // On one connection they would share its window.
        readers.push(broker.client().fetch(from(0)).await.expect("there").into_inner());
    }
    // Each takes one response, and the broker goes on with it as far as it does for one who does not read.
    for reader in &mut readers {
        assert_eq!(offsets(&next(reader).await.expect("open").expect("records").records), [0]);
    }
    // Who comes after them is served.
    let last = lone_broker::fetch(&mut client, FetchRequest { max_records: Some(1), ..from(63) }).await.expect("there");
    assert_eq!(offsets(&records(last)), [63]);
    let peak = broker.peak_memory().expect("Linux says");
    assert!(peak < READERS as u64 * (64 << 20) / 2, "the broker took {} MiB", peak >> 20);
    let slowest = readers.first_mut().expect("there");
    for offset in 1..64 {
        assert_eq!(offsets(&next(slowest).await.expect("open").expect("records").records), [offset]);
    }
    assert_eq!(next(slowest).await.expect("no error"), None);
}

const ALL: [Compression; 4] = [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const PATIENCE: Duration = Duration::from_secs(30);
