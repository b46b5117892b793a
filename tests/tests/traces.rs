//! A record is followed from its caller to the group that it became durable with, as a real collector sees it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use oncelog_chaos::{
    port,
    process::{Process, get},
    program::Program,
    stage::{Stage, channel},
};
use oncelog_proto::{
    record_set::RecordSetEncoder,
    v1::{
        self, Batch, Header, ProduceRequest, Record, SendRequest, SendStreamRequest, broker_service_client::BrokerServiceClient,
        producer_service_client::ProducerServiceClient,
    },
};
use oncelog_tests::{
    collector::{Collector, Received, Span},
    lone_broker::fetch,
    workplace::Workplace,
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tonic::{Request, transport::Channel};

/// Both services, exporting to a collector. None where there is no collector.
struct Watched {
    stage: Stage,
    collector: Collector,
    workplace: Workplace,
}

impl Watched {
    async fn start(producer_args: &[&str]) -> Option<Self> {
        Self::start_with(&[], producer_args).await
    }

    async fn start_with(broker_args: &[&str], producer_args: &[&str]) -> Option<Self> {
        let workplace = Workplace::new();
        let collector = Collector::start(&workplace).await.expect("the collector starts")?;
        let [broker_args, producer_args] =
            [broker_args, producer_args].map(|args| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>());
        let (data, logs) = (workplace.path("data"), workplace.path(""));
        let stage = Stage::start(collector.programs(), &data, &logs, &broker_args, &producer_args).await.expect("both start");
        Some(Self { stage, collector, workplace })
    }

    fn sender(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(channel(self.stage.producer_addr()))
    }

    fn broker(&self) -> BrokerServiceClient<Channel> {
        BrokerServiceClient::new(channel(self.stage.broker_addr()))
    }

    fn producer_log(&self) -> String {
        std::fs::read_to_string(self.workplace.path("producer.log")).expect("it is written")
    }

    /// Stops all of it, so that everything is told.
    async fn received(self) -> Received {
        self.stage.stop().await.expect("both end well");
        self.collector.received().await.expect("the collector ends well")
    }
}

/// What is logged of the broker that does not answer names the trace that waits for it.
fn assert_logged(log: &str, trace: &str) {
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON"));
    let away = "the broker does not answer; trying again until it does";
    let found: Vec<_> = lines.filter(|line| line["message"] == away).collect();
    assert!(found.iter().any(|line| line["trace_id"] == trace && line["level"] == "WARN"), "{log}");
}

/// A caller's own trace: its id, and that of the span that calls.
fn traceparent(n: u8) -> (String, String, String) {
    let (trace, span) = (format!("{n:02x}").repeat(16), format!("{n:02x}").repeat(8));
    let text = format!("00-{trace}-{span}-01");
    (trace, span, text)
}

fn within<T>(message: T, traceparent: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
    request
}

fn send(value: &str) -> SendRequest {
    let record = Record { value: Some(value.to_owned().into()), ..Record::default() };
    SendRequest { topic: "t".to_owned(), partition: None, records: vec![record] }
}

fn named<'a>(spans: &[&'a Span], name: &str) -> Vec<&'a Span> {
    spans.iter().copied().filter(|span| span.name == name).collect()
}

fn one<'a>(spans: &[&'a Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_was_retried_is_followed_from_its_caller_to_the_group_commit() {
    let Some(watched) = Watched::start(&["--linger-ms=0"]).await else { return };
    let mut sender = watched.sender();
    // The topic is there, and the stream to the broker.
    sender.send(send("before")).await.expect("appended");

    let (trace, caller, text) = traceparent(0xa1);
    watched.stage.inner.swallow_answers();
    let sending = tokio::spawn(async move { sender.send(within(send("followed"), &text)).await });
    appended(&watched, 2).await;
    watched.stage.inner.cut_and_forward();
    sending.await.expect("no panic").expect("appended");

    let records = fetch(&mut watched.broker(), v1::FetchRequest { topic: "t".to_owned(), ..Default::default() }).await;
    let records: Vec<_> = records.expect("readable").into_iter().flat_map(|response| response.records).collect();
    assert_logged(&watched.producer_log(), &trace);
    let received = watched.received().await;
    let spans = received.trace(&trace);

    let call = one(&spans, "oncelog.v1.ProducerService/Send");
    assert_eq!((call.parent.as_str(), call.service.as_str()), (caller.as_str(), "producer-svc"));
    assert_eq!(call.attribute("rpc.response.status_code").as_deref(), Some("OK"));
    let batch = one(&spans, "send t");
    assert_eq!((&batch.parent, &batch.links), (&call.id, &vec![call.id.clone()]));
    assert_eq!(batch.outcome().as_deref(), Some("duplicate"));

    let mut attempts = named(&spans, "oncelog.v1.BrokerService/Produce");
    attempts.sort_by_key(|span| span.attribute("oncelog.attempt"));
    let told: Vec<_> = attempts.iter().map(|span| (span.outcome().expect("told"), span.failed)).collect();
    assert_eq!(told, [("unknown".to_owned(), true), ("duplicate".to_owned(), false)]);
    let statuses: Vec<_> = attempts.iter().map(|span| span.attribute("rpc.response.status_code").expect("told")).collect();
    assert_ne!(statuses[0], "OK");
    assert_eq!(statuses[1], "OK");
    assert!(attempts.iter().all(|span| span.parent == batch.id));

    let appends = named(&spans, "append t");
    let of_attempt = |attempt: &Span| *appends.iter().find(|span| span.parent == attempt.id).expect("it reached the broker");
    let (first, second) = (of_attempt(attempts[0]), of_attempt(attempts[1]));
    assert_eq!((first.outcome().as_deref(), second.outcome().as_deref()), (Some("appended"), Some("duplicate")));
    assert_eq!((first.service.as_str(), first.attribute("oncelog.base_offset").as_deref()), ("broker-svc", Some("1")));

    let commit = one(&spans, "commit");
    assert_eq!((&commit.parent, &commit.links), (&first.id, &vec![first.id.clone()]));
    for said in ["oncelog.bytes", "oncelog.group.number", "oncelog.group.entries", "oncelog.group.sync.duration"] {
        assert!(commit.attribute(said).is_some(), "{said}: {commit:?}");
    }

    // What a consumer finds continues the trace from the call.
    let headers = |index: usize| records[index].record.as_ref().expect("asked for").headers.clone();
    let [header] = &headers(1)[..] else { panic!("{:?}", headers(1)) };
    assert_eq!(header.key, "traceparent");
    assert_eq!(header.value, format!("00-{trace}-{}-01", call.id));
}

/// Waits until the broker has appended so many records.
async fn appended(watched: &Watched, count: i64) {
    let wait = async {
        let mut broker = watched.broker();
        loop {
            let described = broker.describe_topics(v1::DescribeTopicsRequest::default()).await.expect("described").into_inner();
            let ends = described.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.log_end_offset);
            if ends.sum::<i64>() >= count {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.expect("it is appended although nobody hears of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_links_to_each_send_in_it_and_an_unsampled_one_leaves_nothing() {
    let Some(watched) = Watched::start(&["--linger-ms=1000"]).await else { return };
    let sender = watched.sender();
    let (traces, texts): (Vec<_>, Vec<_>) = (1..=3).map(traceparent).map(|(trace, _, text)| (trace, text)).unzip();
    let unsampled = texts[2].replace("-01", "-00");
    let sends = [&texts[0], &texts[1], &unsampled].map(|text| {
        let (mut sender, request) = (sender.clone(), within(send("together"), text));
        tokio::spawn(async move { sender.send(request).await })
    });
    for send in sends {
        send.await.expect("no panic").expect("appended");
    }
    let responses = fetch(&mut watched.broker(), v1::FetchRequest { topic: "t".to_owned(), ..Default::default() }).await;
    let records = responses.expect("readable").into_iter().flat_map(|response| response.records);
    let stamped = records.filter(|record| !record.record.as_ref().expect("asked for").headers.is_empty()).count();
    assert_eq!(stamped, 2, "the unsampled one stays as it came");

    let received = watched.received().await;
    let calls: BTreeSet<_> =
        traces[..2].iter().map(|trace| one(&received.trace(trace), "oncelog.v1.ProducerService/Send").id.clone()).collect();
    let batches: Vec<_> = received.spans.iter().filter(|span| span.name == "send t").collect();
    let linked: BTreeSet<_> = batches.iter().flat_map(|batch| batch.links.clone()).collect();
    assert_eq!(linked, calls);
    // Whoever came later than the linger would have a batch of its own; a second is long, and they came at once.
    assert_eq!(batches.len(), 1, "{batches:#?}");
    assert!(received.trace(&traces[2]).is_empty(), "{:#?}", received.trace(&traces[2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_makes_no_record_larger_than_the_broker_takes() {
    const LIMIT: usize = 2_000;
    let Some(watched) = Watched::start_with(&["--max-message-bytes=2000"], &["--linger-ms=0"]).await else { return };
    let mut sender = watched.sender();
    // The broker has told its limit.
    sender.send(send("before")).await.expect("appended");
    let (_, _, text) = traceparent(1);
    let header = Header { key: "traceparent".to_owned(), value: text.clone().into() };
    // One that has the limit with the header, and one that has it without.
    for headers in [vec![header], vec![]] {
        let sized =
            |bytes: usize| Record { value: Some(vec![b'x'; bytes].into()), headers: headers.clone(), ..Record::default() };
        let largest = (0..LIMIT).rev().map(sized).find(|record| RecordSetEncoder::added_len(record) == LIMIT).expect("fits");
        let records = vec![Record { headers: Vec::new(), ..largest }];
        sender.send(within(SendRequest { records, ..send("") }, &text)).await.expect("the broker takes it without a trace");
    }
    let responses = fetch(&mut watched.broker(), v1::FetchRequest { topic: "t".to_owned(), ..Default::default() }).await;
    let records = responses.expect("readable").into_iter().flat_map(|response| response.records);
    let stamped = records.map(|record| record.record.expect("asked for").headers.len());
    assert_eq!(stamped.collect::<Vec<_>>()[1..], [1, 0]);
    watched.received().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_stream_is_in_its_own_trace() {
    let Some(watched) = Watched::start(&["--linger-ms=300"]).await else { return };
    let requests = [1, 2].map(|n| {
        let SendRequest { topic, partition, records } = send("streamed");
        SendStreamRequest { topic, partition, records, traceparent: traceparent(n).2 }
    });
    let answers = watched.sender().send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");

    let received = watched.received().await;
    let requests = [1, 2].map(|n| {
        let (trace, caller, _) = traceparent(n);
        let request = one(&received.trace(&trace), "oncelog.v1.ProducerService/SendStream");
        assert_eq!((&request.parent, request.attribute("rpc.response.status_code")), (&caller, Some("OK".to_owned())));
        request.id.clone()
    });
    let linked: Vec<_> =
        received.spans.iter().filter(|span| span.name == "send t").flat_map(|batch| batch.links.clone()).collect();
    assert_eq!(linked, requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_duplicates_early_or_refused_say_so() {
    let Some(watched) = Watched::start(&[]).await else { return };
    let mut broker = watched.broker();
    let granted = broker.init_producer_id(v1::InitProducerIdRequest::default()).await.expect("granted").into_inner();
    let produce = |base_sequence: i64, n: u8| {
        let records = vec![Record { value: Some("x".into()), ..Record::default() }];
        let batch = Batch { topic: "t".to_owned(), base_sequence, records, ..Batch::default() };
        let request = ProduceRequest { producer_id: Some(granted.producer_id), batches: vec![batch], ..Default::default() };
        within(request, &traceparent(n).2)
    };
    // In the field of its batch, and that counts for more.
    let mut early = produce(1, 0xee);
    early.get_mut().batches[0].traceparent = traceparent(1).2;
    let mut other = broker.clone();
    let waiting = tokio::spawn(async move { other.produce(early).await });
    sleep(Duration::from_millis(50)).await;
    for n in [2, 3] {
        broker.produce(produce(0, n)).await.expect("answered");
    }
    waiting.await.expect("no panic").expect("answered");
    broker.produce(produce(7, 4)).await.expect("answered");

    let received = watched.received().await;
    let outcome = |n: u8| one(&received.trace(&traceparent(n).0), "append t").outcome().expect("told");
    assert_eq!([1, 2, 3, 4].map(outcome), ["appended", "appended", "duplicate", "out_of_order"]);
    let has = |n: u8, name: &str| !named(&received.trace(&traceparent(n).0), name).is_empty();
    assert_eq!([1, 2, 3, 4].map(|n| has(n, "hold")), [true, false, false, true]);
    // One group took both, and is a child of the one that came first in it.
    assert_eq!([2, 3, 4].map(|n| has(n, "commit")), [true, false, false]);
    assert_eq!([2, 3, 4].map(|n| has(n, "oncelog.v1.BrokerService/Produce")), [true; 3], "the call itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_admin_ports_reaches_the_collector() {
    let workplace = Workplace::new();
    let Some(collector) = Collector::start(&workplace).await.expect("the collector starts") else { return };
    let [broker_addr, broker_admin, producer_addr, producer_admin] = std::array::from_fn(|_| port::free());
    let start = async |program: &Program, listen: SocketAddr, admin: SocketAddr, more: String| {
        let args = [format!("--listen={listen}"), format!("--admin-listen={admin}"), more];
        let log = workplace.path(&format!("{}.log", program.name()));
        let mut process = Process::start(program, &args, &log).expect("it starts");
        process.ready(admin).await.expect("it is ready");
        process
    };
    let programs = collector.programs();
    let data = format!("--data-dir={}", workplace.path("data").display());
    let broker = start(&programs.broker, broker_addr, broker_admin, data).await;
    let producer = start(&programs.producer, producer_addr, producer_admin, format!("--broker=http://{broker_addr}")).await;
    ProducerServiceClient::new(channel(producer_addr)).send(send("counted")).await.expect("appended");
    let texts = [get(broker_admin, "/metrics").await.expect("told"), get(producer_admin, "/metrics").await.expect("told")];
    assert!(producer.terminate().await.expect("it ends").success());
    assert!(broker.terminate().await.expect("it ends").success());
    let received = collector.received().await.expect("it ends well");

    let normal = |name: &str| {
        let name = name.replace('.', "_");
        let ends = ["_total", "_seconds", "_bytes", "_ratio"];
        ends.iter().fold(name, |name, end| name.strip_suffix(end).unwrap_or(&name).to_owned())
    };
    let exported: BTreeSet<_> = received.metrics.iter().map(|name| normal(name)).collect();
    for (text, known) in texts.iter().zip(["oncelog_broker_sync_duration", "oncelog_producer_batch_fill"]) {
        let served = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let served: Vec<_> = served.map(|(name, _)| normal(name)).collect();
        assert!(served.iter().any(|name| name == known), "{text}");
        for name in served {
            assert!(exported.contains(&name), "{name} is not among {exported:?}");
        }
    }
}
