//! `ProduceStream`: calls of `Produce` one after the other on a stream, answers in their order.
//!
//! One task for each stream reads the requests, parses them and hands them over to the owner, each before it reads the next: so
//! they are judged in their order, and on one stream no batch has to be held. That is a gain and no promise: repetitions may come
//! by another stream or by `Produce`, and the decision is the same wherever a batch came from.
//!
//! What was handed over is done, whether or not the stream lives to carry the answer.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use oncelog_edge::{in_order::InOrder, security::access::Rights};
use oncelog_proto::{
    ErrorCode, Fault,
    v1::{ProduceFailure, ProduceStreamRequest, ProduceStreamResponse, produce_stream_response::Outcome},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::{BrokerRpc, Producing};

/// The answers of one stream.
pub(crate) type Answers = InOrder<Answer>;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    handed_over: Result<Producing, Fault>,
    /// Its place in the window, kept until the transport takes the answer.
    _place: OwnedSemaphorePermit,
}

/// Serves one stream.
pub(super) fn serve(rpc: BrokerRpc, rights: Rights, requests: Streaming<ProduceStreamRequest>) -> Answers {
    let (pending, queue) = mpsc::channel(WINDOW);
    tokio::spawn(hand_over_all(rpc, rights, requests, pending));
    InOrder::new(queue)
}

/// Ends when the requests do, when nobody wants answers any more, when the caller's token is no longer valid, or when the broker
/// is about to end.
async fn hand_over_all(
    rpc: BrokerRpc,
    rights: Rights,
    mut requests: Streaming<ProduceStreamRequest>,
    pending: mpsc::Sender<Result<Answer, Status>>,
) {
    let window = Arc::new(Semaphore::new(WINDOW));
    let mut draining = rpc.draining.clone();
    let mut draining = pin!(draining.wait_for(|draining| *draining));
    let mut unwanted = pin!(pending.closed());
    let mut over = pin!(rights.end());
    loop {
        // Before the request is read: who sends a sixth is held up by the transport, and its memory is its own.
        let place = tokio::select! {
            biased;
            place = Arc::clone(&window).acquire_owned() => place.expect("the semaphore is never closed"),
            () = &mut unwanted => return,
        };
        let request = tokio::select! {
            biased;
            _ = &mut draining => Err(ending()),
            message = requests.message() => message,
            () = &mut unwanted => return,
            // Of a request that is there already as well; but a stream may be idle.
            fault = &mut over => Err(fault.to_status()),
        };
        let next = match request {
            Ok(Some(request)) => match rights.still_hold() {
                Err(fault) => Err(fault.to_status()),
                Ok(()) => {
                    // Its way in was paid for until the next request is read; this task goes on also if its caller does not.
                    let handed_over = rpc.hand_over(request.produce.unwrap_or_default(), &rights, None, ()).await;
                    Ok(Answer { handed_over, _place: place })
                }
            },
            Ok(None) => return,
            // A message that cannot be decoded leaves nothing to read on from.
            Err(status) => Err(status),
        };
        let is_last = next.is_err();
        if pending.send(next).await.is_err() || is_last {
            return;
        }
    }
}

impl Future for Answer {
    type Output = ProduceStreamResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let produced = match &mut self.handed_over {
            Ok(producing) => ready!(Pin::new(producing).poll(cx)),
            Err(fault) => Err(fault.clone()),
        };
        let outcome = match produced {
            Ok(produced) => Outcome::Produced(produced),
            Err(fault) => Outcome::Failed(failed(&fault)),
        };
        Poll::Ready(ProduceStreamResponse { outcome: Some(outcome) })
    }
}

fn failed(fault: &Fault) -> ProduceFailure {
    ProduceFailure { code: fault.code().grpc_code().into(), reason: fault.code().into(), message: fault.message().to_owned() }
}

fn ending() -> Status {
    let message = "the broker is about to end; requests after the last answer were not taken in; send them again";
    Fault::new(ErrorCode::BrokerNotAvailable, message).to_status()
}

/// Requests of one stream that are not answered yet: as many as an idempotent producer may have unanswered (D1).
const WINDOW: usize = 5;
