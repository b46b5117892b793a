//! A real server behind this crate, and a real client before it.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use oncelog_edge::{
    accept::{self, Incoming},
    admin::Admin,
    health::Health,
    reflection, server,
};
use oncelog_proto::v1::{
    SendRequest, SendResponse, SendStreamRequest, SendStreamResponse,
    producer_service_client::ProducerServiceClient,
    producer_service_server::{ProducerService, ProducerServiceServer},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Response, Status, Streaming,
    server::NamedService,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

/// Answers a Send of topic "never" never, but finishes its work, and any other at once.
struct Sends {
    finished: mpsc::Sender<()>,
    peers: mpsc::Sender<SocketAddr>,
}

#[tonic::async_trait]
impl ProducerService for Sends {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        // Only as many are kept as somebody may ask for.
        let _ = self
            .peers
            .try_send(request.extensions().get::<accept::Peer>().and_then(|peer| peer.addr).expect("told by the listener"));
        if request.get_ref().topic == "never" {
            let finished = self.finished.clone();
            let work = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                finished.send(()).await.expect("the test waits");
                std::future::pending::<()>().await;
            });
            work.await.expect("not cancelled");
        }
        Ok(Response::new(SendResponse::default()))
    }

    type SendStreamStream = tokio_stream::Empty<Result<SendStreamResponse, Status>>;

    async fn send_stream(&self, _: Request<Streaming<SendStreamRequest>>) -> Result<Response<Self::SendStreamStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

struct Service {
    addr: SocketAddr,
    health: Health,
    finished: mpsc::Receiver<()>,
    /// From where each call came.
    peers: mpsc::Receiver<SocketAddr>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

const NAME: &str = <ProducerServiceServer<Sends> as NamedService>::NAME;

async fn serve(limits: server::Limits) -> Service {
    let (finished_tx, finished) = mpsc::channel(1);
    let (peers_tx, peers) = mpsc::channel(100);
    let health = Health::new(&[NAME]).await;
    let incoming = Incoming::bind(([127, 0, 0, 1], 0).into(), accept::Limits::default()).await.expect("a free port");
    let addr = incoming.local_addr();
    let router = server::builder(limits)
        .add_service(health.server())
        .add_service(reflection::v1(&[NAME]))
        .add_service(reflection::v1alpha(&[NAME]))
        .add_service(ProducerServiceServer::new(Sends { finished: finished_tx, peers: peers_tx }));
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        router.serve_with_incoming_shutdown(incoming, stopped).await.expect("served");
    });
    Service { addr, health, finished, peers, stop, served }
}

async fn connect(addr: SocketAddr) -> Channel {
    Endpoint::new(format!("http://{addr}")).expect("a URL").connect().await.expect("the server listens")
}

#[tokio::test]
async fn a_passed_deadline_is_told_as_such_and_the_work_goes_on() {
    let mut service = serve(server::Limits::default()).await;
    // Not by tonic's client: it runs a timer of its own for this header.
    let stream = TcpStream::connect(service.addr).await.expect("the server listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/{NAME}/Send", service.addr))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "100m")
        .body(())
        .expect("a request");
    let (answer, mut body) = client.send_request(request, false).expect("open");
    let message = SendRequest { topic: "never".into(), ..SendRequest::default() }.encode_to_vec();
    let mut frame = vec![0; 4];
    frame.push(u8::try_from(message.len()).expect("short"));
    frame.extend(message);
    body.send_data(frame.into(), true).expect("open");
    let answer = answer.await.expect("answered");
    let status = Status::from_header_map(answer.headers()).expect("a status without a body");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().map(|i| i.reason.as_str()), Some("REQUEST_TIMED_OUT"));
    service.finished.recv().await.expect("the handler's work went on");
}

#[tokio::test]
async fn a_call_within_its_deadline_is_answered() {
    let service = serve(server::Limits::default()).await;
    let mut client = ProducerServiceClient::new(connect(service.addr).await);
    let mut request = Request::new(SendRequest::default());
    request.set_timeout(Duration::from_secs(60));
    client.send(request).await.expect("answered");
}

#[tokio::test]
async fn readiness_is_told_for_every_name_and_a_watch_ends_before_the_drain() {
    let mut service = serve(server::Limits::default()).await;
    let mut client = HealthClient::new(connect(service.addr).await);
    let ask = |name: &str| HealthCheckRequest { service: name.into() };
    for name in ["", NAME] {
        let answer = client.check(ask(name)).await.expect("the name is known").into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing, "{name:?}");
    }
    let mut watch = client.watch(ask(NAME)).await.expect("the name is known").into_inner();
    let mut told = async || watch.next().await.map(|answer| answer.expect("open").status());
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    service.health.ready().await;
    assert_eq!(told().await, Some(ServingStatus::Serving));
    service.health.draining().await;
    service.health.ready().await;
    service.health.end_watches().await;
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    assert_eq!(told().await, None);

    // With the watch open, this would wait for ever.
    service.stop.send(()).expect("served");
    service.served.await.expect("no panic");
}

#[tokio::test]
async fn an_aged_connection_ends_and_every_call_that_reached_the_service_is_answered() {
    let limits = server::Limits { connection_age: Duration::from_millis(50), ..server::Limits::default() };
    let mut service = serve(limits).await;
    let mut client = ProducerServiceClient::new(connect(service.addr).await);
    let mut answered = 0;
    for call in 0..60 {
        match client.send(SendRequest::default()).await {
            Ok(_) => answered += 1,
            // It began on this side just when the connection ended, and was never sent: the count below would tell.
            Err(status) if matches!(status.code(), Code::Cancelled | Code::Unavailable) => {}
            Err(status) => panic!("call {call}: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut connections, mut reached) = (HashSet::new(), 0);
    while let Ok(peer) = service.peers.try_recv() {
        connections.insert(peer);
        reached += 1;
    }
    assert!(connections.len() > 1, "no connection was ended for its age");
    assert_eq!(reached, answered, "a call that reached the service was not answered");
    assert!(answered > 30, "most calls find a connection that lives");
}

#[tokio::test]
async fn reflection_lists_what_is_served_here_and_knows_the_imports() {
    let service = serve(server::Limits::default()).await;
    let mut client = ServerReflectionClient::new(connect(service.addr).await);
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(NAME.to_owned()),
        MessageRequest::FileByFilename("google/protobuf/timestamp.proto".to_owned()),
    ];
    let requests = questions.map(|q| ServerReflectionRequest { host: String::new(), message_request: Some(q) });
    let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.expect("served").into_inner();
    let answers: Vec<_> = answers.map(|a| a.expect("answered").message_response.expect("not empty")).collect().await;
    let [list, by_symbol, by_name] = answers.try_into().expect("three answers");
    let MessageResponse::ListServicesResponse(list) = list else { panic!("{list:?}") };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&NAME) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert!(!names.contains(&"oncelog.v1.BrokerService"), "{names:?}");
    for (answer, expected) in [(by_symbol, "oncelog/v1/producer.proto"), (by_name, "google/protobuf/timestamp.proto")] {
        let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
        let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).expect("a descriptor");
        assert_eq!(file.name(), expected);
    }
}

#[tokio::test]
async fn the_admin_port_tells_readiness_and_metrics() {
    let mut health = Health::new(&[NAME]).await;
    let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let addr = admin.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    let served = tokio::spawn(admin.serve(health.readiness(), || "a_metric 1\n".to_owned(), stopped));
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(addr).await.expect("the socket listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    let starting = get("/readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.ends_with("starting\n"), "{starting}");
    health.ready().await;
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    health.not_ready("the disk is full").await;
    assert!(get("/readyz").await.ends_with("the disk is full\n"));
    let metrics = get("/metrics").await;
    assert!(metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("a_metric 1\n"), "{metrics}");
    stop.send(()).expect("served");
    served.await.expect("no panic").expect("no error");
}
