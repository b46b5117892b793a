//! A client that speaks the broker's protocol by itself, and strains it: it overtakes itself, repeats what is long settled, sends
//! in epochs that are over, claims another content for sequences that it used, and takes over ids of others. It keeps to what a
//! right client must do: no tag is used for two batches, and at most five are in doubt (R1).

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use oncelog_proto::{
    Compression, ErrorCode, PackedBatch, RecordCount, record_set,
    v1::{self, Record, batch_result::Outcome, broker_service_client::BrokerServiceClient},
};
use oncelog_verify::history::{
    CallId, Event, FencedPartition, InitAnswer, InitCalled, Partition, Place as LogPlace, ProduceAnswer, ProduceCalled, Producer, Tag,
    WindowEntry,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{callers::micros, work::Place};

/// Ids that are in use, so that somebody can take one over.
pub(crate) type Ids = Rc<RefCell<Vec<Producer>>>;

pub(crate) async fn run(place: Place, ids: Ids) {
    let broker = BrokerServiceClient::new(place.wires.watched_channel("courier")).max_decoding_message_size(16 << 20);
    let partitions = place.topics.partitions().collect();
    let mut raw = Raw { place, ids, broker, partitions, producer: None, lanes: BTreeMap::new(), settled: VecDeque::new(), calls: JoinSet::new(), is_fenced: false };
    raw.storm().await;
    raw.calm().await;
}

struct Raw {
    place: Place,
    ids: Ids,
    broker: BrokerServiceClient<Channel>,
    partitions: Vec<Partition>,
    producer: Option<Producer>,
    /// By partition; they begin anew with each epoch.
    lanes: BTreeMap<Partition, Lane>,
    /// Batches whose outcome is known, or will never be, of this epoch and earlier ones.
    settled: VecDeque<Batch>,
    calls: JoinSet<(CallId, Batch, Result<v1::BatchResult, Status>)>,
    /// Only a recovery helps.
    is_fenced: bool,
}

#[derive(Default)]
struct Lane {
    next: i64,
    /// In doubt, by base sequence, and what was settled since the lowest of them.
    open: BTreeMap<i64, (Batch, bool)>,
}

#[derive(Clone)]
struct Batch {
    name: u64,
    partition: Partition,
    tag: Tag,
    packed: PackedBatch,
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
            let open: Vec<_> = self.lanes.values().flat_map(|lane| lane.open.values()).filter(|(_, done)| !done).map(|(batch, _)| batch.clone()).collect();
            if open.is_empty() {
                return;
            }
            if began.elapsed() > LONG_ENOUGH {
                return self.place.chronicle.fail(format!("{}: {} batches are not settled after {LONG_ENOUGH:?} of calm", self.place.name, open.len()));
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
        let partition = self.place.dice.pick(&self.partitions).clone();
        let mut batches = Vec::new();
        for _ in 0..self.place.dice.within(1..=2) {
            let count = self.place.dice.within(1..=4);
            let records: Vec<_> = (0..count).map(|_| self.place.record()).collect();
            let lane = self.lanes.entry(partition.clone()).or_default();
            if lane.open.len() >= SPAN || self.calls.len() >= CALLS {
                break;
            }
            let tag = Tag { producer, base_sequence: lane.next };
            let packed = pack(&records, *self.place.dice.pick(&[Compression::None, Compression::Lz4]));
            let batch = Batch { name: self.place.chronicle.call().0, partition: partition.clone(), tag, packed };
            lane.next += i64::try_from(count).expect("small");
            lane.open.insert(tag.base_sequence, (batch.clone(), false));
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
        let open: Vec<_> = self.lanes.values().flat_map(|lane| lane.open.values()).filter(|(_, done)| !done).map(|(batch, _)| batch).collect();
        if !open.is_empty() && self.calls.len() < CALLS {
            let batch = (*self.place.dice.pick(&open)).clone();
            self.send(batch);
        }
    }

    /// A copy that arrives when everything is over; of an older epoch, it is a ghost.
    fn repeat_settled(&mut self) {
        let settled: Vec<_> = self.settled.iter().collect();
        if !settled.is_empty() && self.calls.len() < CALLS {
            let batch = (*self.place.dice.pick(&settled)).clone();
            self.send(batch);
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
        self.lanes.clear();
        self.is_fenced = false;
        if let InitAnswer::Granted { producer, .. } = self.init(None, String::new()).await {
            self.ids.borrow_mut().push(producer);
            self.producer = Some(producer);
        }
    }

    /// Raises the epoch, learns what is in the log, and tags anew what is not.
    async fn recover(&mut self) {
        let Some(old) = self.producer else { return self.begin().await };
        let token = format!("{}-{}", self.place.name, self.place.dice.next());
        loop {
            match self.init(Some(old), token.clone()).await {
                InitAnswer::Granted { producer, fenced } => return self.go_on(old, producer, &fenced),
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

    fn go_on(&mut self, old: Producer, producer: Producer, fenced: &[FencedPartition]) {
        self.place.chronicle.count("client: recovered");
        self.is_fenced = false;
        self.producer = Some(producer);
        self.ids.borrow_mut().retain(|id| id.id != producer.id);
        self.ids.borrow_mut().push(producer);
        for (partition, lane) in std::mem::take(&mut self.lanes) {
            let next = fenced.iter().find(|fenced| fenced.partition == partition).map_or(0, |fenced| fenced.next_sequence);
            let mut anew = Lane::default();
            for (base, (batch, done)) in lane.open {
                self.settle(batch.clone());
                if done || base < next {
                    continue;
                }
                let tag = Tag { producer, base_sequence: anew.next };
                anew.next += i64::from(batch.packed.count().get());
                anew.open.insert(tag.base_sequence, (Batch { tag, ..batch }, false));
            }
            debug_assert_eq!(old.id, producer.id);
            self.lanes.insert(partition, anew);
        }
    }

    fn abandon(&mut self) {
        for lane in std::mem::take(&mut self.lanes).into_values() {
            for (batch, _) in lane.open.into_values() {
                self.settle(batch);
            }
        }
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
            self.ids.borrow_mut().retain(|id| id.id != producer.id);
            self.ids.borrow_mut().push(producer);
            self.producer = Some(producer);
            self.is_fenced = false;
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
        let (answer, told) = match answered {
            Ok(result) => judge(&result),
            Err(status) => (ProduceAnswer::Unknown, format!("no answer ({:?})", status.code())),
        };
        self.place.chronicle.count(format!("batch: {told}"));
        self.place.chronicle.note(Event::ProduceAnswered { call, answer });
        // An answer counts only for a batch that still carries the same tag (R6), and not for one that never should have been.
        if self.producer != Some(batch.tag.producer) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&batch.partition) else { return };
        match answer {
            ProduceAnswer::Acknowledged { .. } | ProduceAnswer::DuplicateBelowWindow => {
                let Some((open, done)) = lane.open.get_mut(&batch.tag.base_sequence).filter(|(open, _)| open.name == batch.name) else { return };
                if !std::mem::replace(done, true) {
                    let settled = open.clone();
                    // The span counts from the lowest that is in doubt (R1).
                    while lane.open.first_key_value().is_some_and(|(_, (_, done))| *done) {
                        lane.open.pop_first();
                    }
                    self.settle(settled);
                }
            }
            ProduceAnswer::Fenced | ProduceAnswer::UnknownProducer => self.is_fenced = true,
            // A gap is closed by sending what is before it, which is done all the time.
            _ => {}
        }
    }

    fn settle(&mut self, batch: Batch) {
        self.settled.push_back(batch);
        if self.settled.len() > REMEMBERED {
            self.settled.pop_front();
        }
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
    let mut fenced = Vec::new();
    loop {
        let page = match broker.init_producer_id(request.clone()).await {
            Ok(page) => page.into_inner(),
            Err(status) => return refusal(&status),
        };
        fenced.extend(page.partitions.into_iter().map(|partition| FencedPartition {
            partition: Partition { topic: partition.topic, partition: partition.partition },
            next_sequence: partition.next_sequence,
            window: partition
                .window
                .iter()
                .map(|entry| WindowEntry {
                    base_sequence: entry.base_sequence,
                    record_count: entry.record_count.unsigned_abs(),
                    place: LogPlace { offset: entry.base_offset, append_time: micros(entry.append_time.as_ref()) },
                    checksum: entry.checksum,
                })
                .collect(),
        }));
        if page.next_page_token.is_empty() {
            let producer = Producer { id: page.producer_id, epoch: page.producer_epoch };
            return InitAnswer::Granted { producer, fenced };
        }
        request.page_token = page.next_page_token;
    }
}

fn refusal(status: &Status) -> InitAnswer {
    // Only what names its reason is the broker's word; a proxy may say anything.
    let details = status.get_error_details();
    match (status.code(), details.error_info()) {
        (Code::NotFound, Some(_)) => InitAnswer::UnknownProducer,
        (Code::FailedPrecondition, Some(_)) => InitAnswer::Refused,
        _ => InitAnswer::Unknown,
    }
}

fn judge(result: &v1::BatchResult) -> (ProduceAnswer, String) {
    match &result.outcome {
        Some(Outcome::Ack(ack)) => {
            let place = LogPlace { offset: ack.base_offset, append_time: micros(ack.append_time.as_ref()) };
            let told = if ack.duplicate { "duplicate" } else { "appended" };
            (ProduceAnswer::Acknowledged { place, duplicate: ack.duplicate }, told.to_owned())
        }
        Some(Outcome::Error(error)) => {
            let code = ErrorCode::try_from(error.code).unwrap_or(ErrorCode::Unspecified);
            let answer = match code {
                ErrorCode::OutOfOrderSequenceNumber => {
                    ProduceAnswer::OutOfOrder { expected_sequence: error.expected_sequence.unwrap_or(-1) }
                }
                ErrorCode::DuplicateSequenceNumber => ProduceAnswer::DuplicateBelowWindow,
                ErrorCode::InvalidProducerEpoch => ProduceAnswer::Fenced,
                ErrorCode::UnknownProducerId => ProduceAnswer::UnknownProducer,
                ErrorCode::SequenceConflict => ProduceAnswer::Conflict,
                ErrorCode::KafkaStorageError | ErrorCode::RequestTimedOut | ErrorCode::Unspecified => ProduceAnswer::Unknown,
                _ => ProduceAnswer::Refused,
            };
            (answer, code.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase())
        }
        None => (ProduceAnswer::Unknown, "nothing".to_owned()),
    }
}

/// Batches that may be in doubt at once (R1).
const SPAN: usize = 5;
const CALLS: usize = 12;
const REMEMBERED: usize = 24;
const LONG_ENOUGH: Duration = Duration::from_secs(90);
