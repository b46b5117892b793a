//! The way of `Produce` calls to the broker: on one `ProduceStream`, or each by itself where the broker offers no streams.
//!
//! Calls go out in the order in which they were made. A call has its place in the queue when [`ProduceStream::call`] returns;
//! what is left to be done in a task of its own is the wait for its answer. If whoever makes calls only started tasks that make
//! them, a runtime of several threads would run these as it likes, and often the last one first: the batches in it would come to
//! the broker before their predecessors, to be held there or refused and sent again.
//!
//! One task owns the stream, which is opened when a call is there and none is open. Answers come back in the order of the calls.
//! A stream that ends leaves all its unanswered calls in doubt. So does one that is given up because its first call took too
//! long: what is behind it cannot be answered before it. Only the first unanswered call may bear the status that the stream ended
//! with: the broker answers what came before and looks at nothing that comes after. (An answer that is too large to be heard ends
//! the stream here, with the status of a call that is too large there; which of them it is, the session judges.)
//!
//! A stream is opened before anything is sent on it. So a broker that does not offer it says so while the call is still here, and
//! the call is made as a `Produce` instead.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, task::Poll};

use oncelog_edge::{
    metrics::calls::{Calls, Ongoing},
    names,
};
use oncelog_proto::{
    Link,
    v1::{
        Acks, ProduceFailure, ProduceResponse, ProduceStreamRequest, ProduceStreamResponse,
        broker_service_client::BrokerServiceClient, produce_stream_response::Outcome,
    },
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{request, until};
use crate::{session::OutgoingBatch, traces::Attempts};

/// How calls reach the task. Cheap to clone; the task ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct ProduceStream {
    calls: mpsc::Sender<Call>,
    counted: Arc<Calls>,
}

/// What is sent in a call.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) batches: Vec<OutgoingBatch>,
    pub(super) acks: Acks,
    /// Those of the batches that are in a trace.
    pub(super) attempts: Attempts,
}

/// What came of a call.
type Answered = Result<ProduceResponse, Status>;

#[derive(Debug)]
struct Call {
    outgoing: Outgoing,
    waiting: Waiting,
}

/// Who waits for an answer, and how long.
#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    ongoing: Ongoing,
    tell: oneshot::Sender<Answered>,
}

impl ProduceStream {
    /// Starts the task. It does not connect before the first call. At most `max_in_flight` calls are unanswered at a time, and
    /// each is `counted`.
    pub(super) fn start(stub: BrokerServiceClient<Link>, max_in_flight: usize, counted: Arc<Calls>) -> Self {
        let (calls, queue) = mpsc::channel(max_in_flight);
        tokio::spawn(run(stub, queue));
        Self { calls, counted }
    }

    /// Makes a call, once, and has made it when this returns. It ends by `deadline`, as far as the calls before it do.
    ///
    /// # Panics
    /// More calls are unanswered than was said at the start.
    pub(super) fn call(&self, outgoing: Outgoing, deadline: Instant) -> impl Future<Output = Answered> + Send + use<> {
        let (tell, ended) = oneshot::channel();
        let ongoing = self.counted.begin(ON_STREAM);
        let made = self.calls.try_send(Call { outgoing, waiting: Waiting { deadline, ongoing, tell } });
        assert!(!matches!(made, Err(TrySendError::Full(_))), "there is room for every call that is unanswered");
        // A task that has ended takes `tell` with it.
        async move { ended.await.unwrap_or_else(|_| Err(Status::unavailable("the task of the stream ended"))) }
    }
}

impl Waiting {
    fn end(self, answered: Answered) {
        self.ongoing.end(&answered);
        // Whoever made the call may be gone; it was made all the same.
        let _ = self.tell.send(answered);
    }
}

async fn run(mut stub: BrokerServiceClient<Link>, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        let (requests, outbound) = mpsc::channel(WINDOW);
        match until(call.waiting.deadline, stub.produce_stream(ReceiverStream::new(outbound))).await {
            Ok(answers) => exchange(call, &mut calls, &requests, answers).await,
            Err(status) => {
                // Those that came meanwhile wanted the same stream; one after the other they would wait too long.
                let others = std::iter::from_fn(|| calls.try_recv().ok());
                for call in std::iter::once(call).chain(others) {
                    match status.code() {
                        Code::Unimplemented => make_alone(stub.clone(), call).await,
                        _ => call.waiting.end(Err(status.clone())),
                    }
                }
            }
        }
    }
}

/// Makes a call by itself. When this returns, it has its place in the queue of the channel, and waits there in a task of its own;
/// how its bytes leave beside those of the next one is the transport's business.
async fn make_alone(mut stub: BrokerServiceClient<Link>, Call { outgoing, mut waiting }: Call) {
    waiting.ongoing.is_of(names::PRODUCE);
    let mut call = Box::pin(async move {
        let answered = tokio::select! {
            biased;
            answered = until(waiting.deadline, stub.produce(request(outgoing))) => answered,
            // Nobody wants the answer any more.
            () = waiting.tell.closed() => return,
        };
        waiting.end(answered);
    });
    if poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await.is_pending() {
        tokio::spawn(call);
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
    let send = |Call { outgoing, waiting }, unanswered: &mut VecDeque<Waiting>| {
        unanswered.push_back(waiting);
        // There is room for as many as may be unanswered. A stream that has ended says so by its answers.
        let _ = requests.try_send(ProduceStreamRequest { produce: Some(request(outgoing)) });
    };
    send(first, &mut unanswered);
    let status = loop {
        let deadline = unanswered.front().map(|waiting| waiting.deadline);
        tokio::select! {
            biased;
            answer = answers.message() => match answer {
                Ok(Some(answer)) => match unanswered.pop_front() {
                    Some(waiting) => waiting.end(read(answer)),
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
        first.end(Err(status));
    }
    unanswered.into_iter().for_each(|waiting| waiting.end(Err(others.clone())));
}

fn read(answer: ProduceStreamResponse) -> Answered {
    match answer.outcome {
        Some(Outcome::Produced(produced)) => Ok(produced),
        Some(Outcome::Failed(ProduceFailure { code, reason: _, message })) => Err(Status::new(Code::from_i32(code), message)),
        None => Err(Status::internal("the broker's answer is neither a result nor a failure")),
    }
}

/// What a call is counted as, unless it is made alone.
const ON_STREAM: &str = "/oncelog.v1.BrokerService/ProduceStream";
/// Calls that are unanswered on the stream; the broker reads no more. Others wait in the queue.
const WINDOW: usize = 5;
