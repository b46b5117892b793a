//! A `ProducerService` that stands in front of the real one: forwards what arrives, fails as the script says, and tells the
//! judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oncelog_proto::{
    ErrorCode, Fault as Refusal,
    v1::{
        SendFailure, SendRequest, SendResponse, SendStreamRequest, SendStreamResponse,
        producer_service_client::ProducerServiceClient,
        producer_service_server::ProducerService,
        send_failure::{Appended, Outcome, Refused, outcome::Outcome as Fate},
    },
};
use prost::Message;
use prost_types::Any;
use tokio_stream::Empty;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};
use tonic_types::pb;

use crate::{
    broker_front::said,
    command::Commands,
    script::{Fault, Script, Way, Where},
    sending::Sending,
    way::UnderWay,
};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ProducerFront {
    producer: ProducerServiceClient<Channel>,
    commands: Commands,
    under_way: UnderWay,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) script: Script,
    pub(crate) sending: Sending,
}

impl ProducerFront {
    pub(crate) fn new(producer: Channel, commands: Commands, script: Script) -> Self {
        let state = Arc::new(Mutex::new(State { script, sending: Sending::default() }));
        let producer = ProducerServiceClient::new(producer).max_decoding_message_size(usize::MAX);
        Self { producer, commands, under_way: UnderWay::default(), state }
    }

    /// Never held while anything is waited for.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }
}

/// How a `Send` is carried out.
#[derive(Clone, Copy, Debug)]
enum Treatment {
    Whole,
    InPart(Where),
    /// None of its records is taken, and the failure says so.
    Refused(ErrorCode),
    /// It fails, and nobody says of what.
    Failed(ErrorCode),
}

impl Treatment {
    async fn carry_out(self, mut producer: ProducerServiceClient<Channel>, request: SendRequest) -> Result<SendResponse, Status> {
        let count = request.records.len();
        match self {
            Self::Whole => producer.send(request).await.map(Response::into_inner).map_err(said),
            Self::Failed(code) => Err(Refusal::new(code, WHY).to_status()),
            Self::Refused(code) => Err(failure(code.grpc_code(), vec![refused(0, count, code)], count)),
            Self::InPart(told) => {
                let half = count / 2;
                let first = SendRequest { records: request.records[..half].to_vec(), ..request };
                let sent = producer.send(first).await.map_err(said)?.into_inner();
                let mut outcomes = Vec::new();
                if let Some(first) = sent.records.first() {
                    let offset = if told == Where::Told { first.offset } else { -1 };
                    let fate = Appended { partition: first.partition, offset, append_time: first.append_time };
                    outcomes.push(Outcome { first_index: 0, count: number(half), outcome: Some(Fate::Appended(fate)) });
                }
                outcomes.push(refused(half, 1, ErrorCode::InvalidRecord));
                Err(failure(Code::DeadlineExceeded, outcomes, count))
            }
        }
    }
}

#[tonic::async_trait]
impl ProducerService for ProducerFront {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let has_deadline = request.metadata().contains_key("grpc-timeout");
        let request = request.into_inner();
        let (numbers, faults) = {
            let mut state = self.state();
            let numbers = state.sending.called(&request, has_deadline);
            let faults = state.script.call(&numbers, false);
            (numbers, faults)
        };
        let (mut treatment, mut way): (_, Option<Way>) = (Treatment::Whole, None);
        for fault in faults {
            match fault {
                Fault::Way(it) => way = Some(it),
                Fault::Refuse(code) => treatment = Treatment::Refused(code),
                Fault::Fail(code) => treatment = Treatment::Failed(code),
                Fault::InPart(told) => treatment = Treatment::InPart(told),
                Fault::Kill => self.commands.kill().await,
                other => unreachable!("{other:?} is no fault of Send"),
            }
        }
        let answer = self.under_way.take(way, treatment.carry_out(self.producer.clone(), request)).await;
        self.state().sending.answered(&numbers, &answer);
        answer.map(Response::new)
    }

    type SendStreamStream = Empty<Result<SendStreamResponse, Status>>;

    async fn send_stream(&self, _: Request<Streaming<SendStreamRequest>>) -> Result<Response<Self::SendStreamStream>, Status> {
        Err(Status::unimplemented("the conformance suite judges Send alone"))
    }
}

fn refused(first: usize, count: usize, code: ErrorCode) -> Outcome {
    let fate = Fate::Refused(Refused { code: code.into(), message: WHY.to_owned() });
    Outcome { first_index: number(first), count: number(count), outcome: Some(fate) }
}

/// A status that says what became of `count` records. Of those that no outcome speaks of it says only how many they are, as where
/// the list is cut.
fn failure(code: Code, outcomes: Vec<Outcome>, count: usize) -> Status {
    let of = |is_it: fn(&Fate) -> bool| -> i32 {
        let counted = outcomes.iter().filter(|outcome| outcome.outcome.as_ref().is_some_and(is_it));
        counted.map(|outcome| outcome.count).sum()
    };
    let appended_count = of(|fate| matches!(fate, Fate::Appended(_)));
    let refused_count = of(|fate| matches!(fate, Fate::Refused(_)));
    let failure = SendFailure {
        code: code.into(),
        message: WHY.to_owned(),
        outcomes,
        appended_count,
        refused_count,
        unknown_count: number(count) - appended_count - refused_count,
    };
    let any = Any { type_url: "type.googleapis.com/oncelog.v1.SendFailure".to_owned(), value: failure.encode_to_vec() };
    let details = pb::Status { code: code.into(), message: WHY.to_owned(), details: vec![any] };
    Status::with_details(code, WHY, details.encode_to_vec().into())
}

fn number(of: usize) -> i32 {
    i32::try_from(of).expect("a Send has at most 10,000 records")
}

const WHY: &str = "the conformance suite wants it so";

#[cfg(test)]
mod tests {
    use oncelog_verify::{history::SendOutcome, wire};

    use super::*;

    #[test]
    fn what_a_failure_does_not_speak_of_is_unknown() {
        let status = failure(Code::DeadlineExceeded, vec![refused(0, 2, ErrorCode::InvalidRecord)], 5);
        assert_eq!(wire::send(5, &Err(status)), [SendOutcome::Refused(2), SendOutcome::Unknown(3)]);
        let silent = Refusal::new(ErrorCode::ResourceExhausted, WHY).to_status();
        assert_eq!(wire::send(5, &Err(silent)), [SendOutcome::Unknown(5)]);
    }
}
