//! A `BrokerService` that stands in front of the real one: forwards what arrives, fails as the script says, and tells the judge.
//!
//! It does not offer `ProduceStream`; a producer that prefers it has to go on without it, as the contract allows.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oncelog_proto::{
    Epoch, ErrorCode, Fault as Refusal,
    v1::{
        BatchResult, CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, DescribeProducersRequest,
        DescribeProducersResponse, DescribeTopicsRequest, DescribeTopicsResponse, FetchRequest, FetchResponse,
        InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProduceStreamRequest,
        ProduceStreamResponse, batch_result, broker_service_client::BrokerServiceClient, broker_service_server::BrokerService,
    },
};
use oncelog_verify::wire;
use tokio::time::{Instant, sleep};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{
    command::Commands,
    producing::{Call, NEWS, Producing},
    script::{Fault, Script, Way},
    way::UnderWay,
};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct BrokerFront {
    broker: BrokerServiceClient<Channel>,
    commands: Commands,
    under_way: UnderWay,
    began: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) script: Script,
    pub(crate) producing: Producing,
    /// Ids with the epochs that are fenced.
    fenced: HashSet<(i64, i32)>,
    forgotten: HashSet<i64>,
}

impl BrokerFront {
    pub(crate) fn new(broker: Channel, commands: Commands, script: Script) -> Self {
        let state = State { script, producing: Producing::default(), fenced: HashSet::new(), forgotten: HashSet::new() };
        let broker = BrokerServiceClient::new(broker).max_decoding_message_size(usize::MAX);
        Self { broker, commands, under_way: UnderWay::default(), began: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Never held while anything is waited for.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// More than five calls may have arrived only because the news that one of them was given up comes later than the next call.
    async fn judge_outstanding(&self) {
        let open = self.state().producing.open();
        if open.len() > 5 {
            sleep(NEWS).await;
        }
        self.state().producing.judge_outstanding(&open);
    }

    /// What happens before the call is carried out; the code that it is refused with; and its way.
    async fn prepare(&self, faults: &[Fault], request: &ProduceRequest) -> (Option<Refused>, Option<Way>) {
        let (mut refused, mut way) = (None, None);
        let id = request.producer_id.unwrap_or(0);
        for fault in faults {
            match *fault {
                Fault::Way(it) => way = Some(it),
                Fault::Refuse(code) => refused = Some(Refused::Batches(code)),
                Fault::Fail(code) => refused = Some(Refused::Call(code)),
                Fault::Fence => {
                    self.state().fenced.insert((id, request.producer_epoch));
                }
                Fault::Forget => {
                    self.state().forgotten.insert(id);
                }
                Fault::TakeOver => self.take_over(id, request.producer_epoch).await,
                Fault::Kill => self.commands.kill().await,
                Fault::NoResult | Fault::NoOutcome => {}
                Fault::InPart(_) | Fault::TellLess => unreachable!("{fault:?} is no fault of Produce"),
            }
        }
        let state = self.state();
        if state.forgotten.contains(&id) {
            refused = Some(Refused::Batches(ErrorCode::UnknownProducerId));
        } else if state.fenced.contains(&(id, request.producer_epoch)) {
            refused = Some(Refused::Batches(ErrorCode::InvalidProducerEpoch));
        }
        (refused, way)
    }

    /// Another process recovers this id.
    async fn take_over(&self, id: i64, epoch: i32) {
        let request = InitProducerIdRequest {
            producer_id: Some(id),
            producer_epoch: Some(epoch),
            recovery_token: "another process".to_owned(),
            page_token: String::new(),
        };
        if let Err(status) = self.broker.clone().init_producer_id(request).await {
            eprintln!("oncelog-conformance: producer {id} could not be taken over: {status}");
        }
    }
}

/// Who does not carry a call out.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Batches(ErrorCode),
    Call(ErrorCode),
}

impl Refused {
    fn answer(self, request: &ProduceRequest) -> Result<ProduceResponse, Status> {
        match self {
            Self::Call(code) => Err(Refusal::new(code, WHY).to_status()),
            Self::Batches(code) => {
                let mut refusal = Refusal::new(code, WHY);
                if code == ErrorCode::InvalidProducerEpoch
                    && let Ok(epoch) = Epoch::new(request.producer_epoch)
                {
                    // As after the deletion of a topic: the epoch is the current one, and no more use.
                    refusal = refusal.current_epoch(epoch);
                }
                let error = || BatchResult { outcome: Some(batch_result::Outcome::Error(refusal.to_batch_error())) };
                Ok(ProduceResponse { results: request.batches.iter().map(|_| error()).collect() })
            }
        }
    }
}

/// A call that has arrived. Dropped before it is answered: it was given up.
struct Arrived<'a> {
    front: &'a BrokerFront,
    call: Call,
}

impl Drop for Arrived<'_> {
    fn drop(&mut self) {
        self.front.state().producing.gave_up(self.call);
    }
}

#[tonic::async_trait]
impl BrokerService for BrokerFront {
    async fn init_producer_id(
        &self,
        request: Request<InitProducerIdRequest>,
    ) -> Result<Response<InitProducerIdResponse>, Status> {
        let request = request.into_inner();
        let faults = {
            let mut state = self.state();
            if request.page_token.is_empty() {
                state.producing.init_called(&request, self.began.elapsed());
            }
            state.script.init()
        };
        let (mut way, mut tells_less) = (None, false);
        for fault in faults {
            match fault {
                Fault::Way(it) => way = Some(it),
                Fault::Kill => self.commands.kill().await,
                Fault::TellLess => tells_less = true,
                other => unreachable!("{other:?} is no fault of InitProducerId"),
            }
        }
        let is_forgotten = request.producer_id.is_some_and(|id| self.state().forgotten.contains(&id));
        let (mut broker, forwarded) = (self.broker.clone(), request.clone());
        let call = async move {
            if is_forgotten {
                return Err(Refusal::new(ErrorCode::UnknownProducerId, WHY).to_status());
            }
            broker.init_producer_id(forwarded).await.map(Response::into_inner).map_err(said)
        };
        let mut answer = self.under_way.take(way, call).await;
        if tells_less && let Ok(page) = &mut answer {
            self.state().producing.leave_out_acknowledged(&request, page);
        }
        let told = match &answer {
            Ok(page) => wire::init(std::slice::from_ref(page)),
            Err(status) => wire::init_failed(status),
        };
        self.state().producing.init_answered(&request, told);
        answer.map(Response::new)
    }

    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        let request = request.into_inner();
        let (call, faults) = {
            let mut state = self.state();
            let (call, records) = state.producing.called(&request);
            (call, state.script.call(&records, request.producer_epoch > 0))
        };
        let arrived = Arrived { front: self, call };
        self.judge_outstanding().await;
        let (refused, way) = self.prepare(&faults, &request).await;
        let (mut broker, forwarded) = (self.broker.clone(), request.clone());
        let carry_out = async move {
            match refused {
                Some(refused) => refused.answer(&forwarded),
                None => broker.produce(forwarded).await.map(Response::into_inner).map_err(said),
            }
        };
        let mut answer = self.under_way.take(way, carry_out).await;
        if let (Some(results), Ok(response)) = (emptied(&faults, &request), &mut answer) {
            response.results = results;
        }
        self.state().producing.answered(call, &request, &answer, self.began.elapsed());
        drop(arrived);
        answer.map(Response::new)
    }

    async fn describe_topics(&self, request: Request<DescribeTopicsRequest>) -> Result<Response<DescribeTopicsResponse>, Status> {
        self.broker.clone().describe_topics(request.into_inner()).await.map_err(said)
    }

    async fn create_topic(&self, request: Request<CreateTopicRequest>) -> Result<Response<CreateTopicResponse>, Status> {
        self.broker.clone().create_topic(request.into_inner()).await.map_err(said)
    }

    async fn delete_topic(&self, _: Request<DeleteTopicRequest>) -> Result<Response<DeleteTopicResponse>, Status> {
        Err(not_here())
    }

    async fn describe_producers(
        &self,
        request: Request<DescribeProducersRequest>,
    ) -> Result<Response<DescribeProducersResponse>, Status> {
        self.broker.clone().describe_producers(request.into_inner()).await.map_err(said)
    }

    type ProduceStreamStream = Empty<Result<ProduceStreamResponse, Status>>;

    async fn produce_stream(
        &self,
        _: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Err(not_here())
    }

    type FetchStream = Empty<Result<FetchResponse, Status>>;

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(not_here())
    }
}

/// The results of an answer that says nothing, if the script wants one.
fn emptied(faults: &[Fault], request: &ProduceRequest) -> Option<Vec<BatchResult>> {
    faults.iter().find_map(|fault| match fault {
        Fault::NoResult => Some(Vec::new()),
        Fault::NoOutcome => Some(vec![BatchResult::default(); request.batches.len()]),
        _ => None,
    })
}

/// A status of the service behind, without what belonged to its connection.
pub(crate) fn said(status: Status) -> Status {
    Status::with_details(status.code(), status.message(), status.details().to_vec().into())
}

fn not_here() -> Status {
    Status::unimplemented("the conformance suite does not offer this")
}

const WHY: &str = "the conformance suite wants it so";
