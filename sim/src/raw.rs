//! A client that speaks the broker's protocol by itself, and strains it: it overtakes itself, repeats what is long settled, sends
//! in epochs that are over, claims another content for sequences that it used, and takes over ids of others. It keeps to what a
//! right client must do: no tag is used for two batches, and at most five are in doubt (R1).

mod lanes;

use std::{cell::RefCell, collections::VecDeque, rc::Rc, time::Duration};

use oncelog_proto::{
    Compression, ErrorCode, PackedBatch, RecordCount, record_set,
    v1::{self, Record, batch_result::Outcome, broker_service_client::BrokerServiceClient},
};
use oncelog_verify::{
    history::{CallId, Event, FencedPartition, InitAnswer, InitCalled, Partition, ProduceAnswer, ProduceCalled, Producer},
    wire,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{Status, transport::Channel};

use crate::work::Place;
use lanes::{Batch, Lanes};

/// Ids that are in use, so that somebody can take one over.
pub(crate) type Ids = Rc<RefCell<Vec<Producer>>>;

pub(crate) async fn run(place: Place, ids: Ids) {
    let broker = BrokerServiceClient::new(place.wires.watched_channel("courier")).max_decoding_message_size(16 << 20);
    let partitions = place.topics.partitions().collect();
    let mut raw = Raw {
        place,
        ids,
        broker,
        partitions,
        producer: None,
        lanes: Lanes::default(),
        settled: VecDeque::new(),
        calls: JoinSet::new(),
        is_fenced: false,
    };
    raw.storm().await;
    raw.calm().await;
}

struct Raw {
    place: Place,
    ids: Ids,
    broker: BrokerServiceClient<Channel>,
    partitions: Vec<Partition>,
    producer: Option<Producer>,
    lanes: Lanes,
    /// Batches whose outcome is known, or will never be, of this epoch and earlier ones.
    settled: VecDeque<Batch>,
    calls: JoinSet<(CallId, Batch, Result<v1::BatchResult, Status>)>,
    /// Only a recovery helps.
    is_fenced: bool,
}

impl Raw {
    async fn storm(&mut self) {
        while !self.place.weather.is_calm() {
            let pause = self.place.dice.long_tailed(Duration::from_millis(150));
            tokio::select! {
                biased;
                Some(ended) = self.calls.join_next() => self.heard(ended.expect("nobody cancels a call")),
                () = sleep(pause) => self.act().await,
            }
        }
    }

    /// What is in doubt is settled: sent again until it is answered, in its order.
    async fn calm(&mut self) {
        let began = Instant::now();
        loop {
            while let Some(ended) = self.calls.join_next().await {
                self.heard(ended.expect("nobody cancels a call"));
            }
            if self.is_fenced {
                self.recover().await;
                continue;
            }
            let open = self.lanes.in_doubt();
            if open.is_empty() {
                return;
            }
            if began.elapsed() > LONG_ENOUGH {
                return self.place.chronicle.fail(format!(
                    "{}: {} batches are not settled after {LONG_ENOUGH:?} of calm",
                    self.place.name,
                    open.len()
                ));
            }
            for batch in open {
                self.send(batch);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn act(&mut self) {
        let Some(producer) = self.producer else { return self.begin().await };
        if self.is_fenced {
            return self.recover().await;
        }
        match self.place.dice.within(0..=99) {
            0..=59 => self.send_new(producer),
            60..=77 => self.repeat_open(),
            78..=92 => self.repeat_settled(),
            93..=95 => self.claim_other_content(producer),
            96..=98 => self.recover().await,
            _ => self.take_over().await,
        }
    }

    /// One batch, or two of which the later one goes first.
    fn send_new(&mut self, producer: Producer) {
        if self.calls.len() >= CALLS {
            return;
        }
        let partition = self.place.dice.pick(&self.partitions).clone();
        let mut batches = Vec::new();
        for _ in 0..self.place.dice.within(1..=2) {
            let count = self.place.dice.within(1..=4);
            let records: Vec<_> = (0..count).map(|_| self.place.record()).collect();
            let packed = pack(&records, *self.place.dice.pick(&[Compression::None, Compression::Lz4]));
            let name = self.place.chronicle.call().0;
            let Some(batch) = self.lanes.tag(producer, name, &partition, packed) else { break };
            batches.push(batch);
        }
        if self.place.dice.percent(50) {
            batches.reverse();
        }
        for batch in batches {
            self.send(batch);
        }
    }

    fn repeat_open(&mut self) {
        let open = self.lanes.in_doubt();
        if !open.is_empty() && self.calls.len() < CALLS {
            let batch = self.place.dice.pick(&open).clone();
            self.send(batch);
        }
    }

    /// A copy that arrives when everything is over; of an older epoch, it is a ghost.
    fn repeat_settled(&mut self) {
        if !self.settled.is_empty() && self.calls.len() < CALLS {
            let index = self.place.dice.index(self.settled.len());
            self.send(self.settled[index].clone());
        }
    }

    /// Only for sequences that certainly are in the log: elsewhere this could get in first.
    fn claim_other_content(&mut self, producer: Producer) {
        let own: Vec<_> = self.settled.iter().filter(|batch| batch.tag.producer == producer).collect();
        if own.is_empty() || self.calls.len() >= CALLS {
            return;
        }
        let mut batch = (*self.place.dice.pick(&own)).clone();
        let records: Vec<_> = (0..batch.packed.count().get()).map(|_| self.place.record()).collect();
        batch.packed = pack(&records, Compression::None);
        batch.name = self.place.chronicle.call().0;
        self.send(batch);
    }

    async fn begin(&mut self) {
        self.is_fenced = false;
        if let InitAnswer::Granted { producer, .. } = self.init(None, String::new()).await {
            self.own(producer);
        }
    }

    /// Raises the epoch, learns what is in the log, and tags anew what is not.
    async fn recover(&mut self) {
        let Some(old) = self.producer else { return self.begin().await };
        let token = format!("{}-{}", self.place.name, self.place.dice.next());
        loop {
            match self.init(Some(old), token.clone()).await {
                InitAnswer::Granted { producer, fenced } => return self.go_on(producer, &fenced),
                InitAnswer::Unknown => {
                    let pause = self.place.dice.millis(10..=300);
                    sleep(pause).await;
                }
                // What was in doubt stays in doubt for good.
                InitAnswer::UnknownProducer | InitAnswer::Refused => {
                    self.place.chronicle.count("client: gave up its id");
                    self.abandon();
                    return self.begin().await;
                }
            }
        }
    }

    fn go_on(&mut self, producer: Producer, fenced: &[FencedPartition]) {
        self.place.chronicle.count("client: recovered");
        self.own(producer);
        let old = self.lanes.recover(producer, fenced);
        self.forget(old);
    }

    fn own(&mut self, producer: Producer) {
        let mut ids = self.ids.borrow_mut();
        ids.retain(|id| id.id != producer.id);
        ids.push(producer);
        self.producer = Some(producer);
        self.is_fenced = false;
    }

    fn abandon(&mut self) {
        let old = self.lanes.abandon();
        self.forget(old);
        self.producer = None;
    }

    /// As a second process with the same id would do; who had it is fenced.
    async fn take_over(&mut self) {
        let ids = self.ids.borrow().clone();
        if ids.is_empty() {
            return;
        }
        let other = *self.place.dice.pick(&ids);
        if self.producer.is_some_and(|own| own.id == other.id) {
            return;
        }
        let token = format!("{}-{}", self.place.name, self.place.dice.next());
        if let InitAnswer::Granted { producer, .. } = self.init(Some(other), token).await {
            self.place.chronicle.count("client: took over an id");
            self.abandon();
            self.own(producer);
        }
    }

    async fn init(&mut self, recover: Option<Producer>, token: String) -> InitAnswer {
        let call = self.place.chronicle.call();
        self.place.chronicle.note(Event::InitCalled(InitCalled { call, recover, token: token.clone() }));
        let patience = self.place.dice.millis(300..=3_000);
        let answer = timeout(patience, pages(&mut self.broker, recover, token)).await.unwrap_or(InitAnswer::Unknown);
        self.place.chronicle.count(format!(
            "init: {}",
            match &answer {
                InitAnswer::Granted { .. } => "granted",
                InitAnswer::UnknownProducer => "unknown producer",
                InitAnswer::Refused => "refused",
                InitAnswer::Unknown => "no answer",
            }
        ));
        self.place.chronicle.note(Event::InitAnswered { call, answer: answer.clone() });
        answer
    }

    fn send(&mut self, batch: Batch) {
        let call = self.place.chronicle.call();
        self.place.chronicle.note(Event::ProduceCalled(ProduceCalled {
            call,
            partition: batch.partition.clone(),
            tag: Some(batch.tag),
            record_count: batch.packed.count().get().unsigned_abs(),
            checksum: batch.packed.checksum(),
            batch: Some(batch.name),
        }));
        let mut broker = self.broker.clone();
        let patience = self.place.dice.millis(200..=3_000);
        self.calls.spawn(async move {
            let request = v1::ProduceRequest {
                producer_id: Some(batch.tag.producer.id),
                producer_epoch: batch.tag.producer.epoch,
                batches: vec![v1::Batch {
                    topic: batch.partition.topic.clone(),
                    partition: batch.partition.partition,
                    base_sequence: batch.tag.base_sequence,
                    packed: Some(batch.packed.to_proto()),
                    ..v1::Batch::default()
                }],
                ..v1::ProduceRequest::default()
            };
            let answered = match timeout(patience, broker.produce(request)).await {
                Ok(Ok(answer)) => answer.into_inner().results.into_iter().next().ok_or_else(|| Status::unknown("no result")),
                Ok(Err(status)) => Err(status),
                Err(_) => Err(Status::deadline_exceeded("no patience")),
            };
            (call, batch, answered)
        });
    }

    fn heard(&mut self, (call, batch, answered): (CallId, Batch, Result<v1::BatchResult, Status>)) {
        self.place.chronicle.count(format!("batch: {}", name_of(&answered)));
        let answer = answered.map_or_else(|status| wire::produce_failed(&status), |result| wire::produce(&result));
        self.place.chronicle.note(Event::ProduceAnswered { call, answer });
        // An answer counts only for a batch that still carries the same tag (R6), and not for one that never should have been.
        if self.producer != Some(batch.tag.producer) {
            return;
        }
        match answer {
            ProduceAnswer::Acknowledged { .. } | ProduceAnswer::DuplicateBelowWindow => {
                let settled = self.lanes.settle(&batch);
                self.forget(settled);
            }
            ProduceAnswer::Fenced | ProduceAnswer::UnknownProducer => self.is_fenced = true,
            // A gap is closed by sending what is before it, which is done all the time.
            _ => {}
        }
    }

    /// Not quite: some are kept to be sent once more when nobody expects them.
    fn forget(&mut self, batches: impl IntoIterator<Item = Batch>) {
        self.settled.extend(batches);
        self.settled.drain(..self.settled.len().saturating_sub(REMEMBERED));
    }
}

fn pack(records: &[Record], compression: Compression) -> PackedBatch {
    let count = RecordCount::of_len(records.len()).expect("a few");
    PackedBatch::pack(&record_set::encode(records), count, compression).expect("small")
}

/// All pages of an answer.
async fn pages(broker: &mut BrokerServiceClient<Channel>, recover: Option<Producer>, token: String) -> InitAnswer {
    let mut request = v1::InitProducerIdRequest {
        producer_id: recover.map(|producer| producer.id),
        producer_epoch: recover.map(|producer| producer.epoch),
        recovery_token: token,
        page_token: String::new(),
    };
    let mut pages = Vec::new();
    loop {
        match broker.init_producer_id(request.clone()).await {
            Ok(page) => pages.push(page.into_inner()),
            Err(status) => return wire::init_failed(&status),
        }
        let next = pages.last().map(|page| page.next_page_token.clone()).unwrap_or_default();
        if next.is_empty() {
            return wire::init(&pages);
        }
        request.page_token = next;
    }
}

/// For the count of what happened.
fn name_of(answered: &Result<v1::BatchResult, Status>) -> String {
    match answered.as_ref().map(|result| &result.outcome) {
        Ok(Some(Outcome::Ack(ack))) => if ack.duplicate { "duplicate" } else { "appended" }.to_owned(),
        Ok(Some(Outcome::Error(error))) => {
            let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Unspecified);
            code.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase()
        }
        Ok(None) => "nothing".to_owned(),
        Err(status) => format!("no answer ({:?})", status.code()),
    }
}

const CALLS: usize = 12;
const REMEMBERED: usize = 24;
const LONG_ENOUGH: Duration = Duration::from_secs(90);
