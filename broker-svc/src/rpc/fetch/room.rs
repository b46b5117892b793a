//! What all streams together may have in memory that one of them alone could fill it with.
//!
//! A batch of a few kilobytes may unpack to 64 MiB, and a single record of it may be as large. There may be a thousand streams,
//! and each goes at the pace of its caller. So both are given out of one budget each, and who finds nothing left waits.
//!
//! The wait for unpacked data is short: nobody has it while waiting for anything but a worker. A large record on its way out has
//! to wait for its caller, so it has a budget of its own, and those who stand still hold up readers of large records alone.

use std::sync::Arc;

use oncelog_proto::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rpc::mismatch;

/// The two budgets. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    unpacked: Budget,
    large_records: Budget,
}

/// Comes back when it is dropped.
pub(super) type Taken = OwnedSemaphorePermit;

impl Default for Room {
    fn default() -> Self {
        Self::of(UNPACKED_BYTES, LARGE_RECORD_BYTES)
    }
}

impl Room {
    pub(super) fn of(unpacked: usize, large_records: usize) -> Self {
        Self { unpacked: Budget::new(unpacked), large_records: Budget::new(large_records) }
    }

    /// For a batch that is unpacked. To be given back before its caller is waited for.
    pub(super) async fn for_batch(&self, bytes: usize) -> Result<Taken, Fault> {
        self.unpacked.take(bytes).await
    }

    /// For a large record, until the transport has taken it.
    pub(super) async fn for_record(&self, bytes: usize) -> Result<Taken, Fault> {
        self.large_records.take(bytes).await
    }

    /// The same, if it is there.
    pub(super) fn for_record_now(&self, bytes: usize) -> Option<Taken> {
        self.large_records.take_now(bytes)
    }

    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        [&self.unpacked, &self.large_records].iter().all(|budget| budget.left.available_permits() == budget.bytes)
    }
}

/// So many bytes, one permit each.
#[derive(Clone, Debug)]
struct Budget {
    bytes: usize,
    left: Arc<Semaphore>,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { bytes, left: Arc::new(Semaphore::new(bytes)) }
    }

    async fn take(&self, bytes: usize) -> Result<Taken, Fault> {
        Arc::clone(&self.left).acquire_many_owned(self.permits(bytes)).await.map_err(|_| mismatch())
    }

    fn take_now(&self, bytes: usize) -> Option<Taken> {
        Arc::clone(&self.left).try_acquire_many_owned(self.permits(bytes)).ok()
    }

    /// Whoever needs more than there is takes all of it, instead of waiting for ever.
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes)).expect("the budgets are below 4 GiB")
    }
}

/// Of all batches that are being read and are large when they are unpacked: four of the largest.
const UNPACKED_BYTES: usize = 256 << 20;
/// Of all records that are larger than a response and not yet taken by the transport.
const LARGE_RECORD_BYTES: usize = 256 << 20;
