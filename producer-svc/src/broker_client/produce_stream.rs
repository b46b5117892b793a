//! The `ProduceStream` to the broker: calls go out in the order in which they were made, and answers come back in that order.
//!
//! One task owns the stream, which is opened when a call is there and none is open. A stream that ends leaves all its unanswered
//! calls in doubt. So does one that is given up because its first call took too long: what is behind it cannot be answered
//! before it. Only the first unanswered call may bear the status that the stream ended with: the broker answers what came before
//! and looks at nothing that comes after.
//!
//! A stream is opened before anything is sent on it. So a broker that does not offer it says so while the call is still here, and
//! the call is made as a `Produce` instead.

use std::collections::VecDeque;

use oncelog_proto::v1::{
    ProduceFailure, ProduceRequest, ProduceResponse, ProduceStreamRequest, ProduceStreamResponse,
    broker_service_client::BrokerServiceClient, produce_stream_response::Outcome,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::until;

/// How calls reach the task. Cheap to clone; the task ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct ProduceStream {
    calls: mpsc::Sender<Call>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was answered, or failed with this status.
    Answered(Result<ProduceResponse, Status>),
    /// It was not made: the broker offers no streams.
    NotOffered(ProduceRequest),
}

#[derive(Debug)]
struct Call {
    request: ProduceRequest,
    waiting: Waiting,
}

/// Who waits for an answer, and how long.
#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    tell: oneshot::Sender<Ended>,
}

impl ProduceStream {
    /// Starts the task. It does not connect before the first call.
    pub(super) fn start(stub: BrokerServiceClient<Channel>) -> Self {
        let (calls, queue) = mpsc::channel(WINDOW);
        tokio::spawn(run(stub, queue));
        Self { calls }
    }

    /// Makes a call, once. It ends by `deadline`, as far as the calls before it do.
    pub(super) async fn call(&self, request: ProduceRequest, deadline: Instant) -> Ended {
        let (tell, ended) = oneshot::channel();
        let unheard = || Ended::Answered(Err(Status::unavailable("the task of the stream ended")));
        if self.calls.send(Call { request, waiting: Waiting { deadline, tell } }).await.is_err() {
            return unheard();
        }
        ended.await.unwrap_or_else(|_| unheard())
    }
}

impl Waiting {
    fn end(self, ended: Ended) {
        // Whoever made the call may be gone; it was made all the same.
        let _ = self.tell.send(ended);
    }

    fn fail(self, status: Status) {
        self.end(Ended::Answered(Err(status)));
    }
}

async fn run(mut stub: BrokerServiceClient<Channel>, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        let (requests, outbound) = mpsc::channel(WINDOW);
        match until(call.waiting.deadline, stub.produce_stream(ReceiverStream::new(outbound))).await {
            Ok(answers) => exchange(call, &mut calls, &requests, answers).await,
            Err(status) => {
                // Those that came meanwhile wanted the same stream; one after the other they would wait too long.
                let others = std::iter::from_fn(|| calls.try_recv().ok());
                for Call { request, waiting } in std::iter::once(call).chain(others) {
                    match status.code() {
                        Code::Unimplemented => waiting.end(Ended::NotOffered(request)),
                        _ => waiting.fail(status.clone()),
                    }
                }
            }
        }
    }
}

/// Sends and hears until the stream ends or is given up; dropping it cancels it.
async fn exchange(
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
    requests: &mpsc::Sender<ProduceStreamRequest>,
    mut answers: Streaming<ProduceStreamResponse>,
) {
    let mut unanswered = VecDeque::with_capacity(WINDOW);
    let send = |Call { request, waiting }, unanswered: &mut VecDeque<Waiting>| {
        unanswered.push_back(waiting);
        // There is room for as many as may be unanswered. A stream that has ended says so by its answers.
        let _ = requests.try_send(ProduceStreamRequest { produce: Some(request) });
    };
    send(first, &mut unanswered);
    let status = loop {
        let deadline = unanswered.front().map(|waiting| waiting.deadline);
        tokio::select! {
            biased;
            answer = answers.message() => match answer {
                Ok(Some(answer)) => match unanswered.pop_front() {
                    Some(waiting) => waiting.end(Ended::Answered(read(answer))),
                    // It answers what was not asked: no stream to go on with.
                    None => return,
                },
                Ok(None) => break Status::unavailable("the broker ended the stream"),
                Err(status) => break status,
            },
            () = async { sleep_until(deadline.expect("there is one")).await }, if deadline.is_some() => {
                break Status::deadline_exceeded("the broker has not answered in time");
            }
            call = calls.recv(), if unanswered.len() < WINDOW => match call {
                Some(call) => send(call, &mut unanswered),
                None => return,
            },
        }
    };
    let others = Status::unavailable(format!("its stream ended before its turn: {:?}: {}", status.code(), status.message()));
    if let Some(first) = unanswered.pop_front() {
        first.fail(status);
    }
    unanswered.into_iter().for_each(|waiting| waiting.fail(others.clone()));
}

fn read(answer: ProduceStreamResponse) -> Result<ProduceResponse, Status> {
    match answer.outcome {
        Some(Outcome::Produced(produced)) => Ok(produced),
        Some(Outcome::Failed(ProduceFailure { code, reason: _, message })) => Err(Status::new(Code::from_i32(code), message)),
        None => Err(Status::internal("the broker's answer is neither a result nor a failure")),
    }
}

/// Calls that are unanswered on the stream; the broker reads no more.
const WINDOW: usize = 5;
