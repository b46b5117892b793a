//! A response while it is filled, and on its way to the transport.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use oncelog_proto::{Offset, v1};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use v1::fetch_response::{FetchedBatch, FetchedRecord};

use super::room::Taken;
use crate::{journal::StoredBatch, state::Ends};

/// A response that is being filled.
#[derive(Debug)]
pub(super) struct Response {
    message: v1::FetchResponse,
    /// What is in it takes so much.
    bytes: usize,
    /// Of a record that is larger than a response.
    room: Option<Taken>,
}

impl Response {
    pub(super) fn new(ends: Ends) -> Self {
        let Ends { start, end } = ends;
        let message = v1::FetchResponse { log_start_offset: start.get(), log_end_offset: end.get(), ..Default::default() };
        Self { message, bytes: 0, room: None }
    }

    /// Is there room for a record or a batch that takes so much? For the first there always is.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= RESPONSE_BYTES
    }

    /// Takes a record of `batch` that takes `bytes`.
    pub(super) fn push(&mut self, batch: &StoredBatch, offset: Offset, record: v1::Record, bytes: usize) {
        self.bytes += bytes;
        self.message.records.push(fetched_record(batch, offset, record));
    }

    /// Takes a batch as it is stored.
    pub(super) fn push_batch(&mut self, batch: &StoredBatch) {
        self.bytes += bytes_of_batch(batch);
        self.message.batches.push(fetched_batch(batch));
    }

    /// Keeps the room of its only record.
    pub(super) fn keep(&mut self, room: Taken) {
        self.room = Some(room);
    }

    pub(super) fn has_room(&self) -> bool {
        self.room.is_some()
    }
}

/// What a record takes in a response: what it is made of counts as well as its bytes, which may be two.
pub(super) fn bytes_of(record: &v1::Record) -> usize {
    size_of::<FetchedRecord>() + size_of_val(&record.headers[..]) + prost::Message::encoded_len(record)
}

/// What a batch takes in a response.
pub(super) fn bytes_of_batch(batch: &StoredBatch) -> usize {
    size_of::<FetchedBatch>() + batch.data.len()
}

/// Bytes of a response: below the 4 MiB that most clients take. A single larger record or batch goes alone.
pub(super) const RESPONSE_BYTES: usize = 1 << 20;

/// The responses of a stream as tonic takes them. The room of a response is kept until the transport asks for the next one: so
/// long it may have a copy of it.
#[derive(Debug)]
pub(crate) struct Responses {
    ready: mpsc::Receiver<Result<Response, Status>>,
    taken: Option<Taken>,
}

impl Responses {
    pub(super) fn new(ready: mpsc::Receiver<Result<Response, Status>>) -> Self {
        Self { ready, taken: None }
    }

    /// Responses that wait to be taken.
    #[cfg(test)]
    pub(super) fn ahead(&self) -> usize {
        self.ready.len()
    }
}

impl Stream for Responses {
    type Item = Result<v1::FetchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken = None;
        let next = ready!(self.ready.poll_recv(cx));
        Poll::Ready(next.map(|response| {
            let Response { message, room, .. } = response?;
            self.taken = room;
            Ok(message)
        }))
    }
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
