//! The broker's calls: parse, ask the owner, tell.

mod fetch;

use std::sync::{Arc, OnceLock};

use oncelog_proto::{
    ErrorCode, Fault,
    v1::{self, broker_service_server::BrokerService},
};
use prost::Message;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status};

use crate::{
    journal::Reader,
    owner::{Handle, Told},
    pipeline::{Answer, Request as Ask},
    state::PartitionDescription,
    wire::{parse, reply},
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
    max_message_bytes: usize,
    fetches: Arc<Semaphore>,
    max_fetches: usize,
    draining: watch::Receiver<bool>,
}

impl BrokerRpc {
    pub(crate) fn new(
        open: Arc<OnceLock<Open>>,
        max_message_bytes: usize,
        max_fetches: usize,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { open, max_message_bytes, fetches: Arc::new(Semaphore::new(max_fetches)), max_fetches, draining }
    }

    fn open(&self) -> Result<&Open, Fault> {
        self.open.get().ok_or_else(|| {
            Fault::new(
                ErrorCode::BrokerNotAvailable,
                "the broker is reading its journal and takes no calls yet; nothing was done",
            )
        })
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
        let request = request.into_inner();
        let owner = &self.open()?.owner;
        // Before the work of parsing: what is refused for want of memory should cost little.
        let memory = owner.reserve(request.encoded_len())?;
        let packed = request.batches.iter().filter_map(|batch| batch.packed.as_ref());
        let claimed: u64 = packed.map(|packed| u64::try_from(packed.uncompressed_bytes).unwrap_or(0)).sum();
        let parse = || parse::produce(request, self.max_message_bytes);
        // A few kilobytes can claim gigabytes, batch after batch. They are uncompressed one at a time to be verified; meanwhile the
        // other tasks of this thread go on elsewhere.
        let ask = if claimed > VERIFIED_IN_PLACE_BYTES { tokio::task::block_in_place(parse)? } else { parse()? };
        match owner.ask(ask, memory).await? {
            Told::Answer(Answer::Produced(outcomes)) => Ok(Response::new(reply::produced(outcomes))),
            Told::Answer(Answer::Refused(fault)) => Err(fault.into()),
            _ => Err(mismatch().into()),
        }
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let Open { owner, reader } = self.open()?;
        let place = Arc::clone(&self.fetches).try_acquire_owned().map_err(|_| {
            let most = self.max_fetches;
            let message = format!("{most} Fetch streams are open; --max-fetches is {most}: end one, or raise it");
            Fault::new(ErrorCode::ResourceExhausted, message).with("max_fetches", most)
        })?;
        Ok(Response::new(fetch::open(request.into_inner(), owner, reader.clone(), place, self.draining.clone()).await?))
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
        let bytes = request.get_ref().encoded_len();
        let Answer::Topics(topics) = self.ask(ask, bytes).await? else { return Err(mismatch().into()) };
        let reader = self.open()?.reader.clone();
        let oldest = move |partition: &PartitionDescription| reader.oldest_append_time(partition.id, partition.ends.start);
        let described = tokio::task::spawn_blocking(move || topics.iter().map(|topic| reply::topic(topic, &oldest)).collect());
        let topics = described.await.map_err(|_| mismatch())?;
        Ok(Response::new(v1::DescribeTopicsResponse { topics }))
    }

    async fn describe_producers(
        &self,
        request: Request<v1::DescribeProducersRequest>,
    ) -> Result<Response<v1::DescribeProducersResponse>, Status> {
        let (ask, page_size) = parse::describe_producers(request.get_ref())?;
        match self.ask(ask, SMALL_REQUEST_BYTES).await? {
            Answer::Producers(producers) => Ok(Response::new(reply::producers(producers, page_size))),
            _ => Err(mismatch().into()),
        }
    }
}

/// The owner answers each request in kind; this is said instead of a panic, should it ever not.
fn mismatch() -> Fault {
    Fault::new(ErrorCode::Unspecified, "the answer is not of the kind that was asked for; this is a defect of the broker")
}

/// Uncompressed, in one call: a few milliseconds of work.
const VERIFIED_IN_PLACE_BYTES: u64 = 8 << 20;
/// What a request of a few names is accounted with.
const SMALL_REQUEST_BYTES: usize = 1 << 10;
