//! Retention over a live broker: the oldest records go, and only they; what is remembered of producers stays.

use std::time::Duration;

use oncelog_proto::v1;
use oncelog_tests::{
    lone_broker::{self, Client, LoneBroker},
    produce::{record, sequenced, tagged},
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use v1::{DescribeTopicsRequest, FetchRequest, describe_topics_response::Partition};

/// Batches of 1 MiB, so that a segment of 4 MiB holds three.
const BATCH: usize = 1_000_000;
const BATCHES: i64 = 40;

fn batch(producer: i64, sequence: i64) -> v1::ProduceRequest {
    let value = vec![u8::try_from(sequence % 251).expect("below 251"); BATCH];
    tagged(producer, 0, vec![sequenced("t", 0, sequence, vec![record(value)])])
}

async fn produce(client: &mut Client, request: v1::ProduceRequest) -> v1::batch_result::Outcome {
    let results = client.produce(request).await.expect("taken").into_inner().results;
    results.into_iter().next().expect("a result for each batch").outcome.expect("an outcome")
}

async fn append(client: &mut Client, producer: i64, sequences: std::ops::Range<i64>) {
    for sequence in sequences {
        let outcome = produce(client, batch(producer, sequence)).await;
        let v1::batch_result::Outcome::Ack(ack) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((ack.base_offset, ack.duplicate), (sequence, false));
    }
}

async fn describe(client: &mut Client) -> Partition {
    let request = DescribeTopicsRequest { topics: vec!["t".into()], allow_auto_create: false, ..Default::default() };
    let mut topics = client.describe_topics(request).await.expect("there").into_inner().topics;
    topics.remove(0).partitions.remove(0)
}

/// Waits until the log starts above `start`; the partition then.
async fn trimmed(client: &mut Client, start: i64) -> Partition {
    let wait = async {
        loop {
            let partition = describe(client).await;
            if partition.log_start_offset > start {
                return partition;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.expect("the oldest segments go")
}

fn from(offset: i64) -> FetchRequest {
    FetchRequest { topic: "t".into(), offset: Some(offset), ..Default::default() }
}

fn assert_below_the_start(status: &Status, start: i64) {
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let details = status.get_error_details();
    let told = details.error_info().expect("always there").metadata["log_start_offset"].parse::<i64>().expect("a number");
    assert!(told >= start, "{told} told, {start} described before");
}

/// Everything from `offset` to the end is there, and nothing else.
async fn assert_readable_from(client: &mut Client, offset: i64, end: i64) {
    let fetched = lone_broker::fetch(client, from(offset)).await.expect("above the log start");
    let records = fetched.into_iter().flat_map(|response| response.records);
    let seen: Vec<_> = records.map(|r| (r.offset, r.record.and_then(|r| r.value).map(|v| (v.len(), i64::from(v[0]))))).collect();
    let expected: Vec<_> = (offset..end).map(|offset| (offset, Some((BATCH, offset % 251)))).collect();
    assert!(seen == expected, "from {offset}: {:?}", seen.iter().map(|(offset, _)| offset).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_records_go_and_the_memory_of_producers_stays() {
    let flags = ["--segment-bytes=4194304", "--snapshot-bytes=1048576", "--retention-bytes=8388608", "--hold-ms=0"];
    let mut broker = LoneBroker::start(&flags).await.expect("it starts");
    let mut client = broker.client();
    let granted = client.init_producer_id(v1::InitProducerIdRequest::default()).await.expect("granted").into_inner();
    let producer = granted.producer_id;
    // Somebody whose records are all gone in the end, but who may still send one of them again.
    let quiet = client.init_producer_id(v1::InitProducerIdRequest::default()).await.expect("granted").into_inner().producer_id;
    let early = || tagged(quiet, 0, vec![sequenced("quiet", 0, 0, vec![record("early")])]);
    let first = produce(&mut client, early()).await;
    assert!(matches!(&first, v1::batch_result::Outcome::Ack(ack) if ack.base_offset == 0), "{first:?}");
    // A reader that follows from the beginning and then falls behind.
    let mut behind = client.fetch(FetchRequest { follow: true, ..from(0) }).await;

    append(&mut client, producer, 0..1).await;
    if behind.is_err() {
        behind = client.fetch(FetchRequest { follow: true, ..from(0) }).await;
    }
    let mut behind = behind.expect("the topic is there").into_inner();
    append(&mut client, producer, 1..BATCHES).await;
    // A few megabytes more than the limit stay: what the older of two snapshots needs, and what is being written.
    let partition = trimmed(&mut client, BATCHES / 2).await;
    let start = partition.log_start_offset;
    assert_eq!(partition.log_end_offset, BATCHES);
    assert_eq!(partition.bytes % (BATCHES - start), 0, "all batches are of one length");
    assert!(partition.oldest_append_time.is_some());
    broker.metric_becomes("oncelog_broker_journal_bytes", |bytes| bytes < 20 << 20).await.expect("files went, not only offsets");

    assert_below_the_start(&lone_broker::fetch(&mut client, from(0)).await.expect_err("gone"), start);
    assert_below_the_start(&lone_broker::fetch(&mut client, from(start - 1)).await.expect_err("gone"), start);
    assert_readable_from(&mut client, start, BATCHES).await;

    // What was behind is told that it missed something, and never skips over it.
    let mut next = 0;
    let status = loop {
        match timeout(Duration::from_secs(30), behind.message()).await.expect("in time") {
            Ok(Some(response)) => {
                for record in response.records {
                    assert_eq!(record.offset, next);
                    next += 1;
                }
            }
            Ok(None) => panic!("the stream ended as if the log did, at {next}"),
            Err(status) => break status,
        }
    };
    assert!(next < start, "it was behind");
    assert_below_the_start(&status, start);

    for clean in [false, true] {
        let before = describe(&mut client).await;
        if clean { broker.stop_and_restart().await } else { broker.kill_and_restart().await }.expect("it starts again");
        client = broker.client();
        let after = describe(&mut client).await;
        assert!(after.log_start_offset >= before.log_start_offset, "{before:?} became {after:?}");
        assert_eq!(after.log_end_offset, before.log_end_offset);
        assert_below_the_start(&lone_broker::fetch(&mut client, from(0)).await.expect_err("gone"), start);
        assert_readable_from(&mut client, after.log_start_offset, after.log_end_offset).await;
        // Both windows outlived the records: one of them is of a log that is empty now.
        let outcome = produce(&mut client, early()).await;
        assert!(matches!(&outcome, v1::batch_result::Outcome::Ack(ack) if ack.duplicate && ack.base_offset == 0), "{outcome:?}");
        let last = after.log_end_offset - 1;
        let outcome = produce(&mut client, batch(producer, last - 4)).await;
        assert!(
            matches!(&outcome, v1::batch_result::Outcome::Ack(ack) if ack.duplicate && ack.base_offset == last - 4),
            "{outcome:?}"
        );
        let outcome = produce(&mut client, batch(producer, last - 5)).await;
        assert!(
            matches!(&outcome, v1::batch_result::Outcome::Error(error) if error.code() == v1::ErrorCode::DuplicateSequenceNumber),
            "{outcome:?}"
        );
        append(&mut client, producer, last + 1..last + 2).await;
    }
    // And it goes on.
    append(&mut client, producer, BATCHES + 2..BATCHES + 22).await;
    trimmed(&mut client, BATCHES).await;
}
