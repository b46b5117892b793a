//! `oncelog send` and `oncelog fetch` before services that do what good ones never do.

use std::{net::SocketAddr, pin::Pin, process::Stdio, time::Duration};

use oncelog_edge::{
    accept::{Incoming, Limits},
    server,
};
use oncelog_proto::{
    PackedBatch,
    v1::{
        Record, SendRequest, SendResponse, SendStreamRequest, SendStreamResponse,
        broker_service_server::{BrokerService, BrokerServiceServer},
        fetch_response::FetchedBatch,
        producer_service_server::{ProducerService, ProducerServiceServer},
        send_response::SentRecord,
        send_stream_response::Outcome,
        *,
    },
};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_stream::{Stream, StreamExt, iter, once, pending};
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Does what the topic's name says. "After one" answer it takes the second request, and then ends the call.
struct Faulty;

fn acknowledged(request: &SendStreamRequest) -> SendStreamResponse {
    let records = vec![SentRecord::default(); request.records.len()];
    SendStreamResponse { outcome: Some(Outcome::Sent(SendResponse { records })) }
}

#[tonic::async_trait]
impl ProducerService for Faulty {
    async fn send(&self, _: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type SendStreamStream = Answers<SendStreamResponse>;

    async fn send_stream(
        &self,
        request: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Answers<SendStreamResponse>>, Status> {
        let mut requests = request.into_inner();
        // As some servers do: no answer, not even its head, before the first request.
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("no request"))?;
        let one = once(Ok(acknowledged(&first)));
        Ok(Response::new(match first.topic.as_str() {
            "acknowledged" => Box::pin(one.chain(requests.map(|r| r.map(|r| acknowledged(&r))))),
            "cut-after-one" => Box::pin(one.chain(requests.take(1).map(|_| Err(Status::unavailable("going away"))))),
            "ended-after-one" => Box::pin(one.chain(requests.take(1).filter_map(|_| None))),
            "silent" => Box::pin(pending()),
            topic => return Err(Status::not_found(format!("no behaviour {topic}"))),
        }))
    }
}

fn batch(base_offset: i64) -> FetchedBatch {
    let record = |i: i64| Record { value: Some(format!("v{}", base_offset + i).into()), ..Record::default() };
    let packed = PackedBatch::from_records(&(0..5).map(record).collect::<Vec<_>>()).expect("valid");
    FetchedBatch { base_offset, checksum: packed.checksum(), packed: Some(packed.to_proto()), ..FetchedBatch::default() }
}

#[tonic::async_trait]
impl BrokerService for Faulty {
    type FetchStream = Answers<FetchResponse>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Answers<FetchResponse>>, Status> {
        let response = |batches: Vec<FetchedBatch>| Ok(FetchResponse { batches, ..FetchResponse::default() });
        Ok(Response::new(match request.into_inner().topic.as_str() {
            "whole-batches" => Box::pin(iter([response(vec![batch(5), batch(10)]), response(vec![batch(15)])])),
            "damaged" => Box::pin(once(response(vec![FetchedBatch { checksum: 1, ..batch(0) }]))),
            "beyond-offsets" => Box::pin(once(response(vec![FetchedBatch { base_offset: i64::MAX - 4, ..batch(0) }]))),
            "beyond-sequences" => Box::pin(once(response(vec![FetchedBatch { base_sequence: i64::MAX - 4, ..batch(0) }]))),
            "ended-after-one" => Box::pin(once(response(vec![batch(0)]))),
            "empty-batch" => Box::pin(once(response(vec![FetchedBatch { packed: None, ..batch(0) }]))),
            "cut-after-one" => Box::pin(iter([response(vec![batch(0)]), Err(Status::unavailable("going away"))])),
            topic => return Err(Status::not_found(format!("no behaviour {topic}"))),
        }))
    }

    async fn init_producer_id(&self, _: Request<InitProducerIdRequest>) -> Result<Response<InitProducerIdResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type ProduceStreamStream = Answers<ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        _: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn produce(&self, _: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn create_topic(&self, _: Request<CreateTopicRequest>) -> Result<Response<CreateTopicResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn delete_topic(&self, _: Request<DeleteTopicRequest>) -> Result<Response<DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn describe_topics(&self, request: Request<DescribeTopicsRequest>) -> Result<Response<DescribeTopicsResponse>, Status> {
        // Topics without partitions.
        let topic = |topic| describe_topics_response::Topic { topic, ..Default::default() };
        Ok(Response::new(DescribeTopicsResponse {
            topics: request.into_inner().topics.into_iter().map(topic).collect(),
            ..Default::default()
        }))
    }

    async fn describe_producers(
        &self,
        _: Request<DescribeProducersRequest>,
    ) -> Result<Response<DescribeProducersResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

async fn serve() -> SocketAddr {
    let incoming = Incoming::bind(([127, 0, 0, 1], 0).into(), Limits::default()).await.expect("a free port");
    let addr = incoming.local_addr();
    let mut server = server::builder(server::Limits::default());
    let router = server.add_service(ProducerServiceServer::new(Faulty)).add_service(BrokerServiceServer::new(Faulty));
    tokio::spawn(router.serve_with_incoming(incoming));
    addr
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `oncelog`; stdin gets `input`, and its end only when the command has ended, if `open`.
async fn oncelog(args: &[&str], input: &str, open: bool) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oncelog"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it can be started");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    let kept = open.then_some(stdin);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
    let output = output.expect("it ends by itself").expect("it ran");
    drop(kept);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn send(topic: &str, more: &[&str], input: &str, open: bool) -> Said {
    let producer = format!("--producer=http://{}", serve().await);
    oncelog(&[&["send", topic, &producer, "--batch=2"], more].concat(), input, open).await
}

async fn fetch(topic: &str, more: &[&str]) -> Said {
    let broker = format!("--broker=http://{}", serve().await);
    oncelog(&[&["fetch", topic, &broker, "--partition=0"], more].concat(), "", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_acknowledged_is_success() {
    let said = send("acknowledged", &[], "1\n2\n3\n", false).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), "sent 3, acknowledged 3, refused 0, unknown 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_send_is_success() {
    let said = send("acknowledged", &[], "", false).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), "sent 0, acknowledged 0, refused 0, unknown 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_the_call_broke_is_unknown_even_if_the_input_goes_on() {
    for (topic, why) in [("cut-after-one", "UNAVAILABLE: going away"), ("ended-after-one", "the producer ended the stream")] {
        let said = send(topic, &[], "1\n2\n3\n", true).await;
        assert_eq!(said.code, Some(6));
        let expected = "sent 3, acknowledged 2, refused 0, unknown 1\n  record 3: unknown: no answer came\n";
        assert!(said.stderr.starts_with(expected), "{topic}: {}", said.stderr);
        assert!(said.stderr.contains(why) && said.stderr.contains("Records from 4 on"), "{topic}: {}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_producer_is_given_up() {
    let said = send("silent", &["--timeout=1"], "1\n2\n", true).await;
    assert_eq!(said.code, Some(6));
    assert!(said.stderr.starts_with("sent 2, acknowledged 0, refused 0, unknown 2\n"), "{}", said.stderr);
    assert!(said.stderr.contains("no answer for 1 seconds"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_record_on_stdin_is_named_and_those_before_it_are_sent() {
    let input = "\0\0\0\u{1}k\0\0\0\u{1}v\0\0\0\u{1}k\0\0";
    let said = send("acknowledged", &["--format=length-prefixed"], input, false).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.starts_with("sent 1, acknowledged 1, refused 0, unknown 0\n"), "{}", said.stderr);
    assert!(said.stderr.contains("record 2: the value: the input ends within a record"), "{}", said.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_one_line() {
    for args in [["send", "t", "--producer=http://127.0.0.1:1"], ["fetch", "t", "--broker=http://127.0.0.1:1"]] {
        let said = oncelog(&args, "", false).await;
        assert_eq!(said.code, Some(3));
        assert!(said.stderr.lines().count() == 1 && said.stderr.contains("`oncelog dev` starts one"), "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_whole_batches_only_what_was_asked_for_is_written() {
    let said = fetch("whole-batches", &["--offset=8"]).await;
    assert_eq!(said.stdout, (8..20).map(|i| format!("v{i}\n")).collect::<String>());
    let said = fetch("whole-batches", &["--offset=8", "--max-records=4"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "v8\nv9\nv10\nv11\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_is_not_written() {
    let impossible = "an offset or a sequence that no log has";
    for (topic, why) in [
        ("damaged", "another checksum"),
        ("empty-batch", "without records"),
        ("beyond-offsets", impossible),
        ("beyond-sequences", impossible),
    ] {
        let said = fetch(topic, &[]).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{topic}");
        assert!(said.stderr.contains(why) && said.stderr.lines().count() == 1, "{topic}: {}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_fetch_tells_where_to_go_on() {
    for more in [&[][..], &["--follow"]] {
        let said = fetch("cut-after-one", more).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), "v0\nv1\nv2\nv3\nv4\n"));
        assert!(said.stderr.contains("UNAVAILABLE") && said.stderr.contains("--offset 5"), "{}", said.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_partition_that_ends_is_no_success_unless_all_was_had() {
    let said = fetch("ended-after-one", &["--follow"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), "v0\nv1\nv2\nv3\nv4\n"));
    assert!(said.stderr.contains("ended") && said.stderr.contains("--offset 5"), "{}", said.stderr);
    let said = fetch("ended-after-one", &["--follow", "--max-records=5"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_partitions_is_an_error() {
    let broker = format!("--broker=http://{}", serve().await);
    for more in [&[][..], &["--follow"]] {
        let said = oncelog(&[&["fetch", "t", &broker], more].concat(), "", false).await;
        assert_eq!(said.code, Some(1));
        assert!(said.stderr.contains("did not describe t"), "{}", said.stderr);
    }
}
