//! A broker for tests: a real gRPC server that keeps what it is sent, recognises what arrives again, and misbehaves on demand.
//!
//! Its rules are those of the contract and nothing of the producer's code is used for them.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use oncelog_edge::{in_order::InOrder, telemetry::Telemetry};
use oncelog_proto::{
    ErrorCode, Fault, PackedBatch,
    v1::{
        Acks, Batch, BatchAck, BatchError, BatchResult, CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest,
        DeleteTopicResponse, DescribeProducersRequest, DescribeProducersResponse, DescribeTopicsRequest, DescribeTopicsResponse,
        FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ProduceFailure, ProduceRequest,
        ProduceResponse, ProduceStreamRequest, ProduceStreamResponse, Record, SendRequest, WindowEntry, batch_result,
        broker_service_server::{BrokerService, BrokerServiceServer},
        describe_topics_response, init_producer_id_response, produce_stream_response,
        producer_service_client::ProducerServiceClient,
    },
};
use producer_svc::{Config, Producer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::{Empty, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

/// What the broker does with a `Produce` call.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Nothing is done before this is true.
    pub(crate) gate: Option<watch::Receiver<bool>>,
    /// Pause before anything is done.
    pub(crate) before: Duration,
    /// Are the batches judged and appended?
    pub(crate) carry_out: bool,
    /// What is answered in the end.
    pub(crate) answer: Answer,
}

/// What is answered to a `Produce` call.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// What came of it.
    Honest,
    /// This status.
    Status(tonic::Code),
    /// This error, for every batch, whatever came of it.
    Refuse(ErrorCode),
    /// What came of it, but for this partition this error, known to anybody or not.
    RefuseIn(i32, i32),
    /// No result at all.
    Nonsense,
    /// More than the producer takes.
    TooLarge,
    /// Nothing, ever.
    Never,
}

impl Default for Plan {
    fn default() -> Self {
        Self { gate: None, before: Duration::ZERO, carry_out: true, answer: Answer::Honest }
    }
}

impl Plan {
    /// Nothing is carried out.
    pub(crate) fn not_carried_out(answer: Answer) -> Self {
        Self { carry_out: false, answer, ..Self::default() }
    }

    /// Everything is carried out once `gate` is true.
    pub(crate) fn gated(gate: &watch::Receiver<bool>) -> Self {
        Self { gate: Some(gate.clone()), ..Self::default() }
    }

    /// Everything is carried out, but the answer is another.
    pub(crate) fn carried_out(answer: Answer) -> Self {
        Self { answer, ..Self::default() }
    }
}

/// Decides on each call; the number counts calls from 0.
pub(crate) type Planner = dyn Fn(usize, &ProduceRequest) -> Plan + Send + Sync;

/// One batch of a `Produce` call, as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) call: usize,
    pub(crate) producer: Option<i64>,
    pub(crate) epoch: i32,
    pub(crate) acks: Acks,
    pub(crate) partition: (String, i32),
    pub(crate) base: i64,
    pub(crate) count: i32,
    pub(crate) data: Bytes,
}

/// Producer, epoch, and the partition.
type WriterOfPartition = (i64, i32, (String, i32));

#[derive(Default)]
struct State {
    calls: usize,
    /// Streams that were opened.
    streams: usize,
    outstanding: usize,
    most_outstanding: usize,
    seen: Vec<Seen>,
    inits: Vec<InitProducerIdRequest>,
    epochs: Vec<i32>,
    /// Next sequence and all batches.
    windows: HashMap<WriterOfPartition, (i64, Vec<WindowEntry>)>,
    log: BTreeMap<(String, i32), Vec<Record>>,
}

/// A running broker.
pub(crate) struct FakeBroker {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    planner: Arc<Planner>,
    partitions: usize,
    offers_streams: bool,
}

impl FakeBroker {
    /// Every topic has `partitions` partitions, but `missing`, which does not exist.
    pub(crate) async fn start(
        partitions: usize,
        planner: impl Fn(usize, &ProduceRequest) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve(listener, partitions, planner)
    }

    /// One that behaves.
    pub(crate) async fn honest(partitions: usize) -> Self {
        Self::start(partitions, |_, _| Plan::default()).await
    }

    /// One of an older version: it offers no `ProduceStream`.
    pub(crate) async fn without_streams(
        partitions: usize,
        planner: impl Fn(usize, &ProduceRequest) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve_with(listener, 64 << 20, partitions, planner, false)
    }

    /// One that takes messages up to so many bytes.
    pub(crate) async fn taking(
        max_message_bytes: usize,
        partitions: usize,
        planner: impl Fn(usize, &ProduceRequest) -> Plan + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::serve_with(listener, max_message_bytes, partitions, planner, true)
    }

    /// On a socket that listens already.
    pub(crate) fn serve(
        listener: TcpListener,
        partitions: usize,
        planner: impl Fn(usize, &ProduceRequest) -> Plan + Send + Sync + 'static,
    ) -> Self {
        Self::serve_with(listener, 64 << 20, partitions, planner, true)
    }

    fn serve_with(
        listener: TcpListener,
        max_message_bytes: usize,
        partitions: usize,
        planner: impl Fn(usize, &ProduceRequest) -> Plan + Send + Sync + 'static,
        offers_streams: bool,
    ) -> Self {
        let addr = listener.local_addr().expect("bound");
        let state = Arc::<Mutex<State>>::default();
        let service = Service { state: Arc::clone(&state), planner: Arc::new(planner), partitions, offers_streams };
        let server = BrokerServiceServer::new(service).max_decoding_message_size(max_message_bytes);
        let serve = Server::builder().add_service(server).serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serve.await.expect("serves") });
        Self { addr, state, server }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A producer in front of it, on a free port, with `settings` in Kafka's names.
    pub(crate) async fn producer(&self, settings: &[(&str, &str)]) -> (Producer, ProducerServiceClient<Channel>) {
        producer(self.addr, settings).await
    }

    /// All batches of all calls, in order of arrival.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().expect("whole").seen.clone()
    }

    /// Calls of `Produce`, on a stream or not.
    pub(crate) fn calls(&self) -> usize {
        self.state.lock().expect("whole").calls
    }

    /// Streams that were opened.
    pub(crate) fn streams(&self) -> usize {
        self.state.lock().expect("whole").streams
    }

    pub(crate) fn most_outstanding(&self) -> usize {
        self.state.lock().expect("whole").most_outstanding
    }

    pub(crate) fn inits(&self) -> Vec<InitProducerIdRequest> {
        self.state.lock().expect("whole").inits.clone()
    }

    /// The values in a partition.
    pub(crate) fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        let state = self.state.lock().expect("whole");
        let records = state.log.get(&(topic.to_owned(), partition));
        records.into_iter().flatten().map(text).collect()
    }

    /// The values in all partitions of a topic, sorted.
    pub(crate) fn all_values(&self, topic: &str) -> Vec<String> {
        let state = self.state.lock().expect("whole");
        let of_topic = state.log.iter().filter(|((name, _), _)| name == topic);
        let mut values: Vec<_> = of_topic.flat_map(|(_, records)| records).map(text).collect();
        values.sort();
        values
    }

    /// Waits until `done` holds, however long that takes: a test that hangs has failed.
    pub(crate) async fn until(&self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A producer before whatever is at `broker`.
pub(crate) async fn producer(broker: SocketAddr, settings: &[(&str, &str)]) -> (Producer, ProducerServiceClient<Channel>) {
    let config =
        Config::default().listen(([127, 0, 0, 1], 0).into()).broker(broker).admin_listen(Some(([127, 0, 0, 1], 0).into()));
    let config = settings.iter().fold(config, |config, (name, value)| config.with(name, value));
    let producer = Producer::start(config, Telemetry::off()).await.expect("starts");
    let client = client(&producer).await;
    (producer, client)
}

/// A caller with a connection of its own.
pub(crate) async fn client(producer: &Producer) -> ProducerServiceClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", producer.local_addr())).expect("an address");
    ProducerServiceClient::new(endpoint.connect().await.expect("listens"))
}

/// What the producer's admin port answers.
pub(crate) async fn admin(producer: &Producer, path: &str) -> String {
    let mut stream = TcpStream::connect(producer.admin_addr().expect("it is on")).await.expect("listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

/// Waits until this many bytes of buffer.memory are free.
pub(crate) async fn until_available(producer: &Producer, bytes: usize) {
    let line = format!("oncelog_producer_buffer_available_bytes {bytes}");
    while !admin(producer, "/metrics").await.lines().any(|found| found == line) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// A request with one record, without a key.
pub(crate) fn request(topic: &str, partition: Option<i32>, value: &str) -> SendRequest {
    let record = Record { value: Some(value.to_owned().into()), ..Record::default() };
    SendRequest { topic: topic.to_owned(), partition, records: vec![record] }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).expect("tests send text")
}

impl Service {
    fn judge(&self, request: &ProduceRequest, batch: &Batch) -> BatchResult {
        let mut state = self.state.lock().expect("whole");
        let outcome = match state.judge(request, batch) {
            Ok(ack) => batch_result::Outcome::Ack(ack),
            Err(error) => batch_result::Outcome::Error(error),
        };
        BatchResult { outcome: Some(outcome) }
    }

    /// Notes a call, in the order in which it is read.
    fn arrive(&self, request: ProduceRequest) -> Arrived {
        let mut state = self.state.lock().expect("whole");
        let call = state.calls;
        let plan = (self.planner)(call, &request);
        state.calls += 1;
        state.outstanding += 1;
        state.most_outstanding = state.most_outstanding.max(state.outstanding);
        for batch in &request.batches {
            let packed = batch.packed.as_ref().expect("the producer packs");
            state.seen.push(Seen {
                call,
                producer: request.producer_id,
                epoch: request.producer_epoch,
                acks: request.acks(),
                partition: (batch.topic.clone(), batch.partition),
                base: batch.base_sequence,
                count: packed.record_count,
                data: packed.data.clone(),
            });
        }
        Arrived { request, plan, _outstanding: Outstanding(Arc::clone(&self.state)) }
    }

    async fn carry_out(&self, arrived: Arrived) -> Result<Response<ProduceResponse>, Status> {
        let Arrived { request, plan, _outstanding } = arrived;
        if let Some(mut gate) = plan.gate {
            gate.wait_for(|open| *open).await.expect("the test is still there");
        }
        sleep(plan.before).await;
        let refuse = |code| Some(batch_result::Outcome::Error(BatchError { code, ..BatchError::default() }));
        let mut results = Vec::new();
        for batch in &request.batches {
            let judged = if plan.carry_out { self.judge(&request, batch) } else { BatchResult::default() };
            results.push(match plan.answer {
                Answer::Refuse(code) => BatchResult { outcome: refuse(code.into()) },
                Answer::RefuseIn(partition, code) if partition == batch.partition => BatchResult { outcome: refuse(code) },
                _ => judged,
            });
        }
        match plan.answer {
            Answer::Honest | Answer::Refuse(_) | Answer::RefuseIn(..) => Ok(Response::new(ProduceResponse { results })),
            Answer::Status(code) => Err(Status::new(code, "as planned")),
            Answer::Nonsense => Ok(Response::new(ProduceResponse::default())),
            Answer::TooLarge => {
                let message = "x".repeat(17 << 20);
                let outcome = batch_result::Outcome::Error(BatchError { message, ..BatchError::default() });
                Ok(Response::new(ProduceResponse { results: vec![BatchResult { outcome: Some(outcome) }] }))
            }
            Answer::Never => std::future::pending().await,
        }
    }
}

impl State {
    fn judge(&mut self, request: &ProduceRequest, batch: &Batch) -> Result<BatchAck, BatchError> {
        let fault = |code, message: &str| Fault::new(code, message.to_owned()).to_batch_error();
        let partition = (batch.topic.clone(), batch.partition);
        let packed = PackedBatch::from_proto(batch.packed.clone().expect("the producer packs")).expect("valid");
        let records = packed.records().expect("valid");
        let count = i64::from(packed.count().get());
        let end = self.log.get(&partition).map_or(0, Vec::len) as i64;
        let append_time = Some(prost_types::Timestamp { seconds: 1_000 + end, nanos: 0 });
        let Some(producer) = request.producer_id else {
            self.log.entry(partition).or_default().extend(records);
            return Ok(BatchAck { base_offset: end, append_time, duplicate: false });
        };
        match self.epochs.get(producer as usize) {
            None => return Err(fault(ErrorCode::UnknownProducerId, "unknown")),
            Some(&epoch) if epoch != request.producer_epoch => return Err(fault(ErrorCode::InvalidProducerEpoch, "fenced")),
            Some(_) => {}
        }
        let (next, window) = self.windows.entry((producer, request.producer_epoch, partition.clone())).or_default();
        let again = window.iter().find(|entry| entry.base_sequence == batch.base_sequence);
        if let Some(entry) = again {
            if i64::from(entry.record_count) != count || entry.checksum != packed.checksum() {
                return Err(fault(ErrorCode::SequenceConflict, "conflict"));
            }
            return Ok(BatchAck { base_offset: entry.base_offset, append_time: entry.append_time, duplicate: true });
        }
        if batch.base_sequence != *next {
            let mut error = fault(ErrorCode::OutOfOrderSequenceNumber, "gap");
            error.expected_sequence = Some(*next);
            return Err(error);
        }
        *next += count;
        window.push(WindowEntry {
            base_sequence: batch.base_sequence,
            record_count: count as i32,
            base_offset: end,
            append_time,
            checksum: packed.checksum(),
        });
        self.log.entry(partition).or_default().extend(records);
        Ok(BatchAck { base_offset: end, append_time, duplicate: false })
    }
}

/// A call that was read and not yet carried out.
struct Arrived {
    request: ProduceRequest,
    plan: Plan,
    _outstanding: Outstanding,
}

/// Counts a call as outstanding until it is dropped, answered or not.
struct Outstanding(Arc<Mutex<State>>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.lock().expect("whole").outstanding -= 1;
    }
}

/// A call on a stream; given up with its stream.
pub(crate) struct Carried(JoinHandle<Result<Response<ProduceResponse>, Status>>);

impl Future for Carried {
    type Output = ProduceStreamResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|carried| {
            let outcome = match carried.expect("it does not panic") {
                Ok(response) => produce_stream_response::Outcome::Produced(response.into_inner()),
                Err(status) => produce_stream_response::Outcome::Failed(ProduceFailure {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    ..ProduceFailure::default()
                }),
            };
            ProduceStreamResponse { outcome: Some(outcome) }
        })
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tonic::async_trait]
impl BrokerService for Service {
    async fn init_producer_id(
        &self,
        request: Request<InitProducerIdRequest>,
    ) -> Result<Response<InitProducerIdResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().expect("whole");
        state.inits.push(request.clone());
        let answer = |producer_id, producer_epoch| InitProducerIdResponse {
            producer_id,
            producer_epoch,
            max_batch_bytes: 1 << 20,
            ..InitProducerIdResponse::default()
        };
        let Some(producer) = request.producer_id else {
            state.epochs.push(0);
            return Ok(Response::new(answer(state.epochs.len() as i64 - 1, 0)));
        };
        let asked = request.producer_epoch.ok_or_else(|| Status::invalid_argument("no epoch"))?;
        let Some(epoch) = state.epochs.get_mut(producer as usize) else { return Err(Status::not_found("unknown")) };
        if request.page_token.is_empty() && *epoch == asked {
            *epoch += 1;
        } else if *epoch != asked + 1 || request.recovery_token.is_empty() {
            return Err(Status::failed_precondition("another epoch"));
        }
        let mut answer = answer(producer, *epoch);
        let fenced = state.windows.iter().filter(|((id, epoch, _), _)| (*id, *epoch) == (producer, asked));
        let mut partitions: Vec<_> = fenced
            .map(|((_, _, (topic, partition)), (next, window))| init_producer_id_response::Partition {
                topic: topic.clone(),
                partition: *partition,
                next_sequence: *next,
                window: window[window.len().saturating_sub(5)..].to_vec(),
            })
            .collect();
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        // One partition a page.
        let page: usize = request.page_token.parse().unwrap_or(0);
        answer.partitions = partitions.iter().skip(page).take(1).cloned().collect();
        if page + 1 < partitions.len() {
            answer.next_page_token = (page + 1).to_string();
        }
        Ok(Response::new(answer))
    }

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        self.carry_out(self.arrive(request.into_inner())).await
    }

    type ProduceStreamStream = InOrder<Carried>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        if !self.offers_streams {
            return Err(Status::unimplemented("no such method"));
        }
        self.state.lock().expect("whole").streams += 1;
        let (service, mut requests) = (self.clone(), request.into_inner());
        let (pending, queue) = mpsc::channel(5);
        tokio::spawn(async move {
            while let Some(request) = requests.message().await.transpose() {
                let service = service.clone();
                let carried = |request: ProduceStreamRequest| {
                    let arrived = service.arrive(request.produce.expect("given"));
                    Carried(tokio::spawn(async move { service.carry_out(arrived).await }))
                };
                let carried = request.map(carried);
                let is_last = carried.is_err();
                if pending.send(carried).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(InOrder::new(queue)))
    }

    async fn describe_topics(&self, request: Request<DescribeTopicsRequest>) -> Result<Response<DescribeTopicsResponse>, Status> {
        let mut topics = Vec::new();
        for topic in request.into_inner().topics {
            if topic == "missing" {
                return Err(Fault::new(ErrorCode::UnknownTopicOrPartition, "there is no topic missing").to_status());
            }
            let partitions = vec![describe_topics_response::Partition::default(); self.partitions];
            topics.push(describe_topics_response::Topic { topic, partitions });
        }
        Ok(Response::new(DescribeTopicsResponse { topics, ..Default::default() }))
    }

    type FetchStream = Empty<Result<FetchResponse, Status>>;

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn create_topic(&self, _: Request<CreateTopicRequest>) -> Result<Response<CreateTopicResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn delete_topic(&self, _: Request<DeleteTopicRequest>) -> Result<Response<DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn describe_producers(
        &self,
        _: Request<DescribeProducersRequest>,
    ) -> Result<Response<DescribeProducersResponse>, Status> {
        Err(Status::unimplemented("not needed"))
    }
}
