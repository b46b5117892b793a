//! A caller of `SendStream`: many requests outstanding. What a stream takes with it when it breaks is unknown, unless the service
//! says why it ended.

use std::collections::VecDeque;

use oncelog_proto::v1::{SendStreamRequest, producer_service_client::ProducerServiceClient};
use oncelog_verify::{
    history::{CallId, CallerId, Digest, Event, SendCalled},
    wire,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{ANSWER_PATIENCE, PAUSE, Ways, records};
use crate::{dice::Dice, stage::channel};

pub(super) async fn run(ways: Ways, number: u64, dice: Dice, stop: watch::Receiver<bool>) {
    let (who, caller) = (format!("{}/streamer {number}", ways.topic), CallerId(number));
    let mut streamer = Streamer { client: ProducerServiceClient::new(channel(ways.producer)), ways, caller, who, dice, sent: 0 };
    for stream in 1_u64.. {
        if *stop.borrow() {
            break;
        }
        // Of an earlier stream requests may still be on their way; so this one is somebody else.
        streamer.caller = CallerId(stream << 32 | number);
        let mut open = VecDeque::new();
        let end = streamer.stream(&mut open, &stop).await;
        for (call, count) in open {
            let outcomes = end.as_ref().map_or_else(|| wire::no_answer(count), |status| wire::send_stream_ended(count, status));
            streamer.ways.recorder.saw(Event::SendAnswered { call, outcomes });
        }
        sleep(PAUSE).await;
    }
}

struct Streamer {
    client: ProducerServiceClient<Channel>,
    ways: Ways,
    caller: CallerId,
    who: String,
    dice: Dice,
    sent: u64,
}

impl Streamer {
    /// One stream, until it breaks or all shall end. `open` are the calls that were not answered, each with its number of
    /// records. Returns the status at its end, if there was one.
    async fn stream(&mut self, open: &mut VecDeque<(CallId, usize)>, stop: &watch::Receiver<bool>) -> Option<Status> {
        let (requests, outgoing) = mpsc::channel(OUTSTANDING);
        // The answer to the call itself may wait for the first request.
        self.send(&requests, open);
        let opened = timeout(ANSWER_PATIENCE, self.client.send_stream(ReceiverStream::new(outgoing))).await;
        let mut answers = match opened {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Some(status),
            Err(_) => return None,
        };
        loop {
            while open.len() < OUTSTANDING && !*stop.borrow() {
                self.send(&requests, open);
            }
            if open.is_empty() {
                return None;
            }
            let answer = match timeout(ANSWER_PATIENCE, answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Err(status)) => return Some(status),
                Ok(Ok(None)) | Err(_) => return None,
            };
            let (call, count) = open.pop_front()?;
            self.ways.recorder.saw(Event::SendAnswered { call, outcomes: wire::send_stream(count, &answer) });
            sleep(self.dice.millis(0, 8)).await;
        }
    }

    fn send(&mut self, requests: &mpsc::Sender<SendStreamRequest>, open: &mut VecDeque<(CallId, usize)>) {
        let records = records(&self.who, self.sent, &mut self.dice, 10);
        self.sent += records.len() as u64;
        let (call, topic) = (self.ways.recorder.call(), self.ways.topic.clone());
        let digests = records.iter().map(Digest::of).collect();
        let called = SendCalled {
            call,
            caller: self.caller,
            streamed: true,
            repeats: false,
            topic: topic.clone(),
            partition: None,
            records: digests,
        };
        self.ways.recorder.saw(Event::SendCalled(called));
        open.push_back((call, records.len()));
        // It has room for all that may be outstanding; if it is closed, the answers will say so.
        let _ = requests.try_send(SendStreamRequest { topic, partition: None, records, traceparent: String::new() });
    }
}

const OUTSTANDING: usize = 16;
