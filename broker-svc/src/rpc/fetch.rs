//! `Fetch`: the durable log of one partition, to its end or following it.
//!
//! A reader never sees what is not durable, however a record was acknowledged: after a power failure the offset could hold
//! something else. So a stream goes as far as the owner says that the log is durable, and waits there to be told more.

use std::{pin::Pin, sync::Arc};

use oncelog_proto::{ErrorCode, Fault, Offset, PackedBatch, TopicPartition, v1};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;
use v1::fetch_response::{FetchedBatch, FetchedRecord};

use super::{SMALL_REQUEST_BYTES, mismatch};
use crate::{
    entry::PartitionId,
    journal::{ReadError, Reader, StoredBatch},
    owner::{Handle, Tail, Told},
    pipeline::{Answer, Request},
    state::Ends,
    wire::parse::invalid,
};

pub(crate) type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

/// Opens a stream. It holds `place` until it ends; once `draining` is true it follows no further.
pub(super) async fn open(
    request: v1::FetchRequest,
    owner: &Handle,
    reader: Reader,
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
        reader: Arc::new(reader),
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
    reader: Arc<Reader>,
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
                let batches = self.read().await?;
                if batches.is_empty() {
                    // Everything up to the end was trimmed while it was being looked for.
                    return Err(self.gone());
                }
                for response in self.responses(&batches, ends)? {
                    has_answered = true;
                    if self.send.send(Ok(response)).await.is_err() {
                        return Ok(());
                    }
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

    async fn read(&self) -> Result<Vec<StoredBatch>, Fault> {
        let (reader, partition, next) = (Arc::clone(&self.reader), self.partition, self.next);
        let read = tokio::task::spawn_blocking(move || reader.read(partition, next, READ_BYTES));
        read.await.map_err(|_| mismatch())?.map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: ReadError) -> Fault {
        match error {
            ReadError::Trimmed { .. } => self.gone(),
            error => {
                let message = format!("{} from offset {} on cannot be read: {error}", self.name, self.next);
                Fault::new(ErrorCode::CorruptLog, message).with("offset", self.next)
            }
        }
    }

    fn gone(&self) -> Fault {
        ends_of(&self.tail, &self.name).map_or_else(|fault| fault, |ends| ends.out_of_range(self.next.get(), &self.name))
    }

    /// Turns batches into responses and moves on behind them.
    fn responses(&mut self, batches: &[StoredBatch], ends: Ends) -> Result<Vec<v1::FetchResponse>, Fault> {
        if self.packed {
            let mut response = response(ends);
            for batch in batches {
                if self.remaining == 0 {
                    break;
                }
                response.batches.push(fetched_batch(batch));
                let count = batch.append.count;
                self.next = batch.append.base_offset.checked_add(count).expect("it was admitted");
                self.remaining = self.remaining.saturating_sub(u64::from(count.get().unsigned_abs()));
            }
            return Ok(vec![response]);
        }
        let mut responses = Vec::new();
        let mut bytes = 0;
        for batch in batches {
            for record in self.fetched_records(batch)? {
                let len = prost::Message::encoded_len(&record);
                if responses.is_empty() || bytes + len > RESPONSE_BYTES {
                    responses.push(response(ends));
                    bytes = 0;
                }
                bytes += len;
                self.next = Offset::new(record.offset + 1).expect("it was admitted");
                self.remaining -= 1;
                responses.last_mut().expect("one was just pushed").records.push(record);
            }
        }
        Ok(responses)
    }

    /// The records of a batch that were asked for.
    fn fetched_records(&self, batch: &StoredBatch) -> Result<Vec<FetchedRecord>, Fault> {
        let append = &batch.append;
        let unreadable = || {
            let message = format!("the batch of {} at offset {} does not hold what it says", self.name, append.base_offset);
            Fault::new(ErrorCode::CorruptLog, message).with("offset", append.base_offset)
        };
        let records = packed(batch).ok_or_else(unreadable)?.records().map_err(|_| unreadable())?;
        if i32::try_from(records.len()) != Ok(append.count.get()) {
            return Err(unreadable());
        }
        let skipped = usize::try_from(self.next.get() - append.base_offset.get()).unwrap_or(0);
        let fetched = |(index, record)| FetchedRecord {
            offset: append.base_offset.at(index).get(),
            append_time: Some(batch.time.to_proto()),
            record: Some(record),
            producer_id: append.tag.map(|tag| tag.producer.get()),
            producer_epoch: append.tag.map(|tag| tag.epoch.get()),
            sequence: append.tag.map(|tag| tag.base.get() + index as i64),
        };
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        Ok(records.into_iter().enumerate().skip(skipped).take(wanted).map(fetched).collect())
    }
}

fn packed(batch: &StoredBatch) -> Option<PackedBatch> {
    let append = &batch.append;
    PackedBatch::from_stored(append.compression, append.count, append.uncompressed_bytes, append.checksum, batch.data.clone())
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
