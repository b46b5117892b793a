//! The producer in front of a broker that counts, remembers and misbehaves: what it puts on the wire, and what callers hear.

mod broker;

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use broker::{Answer, FakeBroker, Plan, Seen, producer, request, until_available};
use oncelog_proto::{
    ErrorCode,
    v1::{Acks, Record, SendRequest, SendStreamRequest, send_stream_response::Outcome},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request};
use tonic_types::StatusExt;

fn names(count: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..count).map(|i| format!("r{i}")).collect();
    names.sort();
    names
}

/// Sends `count` records at once, each in a call of its own, and expects all of them to succeed.
async fn send_at_once(
    client: &oncelog_proto::v1::producer_service_client::ProducerServiceClient<tonic::transport::Channel>,
    count: usize,
) {
    let mut calls = JoinSet::new();
    for i in 0..count {
        let mut client = client.clone();
        calls.spawn(async move { client.send(request("t", None, &format!("r{i}"))).await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("appended");
    }
}

/// A tag, and the partition it belongs to.
type Place = (Option<i64>, i32, (String, i32), i64);

/// The attempts by tag.
fn attempts(seen: Vec<Seen>) -> BTreeMap<Place, Vec<Seen>> {
    let mut attempts = BTreeMap::<_, Vec<Seen>>::new();
    for batch in seen {
        attempts.entry((batch.producer, batch.epoch, batch.partition.clone(), batch.base)).or_default().push(batch);
    }
    attempts
}

#[tokio::test]
async fn never_more_than_five_calls_are_outstanding() {
    let (open, gate) = watch::channel(false);
    let slow = Plan { before: Duration::from_millis(10), ..Plan::default() };
    let broker = FakeBroker::start(16, move |call, _| if call < 5 { Plan::gated(&gate) } else { slow.clone() }).await;
    let (_producer, client) = broker.producer(&[("linger.ms", "0"), ("batch.size", "1")]).await;
    let open_when_five_wait = async {
        broker.until(|broker| broker.most_outstanding() == 5).await;
        open.send_replace(true);
    };
    tokio::join!(send_at_once(&client, 300), open_when_five_wait);
    assert_eq!(broker.most_outstanding(), 5);
    assert_eq!(broker.all_values("t"), names(300));
    // At most one batch of a partition in a call.
    let mut places = HashSet::new();
    for batch in broker.seen() {
        assert!(places.insert((batch.call, batch.partition)), "two batches of a partition in call {}", batch.call);
    }
}

#[tokio::test]
async fn a_lower_limit_of_calls_is_kept_too() {
    let slow = Plan { before: Duration::from_millis(5), ..Plan::default() };
    let broker = FakeBroker::start(16, move |_, _| slow.clone()).await;
    let settings = [("linger.ms", "0"), ("batch.size", "1"), ("max.in.flight.requests.per.connection", "2")];
    let (_producer, client) = broker.producer(&settings).await;
    send_at_once(&client, 100).await;
    assert_eq!(broker.most_outstanding(), 2);
}

#[tokio::test]
async fn a_resent_batch_has_the_same_tag_and_the_same_bytes() {
    let broker = FakeBroker::start(4, |call, _| match call % 4 {
        0 => Plan::not_carried_out(Answer::Status(Code::Unavailable)),
        1 => Plan::carried_out(Answer::Status(Code::Internal)),
        2 => Plan::carried_out(Answer::Nonsense),
        _ => Plan::default(),
    })
    .await;
    let settings = [("linger.ms", "1"), ("batch.size", "100"), ("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "5")];
    let (_producer, client) = broker.producer(&settings).await;
    for round in 1..=20 {
        send_at_once(&client, 15).await;
        assert_eq!(broker.all_values("t").len(), 15 * round);
    }
    let mut all: Vec<_> = names(15).into_iter().cycle().take(15 * 20).collect();
    all.sort();
    assert_eq!(broker.all_values("t"), all);
    // None of these answers is a reason to recover.
    assert_eq!(broker.inits().len(), 1);
    let attempts = attempts(broker.seen());
    for (tag, attempts) in &attempts {
        assert!(tag.0.is_some(), "untagged: {tag:?}");
        for again in attempts {
            assert_eq!((&again.data, again.count), (&attempts[0].data, attempts[0].count), "{tag:?}");
        }
    }
    assert!(attempts.values().filter(|attempts| attempts.len() > 1).count() > 10, "the test resent almost nothing");
}

#[tokio::test]
async fn a_call_without_an_answer_is_made_again_and_its_records_keep_their_offsets() {
    let broker = FakeBroker::start(1, |call, _| if call == 0 { Plan::carried_out(Answer::Never) } else { Plan::default() }).await;
    let settings = [("request.timeout.ms", "100"), ("retry.backoff.ms", "1")];
    let (_producer, mut client) = broker.producer(&settings).await;
    let sent = client.send(request("t", None, "a")).await.expect("appended").into_inner();
    assert_eq!((sent.records[0].partition, sent.records[0].offset), (0, 0));
    assert_eq!(sent.records[0].append_time.map(|time| time.seconds), Some(1_000));
    assert_eq!(broker.values("t", 0), ["a"]);
    assert_eq!(broker.seen().len(), 2);
}

#[tokio::test]
async fn a_code_that_is_not_known_leaves_the_other_batches_of_its_call_alone() {
    let (say_it_plainly, plain) = watch::channel(false);
    // Until then the first partition's batch is in the log, and nobody can tell.
    let plan = move |_, _: &_| if *plain.borrow() { Plan::default() } else { Plan::carried_out(Answer::RefuseIn(0, 1003)) };
    let broker = FakeBroker::start(4, plan).await;
    let settings = [
        // Together.
        ("linger.ms", "300"),
        ("retry.backoff.ms", "1"),
        ("retry.backoff.max.ms", "5"),
        ("request.timeout.ms", "1000"),
        ("delivery.timeout.ms", "10000"),
    ];
    let (_producer, client) = broker.producer(&settings).await;
    let [first, others @ ..] = [0, 1, 2, 3].map(|partition| {
        let mut client = client.clone();
        tokio::spawn(async move { client.send(request("t", Some(partition), "r")).await })
    });
    for other in others {
        other.await.expect("no panic").expect("it was acknowledged");
    }
    say_it_plainly.send_replace(true);
    let sent = first.await.expect("no panic").expect("it was sent again").into_inner();
    assert_eq!(sent.records[0].offset, 0);
    let seen = broker.seen();
    let first_calls: HashSet<_> = seen.iter().filter(|batch| batch.partition.1 == 0).map(|batch| batch.call).collect();
    assert!(seen.iter().any(|batch| batch.partition.1 != 0 && first_calls.contains(&batch.call)), "none shared a call with it");
    assert_eq!(broker.all_values("t").len(), 4);
    assert_eq!(broker.inits().len(), 1);
}

#[tokio::test]
async fn a_fenced_producer_recovers_page_by_page_and_goes_on() {
    let broker = FakeBroker::start(3, |call, _| match call {
        // In the log, but nobody was told.
        3 => Plan::carried_out(Answer::Refuse(ErrorCode::InvalidProducerEpoch)),
        4 => Plan::not_carried_out(Answer::Refuse(ErrorCode::InvalidProducerEpoch)),
        _ => Plan::default(),
    })
    .await;
    let (_producer, mut client) = broker.producer(&[("linger.ms", "0"), ("retry.backoff.ms", "1")]).await;
    for partition in 0..3 {
        client.send(request("t", Some(partition), "before")).await.expect("appended");
    }
    for (value, offset) in [("appended", 1), ("fenced", 2), ("after", 3)] {
        let sent = client.send(request("t", Some(0), value)).await.expect("appended").into_inner();
        assert_eq!(sent.records[0].offset, offset, "{value}");
    }
    assert_eq!(broker.values("t", 0), ["before", "appended", "fenced", "after"]);

    let inits = broker.inits();
    let ids: Vec<_> = inits.iter().map(|init| (init.producer_id, init.producer_epoch, init.page_token.as_str())).collect();
    let first = [(None, None, ""), (Some(0), Some(0), ""), (Some(0), Some(0), "1"), (Some(0), Some(0), "2")];
    assert_eq!(ids, [first.as_slice(), &[(Some(0), Some(1), "")]].concat());
    assert!((1..=64).contains(&inits[1].recovery_token.len()), "{inits:?}");
    assert!(inits[1..].iter().all(|init| init.recovery_token == inits[1].recovery_token));
    let last = broker.seen().pop().expect("the last call");
    assert_eq!((last.epoch, last.base), (2, 1));
}

#[tokio::test]
async fn a_producer_id_that_the_broker_forgot_is_replaced() {
    let broker = FakeBroker::start(1, |call, _| match call {
        0 => Plan::not_carried_out(Answer::Refuse(ErrorCode::UnknownProducerId)),
        _ => Plan::default(),
    })
    .await;
    let (_producer, mut client) = broker.producer(&[("linger.ms", "0"), ("retry.backoff.ms", "1")]).await;
    client.send(request("t", None, "a")).await.expect("appended");
    client.send(request("t", None, "b")).await.expect("appended");
    assert_eq!(broker.values("t", 0), ["a", "b"]);
}

#[tokio::test]
async fn without_idempotence_batches_are_untagged_and_no_id_is_asked_for() {
    let broker = FakeBroker::start(2, |call, _| match call {
        0 => Plan::carried_out(Answer::Status(Code::Unavailable)),
        _ => Plan::default(),
    })
    .await;
    let settings = [("enable.idempotence", "false"), ("acks", "1"), ("linger.ms", "0"), ("retry.backoff.ms", "1")];
    let (_producer, mut client) = broker.producer(&settings).await;
    client.send(request("t", Some(0), "twice")).await.expect("appended");
    assert_eq!(broker.values("t", 0), ["twice", "twice"]);
    assert!(broker.inits().is_empty());
    for batch in broker.seen() {
        assert_eq!((batch.producer, batch.epoch, batch.base, batch.acks), (None, 0, 0, Acks::One));
    }
}

#[tokio::test]
async fn keys_decide_as_in_kafka_and_a_named_partition_decides_before_them() {
    let broker = FakeBroker::honest(7).await;
    let (_producer, mut client) = broker.producer(&[]).await;
    let record = |key: &'static str| Record { key: Some(key.into()), value: Some(key.into()), ..Record::default() };
    let keyed = SendRequest { topic: "t".to_owned(), partition: None, records: vec![record("21"), record("abc"), record("21")] };
    let sent = client.send(keyed.clone()).await.expect("appended").into_inner();
    let partitions: Vec<_> = sent.records.iter().map(|record| record.partition).collect();
    // (murmur2 & 0x7fffffff) % 7 of the vectors −973932308 and 479470107.
    assert_eq!(partitions, [1_173_551_340 % 7, 479_470_107 % 7, 1_173_551_340 % 7]);
    let named = SendRequest { partition: Some(6), ..keyed };
    let sent = client.send(named).await.expect("appended").into_inner();
    assert!(sent.records.iter().all(|record| record.partition == 6));
    assert_eq!(broker.values("t", 6)[broker.values("t", 6).len() - 3..], ["21", "abc", "21"]);
}

#[tokio::test]
async fn a_stream_is_answered_in_order_and_a_failed_request_in_its_place() {
    let slow_first = |call, _: &_| Plan { before: Duration::from_millis(if call == 0 { 50 } else { 0 }), ..Plan::default() };
    let broker = FakeBroker::start(4, slow_first).await;
    let (_producer, mut client) = broker.producer(&[("linger.ms", "0"), ("batch.size", "50")]).await;
    let (requests, stream) = mpsc::channel(8);
    let mut answers = client.send_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    let sending = tokio::spawn(async move {
        for i in 0..2_000 {
            let SendRequest { topic, mut records, .. } = request("t", None, &format!("{i:05}"));
            let partition = if i % 100 == 7 { Some(99) } else { Some(i % 4) };
            if i % 100 == 8 {
                records.clear();
            }
            let next = SendStreamRequest { topic, partition, records, traceparent: String::new() };
            requests.send(next).await.expect("the stream is read");
        }
    });
    let mut offsets = [0; 4];
    for i in 0..2_000 {
        match answers.next().await.expect("an answer").expect("no status").outcome.expect("an outcome") {
            Outcome::Sent(sent) => {
                let record = &sent.records[0];
                assert_eq!((record.partition, record.offset), (i % 4, offsets[(i % 4) as usize]), "request {i}");
                offsets[(i % 4) as usize] += 1;
            }
            Outcome::Failed(failed) => {
                let expected = match i % 100 {
                    7 => (Code::NotFound, 1),
                    8 => (Code::InvalidArgument, 0),
                    _ => panic!("request {i}: {failed:?}"),
                };
                assert_eq!((Code::from_i32(failed.code), failed.refused_count), expected, "request {i}");
            }
        }
    }
    sending.await.expect("no panic");
    assert!(answers.next().await.is_none());
    for partition in 0..4 {
        assert!(broker.values("t", partition).is_sorted(), "partition {partition}");
    }
    assert_eq!(broker.all_values("t").len(), 2_000 - 40);
}

#[tokio::test]
async fn a_stream_goes_on_where_memory_holds_three_of_its_requests() {
    let broker = FakeBroker::honest(1).await;
    let cost = producer_svc::session::record_cost(&request("t", None, "00000").records[0]);
    let memory = (3 * cost + cost / 2).to_string();
    let settings = [("linger.ms", "0"), ("max.request.size", "100"), ("batch.size", "100"), ("buffer.memory", memory.as_str())];
    let (_producer, mut client) = broker.producer(&settings).await;
    // All of them are there at once, so they would go together if there were room.
    let requests = (0..100).map(|i| {
        let SendRequest { topic, records, .. } = request("t", None, &format!("{i:05}"));
        SendStreamRequest { topic, records, ..SendStreamRequest::default() }
    });
    let mut answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    for i in 0..100 {
        let answer = timeout(Duration::from_secs(20), answers.next()).await.expect("none waits for itself");
        match answer.expect("an answer").expect("no status").outcome.expect("an outcome") {
            Outcome::Sent(sent) => assert_eq!(sent.records[0].offset, i),
            Outcome::Failed(failed) => panic!("request {i}: {failed:?}"),
        }
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_life_of_the_record() {
    let broker = FakeBroker::honest(1).await;
    let (_producer, mut client) = broker.producer(&[("linger.ms", "400")]).await;
    // Makes the topic known, so that the next one is handed over at once.
    client.send(request("t", None, "a")).await.expect("appended");
    let mut short = Request::new(request("t", None, "b"));
    short.set_timeout(Duration::from_millis(100));
    let status = client.send(short).await.expect_err("too late");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    broker.until(|broker| broker.values("t", 0) == ["a", "b"]).await;
}

#[tokio::test]
async fn a_stop_sends_what_was_accepted_and_takes_in_nothing_more() {
    let broker = FakeBroker::honest(1).await;
    let (producer, mut client) = broker.producer(&[("linger.ms", "60000"), ("delivery.timeout.ms", "200000")]).await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.send(request("t", None, "a")).await }
    });
    // In a stream too.
    let (requests, stream) = mpsc::channel(8);
    let mut answers = client.send_stream(ReceiverStream::new(stream)).await.expect("a stream").into_inner();
    let SendRequest { topic, records, .. } = request("t", None, "b");
    requests.send(SendStreamRequest { topic, records, ..SendStreamRequest::default() }).await.expect("read");
    let one = producer_svc::session::record_cost(&request("t", None, "a").records[0]);
    until_available(&producer, 33_554_432 - 2 * one).await;
    assert!(broker.seen().is_empty(), "the linger is a minute");

    timeout(Duration::from_secs(20), producer.shutdown()).await.expect("does not wait for the linger").expect("drains");
    waiting.await.expect("no panic").expect("appended");
    let answer = answers.next().await.expect("an answer").expect("no status");
    assert!(matches!(answer.outcome, Some(Outcome::Sent(_))), "{answer:?}");
    let end = answers.next().await.expect("an end").expect_err("the stream ends");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    assert_eq!(broker.all_values("t"), ["a", "b"]);
    assert_eq!(client.send(request("t", None, "c")).await.expect_err("gone").code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stop_is_bounded_and_what_is_open_then_is_told_as_unknown() {
    let broker = FakeBroker::start(1, |_, _| Plan::not_carried_out(Answer::Never)).await;
    let (producer, mut client) = broker.producer(&[("linger.ms", "0"), ("shutdown.timeout.ms", "100")]).await;
    let waiting = tokio::spawn(async move { client.send(request("t", None, "a")).await });
    broker.until(|broker| !broker.seen().is_empty()).await;
    assert!(timeout(Duration::from_secs(20), producer.shutdown()).await.expect("bounded").is_err());
    let status = waiting.await.expect("no panic").expect_err("nobody knows");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn a_broker_that_comes_later_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let (_producer, mut client) = producer(addr, &[("retry.backoff.ms", "10"), ("retry.backoff.max.ms", "20")]).await;
    let waiting = tokio::spawn(async move { client.send(request("t", None, "a")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    let broker = FakeBroker::serve(TcpListener::bind(addr).await.expect("still free"), 1, |_, _| Plan::default());
    waiting.await.expect("no panic").expect("appended");
    assert_eq!(broker.values("t", 0), ["a"]);
}

#[tokio::test]
async fn a_broker_that_does_not_come_is_told_within_max_block_ms() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    drop(listener);
    let (_producer, mut client) = producer(addr, &[("max.block.ms", "200")]).await;
    let status = client.send(request("t", None, "a")).await.expect_err("away");
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("always there").reason, "BROKER_NOT_AVAILABLE");
    assert!(details.retry_info().is_some());
}
