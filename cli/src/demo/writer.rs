//! A writer: one `SendStream`, several requests outstanding, never a record a second time. Its records go to every partition, in
//! their order.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use oncelog_chaos::{dice::Dice, recorder::Recorder, stage::channel};
use oncelog_proto::v1::{
    Record, SendResponse, SendStreamRequest, SendStreamResponse, producer_service_client::ProducerServiceClient,
    send_stream_response::Outcome,
};
use oncelog_verify::{
    history::{CallId, CallerId, Digest, Event, SendCalled},
    wire,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{audit::RecordId, board::Board};

/// Where a writer writes, and to whom it tells of it.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub(super) topic: String,
    /// producer-svc.
    pub(super) producer: SocketAddr,
    pub(super) recorder: Recorder,
    pub(super) board: Board,
}

/// Writes until `stop`, and waits for the answers to what it has begun.
pub(super) async fn run(ways: Ways, number: usize, dice: Dice, stop: watch::Receiver<bool>) {
    let client = ProducerServiceClient::new(channel(ways.producer));
    let mut writer = Writer { ways, number, dice, sent: 0, streams: 0 };
    while !*stop.borrow() {
        let mut open = VecDeque::new();
        let end = writer.stream(client.clone(), &mut open, &stop).await;
        // producer-svc is not among what fails here; if it does all the same, this is what nobody knows.
        for request in open {
            let outcomes = end
                .as_ref()
                .map_or_else(|| wire::no_answer(request.count), |status| wire::send_stream_ended(request.count, status));
            writer.ways.recorder.saw(Event::SendAnswered { call: request.call, outcomes });
        }
        writer.streams += 1;
        sleep(PAUSE).await;
    }
}

struct Writer {
    ways: Ways,
    number: usize,
    dice: Dice,
    sent: u64,
    streams: u64,
}

/// A request without an answer.
struct Open {
    call: CallId,
    first: u64,
    count: usize,
    sent: Instant,
}

impl Writer {
    /// One stream, until it breaks or all shall end. Returns the status at its end, if there was one.
    async fn stream(
        &mut self,
        mut client: ProducerServiceClient<Channel>,
        open: &mut VecDeque<Open>,
        stop: &watch::Receiver<bool>,
    ) -> Option<Status> {
        let (requests, outgoing) = mpsc::channel(OUTSTANDING);
        // The answer to the call itself may wait for the first request.
        self.send(&requests, open);
        let mut answers = match timeout(PATIENCE, client.send_stream(ReceiverStream::new(outgoing))).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Some(status),
            Err(_) => return None,
        };
        loop {
            let may_send = open.len() < OUTSTANDING && !*stop.borrow();
            if open.is_empty() && !may_send {
                return None;
            }
            let pause = self.dice.millis(4, 16);
            tokio::select! {
                answer = next(&mut answers), if !open.is_empty() => match answer {
                    Ok(answer) => self.answered(open.pop_front()?, &answer),
                    Err(end) => return end,
                },
                () = sleep(pause), if may_send => self.send(&requests, open),
            }
        }
    }

    fn send(&mut self, requests: &mpsc::Sender<SendStreamRequest>, open: &mut VecDeque<Open>) {
        let first = self.sent;
        let count = 1 + self.dice.below(8);
        self.sent += count;
        let records: Vec<_> = (first..self.sent).map(|number| self.record(number)).collect();
        let (call, topic) = (self.ways.recorder.call(), self.ways.topic.clone());
        let called = SendCalled {
            call,
            // Of an earlier stream requests may still be on their way; so each is a caller of its own.
            caller: CallerId(self.streams << 32 | self.number as u64),
            streamed: true,
            repeats: false,
            topic: topic.clone(),
            partition: None,
            records: records.iter().map(Digest::of).collect(),
        };
        self.ways.recorder.saw(Event::SendCalled(called));
        open.push_back(Open { call, first, count: records.len(), sent: now() });
        // It has room for all that may be outstanding; if it is closed, the answers will say so.
        let _ = requests.try_send(SendStreamRequest { topic, partition: None, records, traceparent: String::new() });
    }

    fn record(&self, number: u64) -> Record {
        let value = RecordId { writer: self.number, number }.value();
        Record {
            key: Some(format!("writer {} key {}", self.number, number % KEYS).into()),
            value: Some(value.into()),
            ..Record::default()
        }
    }

    fn answered(&self, open: Open, answer: &SendStreamResponse) {
        let took = now().saturating_duration_since(open.sent);
        self.ways.recorder.saw(Event::SendAnswered { call: open.call, outcomes: wire::send_stream(open.count, answer) });
        if let Some(Outcome::Sent(SendResponse { records })) = &answer.outcome {
            let writer = self.number;
            let places = (open.first..).zip(records);
            let places = places.map(|(number, sent)| (RecordId { writer, number }, sent.partition, sent.offset));
            self.ways.board.acknowledged(took, places);
        }
    }
}

/// The next answer; else how the stream ended.
async fn next(answers: &mut Streaming<SendStreamResponse>) -> Result<SendStreamResponse, Option<Status>> {
    match timeout(PATIENCE, answers.message()).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Err(status)) => Err(Some(status)),
        Ok(Ok(None)) | Err(_) => Err(None),
    }
}

#[expect(clippy::disallowed_methods, reason = "a caller measures how long its calls take by a real clock")]
fn now() -> Instant {
    Instant::now()
}

/// Requests without an answer: enough to go on writing while nothing is answered for a moment.
const OUTSTANDING: usize = 64;
const KEYS: u64 = 8;
/// Longer than producer-svc tries here.
const PATIENCE: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(20);
