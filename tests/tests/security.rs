//! Who gets in and what they may do, with real processes: certificates, tokens, permissions, each replaced while everything runs.

use std::time::Duration;

use oncelog_chaos::process::get;
use oncelog_edge::security::dial::Files;
use oncelog_proto::{
    ErrorCode, Link,
    v1::{
        Batch, BatchResult, CreateTopicRequest, DeleteTopicRequest, DescribeProducersRequest, DescribeTopicsRequest,
        FetchRequest, InitProducerIdRequest, ProduceRequest, ProduceStreamRequest, Record, SendRequest, SendStreamRequest,
        batch_result::Outcome, broker_service_client::BrokerServiceClient, produce_stream_response,
    },
};
use oncelog_tests::{
    authority::Authority,
    secured::{Service, broker, flag, link, oncelog, producer},
    workplace::Workplace,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const ORDERS: &str = "orders-s3cret-token-1";
const REPORTS: &str = "reports-s3cret-token-2";
const HOP: &str = "producer-svc-s3cret-token-3";

fn record(value: &str) -> Record {
    Record { value: Some(value.to_owned().into()), ..Record::default() }
}

fn send(topic: &str) -> SendRequest {
    SendRequest { topic: topic.to_owned(), partition: None, records: vec![record("x")] }
}

fn batch(topic: &str, base_sequence: i64) -> Batch {
    Batch { topic: topic.to_owned(), base_sequence, records: vec![record("x")], ..Batch::default() }
}

fn produce(producer_id: Option<i64>, batches: Vec<Batch>) -> ProduceRequest {
    ProduceRequest { producer_id, batches, ..ProduceRequest::default() }
}

fn told(result: &BatchResult) -> Result<i64, (ErrorCode, String)> {
    match result.outcome.as_ref().expect("told") {
        Outcome::Ack(ack) => Ok(ack.base_offset),
        Outcome::Error(error) => Err((error.code(), error.message.clone())),
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn token(workplace: &Workplace, name: &str, token: &str) -> Files {
    let path = workplace.path(&format!("{name}.token"));
    std::fs::write(&path, format!("{token}\n")).expect("writable");
    Files { token: Some(path), ..Files::default() }
}

async fn log_end(client: &mut BrokerServiceClient<Link>, topic: &str) -> Option<i64> {
    let request = DescribeTopicsRequest { topics: vec![topic.to_owned()], ..Default::default() };
    let described = client.describe_topics(request).await.ok()?.into_inner();
    Some(described.topics[0].partitions.iter().map(|partition| partition.log_end_offset).sum())
}

/// Asks again until it is so: files are looked at every two seconds.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_travel_over_mutual_tls_and_certificates_are_replaced_while_everything_runs() {
    let workplace = Workplace::new();
    let old = Authority::new(workplace.path("old"));
    let (broker_pair, producer_pair) = (old.server("broker"), old.server("producer"));
    let (hop, caller) = (old.caller("hop"), old.caller("caller"));
    let ca = workplace.path("ca.pem");
    std::fs::copy(old.ca(), &ca).expect("writable");

    let mut first = Service::broker(
        &workplace,
        &[flag("tls-cert", &broker_pair.cert), flag("tls-key", &broker_pair.key), flag("tls-client-ca", &ca)],
    )
    .await;
    let second = Service::producer(
        &workplace,
        &[
            flag("tls-cert", &producer_pair.cert),
            flag("tls-key", &producer_pair.key),
            flag("tls-client-ca", &ca),
            format!("--broker={}", first.https()),
            flag("broker-tls-ca", &ca),
            flag("broker-tls-cert", &hop.cert),
            flag("broker-tls-key", &hop.key),
        ],
    )
    .await;
    let known = |by: &Authority, pair: &oncelog_tests::authority::Pair| Files {
        ca: Some(by.ca()),
        cert: Some(pair.cert.clone()),
        key: Some(pair.key.clone()),
        token: None,
    };

    // The command, there and back.
    let shown = [flag("tls-ca", &old.ca()), flag("tls-cert", &caller.cert), flag("tls-key", &caller.key)];
    let sending = [&["send".to_owned(), "t".to_owned(), format!("--producer={}", second.https())], &shown[..]].concat();
    let sent = oncelog(&workplace, &sending, "one\ntwo\n").await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let fetching = [&["fetch".to_owned(), "t".to_owned(), format!("--broker={}", first.https())], &shown[..]].concat();
    let fetched = oncelog(&workplace, &fetching, "").await;
    assert_eq!(String::from_utf8_lossy(&fetched.stdout), "one\ntwo\n", "{}", String::from_utf8_lossy(&fetched.stderr));

    // Nobody else: without a certificate, with one of somebody else's, in plaintext.
    let stranger = Authority::new(workplace.path("stranger"));
    let foreign = stranger.caller("caller");
    let unknown = Files { ca: Some(old.ca()), ..Files::default() };
    let foreign = Files { ca: Some(old.ca()), ..known(&stranger, &foreign) };
    for (url, files) in [(second.https(), unknown), (second.https(), foreign), (second.http(), Files::default())] {
        producer(&url, files).send(send("t")).await.expect_err("a stranger");
    }
    producer(&second.https(), known(&stranger, &caller)).send(send("t")).await.expect_err("it trusts others");
    assert!(get(second.admin, "/readyz").await.expect("plaintext, for probes").starts_with("HTTP/1.1 200"));
    second.says("TLS handshakes failed").await;

    // Another authority, for all of them, while they run.
    let new = Authority::new(workplace.path("new"));
    broker_pair.replace_by(&new.server("broker"));
    producer_pair.replace_by(&new.server("producer"));
    hop.replace_by(&new.caller("hop"));
    std::fs::copy(new.ca(), &ca).expect("writable");
    let new_caller = new.caller("caller");
    until("the producer shows its new certificate", async || {
        producer(&second.https(), known(&new, &new_caller)).send(send("t")).await.is_ok()
    })
    .await;
    until("the broker shows its new certificate", async || {
        log_end(&mut broker(&first.https(), known(&new, &new_caller)), "t").await.is_some()
    })
    .await;
    producer(&second.https(), Files { ca: Some(new.ca()), ..known(&old, &caller) })
        .send(send("t"))
        .await
        .expect_err("an old caller");

    // The hop has to connect anew, with what it was given meanwhile.
    first.kill_and_restart().await;
    producer(&second.https(), known(&new, &new_caller)).send(send("t")).await.expect("over a new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_a_certificate_decides_what_may_be_written_and_a_token_counts_for_more() {
    let workplace = Workplace::new();
    let authority = Authority::new(workplace.path("authority"));
    let (server, writer) = (authority.server("broker"), authority.caller("writer"));
    let (tokens, permissions) = (workplace.path("tokens"), workplace.path("permissions"));
    std::fs::write(&tokens, format!("reports {REPORTS}\n")).expect("writable");
    std::fs::write(&permissions, "test:writer write orders\nreports read orders\n").expect("writable");
    let service = Service::broker(
        &workplace,
        &[
            flag("tls-cert", &server.cert),
            flag("tls-key", &server.key),
            flag("tls-client-ca", &authority.ca()),
            flag("tokens-file", &tokens),
            flag("permissions-file", &permissions),
        ],
    )
    .await;
    let trusting = || Files { ca: Some(authority.ca()), ..Files::default() };
    let certified = || Files { cert: Some(writer.cert.clone()), key: Some(writer.key.clone()), ..trusting() };
    let reports = token(&workplace, "reports", REPORTS).token;
    let write = async |files: Files, topic: &str| {
        let request = produce(None, vec![batch(topic, 0)]);
        let produced = broker(&service.https(), files).produce(request).await.map_err(|status| reason(&status))?;
        told(&produced.into_inner().results[0]).map_err(|(_, message)| message)
    };
    assert_eq!(write(certified(), "orders").await, Ok(0));
    let denied = write(certified(), "payments").await.expect_err("not given");
    assert!(denied.starts_with("test:writer may not write topic payments"), "{denied}");
    let denied = write(Files { token: reports.clone(), ..certified() }, "orders").await.expect_err("not given");
    assert!(denied.starts_with("reports may not write topic orders"), "{denied}");
    assert_eq!(write(trusting(), "orders").await, Err("SASL_AUTHENTICATION_FAILED".to_owned()), "nobody");
    let read = async |files| {
        let request = FetchRequest { topic: "orders".to_owned(), ..Default::default() };
        let mut records = broker(&service.https(), files).fetch(request).await.map_err(|status| status.code())?.into_inner();
        let response = records.message().await.map_err(|status| status.code())?;
        Ok(response.map(|response| response.records.len()))
    };
    assert_eq!(read(Files { token: reports, ..trusting() }).await, Ok(Some(1)));
    assert_eq!(read(certified()).await, Err(Code::PermissionDenied));
}

/// A broker and a producer with tokens and permissions.
struct Guarded {
    workplace: Workplace,
    /// Of both services' certificates, if they have some.
    authority: Option<Authority>,
    broker: Service,
    producer: Service,
}

const PERMISSIONS: &str = "\
# who          may    with
orders         write  orders,orders.*
reports        read   orders*
producer-svc   write  *
ops            read,write,administer *
";

impl Guarded {
    async fn start(broker_flags: &[String], producer_flags: &[String]) -> Self {
        Self::start_in(Workplace::new(), None, broker_flags, producer_flags).await
    }

    async fn start_over_tls() -> Self {
        let workplace = Workplace::new();
        let authority = Authority::new(workplace.path("authority"));
        let flags = ["broker", "producer"].map(|name| {
            let pair = authority.server(name);
            [flag("tls-cert", &pair.cert), flag("tls-key", &pair.key)]
        });
        let [broker, producer] = flags.map(Vec::from);
        let producer = [producer, vec![flag("broker-tls-ca", &authority.ca())]].concat();
        Self::start_in(workplace, Some(authority), &broker, &producer).await
    }

    async fn start_in(
        workplace: Workplace,
        authority: Option<Authority>,
        broker_flags: &[String],
        producer_flags: &[String],
    ) -> Self {
        let url = |service: &Service| if authority.is_some() { service.https() } else { service.http() };
        let (tokens, permissions) = (workplace.path("tokens"), workplace.path("permissions"));
        let text = format!("orders {ORDERS}\nreports {REPORTS}\nproducer-svc {HOP}\nops operators-s3cret-token-4\n");
        std::fs::write(&tokens, text).expect("writable");
        std::fs::write(&permissions, PERMISSIONS).expect("writable");
        let guarded = [flag("tokens-file", &tokens), flag("permissions-file", &permissions)];
        let broker = Service::broker(&workplace, &[&guarded, broker_flags].concat()).await;
        let hop = token(&workplace, "hop", HOP).token.expect("written");
        let hop = [format!("--broker={}", url(&broker)), flag("broker-token-file", &hop)];
        let producer = Service::producer(&workplace, &[&guarded, &hop[..], producer_flags].concat()).await;
        Self { workplace, authority, broker, producer }
    }

    fn url(&self, service: &Service) -> String {
        if self.authority.is_some() { service.https() } else { service.http() }
    }

    fn shown(&self, name: &str, secret: &str) -> Files {
        Files { ca: self.authority.as_ref().map(Authority::ca), ..token(&self.workplace, name, secret) }
    }

    fn broker_as(&self, name: &str, secret: &str) -> BrokerServiceClient<Link> {
        broker(&self.url(&self.broker), self.shown(name, secret))
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.workplace.path(name), text).expect("writable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_says_what_is_missing_and_appends_nothing() {
    let guarded = Guarded::start(&[], &[]).await;
    let mut orders = producer(&guarded.producer.http(), token(&guarded.workplace, "orders", ORDERS));
    orders.send(send("orders.eu")).await.expect("allowed");
    let denied = orders.send(send("payments")).await.expect_err("not given");
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "TOPIC_AUTHORIZATION_FAILED"));
    assert!(denied.message().starts_with("orders may not write topic payments"), "{denied:?}");
    let stream = orders.send_stream(tokio_stream::iter(["payments", "orders"].map(|topic| SendStreamRequest {
        topic: topic.to_owned(),
        records: vec![record("x")],
        ..Default::default()
    })));
    let mut answers = stream.await.expect("open").into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.message().await.expect("each in its place") {
        use oncelog_proto::v1::send_stream_response::Outcome;
        outcomes.push(match answer.outcome.expect("told") {
            Outcome::Sent(_) => Code::Ok,
            Outcome::Failed(failed) => Code::from_i32(failed.code),
        });
    }
    assert_eq!(outcomes, [Code::PermissionDenied, Code::Ok]);
    let nobody = producer(&guarded.producer.http(), Files::default()).send(send("orders")).await.expect_err("nobody");
    assert_eq!((nobody.code(), reason(&nobody).as_str()), (Code::Unauthenticated, "SASL_AUTHENTICATION_FAILED"));

    let mut ops = guarded.broker_as("ops", "operators-s3cret-token-4");
    let topics = ops.describe_topics(DescribeTopicsRequest::default()).await.expect("may see all").into_inner().topics;
    assert_eq!(topics.iter().map(|topic| topic.topic.as_str()).collect::<Vec<_>>(), ["orders", "orders.eu"]);

    // The broker itself, where the batch of a call that is denied has its place among the others.
    let mut direct = guarded.broker_as("orders", ORDERS);
    let results =
        direct.produce(produce(None, vec![batch("payments", 0), batch("orders", 0)])).await.expect("taken").into_inner().results;
    let (denied, appended) = (told(&results[0]), told(&results[1]));
    assert_eq!(denied.map_err(|(code, _)| code), Err(ErrorCode::TopicAuthorizationFailed));
    assert_eq!(appended, Ok(1));
    let mut reports = guarded.broker_as("reports", REPORTS);
    let of = async |call: Result<(), Status>| call.map_err(|status| reason(&status));
    let denied = Err("TOPIC_AUTHORIZATION_FAILED".to_owned());
    let fetch = |topic: &str| FetchRequest { topic: topic.to_owned(), ..Default::default() };
    assert_eq!(of(direct.fetch(fetch("orders")).await.map(drop)).await, denied);
    assert_eq!(of(reports.fetch(fetch("orders")).await.map(drop)).await, Ok(()));
    assert_eq!(of(reports.fetch(fetch("payments")).await.map(drop)).await, denied);
    let create = CreateTopicRequest { topic: "orders.us".to_owned(), ..Default::default() };
    assert_eq!(of(direct.create_topic(create.clone()).await.map(drop)).await, denied);
    assert_eq!(of(direct.delete_topic(DeleteTopicRequest { topic: "orders".to_owned() }).await.map(drop)).await, denied);
    let described = DescribeTopicsRequest { topics: vec!["orders.us".to_owned()], allow_auto_create: true, ..Default::default() };
    assert_eq!(of(reports.describe_topics(described).await.map(drop)).await, denied, "it would be created");
    let fresh = reports.init_producer_id(InitProducerIdRequest::default()).await.expect_err("it writes nothing");
    assert_eq!((fresh.code(), reason(&fresh).as_str()), (Code::PermissionDenied, "CLUSTER_AUTHORIZATION_FAILED"));
    let topics =
        reports.describe_topics(DescribeTopicsRequest::default()).await.expect("those that it may see").into_inner().topics;
    assert_eq!(topics.len(), 2);
    assert_eq!(log_end(&mut ops, "orders").await, Some(2));
    assert_eq!(log_end(&mut ops, "payments").await, None, "it was never created");
    assert_eq!(of(ops.create_topic(create).await.map(drop)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_tokens_are_replaced_while_everything_runs_and_what_cannot_be_read_changes_nothing() {
    let guarded = Guarded::start(&[], &[]).await;
    let mut orders = guarded.broker_as("orders", ORDERS);
    let mut write = async |topic: &str| {
        told(&orders.produce(produce(None, vec![batch(topic, 0)])).await.expect("taken").into_inner().results[0])
    };
    write("orders").await.expect("allowed");

    guarded.write("permissions", &PERMISSIONS.replace("orders  ", "oops orders  "));
    guarded.broker.tells("oncelog_security_files_stale 1").await;
    guarded.broker.says("permissions cannot be used").await;
    write("orders").await.expect("what was said before holds");
    guarded.write("permissions", &PERMISSIONS.replace("write  orders,orders.*", "write  payments"));
    guarded.broker.tells("oncelog_security_files_stale 0").await;
    assert_eq!(write("orders").await.map_err(|(code, _)| code), Err(ErrorCode::TopicAuthorizationFailed));
    write("payments").await.expect("given meanwhile");

    // A stream of a caller whose token is taken back, with one that follows a log.
    let (requests, outbound) = mpsc::channel(4);
    let mut answers =
        guarded.broker_as("hop", HOP).produce_stream(ReceiverStream::new(outbound)).await.expect("open").into_inner();
    let request = |topic: &str| ProduceStreamRequest { produce: Some(produce(None, vec![batch(topic, 0)])) };
    requests.send(request("orders")).await.expect("open");
    let answer = answers.message().await.expect("open").expect("answered").outcome.expect("told");
    assert!(matches!(answer, produce_stream_response::Outcome::Produced(_)), "{answer:?}");
    let following = FetchRequest { topic: "orders".to_owned(), follow: true, ..Default::default() };
    let mut following = guarded.broker_as("reports", REPORTS).fetch(following).await.expect("open").into_inner();
    following.message().await.expect("open").expect("what is there");
    let (_idle, outbound) = mpsc::channel::<SendStreamRequest>(1);
    let mut sender = producer(&guarded.producer.http(), token(&guarded.workplace, "orders", ORDERS));
    let mut sent = sender.send_stream(ReceiverStream::new(outbound)).await.expect("open").into_inner();

    guarded.write("tokens", "producer-svc another-s3cret-token-5\nops operators-s3cret-token-4\n");
    until("the old token is refused", async || {
        guarded.broker_as("hop2", HOP).describe_topics(DescribeTopicsRequest::default()).await.is_err()
    })
    .await;
    // They are idle, and hear of it all the same.
    let ended = answers.message().await.expect_err("its token is no longer valid");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unauthenticated, "SASL_AUTHENTICATION_FAILED"));
    let mut ops = guarded.broker_as("ops", "operators-s3cret-token-4");
    assert_eq!(following.message().await.expect_err("it is not told what comes").code(), Code::Unauthenticated);
    assert_eq!(sent.message().await.expect_err("nor is it taken in").code(), Code::Unauthenticated);
    assert_eq!(log_end(&mut ops, "orders").await, Some(3), "what was written while it was allowed");

    // The hop: its stream was opened with the old token, and it goes on by itself once it has the new one.
    guarded.write("hop.token", "another-s3cret-token-5\n");
    let mut sender = producer(&guarded.producer.http(), token(&guarded.workplace, "ops", "operators-s3cret-token-4"));
    until("the producer goes on", async || sender.clone().send(send("orders")).await.is_ok()).await;
    sender.send(send("orders")).await.expect("and on");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_topics_name_none_that_their_reader_may_not_know_of() {
    let guarded = Guarded::start(&[], &[]).await;
    let mut ops = guarded.broker_as("ops", "operators-s3cret-token-4");
    // Two pages and a bit, of which only the first topic and the last are shown.
    let hidden = (1..=5).map(|n| (format!("orders.{n}"), 10_000));
    for (topic, partitions) in hidden.chain([("orders".to_owned(), 1), ("zz".to_owned(), 1)]) {
        let create = CreateTopicRequest { topic, partitions };
        ops.create_topic(create).await.expect("it may");
    }
    guarded.write("permissions", "reports read orders,zz\nops read *\n");
    let mut reports = guarded.broker_as("reports", REPORTS);
    let page = async |client: &mut BrokerServiceClient<Link>, page_token: String| {
        let request = DescribeTopicsRequest { page_token, ..Default::default() };
        let page = client.describe_topics(request).await.expect("a page").into_inner();
        (page.topics.into_iter().map(|topic| topic.topic).collect::<Vec<_>>(), page.next_page_token)
    };
    until("permissions are read again", async || log_end(&mut reports.clone(), "orders.1").await.is_none()).await;
    assert_eq!(
        page(&mut ops, String::new()).await,
        (vec!["orders".to_owned(), "orders.1".to_owned(), "orders.2".to_owned()], "orders.2".to_owned())
    );
    assert_eq!(page(&mut reports, String::new()).await, (vec!["orders".to_owned()], "orders".to_owned()));
    assert_eq!(page(&mut reports, "orders".to_owned()).await, (vec!["zz".to_owned()], String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_id_belongs_to_whoever_got_it_and_a_restart_keeps_it() {
    let mut guarded = Guarded::start(&[], &[]).await;
    let (mut orders, mut other) = (guarded.broker_as("orders", ORDERS), guarded.broker_as("hop2", HOP));
    let id = orders.init_producer_id(InitProducerIdRequest::default()).await.expect("granted").into_inner().producer_id;
    let mine = async |client: &mut BrokerServiceClient<Link>, base| {
        told(&client.produce(produce(Some(id), vec![batch("orders", base)])).await.expect("taken").into_inner().results[0])
    };
    assert_eq!(mine(&mut orders, 0).await, Ok(0));
    for restarted in [false, true] {
        if restarted {
            guarded.broker.kill_and_restart().await;
        }
        let recovery = InitProducerIdRequest {
            producer_id: Some(id),
            producer_epoch: Some(0),
            recovery_token: "theirs".to_owned(),
            ..Default::default()
        };
        let (code, message) = mine(&mut other, 1).await.expect_err("another's");
        assert_eq!(code, ErrorCode::UnknownProducerId);
        assert!(message.contains("belongs to another identity"), "{message}");
        // Not even a duplicate of what is there is told to another.
        assert_eq!(mine(&mut other, 0).await.map_err(|(code, _)| code), Err(ErrorCode::UnknownProducerId));
        let refused = other.init_producer_id(recovery).await.expect_err("nobody else fences it");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "UNKNOWN_PRODUCER_ID"));
        assert_eq!(mine(&mut orders, 0).await, Ok(0), "a duplicate, and not fenced");
    }
    assert_eq!(mine(&mut orders, 1).await, Ok(1));

    // What is shown of it: to its owner, and to those who may know of the topic.
    let request = DescribeProducersRequest { producer_id: Some(id), ..Default::default() };
    let shown = async |client: &mut BrokerServiceClient<Link>| {
        let page = client.describe_producers(request.clone()).await.expect("a page").into_inner();
        page.producers.iter().map(|producer| producer.partitions.len()).collect::<Vec<_>>()
    };
    assert_eq!(shown(&mut orders).await, [1]);
    assert_eq!(shown(&mut guarded.broker_as("reports", REPORTS)).await, [1]);
    guarded.write("permissions", &PERMISSIONS.replace("orders*", "payments"));
    until("permissions are read again", async || log_end(&mut guarded.broker_as("reports", REPORTS), "orders").await.is_none())
        .await;
    assert!(shown(&mut guarded.broker_as("reports", REPORTS)).await.is_empty());
    let recovery = InitProducerIdRequest {
        producer_id: Some(id),
        producer_epoch: Some(0),
        recovery_token: "mine".to_owned(),
        ..Default::default()
    };
    let recovered = orders.init_producer_id(recovery).await.expect("its own").into_inner();
    assert_eq!((recovered.producer_epoch, recovered.partitions[0].next_sequence), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_an_argument_or_an_error() {
    let plaintext = Guarded::start(&[], &[]).await;
    shows_no_secret(&plaintext).await;
    let over_tls = Guarded::start_over_tls().await;
    shows_no_secret(&over_tls).await;
}

async fn shows_no_secret(guarded: &Guarded) {
    let mut secrets = vec!["s3cret".to_owned()];
    for name in guarded.authority.as_ref().map_or(&[][..], |_| &["broker", "producer"]) {
        let pem = std::fs::read_to_string(guarded.workplace.path(&format!("authority/{name}.key"))).expect("a key");
        secrets.extend(pem.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
    }
    let mut errors = Vec::new();
    let mut orders = producer(&guarded.url(&guarded.producer), guarded.shown("orders", ORDERS));
    orders.send(send("orders")).await.expect("allowed");
    errors.push(format!("{:?}", orders.send(send("payments")).await.expect_err("denied")));
    let wrong = "wrong-s3cret-token-6";
    let mut unknown = guarded.broker_as("wrong", wrong);
    errors.push(format!("{:?}", unknown.describe_topics(DescribeTopicsRequest::default()).await.expect_err("unknown")));
    let args = |to: &str| {
        [
            "fetch".to_owned(),
            "orders".to_owned(),
            format!("--broker={to}"),
            flag("token-file", &guarded.workplace.path("wrong.token")),
        ]
    };
    let mut args = args(&guarded.url(&guarded.broker)).to_vec();
    args.extend(guarded.authority.as_ref().map(|authority| flag("tls-ca", &authority.ca())));
    let failed = oncelog(&guarded.workplace, &args, "").await;
    assert!(!failed.status.success());
    errors.push(String::from_utf8_lossy(&failed.stderr).into_owned());
    assert!(errors[2].contains("UNAUTHENTICATED") && errors[2].contains("--token-file"), "{}", errors[2]);
    guarded.write("tokens", &format!("orders {ORDERS} what-s3cret-word-7\n"));
    guarded.broker.says("tokens cannot be used").await;
    guarded.write("hop.token", "not one-s3cret-token-8 but three\n");
    guarded.producer.says("the token for calls cannot be used").await;
    if guarded.authority.is_some() {
        std::fs::write(guarded.workplace.path("authority/broker.pem"), "no certificate").expect("writable");
        guarded.broker.says("the server's certificates cannot be used").await;
    }
    for service in [&guarded.broker, &guarded.producer] {
        let id = service.process().id().expect("it runs").as_raw_nonzero();
        errors.push(std::fs::read_to_string(format!("/proc/{id}/cmdline")).expect("it runs"));
        errors.push(std::fs::read_to_string(format!("/proc/{id}/environ")).expect("it runs"));
        errors.push(get(service.admin, "/metrics").await.expect("told"));
        let said = service.said();
        assert!(said.contains("\"level\":\"TRACE\"") && said.contains("\"target\":\"h2::"), "everything is said");
        errors.push(said);
    }
    for text in errors {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_seen_before_it_is_felt() {
    let wait = ["--drain-wait-ms=3000".to_owned()];
    let mut guarded = Guarded::start(&wait, &wait).await;
    for name in ["producer", "broker"] {
        let service = if name == "producer" { &mut guarded.producer } else { &mut guarded.broker };
        let (admin, addr) = (service.admin, service.http());
        let mut stopping = Box::pin(service.stop());
        let workplace = &guarded.workplace;
        let serves = async {
            // Not ready, and serving new connections all the same.
            while !get(admin, "/readyz").await.expect("probes are answered").contains("draining") {
                sleep(Duration::from_millis(10)).await;
            }
            if name == "producer" {
                let mut orders = producer(&addr, token(workplace, "orders", ORDERS));
                orders.send(send("orders")).await.expect("taken in, and appended");
            } else {
                let mut ops = broker(&addr, token(workplace, "ops", "operators-s3cret-token-4"));
                assert_eq!(log_end(&mut ops, "orders").await, Some(1));
            }
        };
        tokio::select! {
            () = &mut stopping => panic!("{name} did not wait"),
            () = serves => {}
        }
        stopping.await;
        // Who is known, and would be answered.
        let mut ops = broker(&addr, token(workplace, "ops", "operators-s3cret-token-4"));
        let refused = ops.describe_topics(DescribeTopicsRequest::default()).await.expect_err("it has ended");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_to_the_network_says_so_reflection_is_switched_off_and_files_may_be_many() {
    let workplace = Workplace::new();
    let service = Service::broker(&workplace, &["--reflection=false".to_owned()]).await;
    assert!(!service.said().contains("LISTENS TO THE NETWORK"), "it listens to this machine alone");
    let reflected = async |service: &Service| {
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
        };
        let request = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut client = ServerReflectionClient::new(link(&service.http(), Files::default()));
        client.server_reflection_info(tokio_stream::iter([request])).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(reflected(&service).await, Err(Code::Unimplemented));
    let id = service.process().id().expect("it runs").as_raw_nonzero();
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("it runs");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("told");
    let [soft, hard, ..] = files.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{files}") };
    assert_eq!(soft, hard);

    let other = Workplace::new();
    let open = Service::broker_on_all_interfaces(&other).await;
    assert!(open.said().contains("LISTENS TO THE NETWORK IN PLAINTEXT"), "{}", open.said());
    assert_eq!(reflected(&open).await, Ok(()));
}
