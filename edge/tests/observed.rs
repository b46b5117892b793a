//! Calls that are answered are counted by what came of them, and recorded in the trace that they came in.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use oncelog_edge::{
    accept::{self, Incoming},
    metrics::{
        Metric, Registry, Unit,
        calls::{Calls, Side},
    },
    observe::ObserveLayer,
    server,
    trace::Tracer,
};
use oncelog_proto::{
    TraceContext,
    v1::{
        SendRequest, SendResponse, SendStreamRequest, SendStreamResponse,
        producer_service_client::ProducerServiceClient,
        producer_service_server::{ProducerService, ProducerServiceServer},
    },
};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData};
use prost::Message;
use tokio::{net::TcpStream, time::timeout};
use tokio_stream::StreamExt;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// Answers a Send by its topic: never, with the context that it has as an error's message, with a defect, or well. A stream ends
/// with a status.
struct Sends;

#[tonic::async_trait]
impl ProducerService for Sends {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let context = request.extensions().get::<TraceContext>().map(ToString::to_string);
        match request.get_ref().topic.as_str() {
            "never" => std::future::pending().await,
            "context" => Err(Status::not_found(context.unwrap_or_default())),
            "defect" => Err(Status::internal("a defect")),
            _ => Ok(Response::new(SendResponse::default())),
        }
    }

    type SendStreamStream = tokio_stream::Iter<std::vec::IntoIter<Result<SendStreamResponse, Status>>>;

    async fn send_stream(&self, _: Request<Streaming<SendStreamRequest>>) -> Result<Response<Self::SendStreamStream>, Status> {
        Ok(Response::new(tokio_stream::iter(vec![Ok(SendStreamResponse::default()), Err(Status::unavailable("ending"))])))
    }
}

struct Observed {
    addr: SocketAddr,
    client: ProducerServiceClient<Channel>,
    registry: Registry,
    exporter: InMemorySpanExporter,
}

/// A call that its caller says nothing of is in a trace if the `root` sampler takes it.
async fn serve(root: Sampler) -> Observed {
    let exporter = InMemorySpanExporter::default();
    let sampler = Sampler::ParentBased(Box::new(root));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_simple_exporter(exporter.clone()).build();
    let calls = Arc::new(Calls::of(&["oncelog.v1.ProducerService"]));
    let mut registry = Registry::default();
    calls.register(&mut registry, Side::Server, &ACTIVE);
    let layer = ObserveLayer::new(calls, Tracer::new(provider.tracer("test")));
    let incoming = Incoming::bind(([127, 0, 0, 1], 0).into(), accept::Limits::default()).await.expect("a free port");
    let addr = incoming.local_addr();
    let endpoint = Endpoint::new(format!("http://{addr}")).expect("a URL");
    let serve = server::observed(server::Limits::default(), layer)
        .add_service(ProducerServiceServer::new(Sends))
        .serve_with_incoming(incoming);
    tokio::spawn(async move { serve.await.expect("served") });
    let client = ProducerServiceClient::new(endpoint.connect().await.expect("it listens"));
    Observed { addr, client, registry, exporter }
}

impl Observed {
    async fn send(&mut self, topic: &str, traceparent: Option<&str>) -> Status {
        let mut request = Request::new(SendRequest { topic: topic.to_owned(), ..SendRequest::default() });
        if let Some(traceparent) = traceparent {
            request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
        }
        self.client.send(request).await.err().unwrap_or_else(|| Status::ok(""))
    }

    /// Waits for the answer that a call gets at its deadline. Not by tonic's client: that runs a timer of its own, and cancels
    /// the call if it is the first.
    async fn deadline_exceeded(&self) {
        let stream = TcpStream::connect(self.addr).await.expect("the server listens");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://{}/oncelog.v1.ProducerService/Send", self.addr))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "50m")
            .body(())
            .expect("a request");
        let (answer, mut body) = client.send_request(request, false).expect("open");
        let message = SendRequest { topic: "never".to_owned(), ..SendRequest::default() }.encode_to_vec();
        let mut frame = vec![0; 4];
        frame.push(u8::try_from(message.len()).expect("short"));
        frame.extend(message);
        body.send_data(frame.into(), true).expect("open");
        answer.await.expect("answered");
    }

    /// How many calls are open.
    fn active(&self) -> u64 {
        let text = self.registry.text();
        let line = text.lines().find_map(|line| line.strip_prefix("active ")).expect("always told");
        line.parse().expect("a number")
    }

    /// Waits: the client may see the end of a call before the server has let go of it.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(30), wait).await.expect(what);
    }

    /// How many calls of a method ended with a status.
    fn count(&self, method: &str, status: &str) -> u64 {
        let start = format!(
            "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",\
             rpc_method=\"oncelog.v1.ProducerService/{method}\",rpc_response_status_code=\"{status}\""
        );
        let text = self.registry.text();
        let line = text.lines().find(|line| line.starts_with(&start));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().expect("a number"))
    }

    /// The spans that have ended, once there are so many.
    async fn spans(&self, count: usize) -> Vec<SpanData> {
        loop {
            let spans = self.exporter.get_finished_spans().expect("whole");
            if spans.len() >= count {
                return spans;
            }
            tokio::task::yield_now().await;
        }
    }
}

static ACTIVE: Metric = Metric::new("active", Unit::Count("call"), "Open.");
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_call_is_counted_by_its_status_and_a_stream_by_the_one_that_it_ended_with() {
    let mut observed = serve(Sampler::AlwaysOff).await;
    assert_eq!(observed.send("fine", None).await.code(), Code::Ok);
    assert_eq!(observed.send("context", None).await.code(), Code::NotFound);
    observed.deadline_exceeded().await;
    let mut stream = observed.client.send_stream(tokio_stream::empty()).await.expect("a stream").into_inner();
    stream.next().await.expect("an answer").expect("answered");
    assert_eq!(stream.next().await.expect("an end").expect_err("an end").code(), Code::Unavailable);

    observed.until("the stream ends", |observed| observed.count("SendStream", "UNAVAILABLE") == 1).await;
    observed.until("every call ends", |observed| observed.active() == 0).await;
    let counted = ["OK", "NOT_FOUND", "DEADLINE_EXCEEDED", "CANCELLED"].map(|status| observed.count("Send", status));
    assert_eq!(counted, [1, 1, 1, 0]);
    assert_eq!(observed.count("SendStream", "OK"), 0);
    assert!(observed.exporter.get_finished_spans().expect("whole").is_empty(), "nobody sampled them");
}

#[tokio::test]
async fn a_call_whose_caller_goes_away_is_cancelled_and_no_longer_open() {
    let observed = serve(Sampler::AlwaysOff).await;
    let mut client = observed.client.clone();
    let call =
        tokio::spawn(async move { client.send(SendRequest { topic: "never".to_owned(), ..SendRequest::default() }).await });
    observed.until("the call begins", |observed| observed.active() == 1).await;
    call.abort();
    observed.until("the call ends", |observed| observed.active() == 0).await;
    assert_eq!(observed.count("Send", "CANCELLED"), 1);
}

#[tokio::test]
async fn nonsense_for_a_context_is_none_so_the_sampler_decides_and_an_unsampled_caller_has_decided() {
    let mut observed = serve(Sampler::AlwaysOn).await;
    assert_eq!(observed.send("context", Some(&SAMPLED.replace("-01", "-00"))).await.message(), "");
    for traceparent in [Some("nonsense"), None] {
        let status = observed.send("context", traceparent).await;
        assert!(TraceContext::sampled(status.message()).is_some(), "{traceparent:?}");
    }
    let spans = observed.spans(2).await;
    assert_eq!(spans.len(), 2, "none for the unsampled one");
    assert!(spans.iter().all(|span| span.parent_span_id.to_string() == "0".repeat(16)), "roots");
}

#[tokio::test]
async fn a_call_in_a_trace_is_recorded_and_its_handler_finds_the_context() {
    let mut observed = serve(Sampler::AlwaysOff).await;
    let status = observed.send("context", Some(SAMPLED)).await;
    let [span] = &observed.spans(1).await[..] else { panic!("one span") };
    let context = TraceContext::sampled(status.message()).expect("the handler found it");
    assert_eq!(
        (context.trace(), context.span()),
        (span.span_context.trace_id().to_bytes(), span.span_context.span_id().to_bytes())
    );
    assert_eq!(span.name, "oncelog.v1.ProducerService/Send");
    assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(span.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    // What the caller did wrong is no failure of the service.
    assert_eq!(span.status, opentelemetry::trace::Status::Unset);
    observed.send("defect", Some(SAMPLED)).await;
    let spans = observed.spans(2).await;
    assert_eq!(spans[1].status, opentelemetry::trace::Status::error("INTERNAL"));
    for traceparent in [&SAMPLED.replace("-01", "-00"), "nonsense"] {
        assert_eq!(observed.send("context", Some(traceparent)).await.message(), "", "{traceparent}");
    }
    assert_eq!(observed.spans(2).await.len(), 2);
}
