//! A caller of `SendStream`: many requests outstanding. What a stream takes with it when it breaks is unknown.

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
use tonic::transport::Channel;

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
        let unanswered = streamer.stream(&stop).await;
        for (call, count) in unanswered {
            streamer.ways.recorder.saw(Event::SendAnswered { call, outcomes: wire::no_answer(count) });
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
    /// One stream, until it breaks or all shall end. Returns the calls that were not answered, each with its number of records.
    async fn stream(&mut self, stop: &watch::Receiver<bool>) -> VecDeque<(CallId, usize)> {
        let (requests, outgoing) = mpsc::channel(OUTSTANDING);
        let mut open = VecDeque::new();
        // The answer to the call itself may wait for the first request.
        self.send(&requests, &mut open);
        let opened = timeout(ANSWER_PATIENCE, self.client.send_stream(ReceiverStream::new(outgoing))).await;
        let Ok(Ok(answers)) = opened else { return open };
        let mut answers = answers.into_inner();
        loop {
            while open.len() < OUTSTANDING && !*stop.borrow() {
                self.send(&requests, &mut open);
            }
            if open.is_empty() {
                return open;
            }
            let Ok(Ok(Some(answer))) = timeout(ANSWER_PATIENCE, answers.message()).await else { return open };
            let Some((call, count)) = open.pop_front() else { return open };
            self.ways.recorder.saw(Event::SendAnswered { call, outcomes: wire::send_stream(count, &answer) });
            sleep(self.dice.millis(0, 8)).await;
        }
    }

    fn send(&mut self, requests: &mpsc::Sender<SendStreamRequest>, open: &mut VecDeque<(CallId, usize)>) {
        let records = records(&self.who, self.sent, &mut self.dice, 10);
        self.sent += records.len() as u64;
        let (call, topic) = (self.ways.recorder.call(), self.ways.topic.clone());
        let digests = records.iter().map(Digest::of).collect();
        let called = SendCalled { call, caller: self.caller, streamed: true, topic: topic.clone(), partition: None, records: digests };
        self.ways.recorder.saw(Event::SendCalled(called));
        open.push_back((call, records.len()));
        // It has room for all that may be outstanding; if it is closed, the answers will say so.
        let _ = requests.try_send(SendStreamRequest { topic, partition: None, records, traceparent: String::new() });
    }
}

const OUTSTANDING: usize = 16;
