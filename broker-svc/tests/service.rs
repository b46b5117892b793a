//! The service as a whole, in this process: a real journal, a real client.

use std::path::Path;

use broker_svc::{Broker, Config};
use oncelog_edge::telemetry::Telemetry;
use oncelog_proto::v1::{
    Batch, BatchAck, ErrorCode, FetchRequest, InitProducerIdRequest, ProduceRequest, ProduceStreamRequest, ProduceStreamResponse,
    Record, batch_result::Outcome, broker_service_client::BrokerServiceClient, produce_stream_response,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

async fn start(data_dir: &Path) -> Broker {
    let data_dir = format!("--data-dir={}", data_dir.display());
    let flags = [data_dir.as_str(), "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--segment-bytes=1048576"];
    let config = Config::parse_args(flags.into_iter().chain(["--max-message-bytes=65536"])).expect("these are its flags");
    Broker::start(config, Telemetry::off()).await.expect("it starts")
}

async fn client(broker: &Broker) -> BrokerServiceClient<Channel> {
    let endpoint = Endpoint::new(format!("http://{}", broker.local_addr())).expect("a URL");
    BrokerServiceClient::new(endpoint.connect().await.expect("it listens"))
}

async fn produce(client: &mut BrokerServiceClient<Channel>, producer_id: i64, base_sequence: i64) -> BatchAck {
    let records = vec![Record { value: Some(format!("{base_sequence}").into()), ..Record::default() }];
    let batches = vec![Batch { topic: "t".to_owned(), base_sequence, records, ..Batch::default() }];
    let request = ProduceRequest { producer_id: Some(producer_id), batches, ..ProduceRequest::default() };
    let answer = client.produce(request).await.expect("answered").into_inner();
    match answer.results.into_iter().next().and_then(|result| result.outcome) {
        Some(Outcome::Ack(ack)) => ack,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_followers_and_the_next_start_knows_the_last_five_batches() {
    let data_dir = tempfile::tempdir().expect("a place for temporary files");
    let broker = start(data_dir.path()).await;
    let mut caller = client(&broker).await;
    let id = caller.init_producer_id(InitProducerIdRequest::default()).await.expect("answered").into_inner().producer_id;
    let mut acks = Vec::new();
    for base in 0..6 {
        acks.push(produce(&mut caller, id, base).await);
    }
    let request = FetchRequest { topic: "t".to_owned(), follow: true, ..FetchRequest::default() };
    let mut following = caller.fetch(request).await.expect("answered").into_inner();
    let mut offsets = Vec::new();
    while offsets.len() < acks.len() {
        let answer = following.next().await.expect("it follows").expect("readable");
        offsets.extend(answer.records.iter().map(|record| record.offset));
    }
    assert_eq!(offsets, acks.iter().map(|ack| ack.base_offset).collect::<Vec<_>>());
    broker.shutdown().await.expect("in order");
    assert!(following.next().await.is_some_and(|answer| answer.is_err()), "the follower is told that it was not the end");

    let broker = start(data_dir.path()).await;
    let mut caller = client(&broker).await;
    for base in 1..6 {
        let again = produce(&mut caller, id, base).await;
        let first = &acks[usize::try_from(base).expect("small")];
        assert!(again.duplicate);
        assert_eq!((again.base_offset, again.append_time), (first.base_offset, first.append_time));
    }
    broker.shutdown().await.expect("in order");
}

/// A request of one batch with one record.
fn batch_at(producer_id: i64, base_sequence: i64) -> ProduceStreamRequest {
    let records = vec![Record { value: Some(format!("{base_sequence}").into()), ..Record::default() }];
    let batches = vec![Batch { topic: "t".to_owned(), base_sequence, records, ..Batch::default() }];
    let produce = ProduceRequest { producer_id: Some(producer_id), batches, ..ProduceRequest::default() };
    ProduceStreamRequest { produce: Some(produce) }
}

/// What stands for an answer: the offset of its only batch, or why the request was refused.
fn told(answer: ProduceStreamResponse) -> Result<i64, (Code, ErrorCode)> {
    match answer.outcome.expect("one of the two") {
        produce_stream_response::Outcome::Produced(produced) => match produced.results.into_iter().next().and_then(|r| r.outcome)
        {
            Some(Outcome::Ack(ack)) => Ok(ack.base_offset),
            other => panic!("{other:?}"),
        },
        produce_stream_response::Outcome::Failed(failed) => Err((Code::from_i32(failed.code), failed.reason())),
    }
}

#[tokio::test]
async fn a_stream_of_calls_is_judged_and_answered_in_its_order_and_a_refused_one_in_its_place() {
    let data_dir = tempfile::tempdir().expect("a place for temporary files");
    let broker = start(data_dir.path()).await;
    let mut caller = client(&broker).await;
    let id = caller.init_producer_id(InitProducerIdRequest::default()).await.expect("answered").into_inner().producer_id;
    let mut requests: Vec<_> = (0..20).map(|base| batch_at(id, base)).collect();
    requests.insert(7, ProduceStreamRequest::default());
    requests.push(batch_at(id, 19));
    let answers = caller.produce_stream(tokio_stream::iter(requests)).await.expect("offered").into_inner();
    let answers: Vec<_> = answers.map(|answer| told(answer.expect("not the end"))).collect().await;
    let mut expected: Vec<_> = (0..20).map(Ok).collect();
    expected.insert(7, Err((Code::InvalidArgument, ErrorCode::InvalidRequest)));
    expected.push(Ok(19));
    assert_eq!(answers, expected);
    broker.shutdown().await.expect("in order");
}

#[tokio::test]
async fn a_stream_ends_with_the_broker_and_says_that_the_rest_was_not_taken_in() {
    let data_dir = tempfile::tempdir().expect("a place for temporary files");
    let broker = start(data_dir.path()).await;
    let mut caller = client(&broker).await;
    let id = caller.init_producer_id(InitProducerIdRequest::default()).await.expect("answered").into_inner().producer_id;
    let (requests, outbound) = tokio::sync::mpsc::channel(1);
    let mut answers = caller.produce_stream(ReceiverStream::new(outbound)).await.expect("offered").into_inner();
    requests.send(batch_at(id, 0)).await.expect("it is read");
    assert_eq!(told(answers.next().await.expect("an answer").expect("not the end")), Ok(0));
    broker.shutdown().await.expect("an open stream does not hold it up");
    let end = answers.next().await.expect("told").expect_err("the end");
    let reason = end.get_details_error_info().expect("with a reason").reason;
    assert_eq!((end.code(), reason.as_str()), (Code::Unavailable, "BROKER_NOT_AVAILABLE"));
}
