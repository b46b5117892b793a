//! An idempotent producer of the plainest kind, on the broker itself: up to five tagged batches at once, each sent again
//! unchanged until its outcome is known. Now and then it sends one again that is known to be there, recovers its epoch in the
//! middle of its work, and lets a batch of the old epoch follow.

use std::{collections::VecDeque, time::Duration};

use oncelog_proto::{
    PackedBatch,
    v1::{Batch, InitProducerIdRequest, ProduceRequest, Record, broker_service_client::BrokerServiceClient},
};
use oncelog_verify::{
    history::{Event, InitAnswer, InitCalled, Partition, ProduceAnswer, ProduceCalled, Producer, Tag},
    wire,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use super::{PAUSE, Ways, records};
use crate::{dice::Dice, stage::channel};

pub(super) async fn run(ways: Ways, partition: Partition, dice: Dice, stop: watch::Receiver<bool>) {
    let who = format!("{partition}/raw");
    let client = BrokerServiceClient::new(channel(ways.broker));
    let Some(producer) = fresh(&ways, client.clone(), &stop).await else { return };
    let mut raw = RawProducer {
        ways,
        client,
        partition,
        who,
        dice,
        producer,
        next: 0,
        sent: 0,
        names: 0,
        window: Vec::new(),
        known: VecDeque::new(),
    };
    while !*stop.borrow() {
        raw.step(&stop).await;
    }
}

struct RawProducer {
    ways: Ways,
    client: BrokerServiceClient<Channel>,
    partition: Partition,
    who: String,
    dice: Dice,
    producer: Producer,
    /// Sequence of the next new batch.
    next: i64,
    /// Records made.
    sent: u64,
    /// Batches made.
    names: u64,
    /// Tagged and not known to be in the log, in the order of their sequences.
    window: Vec<Pending>,
    /// The last five that are known to be in the log under the current epoch.
    known: VecDeque<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    name: u64,
    tag: Tag,
    packed: PackedBatch,
    is_retry: bool,
}

impl RawProducer {
    async fn step(&mut self, stop: &watch::Receiver<bool>) {
        if self.window.is_empty() {
            self.fill();
        }
        let mut out = self.window.clone();
        if self.dice.once_in(4) {
            out.extend(self.known.get(usize::try_from(self.dice.below(WINDOW_BATCHES as u64)).expect("small")).cloned());
        }
        let answers = self.send(out).await;
        let resolved = |answer: &ProduceAnswer| {
            matches!(answer, ProduceAnswer::Acknowledged { .. } | ProduceAnswer::DuplicateBelowWindow | ProduceAnswer::Conflict)
        };
        let before = self.window.len();
        for pending in &mut self.window {
            pending.is_retry = true;
        }
        for (name, _) in answers.iter().filter(|(_, answer)| resolved(answer)) {
            if let Some(at) = self.window.iter().position(|pending| pending.name == *name) {
                self.known.push_back(self.window.remove(at));
                if self.known.len() > WINDOW_BATCHES {
                    self.known.pop_front();
                }
            }
        }
        let fenced = answers.iter().any(|(_, answer)| matches!(answer, ProduceAnswer::Fenced | ProduceAnswer::UnknownProducer));
        if fenced || self.dice.once_in(100) {
            self.recover(stop).await;
        } else if self.window.len() == before {
            sleep(PAUSE).await;
        }
        sleep(self.dice.millis(0, 4)).await;
    }

    fn fill(&mut self) {
        for _ in 0..1 + self.dice.below(WINDOW_BATCHES as u64) {
            let records: Vec<Record> = records(&self.who, self.sent, &mut self.dice, 8);
            self.sent += records.len() as u64;
            let packed = PackedBatch::from_records(&records).expect("a few small records");
            let tag = Tag { producer: self.producer, base_sequence: self.next };
            self.next += i64::from(packed.count().get());
            self.window.push(Pending { name: self.names, tag, packed, is_retry: false });
            self.names += 1;
        }
    }

    /// Sends each in a call of its own, all at once: they arrive in any order.
    async fn send(&self, batches: Vec<Pending>) -> Vec<(u64, ProduceAnswer)> {
        let mut calls = JoinSet::new();
        self.ways.recorder.retried(batches.iter().filter(|pending| pending.is_retry).count() as u64);
        for pending in batches {
            calls.spawn(produce(self.ways.clone(), self.client.clone(), self.partition.clone(), pending));
        }
        let mut answers = Vec::new();
        while let Some(answer) = calls.join_next().await {
            answers.extend(answer.ok());
        }
        answers
    }

    /// Asks what is in the log. What is not gets a tag of the new epoch.
    async fn recover(&mut self, stop: &watch::Receiver<bool>) {
        let token = format!("{:016x}", self.dice.draw());
        let answer = loop {
            match init(&self.ways, self.client.clone(), Some(self.producer), &token).await {
                InitAnswer::Unknown if *stop.borrow() => return,
                InitAnswer::Unknown => sleep(PAUSE).await,
                answer => break answer,
            }
        };
        let stray = self.window.first().or_else(|| self.known.back()).cloned();
        match answer {
            InitAnswer::Granted { producer, fenced } => {
                let own = fenced.iter().find(|fenced| fenced.partition == self.partition);
                let next = own.map_or(0, |own| own.next_sequence);
                self.window.retain(|pending| pending.tag.base_sequence >= next);
                self.retag(producer);
            }
            // Whoever forgot the id will not say what is in the log: what was sent stays unknown, and is not sent again.
            _ => {
                let Some(producer) = fresh(&self.ways, self.client.clone(), stop).await else { return };
                self.window.clear();
                self.retag(producer);
            }
        }
        if self.dice.once_in(2) {
            self.send(stray.into_iter().collect()).await;
        }
    }

    fn retag(&mut self, producer: Producer) {
        self.producer = producer;
        self.next = 0;
        self.known.clear();
        for pending in &mut self.window {
            pending.tag = Tag { producer, base_sequence: self.next };
            self.next += i64::from(pending.packed.count().get());
        }
    }
}

async fn produce(
    ways: Ways,
    mut client: BrokerServiceClient<Channel>,
    partition: Partition,
    pending: Pending,
) -> (u64, ProduceAnswer) {
    let call = ways.recorder.call();
    let Pending { name, tag, packed, .. } = pending;
    let called = ProduceCalled {
        call,
        partition: partition.clone(),
        tag: Some(tag),
        record_count: packed.count().get().unsigned_abs(),
        checksum: packed.checksum(),
        batch: Some(u64::from(partition.partition.unsigned_abs()) << 32 | name),
    };
    ways.recorder.saw(Event::ProduceCalled(called));
    let batch = Batch {
        topic: partition.topic,
        partition: partition.partition,
        base_sequence: tag.base_sequence,
        packed: Some(packed.to_proto()),
        ..Batch::default()
    };
    let request = ProduceRequest {
        producer_id: Some(tag.producer.id),
        producer_epoch: tag.producer.epoch,
        batches: vec![batch],
        ..ProduceRequest::default()
    };
    let answer = match timeout(CALL_PATIENCE, client.produce(request)).await {
        Ok(Ok(response)) => response.into_inner().results.first().map_or(ProduceAnswer::Unknown, wire::produce),
        Ok(Err(status)) => wire::produce_failed(&status),
        Err(_) => ProduceAnswer::Unknown,
    };
    ways.recorder.saw(Event::ProduceAnswered { call, answer });
    (name, answer)
}

/// A fresh producer id; none if it is not to be had before the end.
async fn fresh(ways: &Ways, client: BrokerServiceClient<Channel>, stop: &watch::Receiver<bool>) -> Option<Producer> {
    while !*stop.borrow() {
        if let InitAnswer::Granted { producer, .. } = init(ways, client.clone(), None, "").await {
            return Some(producer);
        }
        sleep(PAUSE).await;
    }
    None
}

async fn init(ways: &Ways, mut client: BrokerServiceClient<Channel>, recover: Option<Producer>, token: &str) -> InitAnswer {
    let call = ways.recorder.call();
    ways.recorder.saw(Event::InitCalled(InitCalled { call, recover, token: token.to_owned() }));
    let mut pages = Vec::new();
    let answer = loop {
        let request = InitProducerIdRequest {
            producer_id: recover.map(|producer| producer.id),
            producer_epoch: recover.map(|producer| producer.epoch),
            recovery_token: token.to_owned(),
            page_token: pages
                .last()
                .map_or_else(String::new, |page: &oncelog_proto::v1::InitProducerIdResponse| page.next_page_token.clone()),
        };
        match timeout(CALL_PATIENCE, client.init_producer_id(request)).await {
            Ok(Ok(page)) => {
                pages.push(page.into_inner());
                if pages.last().is_some_and(|page| page.next_page_token.is_empty()) {
                    break wire::init(&pages);
                }
            }
            Ok(Err(status)) => break wire::init_failed(&status),
            Err(_) => break InitAnswer::Unknown,
        }
    };
    ways.recorder.saw(Event::InitAnswered { call, answer: answer.clone() });
    answer
}

/// Batches that the broker remembers, and that may be on their way at once.
const WINDOW_BATCHES: usize = 5;
/// Shorter than most failures last, so that copies of a batch overtake each other.
const CALL_PATIENCE: Duration = Duration::from_millis(400);
