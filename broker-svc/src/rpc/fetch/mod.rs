//! `Fetch`: the durable log of one partition, to its end or following it.
//!
//! A reader never sees what is not durable, however a record was acknowledged: after a power failure the offset could hold
//! something else. So a stream goes as far as the owner says that the log is durable, and waits there to be told more. The
//! journal's reader may be further by then: what it finds beyond is left for the next look, and no record stands above the end
//! that its own response tells.
//!
//! A stream goes at the pace of its caller. While it waits for that it has no more than the responses that are ready, what it
//! read, and a small batch unpacked; what is large when it is unpacked is let go and unpacked again ([`room`]).
//!
//! | file | owns |
//! |---|---|
//! | `room` | what all streams together may have in memory |
//! | `unpacked` | the records of one batch |
//! | `response` | a response, until the transport has taken it |

mod response;
mod room;
mod unpacked;

use std::collections::VecDeque;

use oncelog_edge::security::{access::Rights, permissions::Operation};
use oncelog_proto::{ErrorCode, Fault, Offset, TopicPartition, v1};
pub(crate) use response::Responses;
use response::{RESPONSE_BYTES, Response, bytes_of, bytes_of_batch};
pub(crate) use room::Room;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tonic::Status;
use unpacked::Unpacked;

use super::{SMALL_REQUEST_BYTES, mismatch};
use crate::{
    entry::PartitionId,
    journal::{ReadError, Reader, StoredBatch},
    owner::{Handle, Tail, Told},
    pipeline::{Answer, Request},
    state::Ends,
    wire::parse::invalid,
    workers::Workers,
};

/// What streams are served with.
pub(super) struct Serving {
    pub(super) reader: Reader,
    pub(super) workers: Workers,
    pub(super) room: Room,
    /// Turns true when the broker is about to end: then no stream goes on.
    pub(super) draining: watch::Receiver<bool>,
    /// What the caller may do: asked again for each response, before it is queued, and whenever it changes, as a stream may
    /// outlive it.
    pub(super) rights: Rights,
}

/// Opens a stream. It holds `place` until it ends.
pub(super) async fn open(
    request: v1::FetchRequest,
    owner: &Handle,
    serving: Serving,
    place: OwnedSemaphorePermit,
) -> Result<Responses, Fault> {
    let name = TopicPartition::parse(&request.topic, request.partition)?;
    serving.rights.check(Operation::Read, &name.topic)?;
    let remaining = match request.max_records {
        None => u64::MAX,
        Some(most) => u64::try_from(most)
            .ok()
            .filter(|most| *most > 0)
            .ok_or_else(|| invalid(format!("max_records is {most}; allowed is 1 and more, or leave it out for no limit")))?,
    };
    let (partition, tail) = match owner.ask(None, Request::Locate(name.clone()), owner.reserve(SMALL_REQUEST_BYTES)?).await? {
        Told::Tail(partition, tail) => (partition, tail),
        Told::Answer(Answer::Refused(fault)) => return Err(fault),
        Told::Answer(_) => return Err(mismatch()),
    };
    let ends = ends_of(&tail, &name)?;
    let next = ends.first_to_read(request.offset, &name)?;
    let until = (!request.follow).then_some(ends.end);
    let (send, ready) = mpsc::channel(RESPONSES_AHEAD);
    let (packed, untold) = (request.packed, VecDeque::new());
    let reading = Reading { serving, name, partition, tail, ends, next, until, remaining, packed, untold, unpacked: None, send };
    tokio::spawn(async move {
        let send = reading.send.clone();
        let ended = reading.run().await;
        // Before the last word, which waits for a caller that may never take it.
        drop(place);
        if let Err(End::Fault(fault)) = ended {
            let _ = send.send(Err(fault.into())).await;
        }
    });
    Ok(Responses::new(ready))
}

struct Reading {
    serving: Serving,
    name: TopicPartition,
    partition: PartitionId,
    tail: watch::Receiver<Tail>,
    /// As they were when something was last read.
    ends: Ends,
    /// The record to be told next.
    next: Offset,
    /// Where the log ended when the stream began; none for one that follows. While records come faster than the caller takes
    /// them, the end is never reached.
    until: Option<Offset>,
    remaining: u64,
    packed: bool,
    /// What is read and not told.
    untold: VecDeque<StoredBatch>,
    /// The first of them, as far as it is told.
    unpacked: Option<Unpacked>,
    send: mpsc::Sender<Result<Response, Status>>,
}

/// Why a stream ends before its end.
#[derive(Debug)]
enum End {
    CallerLeft,
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Reading {
    async fn run(mut self) -> Result<(), End> {
        // A stream has at least one response: whoever reads an empty log learns its ends.
        let mut has_answered = false;
        while self.remaining > 0 && !(has_answered && self.is_at_its_end()) {
            if self.untold.is_empty() {
                self.look()?;
            }
            let has_more = !self.untold.is_empty() || self.next < self.limit();
            if has_more || !has_answered {
                let place = self.place_for_a_response().await?;
                let response = if has_more { self.respond().await? } else { Response::new(self.ends) };
                // Not before: the caller may have let the stream wait for days.
                self.serving.rights.still_hold()?;
                self.serving.rights.check(Operation::Read, &self.name.topic)?;
                place.send(Ok(response));
                has_answered = true;
            } else {
                let mut tail = self.tail.clone();
                self.wait(tail.changed()).await?.map_err(|_| self.stopping())?;
            }
        }
        Ok(())
    }

    /// Never, if it follows.
    fn is_at_its_end(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Looks where the log ends now.
    fn look(&mut self) -> Result<(), Fault> {
        self.tail.mark_unchanged();
        self.ends = ends_of(&self.tail, &self.name)?;
        if self.next < self.ends.start {
            return Err(self.ends.out_of_range(self.next.get(), &self.name));
        }
        Ok(())
    }

    /// Nothing at or above it is told before the next look.
    fn limit(&self) -> Offset {
        self.until.map_or(self.ends.end, |until| until.min(self.ends.end))
    }

    /// Waits for something as long as there is a caller, it may read the topic, and the broker is not about to end.
    async fn wait<T>(&self, something: impl Future<Output = T>) -> Result<T, End> {
        let mut draining = self.serving.draining.clone();
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => Err(self.stopping().into()),
            () = self.send.closed() => Err(End::CallerLeft),
            done = something => Ok(done),
            fault = self.serving.rights.end_for(Operation::Read, &self.name.topic) => Err(fault.into()),
        }
    }

    /// Waits until the caller takes one more response.
    async fn place_for_a_response(&mut self) -> Result<mpsc::OwnedPermit<Result<Response, Status>>, End> {
        if self.send.capacity() == 0 {
            // It may be long, and nobody else is to wait for this caller.
            self.unpacked = self.unpacked.take().filter(Unpacked::is_small);
        }
        let place = self.send.clone().reserve_owned();
        self.wait(place).await?.map_err(|_| End::CallerLeft)
    }

    /// The next response: full, or as far as was read.
    async fn respond(&mut self) -> Result<Response, End> {
        if self.untold.is_empty() {
            self.read().await?;
        }
        if self.packed { Ok(self.batches()) } else { self.records().await }
    }

    /// Reads at least one batch, the first of them with the next record.
    async fn read(&mut self) -> Result<(), Fault> {
        let (reader, partition, next) = (self.serving.reader.clone(), self.partition, self.next);
        let read = self.serving.workers.call(move || reader.read(partition, next, READ_BYTES)).await;
        let batches = read.map_err(|_| mismatch())?.map_err(|error| self.unreadable(error))?;
        // The journal makes a group readable a moment before the owner says that it is durable.
        let limit = self.limit();
        self.untold = batches.into_iter().take_while(|batch| batch.append.base_offset < limit).collect();
        if self.untold.is_empty() {
            // Below the durable end there was something. All of it was trimmed, and the owner has not said so yet.
            return Err(self.skipped(self.ends.end));
        }
        Ok(())
    }

    /// What was read, as it is stored.
    fn batches(&mut self) -> Response {
        let mut response = Response::new(self.ends);
        while self.remaining > 0
            && let Some(batch) = self.untold.front()
            && response.fits(bytes_of_batch(batch))
        {
            self.next = end_of(batch);
            self.remaining = self.remaining.saturating_sub(u64::from(batch.append.count.get().unsigned_abs()));
            response.push_batch(batch);
            self.untold.pop_front();
        }
        response
    }

    /// Records out of what was read.
    async fn records(&mut self) -> Result<Response, End> {
        let mut response = Response::new(self.ends);
        while let Some(batch) = self.untold.front().cloned() {
            let mut unpacked = match self.unpacked.take() {
                Some(unpacked) => unpacked,
                None => self.unpack(&batch).await?,
            };
            while self.remaining > 0 && self.next < end_of(&batch) {
                let bytes = unpacked.peek().map(bytes_of).ok_or_else(|| self.broken(&batch))?;
                if !response.fits(bytes) {
                    self.unpacked = Some(unpacked);
                    return Ok(response);
                }
                if bytes > RESPONSE_BYTES && !response.has_room() {
                    match self.serving.room.for_record_now(bytes) {
                        Some(room) => response.keep(room),
                        None => {
                            // Others have to take theirs first, at their pace. Meanwhile this one has nothing.
                            drop(unpacked);
                            response.keep(self.wait(self.serving.room.for_record(bytes)).await??);
                            unpacked = self.unpack(&batch).await?;
                        }
                    }
                }
                let record = unpacked.take().ok_or_else(|| self.broken(&batch))?;
                response.push(&batch, self.next, record, bytes);
                self.next = self.next.at(1);
                self.remaining -= 1;
            }
            if self.remaining == 0 {
                break;
            }
            self.untold.pop_front();
        }
        Ok(response)
    }

    async fn unpack(&self, batch: &StoredBatch) -> Result<Unpacked, Fault> {
        let Serving { workers, room, .. } = &self.serving;
        Unpacked::new(batch, self.next, workers, room).await?.ok_or_else(|| self.broken(batch))
    }

    fn stopping(&self) -> Fault {
        let next = self.next;
        let message = format!("the broker is stopping; fetch again from offset {next}");
        Fault::new(ErrorCode::BrokerNotAvailable, message).with("next_offset", next)
    }

    /// The next record is no longer there; the log goes on at `start`.
    fn skipped(&self, start: Offset) -> Fault {
        Ends { start, ..self.ends }.out_of_range(self.next.get(), &self.name)
    }

    fn unreadable(&self, error: ReadError) -> Fault {
        let (name, offset) = (&self.name, self.next);
        match error {
            ReadError::Trimmed { next } => self.skipped(next),
            ReadError::Damaged { next, .. } => {
                let message = format!("{name} from offset {offset} on cannot be read: {error}");
                let fault = Fault::new(ErrorCode::CorruptLog, message).with("offset", offset);
                next.into_iter().fold(fault, |fault, next| fault.with("next_offset", next))
            }
            // Nothing is known to be lost: too many open files may be all of it.
            ReadError::Io { .. } => {
                let message = format!("{name} cannot be read just now: {error}; fetch again from offset {offset}");
                Fault::new(ErrorCode::KafkaStorageError, message).with("offset", offset)
            }
        }
    }

    fn broken(&self, batch: &StoredBatch) -> Fault {
        let (name, offset) = (&self.name, batch.append.base_offset);
        let message = format!("the batch of {name} at offset {offset} does not hold what it says");
        Fault::new(ErrorCode::CorruptLog, message).with("offset", offset).with("next_offset", end_of(batch))
    }
}

fn end_of(batch: &StoredBatch) -> Offset {
    batch.append.base_offset.checked_add(batch.append.count).expect("it was admitted")
}

fn ends_of(tail: &watch::Receiver<Tail>, name: &TopicPartition) -> Result<Ends, Fault> {
    match *tail.borrow() {
        Tail::At(ends) => Ok(ends),
        Tail::Gone => {
            let message = format!("topic {} was deleted", name.topic);
            Err(Fault::new(ErrorCode::UnknownTopicOrPartition, message).with("topic", &name.topic))
        }
    }
}

/// Bytes of one read, unless a single batch has more.
const READ_BYTES: usize = 1 << 20;
/// Responses that are ready before the caller takes them.
const RESPONSES_AHEAD: usize = 2;

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

    use bytes::Bytes;
    use oncelog_proto::{Compression, PackedBatch, PartitionIndex, RecordCount, Timestamp, TopicName, record_set};
    use tokio::task::{JoinHandle, yield_now};
    use tokio_stream::{Stream, StreamExt};

    use super::*;
    use crate::{
        entry::Append,
        journal::{self, GroupDraft, Journal, sim_disk::SimDisk},
        state::State,
    };

    const PARTITION: PartitionId = PartitionId(0);

    fn journal() -> Journal {
        let options = journal::Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..journal::Options::new(1) };
        journal::open(Arc::new(SimDisk::new()), options, &mut State::default(), &mut |_| {}).expect("an empty disk").0
    }

    fn offset(n: i64) -> Offset {
        Offset::new(n).expect("not negative")
    }

    fn tail(end: i64) -> Tail {
        Tail::At(Ends { start: Offset::ZERO, end: offset(end) })
    }

    /// Records without anything in them.
    fn empty(count: usize) -> Vec<v1::Record> {
        vec![v1::Record::default(); count]
    }

    fn of_bytes(len: usize) -> v1::Record {
        v1::Record { value: Some(vec![0; len].into()), ..Default::default() }
    }

    /// One batch at this offset.
    fn append(journal: &mut Journal, base: i64, records: &[v1::Record]) {
        let count = RecordCount::of_len(records.len()).expect("some");
        let packed = PackedBatch::pack(&record_set::encode(records), count, Compression::Zstd).expect("below the limit");
        let append = Append {
            partition: PARTITION,
            base_offset: offset(base),
            tag: None,
            count,
            compression: packed.compression(),
            uncompressed_bytes: packed.uncompressed_bytes(),
            data_len: u32::try_from(packed.data().len()).expect("small"),
            checksum: packed.checksum(),
        };
        let mut draft = GroupDraft::new(journal.group_limit());
        draft.append(append, Bytes::clone(packed.data()));
        journal.write(&draft.finish(Timestamp::default())).expect("there is room");
        journal.sync().expect("no fault");
    }

    /// A stream, and those who move it.
    struct Stage {
        reading: Reading,
        responses: Responses,
        owner: watch::Sender<Tail>,
        drain: watch::Sender<bool>,
    }

    /// It reads from the start to the end of a log that is said to have `end` records. Everything runs on this thread.
    fn stage(journal: &Journal, end: i64) -> Stage {
        let (owner, tail) = watch::channel(tail(end));
        let (drain, draining) = watch::channel(false);
        let (send, ready) = mpsc::channel(RESPONSES_AHEAD);
        let workers = Workers::Tasks(Arc::new(SimDisk::new()));
        let reading = Reading {
            serving: Serving { reader: journal.reader(), workers, room: Room::default(), draining, rights: Rights::unlimited() },
            name: TopicPartition { topic: TopicName::parse("t").expect("allowed"), partition: PartitionIndex::MIN },
            partition: PARTITION,
            ends: Ends { start: Offset::ZERO, end: offset(end) },
            tail,
            next: Offset::ZERO,
            until: Some(offset(end)),
            remaining: u64::MAX,
            packed: false,
            untold: VecDeque::new(),
            unpacked: None,
            send,
        };
        Stage { reading, responses: Responses::new(ready), owner, drain }
    }

    /// A stage whose stream has begun.
    struct Running {
        reading: JoinHandle<Result<(), End>>,
        responses: Responses,
        owner: watch::Sender<Tail>,
        drain: watch::Sender<bool>,
    }

    impl Stage {
        fn with(mut self, change: impl FnOnce(&mut Reading)) -> Self {
            change(&mut self.reading);
            self
        }

        fn run(self) -> Running {
            let Self { reading, responses, owner, drain } = self;
            Running { reading: tokio::spawn(reading.run()), responses, owner, drain }
        }

        /// Everything that is told until it ends.
        async fn told(self) -> Vec<Result<v1::FetchResponse, Fault>> {
            let mut running = self.run();
            let mut told = Vec::new();
            while let Some(answer) = running.responses.next().await {
                told.push(Ok(answer.expect("faults are returned")));
            }
            if let Err(End::Fault(fault)) = running.reading.await.expect("no panic") {
                told.push(Err(fault));
            }
            told
        }
    }

    impl Running {
        async fn next(&mut self) -> v1::FetchResponse {
            self.responses.next().await.expect("it goes on").expect("faults are returned")
        }

        /// What is there without waiting.
        async fn next_now(&mut self) -> Option<v1::FetchResponse> {
            settle().await;
            let next = poll_fn(|cx| Poll::Ready(Pin::new(&mut self.responses).poll_next(cx))).await;
            match next {
                Poll::Ready(next) => Some(next.expect("it goes on").expect("faults are returned")),
                Poll::Pending => None,
            }
        }
    }

    /// Until all tasks have come as far as they can by themselves: none of them waits for a thread.
    async fn settle() {
        for _ in 0..1_000 {
            yield_now().await;
        }
    }

    /// Of records or of batches.
    fn offsets(response: &v1::FetchResponse) -> Vec<i64> {
        let batch = |batch: &v1::fetch_response::FetchedBatch| {
            let count = batch.packed.as_ref().expect("always there").record_count;
            batch.base_offset..batch.base_offset + i64::from(count)
        };
        response.records.iter().map(|record| record.offset).chain(response.batches.iter().flat_map(batch)).collect()
    }

    fn all_offsets(told: Vec<Result<v1::FetchResponse, Fault>>) -> Vec<i64> {
        told.into_iter().flat_map(|response| offsets(&response.expect("readable"))).collect()
    }

    #[tokio::test]
    async fn a_log_that_is_trimmed_under_a_reader_is_out_of_range_and_does_not_look_like_its_end() {
        let told = stage(&journal(), 5).with(|reading| reading.next = offset(3)).told().await;
        let [Err(fault)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(fault.code(), ErrorCode::OffsetOutOfRange);
        assert!(fault.message().contains("its log starts at 5"), "{fault}");
    }

    #[tokio::test]
    async fn a_batch_of_many_records_is_told_in_responses_of_a_bounded_size() {
        const COUNT: usize = 200_000;
        let mut journal = journal();
        append(&mut journal, 0, &empty(COUNT));
        let told = stage(&journal, COUNT as i64).told().await;
        for response in &told {
            let records = &response.as_ref().expect("readable").records;
            assert!(
                records.iter().map(|fetched| bytes_of(fetched.record.as_ref().expect("there"))).sum::<usize>() <= RESPONSE_BYTES
            );
        }
        assert_eq!(all_offsets(told), (0..COUNT as i64).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn packed_batches_share_a_response_as_far_as_they_fit() {
        let mut journal = journal();
        let mut chance = 1_u32;
        let mut noise = || {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            chance.to_be_bytes()[0]
        };
        for base in 0..4 {
            let value: Vec<u8> = (0..300 << 10).map(|_| noise()).collect();
            append(&mut journal, base, &[v1::Record { value: Some(value.into()), ..Default::default() }]);
        }
        let told = stage(&journal, 4).with(|reading| reading.packed = true).told().await;
        let told: Vec<_> = told.into_iter().map(|response| offsets(&response.expect("readable"))).collect();
        assert_eq!(told, [vec![0, 1, 2], vec![3]]);
    }

    #[tokio::test]
    async fn a_stream_begins_within_a_batch_and_ends_after_as_many_records_as_were_asked_for() {
        let mut journal = journal();
        append(&mut journal, 0, &empty(10));
        let stage = stage(&journal, 10).with(|reading| (reading.next, reading.remaining) = (offset(4), 3));
        let told = stage.told().await;
        let [Ok(response)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(offsets(response), [4, 5, 6]);
    }

    #[tokio::test]
    async fn no_record_of_a_response_stands_at_or_above_its_log_end() {
        let mut journal = journal();
        append(&mut journal, 0, &empty(10));
        // It can be read, and the owner has not heard that it is durable.
        append(&mut journal, 10, &empty(10));
        for packed in [false, true] {
            let follow = stage(&journal, 10).with(|reading| (reading.packed, reading.until) = (packed, None));
            let mut following = follow.run();
            for (first, end) in [(0, 10), (10, 20)] {
                following.owner.send_replace(tail(end));
                let response = following.next().await;
                assert_eq!((offsets(&response), response.log_end_offset), ((first..end).collect(), end), "packed {packed}");
                assert_eq!(following.next_now().await, None);
            }
        }
    }

    #[tokio::test]
    async fn a_fetch_that_does_not_follow_ends_where_the_log_ended_when_it_began() {
        let mut journal = journal();
        append(&mut journal, 0, &empty(10));
        append(&mut journal, 10, &empty(10));
        for packed in [false, true] {
            let stage = stage(&journal, 10).with(|reading| reading.packed = packed);
            stage.owner.send_replace(tail(20));
            let told = stage.told().await;
            assert_eq!(told.last().and_then(|last| last.as_ref().ok()).map(|last| last.log_end_offset), Some(20));
            assert_eq!(all_offsets(told), (0..10).collect::<Vec<_>>(), "packed {packed}");
        }
    }

    #[tokio::test]
    async fn a_lagging_reader_hears_of_a_stop() {
        const COUNT: usize = 100_000;
        let mut journal = journal();
        append(&mut journal, 0, &empty(COUNT));
        for until in [None, Some(offset(COUNT as i64))] {
            let mut lagging = stage(&journal, COUNT as i64).with(|reading| reading.until = until).run();
            settle().await;
            assert_eq!(lagging.responses.ahead(), RESPONSES_AHEAD);
            lagging.drain.send_replace(true);
            let mut told = 0;
            while let Some(response) = lagging.responses.next().await {
                told += response.expect("faults are returned").records.len();
                assert!(told < COUNT, "it was told all");
            }
            let ended = lagging.reading.await.expect("no panic");
            let Err(End::Fault(fault)) = ended else { panic!("{ended:?}") };
            assert_eq!(fault.code(), ErrorCode::BrokerNotAvailable);
            assert!(fault.message().ends_with(&format!("fetch again from offset {told}")), "{fault}");
        }
    }

    #[tokio::test]
    async fn slow_readers_keep_nothing_unpacked_that_is_large() {
        const READERS: usize = 6;
        const RECORD: usize = RESPONSE_BYTES - 1024;
        let mut journal = journal();
        append(&mut journal, 0, &vec![of_bytes(RECORD); 6]);
        // Half of them at a time.
        let room = Room::of(READERS / 2 * 6 * RESPONSE_BYTES, 0);
        let mut readers: Vec<_> =
            (0..READERS).map(|_| stage(&journal, 6).with(|reading| reading.serving.room = room.clone()).run()).collect();
        settle().await;
        assert!(readers.iter().all(|reader| reader.responses.ahead() == RESPONSES_AHEAD), "each goes on as far as it can");
        assert!(room.is_unused());
        for read in 0..6 {
            for reader in &mut readers {
                let response = reader.next().await;
                assert_eq!(offsets(&response), [read]);
                let value = response.records.into_iter().next().and_then(|fetched| fetched.record?.value).expect("there");
                assert!(value.len() == RECORD && value.is_unique(), "it keeps the whole batch");
            }
            settle().await;
            assert!(room.is_unused());
        }
    }

    #[tokio::test]
    async fn a_record_larger_than_a_response_goes_alone_and_the_next_one_waits_until_it_is_taken() {
        let mut journal = journal();
        append(&mut journal, 0, &[of_bytes(1), of_bytes(RESPONSE_BYTES), of_bytes(1)]);
        let room = Room::of(4 * RESPONSE_BYTES, 2 * RESPONSE_BYTES - 1);
        let reader = || stage(&journal, 3).with(|reading| reading.serving.room = room.clone()).run();
        let (mut first, mut second) = (reader(), reader());
        assert_eq!(offsets(&first.next().await), [0]);
        assert_eq!(offsets(&first.next().await), [1]);
        // The transport may still have it.
        assert_eq!(second.next_now().await.map(|response| offsets(&response)), Some(vec![0]));
        assert_eq!(second.next_now().await, None);
        assert_eq!(offsets(&first.next().await), [2]);
        assert_eq!(offsets(&second.next().await), [1]);
        assert_eq!(offsets(&second.next().await), [2]);
        drop((first, second));
        settle().await;
        assert!(room.is_unused());
    }
}
