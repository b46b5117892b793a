//! The host between those who write and the broker: it carries calls, and loses, doubles, delays and reorders them, as a network
//! of proxies does that retries by itself. What it has once taken along may arrive long after its caller gave up.

mod stream;

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oncelog_proto::v1::{
    self,
    broker_service_client::BrokerServiceClient,
    broker_service_server::{BrokerService, BrokerServiceServer},
};
use tokio::time::{sleep, timeout};
use tokio_stream::Empty;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Server},
};

use crate::{
    chronicle::Chronicle,
    dice::Dice,
    plan::Carelessness,
    weather::Weather,
    wire::{self, Wires},
};

/// The courier. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Courier {
    broker: BrokerServiceClient<Channel>,
    carelessness: Carelessness,
    dice: Arc<Mutex<Dice>>,
    weather: Weather,
    chronicle: Chronicle,
}

/// What becomes of a call.
#[derive(Debug, Default)]
struct Fate {
    is_lost: bool,
    delay: Duration,
    /// A copy arrives so long after the call was taken along.
    copy_after: Option<Duration>,
    answer_is_lost: bool,
    answer_delay: Duration,
    /// Who loses something says nothing; else the caller hears of it.
    is_silent: bool,
    /// The call ends with its caller's patience.
    is_bound: bool,
}

impl Courier {
    pub(crate) fn new(carelessness: Carelessness, mut dice: Dice, weather: Weather, chronicle: Chronicle) -> Self {
        let own = Arc::new(Mutex::new(dice.fork()));
        let wires = Wires { dice: own, weather: weather.clone(), chronicle: chronicle.clone(), cut_percent: 0 };
        let broker = BrokerServiceClient::new(wires.watched_channel("broker")).max_decoding_message_size(16 << 20);
        Self { broker, carelessness, dice: Arc::new(Mutex::new(dice)), weather, chronicle }
    }

    /// What runs on the host.
    pub(crate) async fn run(self) -> turmoil::Result {
        let (connections, _) = wire::listen().await?;
        Server::builder()
            .add_service(BrokerServiceServer::new(self).max_decoding_message_size(16 << 20))
            .serve_with_incoming(connections)
            .await?;
        Err("the courier's server ended".into())
    }

    fn fate(&self) -> Fate {
        if self.weather.is_calm() {
            return Fate::default();
        }
        let Carelessness { loses, doubles, delays, loses_answers, delay, .. } = self.carelessness;
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let dice = &mut *dice;
        let mut happens = |percent, what: &str| {
            let happens = dice.percent(percent);
            if happens {
                self.chronicle.count(format!("call: {what}"));
            }
            happens
        };
        let (is_lost, is_doubled) = (happens(loses, "lost"), happens(doubles, "doubled"));
        let (is_delayed, answer_is_lost) = (happens(delays, "delayed"), happens(loses_answers, "answer lost"));
        let answer_is_delayed = happens(delays / 2, "answer delayed");
        let mut late = |is_late: bool| if is_late { dice.long_tailed(delay) } else { Duration::ZERO };
        let (delay, answer_delay, copy_after) = (late(is_delayed), late(answer_is_delayed), late(is_doubled));
        let copy_after = is_doubled.then_some(copy_after);
        Fate { is_lost, delay, copy_after, answer_is_lost, answer_delay, is_silent: dice.percent(50), is_bound: dice.percent(30) }
    }

    async fn carry<Q, A, F>(
        &self,
        request: Request<Q>,
        call: impl Fn(BrokerServiceClient<Channel>, Q) -> F + Copy + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Clone + Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let fate = self.fate();
        let (request, broker) = (request.into_inner(), self.broker.clone());
        if let Some(after) = fate.copy_after {
            self.carry_copy(after, request.clone(), call);
        }
        let carried = async move {
            if fate.is_lost {
                return lost(fate.is_silent).await;
            }
            sleep(fate.delay).await;
            let answered = timeout(PATIENCE, call(broker, request)).await;
            if fate.answer_is_lost {
                return lost(fate.is_silent).await;
            }
            sleep(fate.answer_delay).await;
            // Its own metadata is of no interest, its details are.
            answered.unwrap_or_else(|_| Err(Status::unavailable("the broker says nothing")))
        };
        if fate.is_bound {
            return carried.await;
        }
        tokio::spawn(carried).await.map_err(|_| Status::internal("the courier panicked"))?
    }

    /// Nobody hears how it ends.
    fn carry_copy<Q, A, F>(
        &self,
        after: Duration,
        request: Q,
        call: impl Fn(BrokerServiceClient<Channel>, Q) -> F + Send + 'static,
    ) where
        Q: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let broker = self.broker.clone();
        tokio::spawn(async move {
            sleep(after).await;
            drop(timeout(PATIENCE, call(broker, request)).await);
        });
    }
}

/// As a function, because a stream's calls are copied this way as well.
async fn produce(
    mut broker: BrokerServiceClient<Channel>,
    request: v1::ProduceRequest,
) -> Result<Response<v1::ProduceResponse>, Status> {
    broker.produce(request).await
}

/// The caller hears that something is wrong, or nothing.
async fn lost<A>(is_silent: bool) -> Result<Response<A>, Status> {
    if is_silent {
        // Some day even the most patient one is told.
        let _ = timeout(2 * PATIENCE, pending::<()>()).await;
    }
    Err(Status::unavailable("lost on the way"))
}

#[tonic::async_trait]
impl BrokerService for Courier {
    type FetchStream = Empty<Result<v1::FetchResponse, Status>>;
    type ProduceStreamStream = stream::Answers;

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        self.carry(request, |mut broker, request| async move { broker.init_producer_id(request).await }).await
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        self.carry(request, produce).await
    }

    async fn produce_stream(
        &self,
        requests: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<stream::Answers>, Status> {
        if !self.carelessness.carries_streams {
            return Err(Status::unimplemented("this one does not know streams"));
        }
        stream::carry(self.clone(), requests.into_inner()).await.map(Response::new)
    }

    async fn describe_topics(
        &self,
        request: Request<v1::DescribeTopicsRequest>,
    ) -> Result<Response<v1::DescribeTopicsResponse>, Status> {
        self.carry(request, |mut broker, request| async move { broker.describe_topics(request).await }).await
    }

    async fn describe_producers(
        &self,
        request: Request<v1::DescribeProducersRequest>,
    ) -> Result<Response<v1::DescribeProducersResponse>, Status> {
        self.carry(request, |mut broker, request| async move { broker.describe_producers(request).await }).await
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("readers go to the broker themselves"))
    }

    async fn create_topic(&self, _: Request<v1::CreateTopicRequest>) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Err(Status::unimplemented("a copy that arrives late would make a topic that nobody knows of"))
    }

    async fn delete_topic(&self, _: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(Status::unimplemented("a copy that arrives late would delete what was written since"))
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
