//! The broker's calls: parse, ask the owner, tell.

mod fetch;
mod paid_work;
mod produce_stream;
mod traced;

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use oncelog_edge::{
    security::{
        access::{Access, Rights},
        permissions::Operation,
    },
    trace::Tracer,
};
use oncelog_proto::{
    ErrorCode, Fault, TopicName, TraceContext,
    v1::{self, broker_service_server::BrokerService},
};
use paid_work::{UNPACKED_AT_ONCE, beside, unpacking};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};
use traced::Traced;

use crate::{
    entry::OwnerHash,
    journal::Reader,
    metrics::Refusals,
    owner::{Awaited, BATCH_BYTES, Handle, Told},
    pipeline::{Answer, BatchOutcome, Request as Ask},
    state::{PartitionDescription, ProducerPage, TopicPage},
    wire::{parse, reply},
    workers::Workers,
};

/// What calls need once the journal is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) owner: Handle,
    pub(crate) reader: Reader,
}

/// What is noted of calls of `Produce` beside their answers.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) tracer: Tracer,
    pub(crate) refusals: Arc<Refusals>,
}

/// The service. Until the journal is open every call is refused with `UNAVAILABLE`.
#[derive(Clone, Debug)]
pub(crate) struct BrokerRpc {
    open: Arc<OnceLock<Open>>,
    workers: Workers,
    max_message_bytes: usize,
    fetches: Arc<Semaphore>,
    max_fetches: usize,
    /// What all Fetch streams share.
    room: fetch::Room,
    /// Calls that are large when unpacked take turns.
    large_calls: Arc<Semaphore>,
    /// So do descriptions of topics: each reads files.
    descriptions: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    access: Access,
    seen: Seen,
}

impl BrokerRpc {
    pub(crate) fn new(
        open: Arc<OnceLock<Open>>,
        workers: Workers,
        max_message_bytes: usize,
        max_fetches: usize,
        draining: watch::Receiver<bool>,
        access: Access,
        seen: Seen,
    ) -> Self {
        let turns = |at_a_time| Arc::new(Semaphore::new(at_a_time));
        let (fetches, room) = (turns(max_fetches), fetch::Room::default());
        let (large_calls, descriptions) = (turns(LARGE_CALLS), turns(DESCRIPTIONS));
        Self { open, workers, max_message_bytes, fetches, max_fetches, room, large_calls, descriptions, draining, access, seen }
    }

    fn open(&self) -> Result<&Open, Fault> {
        self.open.get().ok_or_else(|| {
            Fault::new(
                ErrorCode::BrokerNotAvailable,
                "the broker is reading its journal and takes no calls yet; nothing was done",
            )
        })
    }

    /// Parses a call, and gives back what it is paid with.
    async fn parse<P: Send + 'static>(&self, request: v1::ProduceRequest, paid: P) -> Result<(Ask, P), Fault> {
        let max_message_bytes = self.max_message_bytes;
        let bytes = parse::unpacked_bytes(&request, max_message_bytes);
        let turn = match bytes {
            0..=UNPACKED_AT_ONCE => None,
            _ => Some(turn(&self.large_calls).await?),
        };
        // The turn is the last to come back: whoever has the next one finds the memory free.
        let work = move || parse::produce(request, max_message_bytes);
        let (ask, (paid, _turn)) = unpacking(&self.workers, bytes, (paid, turn), work).await?;
        Ok((ask?, paid))
    }

    /// Hands a call of `Produce` over to the owner. The memory of what was decoded was paid for on its way in, with `arrived`;
    /// once the owner has the call, it has its own account. Batches without a trace of their own are in that of the call. One for
    /// a topic that the caller may not write to is refused in its place.
    async fn hand_over(
        &self,
        request: v1::ProduceRequest,
        rights: &Rights,
        call: Option<TraceContext>,
        arrived: impl Send + 'static,
    ) -> Result<Producing, Fault> {
        let owner = &self.open()?.owner;
        // Before the work of parsing: what is refused for want of memory should cost little.
        let memory = owner.reserve(kept_bytes(&request))?;
        let (mut ask, (memory, _arrived)) = self.parse(request, (memory, arrived)).await?;
        refuse_denied(&mut ask, rights);
        let mut traced = Traced::begin(&self.seen.tracer, &mut ask, call);
        let handed_over = owner.hand_over(owner_hash(rights), ask, memory).await;
        let awaited = handed_over.inspect_err(|fault| traced.refuse(fault))?;
        Ok(Producing { awaited, traced, refusals: Arc::clone(&self.seen.refusals) })
    }

    async fn ask(&self, rights: &Rights, ask: Ask, bytes: usize) -> Result<Answer, Fault> {
        let owner = &self.open()?.owner;
        match owner.ask(owner_hash(rights), ask, owner.reserve(bytes)?).await? {
            Told::Answer(Answer::Refused(fault)) => Err(fault),
            Told::Answer(answer) => Ok(answer),
            Told::Tail(..) => Err(mismatch()),
        }
    }
}

#[tonic::async_trait]
impl BrokerService for BrokerRpc {
    type FetchStream = fetch::Responses;

    async fn init_producer_id(
        &self,
        request: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let rights = self.access.rights(request.extensions())?;
        let (ask, last) = parse::init_producer(request.get_ref())?;
        // Who can write nothing needs no id, and there is only so much room for ids.
        rights.check_somewhere(Operation::Write)?;
        match self.ask(&rights, Ask::InitProducer(ask), SMALL_REQUEST_BYTES).await? {
            Answer::Granted(granted) => Ok(Response::new(reply::granted(granted, last.as_ref(), self.max_message_bytes))),
            _ => Err(mismatch().into()),
        }
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let (_, arrived, request) = request.into_parts();
        let rights = self.access.rights(&arrived)?;
        let call = arrived.get::<TraceContext>().copied();
        Ok(Response::new(self.hand_over(request, &rights, call, arrived).await?.await?))
    }

    type ProduceStreamStream = produce_stream::Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let rights = self.access.rights(request.extensions())?;
        Ok(Response::new(produce_stream::serve(self.clone(), rights, request.into_inner())))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let rights = self.access.rights(request.extensions())?;
        let Open { owner, reader } = self.open()?;
        let place = Arc::clone(&self.fetches).try_acquire_owned().map_err(|_| {
            let most = self.max_fetches;
            let message = format!("{most} Fetch streams are open; --max-fetches is {most}: end one, or raise it");
            Fault::new(ErrorCode::ResourceExhausted, message).with("max_fetches", most)
        })?;
        let (reader, workers, room, draining) = (reader.clone(), self.workers.clone(), self.room.clone(), self.draining.clone());
        let serving = fetch::Serving { reader, workers, room, draining, rights };
        Ok(Response::new(fetch::open(request.into_inner(), owner, serving, place).await?))
    }

    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let rights = self.access.rights(request.extensions())?;
        let ask = parse::create_topic(request.get_ref())?;
        if let Ask::CreateTopic { topic, .. } = &ask {
            rights.check(Operation::Administer, topic)?;
        }
        match self.ask(&rights, ask, SMALL_REQUEST_BYTES).await? {
            Answer::Created(partitions) => Ok(Response::new(v1::CreateTopicResponse { partitions: partitions.get() })),
            _ => Err(mismatch().into()),
        }
    }

    async fn delete_topic(&self, request: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let topic = TopicName::parse(&request.get_ref().topic)?;
        let rights = self.access.rights(request.extensions())?;
        rights.check(Operation::Administer, &topic)?;
        match self.ask(&rights, Ask::DeleteTopic(topic), SMALL_REQUEST_BYTES).await? {
            Answer::Deleted => Ok(Response::new(v1::DeleteTopicResponse {})),
            _ => Err(mismatch().into()),
        }
    }

    async fn describe_topics(
        &self,
        request: Request<v1::DescribeTopicsRequest>,
    ) -> Result<Response<v1::DescribeTopicsResponse>, Status> {
        let rights = self.access.rights(request.extensions())?;
        let ask = parse::describe_topics(request.get_ref())?;
        check_described(&ask, &rights)?;
        let Ask::DescribeTopics { topics, create, .. } = &ask else { return Err(mismatch().into()) };
        let (topics, create) = (topics.clone(), *create);
        let bytes = request.get_ref().encoded_len().max(SMALL_REQUEST_BYTES);
        let mut ask = ask;
        let (page, turn) = loop {
            // Before it is asked: an answer lists thousands of partitions, and would wait for its turn in memory. And for each page
            // anew: whoever may know of nothing goes through all of them, and others are not to wait for that.
            let turn = turn(&self.descriptions).await?;
            let Answer::Topics(page) = self.ask(&rights, ask, bytes).await? else { return Err(mismatch().into()) };
            match shown_topics(page, &rights) {
                Ok(page) => break (page, turn),
                Err(hidden) => ask = Ask::DescribeTopics { topics: topics.clone(), create, after: Some(hidden) },
            }
        };
        let reader = self.open()?.reader.clone();
        let oldest = move |partition: &PartitionDescription| reader.oldest_append_time(partition.id, partition.ends.start);
        let (told, _turn) = beside(&self.workers, turn, move || reply::topics(&page, &oldest)).await?;
        Ok(Response::new(told))
    }

    async fn describe_producers(
        &self,
        request: Request<v1::DescribeProducersRequest>,
    ) -> Result<Response<v1::DescribeProducersResponse>, Status> {
        let rights = self.access.rights(request.extensions())?;
        match self.ask(&rights, parse::describe_producers(request.get_ref())?, SMALL_REQUEST_BYTES).await? {
            Answer::Producers(page) => Ok(Response::new(reply::producers(shown(page, &rights)))),
            _ => Err(mismatch().into()),
        }
    }
}

/// A call of `Produce` that was handed over: what the owner answers to it.
#[derive(Debug)]
struct Producing {
    awaited: Awaited,
    traced: Traced,
    refusals: Arc<Refusals>,
}

impl Future for Producing {
    type Output = Result<v1::ProduceResponse, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let told = ready!(Pin::new(&mut self.awaited).poll(cx))?;
        Poll::Ready(match told {
            Told::Answer(Answer::Produced(outcomes)) => {
                self.traced.end(&outcomes);
                for outcome in &outcomes {
                    if let BatchOutcome::Refused(fault) = outcome {
                        self.refusals.note(fault.code());
                    }
                }
                Ok(reply::produced(outcomes))
            }
            Told::Answer(Answer::Refused(fault)) => {
                self.traced.refuse(&fault);
                Err(fault)
            }
            Told::Answer(_) | Told::Tail(..) => Err(mismatch()),
        })
    }
}

/// Whose producer ids the caller's are.
fn owner_hash(rights: &Rights) -> Option<OwnerHash> {
    rights.identity().map(|identity| OwnerHash(identity.fingerprint()))
}

/// Refuses batches for topics that the caller may not write to. They are not looked for in the log: whether they are there is
/// something that only one who may write need know, and a producer that lost the right asks by a recovery, as after any refusal
/// (R5).
fn refuse_denied(ask: &mut Ask, rights: &Rights) {
    let Ask::Produce { batches, .. } = ask else { return };
    if rights.are_unlimited() {
        return;
    }
    let allowed = rights.now();
    // Of the last topic: batches of one topic mostly stand together.
    let mut answer: Option<(TopicName, Result<(), Fault>)> = None;
    for batch in batches {
        let Ok(arrival) = batch else { continue };
        let topic = &arrival.partition.topic;
        let (_, checked) = match &mut answer {
            Some(answer) if answer.0 == *topic => answer,
            answer => answer.insert((topic.clone(), allowed.check(Operation::Write, topic))),
        };
        if let Err(fault) = checked {
            *batch = Err(fault.clone());
        }
    }
}

/// Topics that are named may be described to whoever may do anything with them. Whoever would have them created needs to be
/// allowed what creates them: writing, or administering.
fn check_described(ask: &Ask, rights: &Rights) -> Result<(), Fault> {
    let Ask::DescribeTopics { topics, create, .. } = ask else { return Ok(()) };
    let allowed = rights.now();
    for topic in topics {
        if *create {
            allowed
                .check(Operation::Write, topic)
                .or_else(|fault| allowed.check(Operation::Administer, topic).map_err(|_| fault))?;
        } else if !allowed.show(topic) {
            allowed.check(Operation::Read, topic)?;
        }
    }
    Ok(())
}

/// What the caller may know of a page of topics. Where to go on is said by the last topic that it may know of: the page's own end
/// would tell it the name of another. Of a page without any nothing is said: it is to be asked again for what follows on the
/// topic returned.
fn shown_topics(mut page: TopicPage, rights: &Rights) -> Result<TopicPage, TopicName> {
    if rights.are_unlimited() {
        return Ok(page);
    }
    let allowed = rights.now();
    page.topics.retain(|described| allowed.show(&described.topic));
    if let Some(end) = page.after.take() {
        page.after = Some(page.topics.last().ok_or(end)?.topic.clone());
    }
    Ok(page)
}

/// What the caller may know of producers: those that are its own, and of others where they stand in topics that it may know of.
fn shown(mut page: ProducerPage, rights: &Rights) -> ProducerPage {
    if rights.are_unlimited() {
        return page;
    }
    let (caller, allowed) = (owner_hash(rights), rights.now());
    page.producers.retain_mut(|producer| {
        if producer.owner == caller {
            return true;
        }
        producer.partitions.retain(|(partition, _)| allowed.show(&partition.topic));
        !producer.partitions.is_empty()
    });
    page
}

/// The owner answers each request in kind; this is said instead of a panic, should it ever not.
fn mismatch() -> Fault {
    Fault::new(ErrorCode::Unspecified, "the answer is not of the kind that was asked for; this is a defect of the broker")
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    Arc::clone(turns).acquire_owned().await.map_err(|_| mismatch())
}

/// What a call keeps until it is answered. Ten thousand tiny batches are a short message and megabytes of entries and outcomes.
fn kept_bytes(request: &v1::ProduceRequest) -> usize {
    request.encoded_len().max(request.batches.len() * BATCH_BYTES)
}

/// Large calls that are unpacked at a time: each takes as much memory as its largest batch, up to 64 MiB.
const LARGE_CALLS: usize = 4;
/// Descriptions of topics that read files at a time, each for up to some 30,000 partitions.
const DESCRIPTIONS: usize = 4;
/// What a request of a few names is accounted with.
const SMALL_REQUEST_BYTES: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, sync::mpsc as blocking, task::Poll};

    use tokio::{
        runtime,
        sync::mpsc::{self, error::TryRecvError},
        task::spawn_blocking,
    };

    use super::*;
    use crate::{
        journal::{self, sim_disk::SimDisk},
        owner::Asked,
        state::State,
    };

    /// A service that has so many bytes for requests; nobody answers.
    fn service(queued_bytes: usize) -> (BrokerRpc, mpsc::Receiver<Asked>) {
        let options = journal::Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..journal::Options::new(1) };
        let opened = journal::open(Arc::new(SimDisk::new()), options, &mut State::default(), &mut |_| {});
        let (owner, requests) = Handle::new(queued_bytes);
        let open = OnceLock::from(Open { owner, reader: opened.expect("an empty disk").0.reader() });
        let draining = watch::channel(false).1;
        let seen = Seen { tracer: Tracer::off(), refusals: Arc::default() };
        (BrokerRpc::new(Arc::new(open), Workers::Threads, 1 << 20, 1, draining, Access::off(), seen), requests)
    }

    /// A call that says it is large when it is unpacked.
    fn large_call() -> v1::ProduceRequest {
        let uncompressed_bytes = i32::try_from(UNPACKED_AT_ONCE).expect("small") + 1;
        let packed = v1::PackedRecords { record_count: 1, uncompressed_bytes, data: vec![0; 2].into(), ..Default::default() };
        let batch = v1::Batch { topic: "t".to_owned(), packed: Some(packed), ..Default::default() };
        v1::ProduceRequest { batches: vec![batch], ..Default::default() }
    }

    fn tiny_batches(count: usize) -> v1::ProduceRequest {
        let batch = v1::Batch { topic: "t".to_owned(), records: vec![v1::Record::default()], ..Default::default() };
        v1::ProduceRequest { batches: vec![batch; count], ..Default::default() }
    }

    /// Runs with one thread for what blocks, which is busy until it is told to go on: what is handed to it has not begun.
    fn with_a_busy_worker<F: Future<Output = ()>>(test: impl FnOnce(blocking::Sender<()>) -> F) {
        let runtime = runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        runtime.block_on(async {
            let (go_on, busy) = blocking::channel();
            let busy = spawn_blocking(move || busy.recv());
            test(go_on).await;
            busy.await.expect("no panic").expect("it was told");
        });
    }

    /// Makes a call as far as it gets by itself, and gives it up there.
    async fn give_up(call: impl Future) {
        let mut call = pin!(call);
        let is_pending = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await;
        assert!(is_pending, "it was answered");
    }

    #[test]
    fn a_large_call_that_is_given_up_keeps_its_turn_until_it_is_unpacked() {
        with_a_busy_worker(async |go_on| {
            let (rpc, mut requests) = service(1 << 20);
            let share = Arc::new(());
            let mut request = Request::new(large_call());
            request.extensions_mut().insert(Arc::clone(&share));
            give_up(rpc.produce(request)).await;
            assert_eq!(rpc.large_calls.available_permits(), LARGE_CALLS - 1, "its turn");
            assert_eq!(Arc::strong_count(&share), 2, "what it paid for its way in");
            let owner = &rpc.open().expect("open").owner;
            owner.reserve(1 << 20).expect_err("its memory is taken");
            go_on.send(()).expect("busy");
            let all = u32::try_from(LARGE_CALLS).expect("few");
            drop(rpc.large_calls.acquire_many(all).await.expect("open"));
            assert_eq!(Arc::strong_count(&share), 1);
            drop(owner.reserve(1 << 20).expect("its memory came back"));
            assert_eq!(requests.try_recv().map(drop), Err(TryRecvError::Empty), "nobody wants it done");
        });
    }

    #[test]
    fn a_description_that_is_given_up_keeps_its_turn_until_its_files_are_read() {
        with_a_busy_worker(async |go_on| {
            let (rpc, mut requests) = service(1 << 20);
            let mut call = rpc.describe_topics(Request::new(v1::DescribeTopicsRequest::default()));
            tokio::select! {
                biased;
                _ = &mut call => panic!("nobody answered"),
                asked = requests.recv() => asked.expect("it asks").answer(Answer::Topics(TopicPage::default())),
            }
            give_up(call).await;
            assert_eq!(rpc.descriptions.available_permits(), DESCRIPTIONS - 1);
            go_on.send(()).expect("busy");
            let all = u32::try_from(DESCRIPTIONS).expect("few");
            drop(rpc.descriptions.acquire_many(all).await.expect("open"));
        });
    }

    #[tokio::test]
    async fn a_call_of_tiny_batches_is_accounted_with_what_it_keeps_and_not_with_its_bytes() {
        let (rpc, mut requests) = service(4 * BATCH_BYTES);
        drop(rpc.hand_over(tiny_batches(4), &Rights::unlimited(), None, ()).await.expect("as many as there is room for"));
        let fault = rpc.hand_over(tiny_batches(1), &Rights::unlimited(), None, ()).await.expect_err("one more");
        assert_eq!(fault.code(), ErrorCode::ResourceExhausted);
        drop(requests.recv().await);
        // It would be refused for ever, and is told so.
        let fault =
            rpc.hand_over(tiny_batches(5), &Rights::unlimited(), None, ()).await.expect_err("more than there ever is room for");
        assert_eq!(fault.code(), ErrorCode::MessageTooLarge);
        assert!(fault.message().contains("5120 bytes") && fault.message().contains("is 4096"), "{fault}");
        drop(rpc.hand_over(tiny_batches(4), &Rights::unlimited(), None, ()).await.expect("the first is done"));
    }
}
