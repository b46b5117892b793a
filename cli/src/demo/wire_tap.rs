//! Somebody in the middle: a broker to producer-svc, a caller to broker-svc. It hands on what it hears, unchanged, and notes it.
//! What breaks, breaks behind it: it sees what producer-svc sees, and loses an answer whenever producer-svc does.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use oncelog_chaos::stage::channel;
use oncelog_edge::{
    accept::{Incoming, Limits},
    server,
};
use oncelog_proto::{
    ErrorCode,
    v1::{
        broker_service_client::BrokerServiceClient,
        broker_service_server::{BrokerService, BrokerServiceServer},
        produce_stream_response::Outcome,
        *,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::traffic::{Pending, Traffic, WINDOW};

/// The tap, listening.
#[derive(Debug)]
pub(super) struct WireTap {
    addr: SocketAddr,
    heard: Heard,
    serving: JoinHandle<()>,
}

/// What it has heard. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Heard(Arc<Mutex<Traffic>>);

impl WireTap {
    /// Hands on to the broker at `upstream`.
    ///
    /// # Errors
    /// No port can be bound.
    pub(super) async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let incoming = Incoming::bind(oncelog_chaos::port::free(), Limits::default()).await?;
        let addr = incoming.local_addr();
        let heard = Heard(Arc::new(Mutex::new(Traffic::new())));
        let upstream = BrokerServiceClient::new(channel(upstream)).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let middle = Middle { upstream, heard: heard.clone() };
        let service = BrokerServiceServer::new(middle).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let serving = tokio::spawn(async move {
            // It ends with the demo; that nobody is served any more is seen by everybody.
            let _ = server::builder(server::Limits::default()).add_service(service).serve_with_incoming(incoming).await;
        });
        Ok(Self { addr, heard, serving })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

impl Drop for WireTap {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Heard {
    /// As it is now.
    pub(super) fn traffic(&self) -> Traffic {
        self.lock().clone()
    }

    fn sent(&self, request: &ProduceRequest) -> Pending {
        self.lock().sent(request, now())
    }

    fn answered(&self, pending: &Pending, response: &ProduceResponse) {
        self.lock().answered(pending, response, now());
    }

    fn refused(&self, pending: &Pending, reason: ErrorCode) {
        self.lock().refused(pending, reason);
    }

    fn lost(&self, pending: &Pending) {
        self.lock().lost(pending);
    }

    fn lock(&self) -> MutexGuard<'_, Traffic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug)]
struct Middle {
    upstream: BrokerServiceClient<Channel>,
    heard: Heard,
}

#[tonic::async_trait]
impl BrokerService for Middle {
    type ProduceStreamStream = ReceiverStream<Result<ProduceStreamResponse, Status>>;
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn init_producer_id(
        &self,
        request: Request<InitProducerIdRequest>,
    ) -> Result<Response<InitProducerIdResponse>, Status> {
        self.upstream.clone().init_producer_id(request.into_inner()).await
    }

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        let request = request.into_inner();
        let pending = self.heard.sent(&request);
        let answered = self.upstream.clone().produce(request).await;
        match &answered {
            Ok(response) => self.heard.answered(&pending, response.get_ref()),
            Err(_) => self.heard.lost(&pending),
        }
        answered
    }

    async fn produce_stream(
        &self,
        requests: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let (to_broker, outgoing) = mpsc::channel(WINDOW);
        let answers = self.upstream.clone().produce_stream(ReceiverStream::new(outgoing)).await?.into_inner();
        let (to_producer, answered) = mpsc::channel(WINDOW);
        tokio::spawn(hand_on(self.heard.clone(), requests.into_inner(), to_broker, answers, to_producer));
        Ok(Response::new(ReceiverStream::new(answered)))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("readers of the demo ask the broker itself"))
    }

    async fn create_topic(&self, request: Request<CreateTopicRequest>) -> Result<Response<CreateTopicResponse>, Status> {
        self.upstream.clone().create_topic(request.into_inner()).await
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Result<Response<DeleteTopicResponse>, Status> {
        self.upstream.clone().delete_topic(request.into_inner()).await
    }

    async fn describe_topics(&self, request: Request<DescribeTopicsRequest>) -> Result<Response<DescribeTopicsResponse>, Status> {
        self.upstream.clone().describe_topics(request.into_inner()).await
    }

    async fn describe_producers(
        &self,
        request: Request<DescribeProducersRequest>,
    ) -> Result<Response<DescribeProducersResponse>, Status> {
        self.upstream.clone().describe_producers(request.into_inner()).await
    }
}

/// Hands on one stream, both ways, until either side ends it.
async fn hand_on(
    heard: Heard,
    mut requests: Streaming<ProduceStreamRequest>,
    to_broker: mpsc::Sender<ProduceStreamRequest>,
    mut answers: Streaming<ProduceStreamResponse>,
    to_producer: mpsc::Sender<Result<ProduceStreamResponse, Status>>,
) {
    let mut open: VecDeque<Pending> = VecDeque::new();
    let mut to_broker = Some(to_broker);
    let last = loop {
        tokio::select! {
            biased;
            () = to_producer.closed() => break None,
            answer = answers.message() => match answer {
                Ok(Some(answer)) => {
                    if let Some(pending) = open.pop_front() {
                        match &answer.outcome {
                            Some(Outcome::Produced(response)) => heard.answered(&pending, response),
                            Some(Outcome::Failed(failure)) => heard.refused(&pending, failure.reason()),
                            None => heard.lost(&pending),
                        }
                    }
                    if to_producer.send(Ok(answer)).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(status) => break Some(status),
            },
            request = requests.message(), if to_broker.is_some() => match request {
                Ok(Some(request)) => {
                    let nothing = ProduceRequest::default();
                    open.push_back(heard.sent(request.produce.as_ref().unwrap_or(&nothing)));
                    let sender = to_broker.as_ref().expect("this arm is open");
                    // A stream that has ended says so by its answers.
                    let _ = sender.send(request).await;
                }
                Ok(None) | Err(_) => to_broker = None,
            },
        }
    };
    open.iter().for_each(|pending| heard.lost(pending));
    if let Some(status) = last {
        let _ = to_producer.send(Err(status)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "what is shown to a person is shown by a real clock")]
fn now() -> Instant {
    Instant::now()
}

const MAX_MESSAGE_BYTES: usize = 128 << 20;
