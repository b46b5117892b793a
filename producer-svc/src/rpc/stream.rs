//! `SendStream`: many requests under way, answers in the order of the requests.
//!
//! One task for each stream admits the requests in their order, so that they keep it in their partitions. With small requests
//! it costs more to pass one on, from task to task and back, than to do something about it. So those that are there at once are
//! handed over together, as long as none of them has to wait for anything, and the outcomes of all their records are told
//! together; each has its own answer all the same. The price: an answer may wait for that of a request behind it, if they came
//! together and went to different partitions.
//!
//! The answers are in a queue from which the transport takes them. The queue's limit is in records, because the outcomes of a
//! caller that does not read its answers would pile up there; while it is reached no further request is read.

use std::{
    collections::VecDeque,
    future::poll_fn,
    iter, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    vec,
};

use oncelog_edge::{
    in_order::InOrder,
    metrics::calls::{is_server_failure, status_name},
    names,
    security::access::Rights,
    trace::Span,
};
use oncelog_proto::{
    ErrorCode, Fault,
    trace::Traceparent,
    v1::{SendRequest, SendStreamRequest, SendStreamResponse, send_stream_response::Outcome},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

use super::{
    admission::Admission,
    outcome::{self, Failure},
};
use crate::{driver::Prepared, session::RecordOutcome};

/// Serves one stream.
pub(super) fn serve(admission: Admission, rights: Rights, requests: Streaming<SendStreamRequest>) -> Answers {
    // Each request takes at least one record's room, and the end of the stream a place of its own.
    let (pending, queue) = mpsc::channel(MAX_RECORDS + 1);
    let intake = Intake { admission, rights, room: Arc::new(Semaphore::new(MAX_RECORDS)), pending, group: None };
    tokio::spawn(intake.run(requests).in_current_span());
    Answers { queue: InOrder::new(queue), told: None }
}

/// What takes in the requests of one stream. It asks for the next only when the one before is paid for, or refused.
struct Intake {
    admission: Admission,
    /// What the caller may do. The stream may outlive what the caller showed.
    rights: Rights,
    /// How many more records may be unanswered.
    room: Arc<Semaphore>,
    pending: mpsc::Sender<Result<Pending, Status>>,
    /// Paid for and not yet handed over. None whenever something is waited for: or it could be for what the group itself holds.
    group: Option<Group>,
}

/// Requests that go on together.
struct Group {
    prepared: Prepared,
    /// How many records each has.
    counts: Vec<usize>,
    /// Of those that are in a trace.
    spans: Spans,
    room: OwnedSemaphorePermit,
}

/// The spans of some requests, each with the place of its request, in order. Empty, and without memory, if none is in a trace.
/// Those that are left when it is dropped are of requests whose caller went away.
#[derive(Debug, Default)]
struct Spans(VecDeque<(usize, Span)>);

/// The requests have ended, or nobody wants answers any more.
struct Over;

impl Intake {
    /// Ends when the requests do, when nobody wants answers any more, when the caller's token is no longer valid, or when the
    /// service is about to end.
    async fn run(mut self, mut requests: Streaming<SendStreamRequest>) {
        let (admission, pending, rights) = (self.admission.clone(), self.pending.clone(), self.rights.clone());
        // Made once, and looked at only when there is nothing to do.
        let mut unwanted = pin!(pending.closed());
        let mut ended = pin!(admission.closed());
        let mut over = pin!(rights.end());
        loop {
            let next = if admission.is_closed() {
                Some(Err(ending()))
            } else if self.group.is_some() {
                // Who belongs to it is there by now.
                match poll_fn(|cx| Poll::Ready(Pin::new(&mut requests).poll_next(cx))).await {
                    Poll::Ready(next) => next,
                    Poll::Pending if self.hand_over().await.is_ok() => continue,
                    Poll::Pending => return,
                }
            } else {
                tokio::select! {
                    biased;
                    next = poll_fn(|cx| Pin::new(&mut requests).poll_next(cx)) => next,
                    () = &mut unwanted => return,
                    () = &mut ended => Some(Err(ending())),
                    // Below it is asked for each request; but a stream may be idle.
                    fault = &mut over => Some(Err(fault.to_status())),
                }
            };
            let next = match self.rights.still_hold() {
                Err(fault) if matches!(next, Some(Ok(_))) => Some(Err(fault.to_status())),
                _ => next,
            };
            let taken = match next {
                Some(Ok(request)) => tokio::select! {
                    biased;
                    taken = self.take(request) => taken,
                    () = &mut unwanted => return,
                },
                // A message that cannot be decoded leaves nothing to read on from, and whoever is no longer known says nothing
                // more.
                Some(Err(status)) => self.end(Some(status)).await,
                None => self.end(None).await,
            };
            if taken.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, request: SendStreamRequest) -> Result<(), Over> {
        let SendStreamRequest { topic, partition, records, traceparent } = request;
        let span = self.span(&traceparent);
        if let Err((alone, span)) = self.join(SendRequest { topic, partition, records }, span) {
            let (count, context) = (alone.records.len(), span.context());
            let (counts, mut spans) = (vec![count], Spans::default());
            // Before anything is waited for: its caller may go away meanwhile.
            spans.keep(0, span);
            self.hand_over().await?;
            let room = Arc::clone(&self.room).acquire_many_owned(share(count)).await.expect("the semaphore is never closed");
            let prepared = self.admission.prepare(alone, &self.rights, context).await;
            match prepared {
                Ok(prepared) => self.group = Some(Group { prepared, counts, spans, room }),
                Err(fault) => self.tell(Err(fault), counts, spans, room).await?,
            }
        }
        if self.group.as_ref().is_some_and(|group| group.prepared.reserved.bytes() >= GROUP_BYTES) {
            self.hand_over().await?;
        }
        Ok(())
    }

    async fn end(&mut self, status: Option<Status>) -> Result<(), Over> {
        self.hand_over().await?;
        if let Some(status) = status {
            // Whether it is read is no matter.
            let _ = self.pending.send(Err(status)).await;
        }
        Err(Over)
    }

    /// Begins the span of a request. One without a context of its own begins a trace: the stream's would never end.
    fn span(&self, traceparent: &str) -> Span {
        let tracer = self.admission.tracer();
        if !tracer.is_on() {
            return Span::none();
        }
        let mut span = tracer.serve(SEND_STREAM, Traceparent::parse(traceparent));
        span.set(names::RPC_SYSTEM, names::GRPC);
        span.set(names::RPC_METHOD, SEND_STREAM);
        span
    }

    /// Puts a request to those before it, or gives it back if it has to be admitted by itself.
    fn join(&mut self, request: SendRequest, span: Span) -> Result<(), (SendRequest, Span)> {
        let count = request.records.len();
        let Some(group) = &mut self.group else { return Err((request, span)) };
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(share(count)) else { return Err((request, span)) };
        if let Err(request) = self.admission.join(&mut group.prepared, request, span.context()) {
            return Err((request, span));
        }
        group.spans.keep(group.counts.len(), span);
        group.counts.push(count);
        group.room.merge(room);
        Ok(())
    }

    async fn hand_over(&mut self) -> Result<(), Over> {
        let Some(Group { prepared, counts, spans, room }) = self.group.take() else { return Ok(()) };
        let outcomes = self.admission.hand_over(prepared).await;
        self.tell(outcomes, counts, spans, room).await
    }

    async fn tell(
        &self,
        outcomes: Result<Outcomes, Fault>,
        counts: Vec<usize>,
        spans: Spans,
        room: OwnedSemaphorePermit,
    ) -> Result<(), Over> {
        self.pending.send(Ok(Pending { outcomes, counts, spans, room })).await.map_err(|_| Over)
    }
}

impl Spans {
    /// Of the request at `place`, if it is in a trace.
    fn keep(&mut self, place: usize, span: Span) {
        if span.is_recorded() {
            self.0.push_back((place, span));
        }
    }

    /// The request at `place`, and so every one before it, is answered.
    fn end(&mut self, place: usize, status: Code) {
        if let Some((its, span)) = self.0.front_mut()
            && *its == place
        {
            end(span, status);
            self.0.pop_front();
        }
    }
}

impl Drop for Spans {
    /// Nobody heard the answers.
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, span)| end(span, Code::Cancelled));
    }
}

/// Says what a request ended with.
fn end(span: &mut Span, status: Code) {
    span.set(names::RPC_STATUS, status_name(status));
    if is_server_failure(status) {
        span.fail(status_name(status));
    }
}

/// What a request takes of [`MAX_RECORDS`].
fn share(records: usize) -> u32 {
    u32::try_from(records.clamp(1, MAX_RECORDS)).expect("a small number")
}

fn ending() -> Status {
    let message = "the service is about to end; requests after the last answer were not taken in; send them again elsewhere";
    Fault::new(ErrorCode::BrokerNotAvailable, message).to_status()
}

type Outcomes = oneshot::Receiver<Vec<RecordOutcome>>;

/// Requests that went on together, and where the outcomes of all their records will be told, or why none was taken in.
#[derive(Debug)]
struct Pending {
    outcomes: Result<Outcomes, Fault>,
    counts: Vec<usize>,
    spans: Spans,
    room: OwnedSemaphorePermit,
}

/// The same, once that is known.
#[derive(Debug)]
struct Told {
    /// None: the process ends before.
    outcomes: Result<Option<Vec<RecordOutcome>>, Fault>,
    /// How many of the outcomes were answered.
    answered: usize,
    counts: iter::Enumerate<vec::IntoIter<usize>>,
    spans: Spans,
    /// Kept until the transport has taken the last of the answers.
    _room: OwnedSemaphorePermit,
}

impl Future for Pending {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        let this = &mut *self;
        let outcomes = match &mut this.outcomes {
            Ok(outcomes) => Ok(ready!(Pin::new(outcomes).poll(cx)).ok()),
            Err(fault) => Err(fault.clone()),
        };
        let room = this.room.split(this.room.num_permits()).expect("all of them are there");
        let (counts, spans) = (mem::take(&mut this.counts).into_iter().enumerate(), mem::take(&mut this.spans));
        Poll::Ready(Told { outcomes, answered: 0, counts, spans, _room: room })
    }
}

impl Iterator for Told {
    type Item = SendStreamResponse;

    /// The answer to the next request.
    fn next(&mut self) -> Option<SendStreamResponse> {
        let (place, count) = self.counts.next()?;
        let its = self.answered..self.answered + count;
        self.answered = its.end;
        let answer = match &self.outcomes {
            Ok(outcomes) => outcome::sent(outcomes.as_ref().map(|outcomes| &outcomes[its]), count),
            Err(fault) => Err(Failure::not_taken_in(fault.clone(), count)),
        };
        let (outcome, status) = match answer {
            Ok(sent) => (Outcome::Sent(sent), Code::Ok),
            Err(failure) => {
                let failure = failure.to_proto();
                let status = Code::from_i32(failure.code);
                (Outcome::Failed(failure), status)
            }
        };
        self.spans.end(place, status);
        Some(SendStreamResponse { outcome: Some(outcome) })
    }
}

/// The answers of one stream, as the transport takes them.
#[derive(Debug)]
pub(crate) struct Answers {
    queue: InOrder<Pending>,
    told: Option<Told>,
}

impl Stream for Answers {
    type Item = Result<SendStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = self.told.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(Ok(answer)));
            }
            self.told = None;
            match ready!(Pin::new(&mut self.queue).poll_next(cx)) {
                Some(Ok(told)) => self.told = Some(told),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// What a group takes of `buffer.memory` when nobody joins it any more: some hundred records of a hundred bytes. What company
/// saves it has saved by then, and larger requests gain nothing by it.
const GROUP_BYTES: usize = 32 << 10;
/// What a request is called.
const SEND_STREAM: &str = "oncelog.v1.ProducerService/SendStream";
/// Records of one stream that are not answered yet. A request counts as one at least.
const MAX_RECORDS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use oncelog_edge::trace::Tracer;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tokio_stream::StreamExt;

    use super::*;

    /// Requests that went on together, each in a trace of its own, and where their outcomes are told.
    fn pending(tracer: &Tracer, requests: usize) -> (oneshot::Sender<Vec<RecordOutcome>>, Pending) {
        let (tell, outcomes) = oneshot::channel();
        let mut spans = Spans::default();
        (0..requests).for_each(|place| spans.keep(place, tracer.serve(SEND_STREAM, None)));
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one");
        (tell, Pending { outcomes: Ok(outcomes), counts: vec![1; requests], spans, room })
    }

    /// The statuses of the requests' spans, in the order in which they ended.
    fn statuses(exporter: &InMemorySpanExporter) -> Vec<String> {
        let status = |attributes: Vec<opentelemetry::KeyValue>| {
            let said = attributes.into_iter().find(|said| said.key.as_str() == names::RPC_STATUS);
            said.map_or_else(|| "none".to_owned(), |said| said.value.to_string())
        };
        exporter.get_finished_spans().expect("whole").into_iter().map(|span| status(span.attributes)).collect()
    }

    #[tokio::test]
    async fn a_request_whose_answer_nobody_takes_is_cancelled_wherever_it_was() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let tracer = Tracer::new(provider.tracer("test"));
        let (waits, queue) = mpsc::channel(2);
        let mut answers = Answers { queue: InOrder::new(queue), told: None };
        // One request of three is answered, and another waits for its outcome, when the answers are dropped.
        let (tell, three) = pending(&tracer, 3);
        let (_told_never, one) = pending(&tracer, 1);
        for pending in [three, one] {
            waits.send(Ok(pending)).await.expect("there is room");
        }
        tell.send(vec![RecordOutcome::Unknown; 3]).expect("it is waited for");
        answers.next().await.expect("an answer").expect("no status");
        assert_eq!(statuses(&exporter), ["DEADLINE_EXCEEDED"]);
        drop(answers);
        assert_eq!(statuses(&exporter), ["DEADLINE_EXCEEDED", "CANCELLED", "CANCELLED", "CANCELLED"]);
        // And one that is to be told when nobody is there any more.
        let (_told_never, one) = pending(&tracer, 1);
        assert!(waits.send(Ok(one)).await.is_err());
        assert_eq!(statuses(&exporter)[4..], ["CANCELLED"]);
    }
}
