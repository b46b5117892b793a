//! A batch that is unpacked, from some record on.
//!
//! Records are decoded one by one, as they are told: a few kilobytes may hold millions of them. They are slices of the batch, and
//! one of them would keep all of it in memory. So out of a batch that is large they are copied.

use std::iter::{Peekable, Skip, Take};

use bytes::Bytes;
use oncelog_proto::{
    Fault, Offset, PackedBatch,
    record_set::Records,
    v1::{self, Header},
};

use super::room::{Room, Taken};
use crate::{journal::StoredBatch, rpc::paid_work::unpacking, workers::Workers};

/// Its records; no more than it claims to have.
pub(super) struct Unpacked {
    records: Peekable<Take<Skip<Records>>>,
    /// None: it is small, and every stream may keep one.
    room: Option<Taken>,
}

impl Unpacked {
    /// Unpacks `batch` for those who want its records from `next` on. None: it is not what was verified when it was appended.
    ///
    /// # Errors
    /// A worker failed.
    pub(super) async fn new(batch: &StoredBatch, next: Offset, workers: &Workers, room: &Room) -> Result<Option<Self>, Fault> {
        let append = &batch.append;
        let (bytes, checksum) = (append.uncompressed_bytes, append.checksum);
        let data = batch.data.clone();
        let Some(packed) = PackedBatch::from_stored(append.compression, append.count, bytes, checksum, data) else {
            return Ok(None);
        };
        let room = match bytes as usize {
            0..=SMALL_BYTES => None,
            large => Some(room.for_batch(large).await?),
        };
        let count = append.count.get().unsigned_abs() as usize;
        let skipped = usize::try_from(next.get() - append.base_offset.get()).unwrap_or(0);
        let work = move || {
            // `skip` right behind the records: those it passes over are not decoded.
            let mut records = packed.read().ok()?.skip(skipped).take(count.saturating_sub(skipped)).peekable();
            // To pass over them takes its time as well.
            let _ = records.peek();
            Some(records)
        };
        let (records, room) = unpacking(workers, bytes.into(), room, work).await?;
        Ok(records.map(|records| Self { records, room }))
    }

    /// Whoever keeps it while waiting for a caller holds nobody else up.
    pub(super) fn is_small(&self) -> bool {
        self.room.is_none()
    }

    /// The next record, as long as it is not taken. None: there is none, or it cannot be read.
    pub(super) fn peek(&mut self) -> Option<&v1::Record> {
        self.records.peek()?.as_ref().ok()
    }

    /// Takes the next record.
    pub(super) fn take(&mut self) -> Option<v1::Record> {
        let record = self.records.next()?.ok()?;
        Some(if self.is_small() { record } else { copied(record) })
    }
}

fn copied(record: v1::Record) -> v1::Record {
    let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
    let header = |header: Header| Header { key: header.key, value: copy(header.value) };
    v1::Record {
        key: record.key.map(copy),
        value: record.value.map(copy),
        headers: record.headers.into_iter().map(header).collect(),
        timestamp: record.timestamp,
    }
}

/// A batch of which a stream may keep the unpacked data, and a response slices of it.
const SMALL_BYTES: usize = 256 << 10;
