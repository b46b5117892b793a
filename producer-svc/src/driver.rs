//! The one task that owns the session: it tells it what happened and carries out what it wants done.
//!
//! Everything that decides is in the session and the partitioner, and both have this one owner; so there are no locks, and
//! what arrives first is first in its partition. Whoever handed over a `Send` may stop listening for its outcome; the records
//! are the session's from then on.

use std::{mem, sync::Arc};

use oncelog_proto::{ErrorCode, PartitionIndex, TopicName, TraceContext, topic::PartitionCount, v1::Record};
use rustc_hash::FxHashMap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep_until,
};
use tonic::Code;

use crate::{
    batch_limit::BatchLimit,
    broker_client::{BrokerClient, Ended},
    buffer::{Buffer, Reserved},
    clock::Clock,
    metrics::Metrics,
    partitioner::Partitioner,
    session::{Action, BatchAnswer, Event, FailureKind, RecordOutcome, SendId, Session},
    topics::Topics,
    traces::{TracedRecords, Traces},
};

/// Records of one topic, checked and paid for: those of a `Send`, or of several that go together.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) topic: TopicName,
    /// How many partitions the topic has.
    pub(crate) count: PartitionCount,
    /// Each with the partition that its caller named; it exists.
    pub(crate) records: Vec<(Option<PartitionIndex>, Record)>,
    /// What the records take of `buffer.memory`.
    pub(crate) reserved: Reserved,
    /// Those of requests that are in a trace.
    pub(crate) traced: Vec<TracedRecords>,
}

/// Records that are about to be the session's.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) prepared: Prepared,
    /// Told once: one outcome for each record. Dropped without a word when the process ends before it is known.
    pub(crate) outcomes: oneshot::Sender<Vec<RecordOutcome>>,
}

/// The session and what it acts through.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) partitioner: Partitioner,
    pub(crate) broker: BrokerClient,
    /// Told what the session hears of it.
    pub(crate) batch_limit: BatchLimit,
    pub(crate) topics: Topics<BrokerClient>,
    pub(crate) buffer: Buffer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Traces,
}

struct Running {
    driver: Driver,
    clock: Clock,
    calls: JoinSet<Ended>,
    waiting: FxHashMap<SendId, oneshot::Sender<Vec<RecordOutcome>>>,
    next_send: u64,
    /// The log says that the broker is away.
    broker_away: bool,
}

impl Driver {
    /// Runs until `stop` is true and the outcome of every record that was handed over by then is known.
    pub(crate) async fn run(self, mut inbox: mpsc::Receiver<HandOver>, mut stop: watch::Receiver<bool>) {
        let mut running = Running {
            driver: self,
            clock: Clock::start(),
            calls: JoinSet::new(),
            waiting: FxHashMap::default(),
            next_send: 0,
            broker_away: false,
        };
        let mut arrived = Vec::with_capacity(BURST);
        let mut open = true;
        loop {
            running.act();
            if !open && running.driver.session.is_idle() {
                return;
            }
            let wakeup = running.driver.session.next_wakeup().map(|at| running.clock.instant(at));
            tokio::select! {
                taken = inbox.recv_many(&mut arrived, BURST), if open => {
                    for hand_over in arrived.drain(..) {
                        running.take(hand_over);
                    }
                    if taken == 0 {
                        open = false;
                        running.tell(Event::Close);
                    }
                }
                Some(ended) = running.calls.join_next() => running.ended(ended),
                () = async { sleep_until(wakeup.expect("there is one")).await }, if wakeup.is_some() => running.tell(Event::Tick),
                // What is in the inbox by now is still taken; whoever comes later is told that it was not.
                _ = stop.wait_for(|stop| *stop), if !inbox.is_closed() => inbox.close(),
            }
        }
    }
}

impl Running {
    fn tell(&mut self, event: Event) {
        self.driver.session.handle(event, self.clock.now());
    }

    fn take(&mut self, hand_over: HandOver) {
        let HandOver { prepared: Prepared { topic, count, records, reserved, traced }, outcomes } = hand_over;
        let partitioner = &mut self.driver.partitioner;
        let routed = |(named, record): (Option<PartitionIndex>, Record)| {
            (named.unwrap_or_else(|| partitioner.choose(&topic, count, &record)), record)
        };
        let records = records.into_iter().map(routed).collect();
        let id = SendId(self.next_send);
        self.next_send += 1;
        self.waiting.insert(id, outcomes);
        reserved.keep();
        self.driver.traces.open(id, traced);
        self.tell(Event::Send { id, topic, records });
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok((event, status)) => {
                self.note_call(&event, status);
                self.tell(event);
            }
            // A call that never reports back would be in flight for ever.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => unreachable!("nobody cancels a call: {error}"),
        }
    }

    /// Counts, records and logs what came of a call.
    fn note_call(&mut self, event: &Event, status: Code) {
        let Driver { metrics, traces, .. } = &mut self.driver;
        let trace = match event {
            Event::ProduceFailed { call, .. } | Event::ProduceAnswered { call, .. } => traces.of_call(*call),
            _ => None,
        };
        match event {
            Event::ProduceAnswered { call, results } => {
                let duplicate = |answer: &&BatchAnswer| matches!(answer, BatchAnswer::Acknowledged { duplicate: true, .. });
                metrics.duplicates.add(results.iter().filter(duplicate).count());
                traces.answered(*call, results);
            }
            Event::ProduceFailed { call, failure } => {
                metrics.produce_failures.add(1);
                traces.failed(*call, status, failure);
            }
            _ => {}
        }
        self.log_call(event, trace);
    }

    /// Tells of a broker that stops answering, once, and of one that answers again; and of one whose answers say nothing.
    fn log_call(&mut self, event: &Event, trace: Option<TraceContext>) {
        let trace_id = trace.map(|trace| tracing::field::display(trace.trace_id()));
        if let Event::ProduceAnswered { results, .. } = event
            && let Some(message) = results.iter().find_map(says_nothing)
        {
            tracing::warn!(
                trace_id,
                error = message,
                "the broker does not say whether it appended a batch; it is sent again until it does"
            );
        }
        match event {
            Event::ProduceFailed { failure, .. } | Event::InitFailed { failure, .. } => {
                tracing::debug!(trace_id, kind = ?failure.kind, error = failure.message, "a call to the broker failed");
                if let (Event::InitFailed { .. }, FailureKind::Permanent | FailureKind::UnknownProducer) = (event, failure.kind) {
                    tracing::warn!(error = failure.message, "the broker refused InitProducerId; nothing is sent without an id");
                }
                if failure.kind == FailureKind::InDoubt && !self.broker_away {
                    self.broker_away = true;
                    tracing::warn!(trace_id, error = failure.message, "the broker does not answer; trying again until it does");
                }
            }
            _ if self.broker_away => {
                self.broker_away = false;
                tracing::info!("the broker answers again");
            }
            _ => {}
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.driver.session.poll_action() {
            match action {
                Action::Produce(call) => {
                    let Driver { session, metrics, traces, broker, .. } = &mut self.driver;
                    metrics.produce_calls.add(1);
                    call.batches.iter().for_each(|batch| metrics.sent(batch));
                    let attempts = traces.attempt(session, &call);
                    // Made here, so that calls of one turn leave in their order. Only the wait is the task's.
                    self.calls.spawn(broker.produce(call, attempts));
                }
                Action::Init { init, recover, token, timeout } => {
                    self.driver.metrics.init_calls.add(1);
                    if let Some((producer, epoch)) = recover {
                        tracing::warn!(%producer, %epoch, "recovering: asking the broker what is in the log");
                    }
                    let made = self.driver.broker.clone().init(init, recover, token, timeout);
                    // What it ended with is in the event; it is in no trace.
                    self.calls.spawn(async move { (made.await, Code::Ok) });
                }
                Action::Complete { send, outcomes } => self.complete(send, outcomes),
                Action::Free { bytes } => self.driver.buffer.free(bytes),
                Action::ForgetTopic { topic } => self.driver.topics.forget(&topic),
                Action::Alarm { message } => {
                    self.driver.metrics.alarms.add(1);
                    tracing::error!("{message}");
                }
            }
        }
        self.driver.metrics.session(self.driver.session.counts());
        if let Some(bytes) = self.driver.session.max_batch_bytes() {
            self.driver.batch_limit.set(bytes);
        }
    }

    fn complete(&mut self, send: SendId, outcomes: Vec<RecordOutcome>) {
        self.driver.traces.completed(send, &outcomes);
        let metrics = &self.driver.metrics;
        // Mostly of one kind, and counted once for each run of it.
        for run in outcomes.chunk_by(|a, b| mem::discriminant(a) == mem::discriminant(b)) {
            let counter = match run[0] {
                RecordOutcome::Appended { .. } => &metrics.records_appended,
                RecordOutcome::Refused(_) => &metrics.records_refused,
                RecordOutcome::Unknown => &metrics.records_unknown,
            };
            counter.add(run.len());
        }
        if let Some(waiting) = self.waiting.remove(&send) {
            // The caller may be gone; its records were not.
            let _ = waiting.send(outcomes);
        }
    }
}

/// In words, if it is a defect of the broker's or one of a later version.
fn says_nothing(answer: &BatchAnswer) -> Option<&str> {
    match answer {
        BatchAnswer::Refused { code: ErrorCode::Unspecified, message, .. } => Some(message),
        BatchAnswer::Refused { .. } | BatchAnswer::Acknowledged { .. } => None,
    }
}

/// Hand-overs taken in before the session's wishes are looked at again.
const BURST: usize = 256;
