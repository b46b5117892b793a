//! The stream to the broker: what goes over it, and what becomes of its calls when it ends.

mod broker;

use std::collections::{BTreeMap, HashSet};

use broker::{Answer, FakeBroker, Plan, request};
use oncelog_proto::v1::{Record, RecordSet, SendRequest, producer_service_client::ProducerServiceClient};
use prost::Message;
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};

/// Every record in a call of its own, and no call waits for another.
const ONE_BY_ONE: [(&str, &str); 4] =
    [("linger.ms", "0"), ("batch.size", "1"), ("retry.backoff.ms", "1"), ("retry.backoff.max.ms", "5")];

/// Sends one record to each of `partitions` partitions at once and expects all of them to succeed.
async fn send_to_each(client: &ProducerServiceClient<Channel>, partitions: i32) {
    let mut calls = JoinSet::new();
    for partition in 0..partitions {
        let mut client = client.clone();
        calls.spawn(async move { client.send(request("t", Some(partition), "r")).await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("appended");
    }
}

/// The numbers that were sent as values, by partition, in the order in which they first arrived there.
fn first_arrivals(broker: &FakeBroker) -> BTreeMap<i32, Vec<usize>> {
    let (mut arrivals, mut known) = (BTreeMap::<_, Vec<_>>::new(), HashSet::new());
    for batch in broker.seen() {
        for record in RecordSet::decode(batch.data).expect("it is not compressed").records {
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("a number");
            if known.insert(value.clone()) {
                arrivals.entry(batch.partition.1).or_default().push(value.parse().expect("a number"));
            }
        }
    }
    arrivals
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_turn_go_out_in_the_order_in_which_they_were_made() {
    let broker = FakeBroker::honest(1).await;
    let settings = [&ONE_BY_ONE[..], &[("compression.type", "none")]].concat();
    let (_producer, mut client) = broker.producer(&settings).await;
    for turn in 0..20 {
        // As many batches of a partition as may be out.
        let values = (5 * turn..5 * (turn + 1)).map(|number| Some(number.to_string().into()));
        let records = values.map(|value| Record { value, ..Record::default() }).collect();
        let together = SendRequest { topic: "t".to_owned(), partition: Some(0), records };
        client.send(together).await.expect("appended");
    }
    assert!(broker.most_outstanding() > 1, "no turn made more calls than one");
    assert_eq!(first_arrivals(&broker), BTreeMap::from([(0, (0..100).collect())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_a_stream_carries_wait_for_their_turn_in_their_order() {
    let broker = FakeBroker::honest(8).await;
    let many = [
        ("enable.idempotence", "false"),
        ("max.in.flight.requests.per.connection", "40"),
        ("compression.type", "none"),
        // With the framing around it, each batch is a call.
        ("max.request.size", "64"),
    ];
    let settings = [&ONE_BY_ONE[..], &many].concat();
    let (_producer, mut client) = broker.producer(&settings).await;
    for turn in 0..5 {
        let record = |number: usize| {
            let text = Some(number.to_string().into());
            Record { key: text.clone(), value: text, ..Record::default() }
        };
        let together =
            SendRequest { topic: "t".to_owned(), partition: None, records: (100 * turn..).take(100).map(record).collect() };
        client.send(together).await.expect("appended");
    }
    let arrivals = first_arrivals(&broker);
    assert_eq!(arrivals.values().map(Vec::len).sum::<usize>(), 500);
    assert!(arrivals.values().all(|numbers| numbers.is_sorted()), "{arrivals:?}");
}

#[tokio::test]
async fn one_stream_carries_all_calls() {
    let broker = FakeBroker::honest(8).await;
    let (_producer, client) = broker.producer(&ONE_BY_ONE).await;
    for _ in 0..20 {
        send_to_each(&client, 8).await;
    }
    assert_eq!(broker.all_values("t").len(), 160);
    assert_eq!(broker.streams(), 1);
}

#[tokio::test]
async fn a_broker_without_streams_gets_each_call_once_and_unary() {
    let broker = FakeBroker::without_streams(8, |_, _| Plan::default()).await;
    let (_producer, client) = broker.producer(&ONE_BY_ONE).await;
    for _ in 0..20 {
        send_to_each(&client, 8).await;
    }
    assert_eq!((broker.all_values("t").len(), broker.seen().len()), (160, 160));
    assert_eq!((broker.streams(), broker.inits().len()), (0, 1));
}

#[tokio::test]
async fn a_call_that_is_refused_as_a_whole_is_answered_in_its_place_and_the_stream_goes_on() {
    let broker = FakeBroker::start(8, |call, _| match call {
        2 => Plan::not_carried_out(Answer::Status(Code::ResourceExhausted)),
        4 => Plan::carried_out(Answer::Status(Code::Unavailable)),
        6 => Plan::carried_out(Answer::Nonsense),
        _ => Plan::default(),
    })
    .await;
    let (_producer, client) = broker.producer(&ONE_BY_ONE).await;
    for _ in 0..5 {
        send_to_each(&client, 8).await;
    }
    assert_eq!(broker.all_values("t").len(), 40);
    assert_eq!((broker.streams(), broker.inits().len()), (1, 1));
}

#[tokio::test]
async fn a_stream_whose_first_call_is_not_answered_in_time_is_given_up_and_its_calls_are_made_again() {
    let broker = FakeBroker::start(8, |call, _| if call == 2 { Plan::carried_out(Answer::Never) } else { Plan::default() }).await;
    let settings = [&ONE_BY_ONE[..], &[("request.timeout.ms", "300")]].concat();
    let (_producer, client) = broker.producer(&settings).await;
    for _ in 0..5 {
        send_to_each(&client, 8).await;
    }
    // All of it was carried out the first time; what was in doubt was recognised when it came again.
    assert_eq!(broker.all_values("t").len(), 40);
    assert_eq!((broker.streams(), broker.inits().len()), (2, 1));
    assert!(broker.seen().len() > 40, "nothing was sent again");
}

#[tokio::test]
async fn a_call_that_is_too_large_for_the_broker_ends_its_stream_and_is_made_again_in_parts() {
    let broker = FakeBroker::taking(1_000, 8, |_, _| Plan::default()).await;
    let settings = [("linger.ms", "50"), ("compression.type", "none"), ("retry.backoff.ms", "1")];
    let (_producer, client) = broker.producer(&settings).await;
    let mut calls = JoinSet::new();
    for partition in 0..8 {
        let mut client = client.clone();
        calls.spawn(async move { client.send(request("t", Some(partition), &"r".repeat(300))).await });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic").expect("appended");
    }
    assert_eq!(broker.all_values("t").len(), 8);
    assert!(broker.streams() > 1, "no stream ended");
    assert_eq!(broker.inits().len(), 1, "a part that fits is no reason to recover");
}

#[tokio::test]
async fn an_answer_that_is_too_large_leaves_the_call_in_doubt() {
    let plan = |call, _: &_| if call == 0 { Plan::carried_out(Answer::TooLarge) } else { Plan::default() };
    for broker in [FakeBroker::start(1, plan).await, FakeBroker::without_streams(1, plan).await] {
        let (_producer, mut client) = broker.producer(&ONE_BY_ONE).await;
        let sent = client.send(request("t", None, "once")).await.expect("it is in the log").into_inner();
        assert_eq!(sent.records[0].offset, 0);
        assert_eq!(broker.values("t", 0), ["once"]);
        assert_eq!((broker.seen().len(), broker.inits().len()), (2, 1), "the same once more, and no reason to recover");
    }
    // Without a tag it is written twice; but never is told as not written what may have been.
    let broker = FakeBroker::start(1, plan).await;
    let (_producer, mut client) = broker.producer(&[&ONE_BY_ONE[..], &[("enable.idempotence", "false")]].concat()).await;
    client.send(request("t", None, "twice")).await.expect("it is in the log");
    assert_eq!(broker.values("t", 0), ["twice", "twice"]);
}
