//! `Fetch`: the durable log of one partition, to its end or following it.
//!
//! A reader never sees what is not durable, however a record was acknowledged: after a power failure the offset could hold
//! something else. So a stream goes as far as the owner says that the log is durable, and waits there to be told more.

use std::{mem, pin::Pin};

use oncelog_proto::{ErrorCode, Fault, Offset, PackedBatch, TopicPartition, record_set::RecordSetError, v1};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;
use v1::fetch_response::{FetchedBatch, FetchedRecord};

use super::{SMALL_REQUEST_BYTES, mismatch, unpacking};
use crate::{
    entry::PartitionId,
    journal::{ReadError, Reader, StoredBatch},
    owner::{Handle, Tail, Told},
    pipeline::{Answer, Request},
    state::Ends,
    wire::parse::invalid,
    workers::Workers,
};

pub(crate) type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

/// Opens a stream. It holds `place` until it ends; once `draining` is true it follows no further.
pub(super) async fn open(
    request: v1::FetchRequest,
    owner: &Handle,
    reader: Reader,
    workers: Workers,
    place: OwnedSemaphorePermit,
    draining: watch::Receiver<bool>,
) -> Result<FetchStream, Fault> {
    let name = TopicPartition::parse(&request.topic, request.partition)?;
    let remaining = match request.max_records {
        None => u64::MAX,
        Some(most) => u64::try_from(most)
            .ok()
            .filter(|most| *most > 0)
            .ok_or_else(|| invalid(format!("max_records is {most}; allowed is 1 and more, or leave it out for no limit")))?,
    };
    let (partition, tail) = match owner.ask(Request::Locate(name.clone()), owner.reserve(SMALL_REQUEST_BYTES)?).await? {
        Told::Tail(partition, tail) => (partition, tail),
        Told::Answer(Answer::Refused(fault)) => return Err(fault),
        Told::Answer(_) => return Err(mismatch()),
    };
    let ends = ends_of(&tail, &name)?;
    let next = ends.first_to_read(request.offset, &name)?;
    let (send, receive) = mpsc::channel(RESPONSES_AHEAD);
    let reading = Reading {
        name,
        partition,
        reader,
        workers,
        tail,
        next,
        remaining,
        follow: request.follow,
        packed: request.packed,
        send,
        draining,
    };
    tokio::spawn(async move {
        let send = reading.send.clone();
        if let Err(fault) = reading.run().await {
            let _ = send.send(Err(fault.into())).await;
        }
        drop(place);
    });
    Ok(Box::pin(ReceiverStream::new(receive)))
}

struct Reading {
    name: TopicPartition,
    partition: PartitionId,
    reader: Reader,
    workers: Workers,
    tail: watch::Receiver<Tail>,
    next: Offset,
    remaining: u64,
    follow: bool,
    packed: bool,
    send: mpsc::Sender<Result<v1::FetchResponse, Status>>,
    draining: watch::Receiver<bool>,
}

impl Reading {
    /// Returns early if the caller goes away.
    async fn run(mut self) -> Result<(), Fault> {
        // A stream has at least one response: whoever reads an empty log learns its ends.
        let mut has_answered = false;
        loop {
            let ends = self.follow_ends()?;
            if self.next < ends.end && self.remaining > 0 {
                let batches = self.read(ends).await?;
                has_answered = true;
                if !self.tell(&batches, ends).await? {
                    return Ok(());
                }
                continue;
            }
            if !has_answered {
                has_answered = true;
                if self.send.send(Ok(response(ends))).await.is_err() {
                    return Ok(());
                }
            }
            if !self.follow || self.remaining == 0 {
                return Ok(());
            }
            let stopping =
                || Fault::new(ErrorCode::BrokerNotAvailable, "the broker is stopping; fetch again from the next offset");
            tokio::select! {
                changed = self.tail.changed() => changed.map_err(|_| stopping())?,
                _ = self.draining.wait_for(|draining| *draining) => return Err(stopping()),
                () = self.send.closed() => return Ok(()),
            }
        }
    }

    fn follow_ends(&mut self) -> Result<Ends, Fault> {
        self.tail.mark_unchanged();
        let ends = ends_of(&self.tail, &self.name)?;
        if self.next < ends.start {
            return Err(ends.out_of_range(self.next.get(), &self.name));
        }
        Ok(ends)
    }

    /// At least one batch, the first of them with the next record.
    async fn read(&self, ends: Ends) -> Result<Vec<StoredBatch>, Fault> {
        let (reader, partition, next) = (self.reader.clone(), self.partition, self.next);
        let read = self.workers.call(move || reader.read(partition, next, READ_BYTES)).await;
        match read.map_err(|_| mismatch())? {
            // Below the durable end there was something. All of it was trimmed, and the owner has not said so yet.
            Ok(batches) if batches.is_empty() => Err(self.skipped(ends, ends.end)),
            Ok(batches) => Ok(batches),
            Err(error) => Err(self.unreadable(error, ends)),
        }
    }

    /// The next record is no longer there; the log goes on at `start`.
    fn skipped(&self, ends: Ends, start: Offset) -> Fault {
        Ends { start, ..ends }.out_of_range(self.next.get(), &self.name)
    }

    fn unreadable(&self, error: ReadError, ends: Ends) -> Fault {
        let (name, offset) = (&self.name, self.next);
        match error {
            ReadError::Trimmed { next } => self.skipped(ends, next),
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

    /// Sends batches, and moves on behind them; false if the caller went away.
    async fn tell(&mut self, batches: &[StoredBatch], ends: Ends) -> Result<bool, Fault> {
        let mut answer = response(ends);
        if self.packed {
            for batch in batches {
                if self.remaining == 0 {
                    break;
                }
                answer.batches.push(fetched_batch(batch));
                self.next = end_of(batch);
                self.remaining = self.remaining.saturating_sub(u64::from(batch.append.count.get().unsigned_abs()));
            }
            return Ok(self.send(answer).await);
        }
        let mut bytes = 0;
        for batch in batches {
            if self.remaining == 0 {
                break;
            }
            // Records are decoded as they are sent: a few kilobytes may hold millions of them.
            for (offset, record) in self.records(batch).await? {
                if self.remaining == 0 {
                    break;
                }
                let record = record.map_err(|_| self.broken(batch))?;
                let record = fetched_record(batch, offset, record);
                let len = prost::Message::encoded_len(&record);
                if bytes + len > RESPONSE_BYTES && !answer.records.is_empty() {
                    bytes = 0;
                    if !self.send(mem::replace(&mut answer, response(ends))).await {
                        return Ok(false);
                    }
                }
                bytes += len;
                answer.records.push(record);
                self.next = offset.at(1);
                self.remaining -= 1;
            }
            if self.remaining > 0 && self.next != end_of(batch) {
                return Err(self.broken(batch));
            }
        }
        Ok(self.send(answer).await)
    }

    async fn send(&self, answer: v1::FetchResponse) -> bool {
        self.send.send(Ok(answer)).await.is_ok()
    }

    /// The records of a batch from the next one on, with their offsets; no more than it claims to have.
    async fn records(
        &self,
        batch: &StoredBatch,
    ) -> Result<impl Iterator<Item = (Offset, Result<v1::Record, RecordSetError>)> + use<>, Fault> {
        let packed = packed(batch).ok_or_else(|| self.broken(batch))?;
        let (records, ()) = unpacking(&self.workers, u64::from(packed.uncompressed_bytes()), (), move || packed.read()).await?;
        let (base, count) = (batch.append.base_offset, batch.append.count.get().unsigned_abs() as usize);
        let skipped = usize::try_from(self.next.get() - base.get()).unwrap_or(0);
        // `skip` right behind the records: those it passes over are not decoded.
        let records = records.map_err(|_| self.broken(batch))?.skip(skipped).take(count.saturating_sub(skipped));
        Ok((skipped..).zip(records).map(move |(index, record)| (base.at(index), record)))
    }

    fn broken(&self, batch: &StoredBatch) -> Fault {
        let (name, offset) = (&self.name, batch.append.base_offset);
        let message = format!("the batch of {name} at offset {offset} does not hold what it says");
        Fault::new(ErrorCode::CorruptLog, message).with("offset", offset).with("next_offset", end_of(batch))
    }
}

fn packed(batch: &StoredBatch) -> Option<PackedBatch> {
    let append = &batch.append;
    PackedBatch::from_stored(append.compression, append.count, append.uncompressed_bytes, append.checksum, batch.data.clone())
}

fn end_of(batch: &StoredBatch) -> Offset {
    batch.append.base_offset.checked_add(batch.append.count).expect("it was admitted")
}

fn fetched_record(batch: &StoredBatch, offset: Offset, record: v1::Record) -> FetchedRecord {
    let tag = batch.append.tag;
    FetchedRecord {
        offset: offset.get(),
        append_time: Some(batch.time.to_proto()),
        record: Some(record),
        producer_id: tag.map(|tag| tag.producer.get()),
        producer_epoch: tag.map(|tag| tag.epoch.get()),
        sequence: tag.map(|tag| tag.base.get() + (offset.get() - batch.append.base_offset.get())),
    }
}

fn fetched_batch(batch: &StoredBatch) -> FetchedBatch {
    let append = &batch.append;
    FetchedBatch {
        base_offset: append.base_offset.get(),
        append_time: Some(batch.time.to_proto()),
        producer_id: append.tag.map(|tag| tag.producer.get()),
        producer_epoch: append.tag.map_or(0, |tag| tag.epoch.get()),
        base_sequence: append.tag.map_or(0, |tag| tag.base.get()),
        checksum: append.checksum,
        packed: Some(v1::PackedRecords {
            compression: append.compression.to_proto().into(),
            record_count: append.count.get(),
            uncompressed_bytes: i32::try_from(append.uncompressed_bytes).unwrap_or(i32::MAX),
            data: batch.data.clone(),
        }),
    }
}

fn response(ends: Ends) -> v1::FetchResponse {
    v1::FetchResponse { log_start_offset: ends.start.get(), log_end_offset: ends.end.get(), ..Default::default() }
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

/// Bytes of one read, and about those of a packed response.
const READ_BYTES: usize = 1 << 20;
/// Bytes of records in a response: below the 4 MiB that most clients take. A single larger record goes alone.
const RESPONSE_BYTES: usize = 1 << 20;
/// Responses that are ready before the caller takes them.
const RESPONSES_AHEAD: usize = 2;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use oncelog_proto::{Compression, PartitionIndex, RecordCount, Timestamp, TopicName, record_set};

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

    /// One batch of `count` empty records at offset 0.
    fn append(journal: &mut Journal, count: i32) {
        let count = RecordCount::new(count).expect("positive");
        let records = vec![v1::Record::default(); count.get().unsigned_abs() as usize];
        let packed = PackedBatch::pack(&record_set::encode(&records), count, Compression::Zstd).expect("below the limit");
        let append = Append {
            partition: PARTITION,
            base_offset: Offset::ZERO,
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

    /// Reads a log that is said to have `end` records, from `next` on, to its end.
    async fn fetch(journal: &Journal, next: i64, end: i64, max_records: u64) -> Vec<Result<v1::FetchResponse, Fault>> {
        let offset = |n| Offset::new(n).expect("not negative");
        let (_owner, tail) = watch::channel(Tail::At(Ends { start: Offset::ZERO, end: offset(end) }));
        let (_drain, draining) = watch::channel(false);
        let (send, mut receive) = mpsc::channel(RESPONSES_AHEAD);
        let reading = Reading {
            name: TopicPartition { topic: TopicName::parse("t").expect("allowed"), partition: PartitionIndex::MIN },
            partition: PARTITION,
            reader: journal.reader(),
            workers: Workers::Threads,
            tail,
            next: offset(next),
            remaining: max_records,
            follow: false,
            packed: false,
            send,
            draining,
        };
        let reading = tokio::spawn(reading.run());
        let mut told = Vec::new();
        while let Some(answer) = receive.recv().await {
            told.push(Ok(answer.expect("faults are returned")));
        }
        told.extend(reading.await.expect("no panic").err().map(Err));
        told
    }

    #[tokio::test]
    async fn a_log_that_is_trimmed_under_a_reader_is_out_of_range_and_does_not_look_like_its_end() {
        let told = fetch(&journal(), 3, 5, u64::MAX).await;
        let [Err(fault)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(fault.code(), ErrorCode::OffsetOutOfRange);
        assert!(fault.message().contains("its log starts at 5"), "{fault}");
    }

    #[tokio::test]
    async fn a_batch_of_many_records_is_told_in_responses_of_a_bounded_size() {
        const COUNT: i32 = 200_000;
        let mut journal = journal();
        append(&mut journal, COUNT);
        let told = fetch(&journal, 0, COUNT.into(), u64::MAX).await;
        let mut offsets = Vec::new();
        for response in told {
            let response = response.expect("readable");
            assert!(prost::Message::encoded_len(&response) < 2 * RESPONSE_BYTES);
            offsets.extend(response.records.iter().map(|record| record.offset));
        }
        assert_eq!(offsets, (0..COUNT.into()).collect::<Vec<i64>>());
    }

    #[tokio::test]
    async fn a_stream_begins_within_a_batch_and_ends_after_as_many_records_as_were_asked_for() {
        let mut journal = journal();
        append(&mut journal, 10);
        let told = fetch(&journal, 4, 10, 3).await;
        let [Ok(response)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(response.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [4, 5, 6]);
    }
}
