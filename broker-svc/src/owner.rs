//! The one task that owns the [`Pipeline`]: it reads the clocks, passes requests in, groups to the committer, and answers
//! out. Nothing is decided here.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use oncelog_edge::trace::Tracer;
use oncelog_proto::{ErrorCode, Fault, v1};
use tokio::{
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::sleep_until,
};

use crate::{
    clocks::Clocks,
    committer::{Committed, ToCommit},
    entry::{Entry, OwnerHash, PartitionId},
    pipeline::{Answer, BatchOutcome, Counts, Output, Pipeline, Request},
    state::{Arrival, Ends},
};

/// A partition as its readers follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// It reaches this far, durably.
    At(Ends),
    /// Its topic was deleted.
    Gone,
}

/// What a caller hears.
#[derive(Debug)]
pub(crate) enum Told {
    Answer(Answer),
    /// Instead of [`Answer::Located`].
    Tail(PartitionId, watch::Receiver<Tail>),
}

/// A request on its way to the owner.
pub(crate) struct Asked {
    request: Request,
    /// Whose producer ids may be used.
    by: Option<OwnerHash>,
    caller: Caller,
}

#[cfg(test)]
impl Asked {
    pub(crate) fn answer(self, answer: Answer) {
        let _ = self.caller.tell.send(Told::Answer(answer));
    }
}

/// Who asked. As long as the answer is not told, the request's memory is accounted for.
pub(crate) struct Caller {
    tell: oneshot::Sender<Told>,
    _memory: OwnedSemaphorePermit,
}

/// How the rest of the service speaks to the owner.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Asked>,
    memory: Arc<Semaphore>,
    max_bytes: usize,
}

impl Handle {
    /// A way to the owner, for requests that together take at most `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> (Self, mpsc::Receiver<Asked>) {
        let (requests, asked) = mpsc::channel(QUEUED_REQUESTS);
        let memory = Arc::new(Semaphore::new(max_bytes.div_ceil(MEMORY_UNIT)));
        (Self { requests, memory, max_bytes }, asked)
    }

    /// Accounts for the memory of a request that keeps `bytes`.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: too much is being worked on; `MESSAGE_TOO_LARGE`: it would never fit. Nothing of the request has
    /// been looked at.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        if bytes.div_ceil(MEMORY_UNIT) > self.max_bytes.div_ceil(MEMORY_UNIT) {
            let most = self.max_bytes;
            let message = format!(
                "the request keeps {bytes} bytes while it is worked on, {BATCH_BYTES} for each batch at least; \
                 --queued-max-request-bytes is {most}: send fewer batches in a call, or raise it"
            );
            return Err(Fault::new(ErrorCode::MessageTooLarge, message).with("queued_max_request_bytes", most));
        }
        let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
        Arc::clone(&self.memory).try_acquire_many_owned(units).map_err(|_| {
            let most = self.max_bytes;
            let message = format!("requests being worked on take all of --queued-max-request-bytes, {most}; send it again later");
            let fault = Fault::new(ErrorCode::ResourceExhausted, message).with("queued_max_request_bytes", most);
            fault.retry_after(Duration::from_millis(100))
        })
    }

    /// Asks, and waits for the answer. If the wait is given up, what was asked is done all the same.
    ///
    /// # Errors
    /// `BROKER_NOT_AVAILABLE`: the owner takes no more requests; nothing was done. `KAFKA_STORAGE_ERROR`: the broker ended before
    /// it answered, and whether it was done is unknown.
    pub(crate) async fn ask(&self, by: Option<OwnerHash>, request: Request, memory: OwnedSemaphorePermit) -> Result<Told, Fault> {
        self.hand_over(by, request, memory).await?.await
    }

    /// Asks. What is handed over one after the other is worked on in that order; whether somebody waits for the answer or not.
    ///
    /// # Errors
    /// `BROKER_NOT_AVAILABLE`: the owner takes no more requests; nothing was done.
    pub(crate) async fn hand_over(
        &self,
        by: Option<OwnerHash>,
        request: Request,
        memory: OwnedSemaphorePermit,
    ) -> Result<Awaited, Fault> {
        let (tell, told) = oneshot::channel();
        let asked = Asked { request, by, caller: Caller { tell, _memory: memory } };
        let not_taken = |_| Fault::new(ErrorCode::BrokerNotAvailable, "the broker is stopping; nothing was done; send it again");
        self.requests.send(asked).await.map_err(not_taken)?;
        Ok(Awaited(told))
    }
}

/// The answer to what was handed over; or `KAFKA_STORAGE_ERROR`: the broker ended before it answered, and whether it was done is
/// unknown.
#[derive(Debug)]
pub(crate) struct Awaited(oneshot::Receiver<Told>);

impl Future for Awaited {
    type Output = Result<Told, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let unknown = |_| Fault::new(ErrorCode::KafkaStorageError, "the broker is stopping; whether this was done is unknown");
        Pin::new(&mut self.0).poll(cx).map_err(unknown)
    }
}

/// The task.
pub(crate) struct Owner {
    pub(crate) pipeline: Pipeline<Caller>,
    pub(crate) clocks: Clocks,
    pub(crate) requests: mpsc::Receiver<Asked>,
    pub(crate) to_commit: mpsc::Sender<ToCommit>,
    pub(crate) committed: mpsc::Receiver<Committed>,
    pub(crate) vitals: watch::Sender<Vitals>,
    /// Records what batches in traces waited for.
    pub(crate) tracer: Tracer,
    /// Turns true when any part of the broker failed.
    pub(crate) has_failed: watch::Receiver<bool>,
    /// Turns true when no more requests are to be taken.
    pub(crate) stop: watch::Receiver<bool>,
}

/// What the owner tells of itself, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vitals {
    pub(crate) counts: Counts,
    pub(crate) topics: usize,
    pub(crate) partitions: usize,
    pub(crate) producers: usize,
    pub(crate) windows: usize,
    pub(crate) held_batches: usize,
    pub(crate) held_bytes: usize,
}

impl Owner {
    /// Runs until it is stopped and everything it took is answered, or a part failed.
    pub(crate) async fn run(mut self) {
        let mut tails = Tails::default();
        let mut asked = Vec::with_capacity(REQUESTS_PER_TURN);
        let (mut is_open, mut is_stopping) = (true, false);
        self.pass_on(&mut tails);
        let mut next_chores = self.clocks.now().monotonic;
        while is_open || !asked.is_empty() || !self.pipeline.is_idle() {
            let wakeup = self.clocks.instant(self.pipeline.next_wakeup().min(next_chores));
            tokio::select! {
                biased;
                // The names in the directory are in doubt if a snapshot or the tidying failed: a sync that reported it to one of
                // them succeeds for the journal, whose next segment a crash may then take. So nothing more is acknowledged (I8).
                _ = turned(&mut self.has_failed) => return,
                committed = self.committed.recv() => match committed {
                    Some(Committed::Written) => self.pipeline.on_written(),
                    Some(Committed::Synced { room }) => self.pipeline.on_synced(room),
                    Some(Committed::Room(room)) => self.pipeline.on_room(room),
                    Some(Committed::TrimPlanned { through_segment, trimmed }) => {
                        self.pipeline.on_trim(through_segment, trimmed, self.clocks.now());
                    }
                    // The journal failed. Every caller that waits hears that the outcome is unknown, by the drop of its sender.
                    None => return,
                },
                // What is queued already is still taken.
                _ = turned(&mut self.stop), if !is_stopping => {
                    is_stopping = true;
                    self.requests.close();
                }
                // What an earlier turn left over comes first, and waits for nothing.
                () = std::future::ready(()), if !asked.is_empty() => {}
                count = self.requests.recv_many(&mut asked, REQUESTS_PER_TURN), if is_open => is_open = count > 0,
                () = sleep_until(wakeup) => {}
            }
            let now = self.clocks.now();
            for Asked { request, by, caller } in asked.drain(..one_turn(&asked)) {
                self.pipeline.on_request_of(by, caller, request, now);
            }
            // In every turn: a flood of requests must not keep early batches waiting, or idle producers alive.
            let now = self.clocks.now();
            if now.monotonic >= self.pipeline.next_wakeup() {
                self.pipeline.on_tick(now);
            }
            if now.monotonic >= next_chores {
                next_chores = now.monotonic.plus(CHORES_PAUSE);
                tails.forget_unfollowed();
            }
            // First, so that whoever has an answer finds it counted.
            self.tell_vitals();
            self.pass_on(&mut tails);
        }
    }

    fn pass_on(&mut self, tails: &mut Tails) {
        if let Some(group) = self.pipeline.poll_group() {
            let traces = self.pipeline.take_traces();
            let to_commit = ToCommit { group, tell_written: self.pipeline.is_written_awaited(), traces };
            match self.to_commit.try_send(to_commit) {
                // If the committer is gone, `committed` ends next.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(_)) => unreachable!("the group before it was committed"),
            }
        }
        while let Some(waited) = self.pipeline.poll_waited() {
            self.tracer.past("hold", waited.trace, waited.time, self.clocks.now().wall);
        }
        while let Some(output) = self.pipeline.poll_output() {
            match output {
                Output::Answer(caller, Answer::Located(partition, ends)) => {
                    let _ = caller.tell.send(Told::Tail(partition, tails.follow(partition, ends)));
                }
                // A caller that went away does not want to know.
                Output::Answer(caller, answer) => drop(caller.tell.send(Told::Answer(answer))),
                Output::Moved(partition, ends) => tails.set(partition, Tail::At(ends)),
                Output::Gone(partition) => tails.set(partition, Tail::Gone),
            }
        }
    }

    /// Told every turn, so that what is scraped is what is: nothing in it is counted anew.
    fn tell_vitals(&self) {
        let (topics, partitions) = self.pipeline.state().topic_counts();
        let (producers, windows) = self.pipeline.state().producer_counts();
        let (held_batches, held_bytes) = self.pipeline.held();
        let counts = self.pipeline.counts();
        self.vitals.send_replace(Vitals { counts, topics, partitions, producers, windows, held_batches, held_bytes });
    }
}

/// How many requests a turn takes, from the first on: it ends with the one that reaches [`BATCHES_PER_TURN`]. A request may have
/// ten thousand batches, and until the turn is over no group leaves for the disk, no answer is told, and no early batch stops
/// waiting.
fn one_turn(asked: &[Asked]) -> usize {
    let batches = |asked: &Asked| match &asked.request {
        Request::Produce { batches, .. } => batches.len(),
        _ => 1,
    };
    let mut before = 0;
    let fits = |asked: &&Asked| {
        let fits = before < BATCHES_PER_TURN;
        before += batches(asked);
        fits
    };
    asked.iter().take_while(fits).count()
}

/// Waits until it is true, or until nobody can say so any more.
async fn turned(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The partitions that somebody follows.
#[derive(Default)]
struct Tails(HashMap<PartitionId, watch::Sender<Tail>>);

impl Tails {
    fn follow(&mut self, partition: PartitionId, ends: Ends) -> watch::Receiver<Tail> {
        self.0.entry(partition).or_insert_with(|| watch::Sender::new(Tail::At(ends))).subscribe()
    }

    fn set(&mut self, partition: PartitionId, tail: Tail) {
        if let Some(followed) = self.0.get(&partition) {
            followed.send_replace(tail);
        }
    }

    fn forget_unfollowed(&mut self) {
        self.0.retain(|_, tail| tail.receiver_count() > 0);
    }
}

/// Requests that may wait for the owner's turn; their bytes are bounded apart from that.
const QUEUED_REQUESTS: usize = 1_024;
const REQUESTS_PER_TURN: usize = 256;
/// About as many as are judged in a millisecond or two.
const BATCHES_PER_TURN: usize = 2_000;
/// Between two looks for partitions that nobody follows any more.
const CHORES_PAUSE: Duration = Duration::from_secs(1);
/// What a batch keeps while its request is worked on, in bytes, beside its data or if it has none: itself on its way through the
/// broker, its entry, its outcome, its place in the answer, and what allocations round up.
pub(crate) const BATCH_BYTES: usize = 1 << 10;
const _: () = assert!(
    size_of::<v1::Batch>()
        + size_of::<Result<Arrival, Fault>>()
        + size_of::<Entry>()
        + size_of::<Bytes>()
        + size_of::<Option<BatchOutcome>>()
        + size_of::<v1::BatchResult>()
        + FAULT_TEXT_BYTES
        <= BATCH_BYTES
);
/// The message of a refusal with its values, about: it stands in the outcome.
const FAULT_TEXT_BYTES: usize = 320;
/// What memory is counted in, in bytes: so that a semaphore can count gigabytes.
const MEMORY_UNIT: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use oncelog_edge::machine::WallClock;
    use oncelog_proto::topic::PartitionCount;

    use super::*;
    use crate::{
        journal,
        pipeline::{self, Acks},
        state::{Limits, State},
    };

    /// A call whose batches are all refused, each by its own fault.
    fn refused(batches: usize) -> Request {
        let refused = Fault::new(ErrorCode::InvalidRecord, "it cannot be read");
        Request::Produce { acks: Acks::All, batches: vec![Err(refused); batches] }
    }

    fn asked(request: Request) -> Asked {
        let memory = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("one");
        Asked { request, by: None, caller: Caller { tell: oneshot::channel().0, _memory: memory } }
    }

    #[test]
    fn a_turn_ends_after_a_bounded_number_of_batches() {
        let all = |requests: Vec<Request>| one_turn(&requests.into_iter().map(asked).collect::<Vec<_>>());
        assert_eq!(all(Vec::new()), 0);
        assert_eq!(all(vec![refused(BATCHES_PER_TURN - 1), refused(1), refused(1)]), 2);
        assert_eq!(all(vec![refused(BATCHES_PER_TURN), refused(1)]), 1);
        // However many it has, the first is taken.
        assert_eq!(all(vec![refused(5 * BATCHES_PER_TURN), refused(1)]), 1);
        // What has no batches counts as one.
        let small = || Request::DescribeTopics { topics: Vec::new(), create: false, after: None };
        assert_eq!(all((0..=BATCHES_PER_TURN).map(|_| small()).collect()), BATCHES_PER_TURN);
    }

    #[tokio::test]
    async fn what_a_turn_leaves_over_is_answered_in_the_next_ones_and_before_a_stop() {
        let clocks = Clocks::start(WallClock::system());
        let pipeline = Pipeline::open(options(), State::default(), None, clocks.now());
        let (handle, requests) = Handle::new(1 << 30);
        let (to_commit, mut groups) = mpsc::channel::<ToCommit>(1);
        let (tell_committed, committed) = mpsc::channel(16);
        let (vitals, _) = watch::channel(Vitals::default());
        let (_failed, has_failed) = watch::channel(false);
        let (tell_stop, stop) = watch::channel(false);
        let mut answers = Vec::new();
        for _ in 0..20 {
            answers.push(
                handle.hand_over(None, refused(BATCHES_PER_TURN / 2), handle.reserve(1).expect("room")).await.expect("taken"),
            );
        }
        tell_stop.send_replace(true);
        let owner = Owner { pipeline, clocks, requests, to_commit, committed, vitals, tracer: Tracer::off(), has_failed, stop };
        let owner = tokio::spawn(owner.run());
        tokio::spawn(async move {
            while groups.recv().await.is_some() {
                let _ = tell_committed.send(Committed::Synced { room: u64::MAX }).await;
            }
        });
        for answer in answers {
            let Told::Answer(Answer::Produced(outcomes)) = answer.await.expect("answered") else { panic!("of another kind") };
            assert_eq!(outcomes.len(), BATCHES_PER_TURN / 2);
        }
        owner.await.expect("it ends by itself");
    }

    fn options() -> pipeline::Options {
        pipeline::Options {
            limits: Limits {
                max_message_bytes: 1 << 20,
                auto_create_topics: true,
                default_partitions: PartitionCount::ONE,
                max_partitions: 1,
                max_producers: 1,
                max_windows: 1,
                producer_id_expiration: Duration::from_secs(1),
            },
            hold: Duration::ZERO,
            hold_bytes: 0,
            group_limit: journal::Options { segment_bytes: 1 << 20, ..journal::Options::new(0) }.group_limit(),
            incarnation: 0,
            accept_clock_jump: false,
        }
    }
}
