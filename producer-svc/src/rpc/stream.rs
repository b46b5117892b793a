//! `SendStream`: many requests under way, answers in the order of the requests.
//!
//! One task for each stream admits the requests in their order, so that they keep it in their partitions. The answers are in a
//! queue from which the transport takes them. The queue's limit is in records, because the outcomes of a caller that does not
//! read its answers would pile up there; while it is reached no further request is read.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use oncelog_edge::in_order::InOrder;
use oncelog_proto::{
    ErrorCode, Fault,
    v1::{SendRequest, SendStreamRequest, SendStreamResponse, send_stream_response::Outcome},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tonic::{Status, Streaming};

use super::{
    admission::Admission,
    outcome::{self, Failure},
};
use crate::session::RecordOutcome;

/// The answers of one stream.
pub(crate) type Answers = InOrder<Answer>;

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its number of records.
    count: usize,
    admitted: Result<oneshot::Receiver<Vec<RecordOutcome>>, Failure>,
    /// Its share of [`MAX_RECORDS`], kept until the transport takes the answer.
    _room: OwnedSemaphorePermit,
}

/// Serves one stream.
pub(super) fn serve(admission: Admission, requests: Streaming<SendStreamRequest>) -> Answers {
    // Each request takes at least one record's room, and the end of the stream a place of its own.
    let (pending, queue) = mpsc::channel(MAX_RECORDS + 1);
    tokio::spawn(admit_all(admission, requests, pending));
    InOrder::new(queue)
}

/// Ends when the requests do, or when nobody wants answers any more.
async fn admit_all(
    admission: Admission,
    mut requests: Streaming<SendStreamRequest>,
    pending: mpsc::Sender<Result<Answer, Status>>,
) {
    let room = Arc::new(Semaphore::new(MAX_RECORDS));
    // Made once, and looked at only when there is nothing to do: a request is a matter of a microsecond.
    let mut unwanted = pin!(pending.closed());
    let mut ended = pin!(admission.closed());
    loop {
        let request = if admission.is_closed() {
            Err(ending())
        } else {
            tokio::select! {
                biased;
                message = requests.message() => message,
                () = &mut unwanted => return,
                () = &mut ended => Err(ending()),
            }
        };
        let next = match request {
            Ok(Some(request)) => tokio::select! {
                biased;
                answer = admit(&admission, request, Arc::clone(&room)) => Ok(answer),
                () = &mut unwanted => return,
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

async fn admit(admission: &Admission, request: SendStreamRequest, room: Arc<Semaphore>) -> Answer {
    let SendStreamRequest { topic, partition, records, traceparent: _ } = request;
    let count = records.len();
    let share = u32::try_from(count.clamp(1, MAX_RECORDS)).expect("a small number");
    let room = room.acquire_many_owned(share).await.expect("the semaphore is never closed");
    let admitted = admission.admit(SendRequest { topic, partition, records }).await;
    Answer { count, admitted: admitted.map_err(|fault| Failure::not_taken_in(fault, count)), _room: room }
}

impl Future for Answer {
    type Output = SendStreamResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let count = self.count;
        let outcome = match &mut self.admitted {
            Ok(outcomes) => match outcome::sent(ready!(Pin::new(outcomes).poll(cx)).ok(), count) {
                Ok(sent) => Outcome::Sent(sent),
                Err(failure) => Outcome::Failed(failure.to_proto()),
            },
            Err(failure) => Outcome::Failed(failure.to_proto()),
        };
        Poll::Ready(SendStreamResponse { outcome: Some(outcome) })
    }
}

fn ending() -> Status {
    let message = "the service is about to end; requests after the last answer were not taken in; send them again elsewhere";
    Fault::new(ErrorCode::BrokerNotAvailable, message).to_status()
}

/// Records of one stream that are not answered yet. A request counts as one at least.
const MAX_RECORDS: usize = 1 << 16;
