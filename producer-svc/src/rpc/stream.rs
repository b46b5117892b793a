//! `SendStream`: many requests under way, answers in the order of the requests.
//!
//! Two tasks for each stream. One admits the requests in their order, so that they keep it in their partitions; the other waits
//! for the outcomes in the same order. Between them is a queue with two limits, requests and records, because the outcomes of a
//! caller that does not read its answers would pile up there. While it is full no further request is read.

use std::sync::Arc;

use oncelog_proto::{
    ErrorCode, Fault,
    v1::{SendRequest, SendStreamRequest, SendStreamResponse, send_stream_response::Outcome},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    admission::Admission,
    outcome::{self, Failure},
};
use crate::session::RecordOutcome;

/// The answers of one stream.
pub(super) type Answers = ReceiverStream<Result<SendStreamResponse, Status>>;

/// What stands in the queue between the two tasks.
enum Pending {
    Request {
        count: usize,
        admitted: Result<oneshot::Receiver<Vec<RecordOutcome>>, Failure>,
        /// Its share of [`MAX_RECORDS`], kept until it is answered.
        _room: OwnedSemaphorePermit,
    },
    /// The stream ends with this status, after the answers before it.
    End(Status),
}

/// Serves one stream.
pub(super) fn serve(admission: Admission, requests: Streaming<SendStreamRequest>) -> Answers {
    let (pending, queue) = mpsc::channel(MAX_REQUESTS);
    let (answers, stream) = mpsc::channel(MAX_UNREAD);
    tokio::spawn(admit_all(admission, requests, pending));
    tokio::spawn(answer_all(queue, answers));
    ReceiverStream::new(stream)
}

/// Ends when the requests do, or when nobody wants answers any more.
async fn admit_all(admission: Admission, mut requests: Streaming<SendStreamRequest>, pending: mpsc::Sender<Pending>) {
    let room = Arc::new(Semaphore::new(MAX_RECORDS));
    loop {
        let request = tokio::select! {
            biased;
            () = pending.closed() => return,
            () = admission.closed() => Err(ending()),
            message = requests.message() => message,
        };
        let next = match request {
            Ok(Some(request)) => {
                let admit = admit(&admission, request, Arc::clone(&room));
                tokio::select! {
                    biased;
                    () = pending.closed() => return,
                    next = admit => next,
                }
            }
            Ok(None) => return,
            // A message that cannot be decoded leaves nothing to read on from.
            Err(status) => Pending::End(status),
        };
        let last = matches!(next, Pending::End(_));
        if pending.send(next).await.is_err() || last {
            return;
        }
    }
}

async fn admit(admission: &Admission, request: SendStreamRequest, room: Arc<Semaphore>) -> Pending {
    let SendStreamRequest { topic, partition, records, traceparent: _ } = request;
    let count = records.len();
    let share = u32::try_from(count.clamp(1, MAX_RECORDS)).expect("a small number");
    let room = room.acquire_many_owned(share).await.expect("the semaphore is never closed");
    let admitted = admission.admit(SendRequest { topic, partition, records }).await;
    Pending::Request { count, admitted: admitted.map_err(|fault| Failure::not_taken_in(fault, count)), _room: room }
}

/// Ends when the queue does, or when nobody reads the answers any more; the records of the requests live on.
async fn answer_all(mut queue: mpsc::Receiver<Pending>, answers: mpsc::Sender<Result<SendStreamResponse, Status>>) {
    loop {
        let answer = async {
            Some(match queue.recv().await? {
                Pending::Request { count, admitted, _room } => {
                    let sent = match admitted {
                        Ok(outcomes) => outcome::sent(outcomes.await.ok(), count),
                        Err(failure) => Err(failure),
                    };
                    let outcome = match sent {
                        Ok(sent) => Outcome::Sent(sent),
                        Err(failure) => Outcome::Failed(failure.to_proto()),
                    };
                    Ok(SendStreamResponse { outcome: Some(outcome) })
                }
                Pending::End(status) => Err(status),
            })
        };
        let answer = tokio::select! {
            biased;
            () = answers.closed() => return,
            answer = answer => answer,
        };
        let Some(answer) = answer else { return };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

fn ending() -> Status {
    let message = "the service is about to end; requests after the last answer were not taken in; send them again elsewhere";
    Fault::new(ErrorCode::BrokerNotAvailable, message).to_status()
}

/// Requests of one stream that are not answered yet.
const MAX_REQUESTS: usize = 1024;
/// Their records.
const MAX_RECORDS: usize = 1 << 16;
/// Answers that wait for the network.
const MAX_UNREAD: usize = 16;
