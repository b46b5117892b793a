//! The broker's calls: parse, ask the owner, tell.

mod fetch;
mod produce_stream;

use std::sync::{Arc, OnceLock};

use oncelog_proto::{
    ErrorCode, Fault,
    v1::{self, broker_service_server::BrokerService},
};
use prost::Message;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    journal::Reader,
    owner::{Awaited, Handle, Told},
    pipeline::{Answer, Request as Ask},
    state::PartitionDescription,
    wire::{parse, reply},
    workers::Workers,
};

/// What calls need once the journal is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) owner: Handle,
    pub(crate) reader: Reader,
}

/// The service. Until the journal is open every call is refused with `UNAVAILABLE`.
#[derive(Clone, Debug)]
pub(crate) struct BrokerRpc {
    open: Arc<OnceLock<Open>>,
    workers: Workers,
    max_message_bytes: usize,
    fetches: Arc<Semaphore>,
    max_fetches: usize,
    /// Calls that are large when unpacked take turns.
    large_calls: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
}

impl BrokerRpc {
    pub(crate) fn new(
        open: Arc<OnceLock<Open>>,
        workers: Workers,
        max_message_bytes: usize,
        max_fetches: usize,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let (fetches, large_calls) = (Arc::new(Semaphore::new(max_fetches)), Arc::new(Semaphore::new(LARGE_CALLS)));
        Self { open, workers, max_message_bytes, fetches, max_fetches, large_calls, draining }
    }

    fn open(&self) -> Result<&Open, Fault> {
        self.open.get().ok_or_else(|| {
            Fault::new(
                ErrorCode::BrokerNotAvailable,
                "the broker is reading its journal and takes no calls yet; nothing was done",
            )
        })
    }

    async fn parse(&self, request: v1::ProduceRequest) -> Result<Ask, Fault> {
        let max_message_bytes = self.max_message_bytes;
        let bytes = parse::unpacked_bytes(&request, max_message_bytes);
        let _turn = match bytes {
            0..=UNPACKED_AT_ONCE => None,
            _ => Some(self.large_calls.acquire().await.map_err(|_| mismatch())?),
        };
        unpacking(&self.workers, bytes, move || parse::produce(request, max_message_bytes)).await?
    }

    /// Hands a call of `Produce` over to the owner.
    async fn hand_over(&self, request: v1::ProduceRequest) -> Result<Awaited, Fault> {
        let owner = &self.open()?.owner;
        // Before the work of parsing: what is refused for want of memory should cost little.
        let memory = owner.reserve(request.encoded_len())?;
        let ask = self.parse(request).await?;
        owner.hand_over(ask, memory).await
    }

    async fn ask(&self, ask: Ask, bytes: usize) -> Result<Answer, Fault> {
        let owner = &self.open()?.owner;
        match owner.ask(ask, owner.reserve(bytes)?).await? {
            Told::Answer(Answer::Refused(fault)) => Err(fault),
            Told::Answer(answer) => Ok(answer),
            Told::Tail(..) => Err(mismatch()),
        }
    }
}

#[tonic::async_trait]
impl BrokerService for BrokerRpc {
    type FetchStream = fetch::FetchStream;

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let (ask, last) = parse::init_producer(request.get_ref())?;
        match self.ask(Ask::InitProducer(ask), SMALL_REQUEST_BYTES).await? {
            Answer::Granted(granted) => Ok(Response::new(reply::granted(granted, last.as_ref(), self.max_message_bytes))),
            _ => Err(mismatch().into()),
        }
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let (_, arrived, request) = request.into_parts();
        let handed_over = self.hand_over(request).await?;
        // The memory of what was decoded was paid for on its way in; the owner has its own account.
        drop(arrived);
        let told = handed_over.await?;
        Ok(Response::new(produced(told)?))
    }

    type ProduceStreamStream = produce_stream::Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Ok(Response::new(produce_stream::serve(self.clone(), request.into_inner())))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let Open { owner, reader } = self.open()?;
        let place = Arc::clone(&self.fetches).try_acquire_owned().map_err(|_| {
            let most = self.max_fetches;
            let message = format!("{most} Fetch streams are open; --max-fetches is {most}: end one, or raise it");
            Fault::new(ErrorCode::ResourceExhausted, message).with("max_fetches", most)
        })?;
        let (reader, workers) = (reader.clone(), self.workers.clone());
        Ok(Response::new(fetch::open(request.into_inner(), owner, reader, workers, place, self.draining.clone()).await?))
    }

    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::CreateTopicResponse>, Status> {
        match self.ask(parse::create_topic(request.get_ref())?, SMALL_REQUEST_BYTES).await? {
            Answer::Created(partitions) => Ok(Response::new(v1::CreateTopicResponse { partitions: partitions.get() })),
            _ => Err(mismatch().into()),
        }
    }

    async fn delete_topic(&self, request: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let topic = oncelog_proto::TopicName::parse(&request.get_ref().topic)?;
        match self.ask(Ask::DeleteTopic(topic), SMALL_REQUEST_BYTES).await? {
            Answer::Deleted => Ok(Response::new(v1::DeleteTopicResponse {})),
            _ => Err(mismatch().into()),
        }
    }

    async fn describe_topics(
        &self,
        request: Request<v1::DescribeTopicsRequest>,
    ) -> Result<Response<v1::DescribeTopicsResponse>, Status> {
        let ask = parse::describe_topics(request.get_ref())?;
        let bytes = request.get_ref().encoded_len().max(SMALL_REQUEST_BYTES);
        let Answer::Topics(page) = self.ask(ask, bytes).await? else { return Err(mismatch().into()) };
        let reader = self.open()?.reader.clone();
        let oldest = move |partition: &PartitionDescription| reader.oldest_append_time(partition.id, partition.ends.start);
        let told = self.workers.call(move || reply::topics(&page, &oldest)).await;
        Ok(Response::new(told.map_err(|_| mismatch())?))
    }

    async fn describe_producers(
        &self,
        request: Request<v1::DescribeProducersRequest>,
    ) -> Result<Response<v1::DescribeProducersResponse>, Status> {
        match self.ask(parse::describe_producers(request.get_ref())?, SMALL_REQUEST_BYTES).await? {
            Answer::Producers(page) => Ok(Response::new(reply::producers(page))),
            _ => Err(mismatch().into()),
        }
    }
}

/// What the owner answered to a call of `Produce`.
fn produced(told: Told) -> Result<v1::ProduceResponse, Fault> {
    match told {
        Told::Answer(Answer::Produced(outcomes)) => Ok(reply::produced(outcomes)),
        Told::Answer(Answer::Refused(fault)) => Err(fault),
        Told::Answer(_) | Told::Tail(..) => Err(mismatch()),
    }
}

/// The owner answers each request in kind; this is said instead of a panic, should it ever not.
fn mismatch() -> Fault {
    Fault::new(ErrorCode::Unspecified, "the answer is not of the kind that was asked for; this is a defect of the broker")
}

/// Does work that unpacks so many bytes: little of it here and now, much of it where it keeps nobody else waiting.
async fn unpacking<T: Send + 'static>(
    workers: &Workers,
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    if bytes <= UNPACKED_AT_ONCE {
        return Ok(work());
    }
    workers.call(work).await.map_err(|_| mismatch())
}

/// About a millisecond's worth.
const UNPACKED_AT_ONCE: u64 = 2 << 20;
/// Large calls that are unpacked at a time: each takes as much memory as its largest batch, up to 64 MiB.
const LARGE_CALLS: usize = 4;
/// What a request of a few names is accounted with.
const SMALL_REQUEST_BYTES: usize = 1 << 10;
