//! The stream to the broker: what goes over it, and what becomes of its calls when it ends.

mod broker;

use broker::{Answer, FakeBroker, Plan, request};
use oncelog_proto::v1::producer_service_client::ProducerServiceClient;
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
