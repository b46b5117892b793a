//! `buffer.memory`: the bytes of records whose outcome is open.
//!
//! A `Send` pays for its records before they are taken in, and gets in line if there is not enough: strictly first come, first
//! served, so that a large one is not starved by small ones (C53). Its bytes are held until the outcome of each record is
//! known, repetitions included (C57). Whoever waits, for this or for its topic, holds its records in memory too; so the line
//! has a limit of its own, as many bytes again, and one who finds it full is sent away at once instead of after `max.block.ms`.

use std::{sync::Arc, time::Duration};

use oncelog_proto::{ErrorCode, Fault};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

/// Hands out bytes of `buffer.memory`. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    capacity: usize,
    free: Arc<Semaphore>,
    line: Arc<Semaphore>,
}

/// Bytes that were handed out. They come back when this is dropped, or by [`Buffer::free`] after [`Self::keep`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Reserved(OwnedSemaphorePermit);

/// A place in the line.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place<'a>(#[expect(dead_code, reason = "it counts until it is dropped")] SemaphorePermit<'a>);

impl Buffer {
    /// `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        let semaphore = || Arc::new(Semaphore::new(capacity.min(Semaphore::MAX_PERMITS)));
        Self { capacity, free: semaphore(), line: semaphore() }
    }

    /// Takes `bytes`, waiting for them until `deadline`.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE`: more than there are at all; `RESOURCE_EXHAUSTED` with a hint when to try again: not free in time,
    /// or the line is full.
    pub(crate) async fn reserve(&self, bytes: usize, deadline: Instant) -> Result<Reserved, Fault> {
        let permits = self.permits(bytes)?;
        if let Some(reserved) = self.try_reserve(bytes) {
            return Ok(reserved);
        }
        let _place = self.line_up(bytes)?;
        match timeout_at(deadline, Arc::clone(&self.free).acquire_many_owned(permits)).await {
            Ok(permit) => Ok(Reserved(permit.expect("the semaphore is never closed"))),
            Err(_) => {
                Err(self
                    .full(format!("buffer.memory, {} bytes, is full and did not become free within max.block.ms", self.capacity)))
            }
        }
    }

    /// Takes `bytes` if they are free and nobody waits for any.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reserved> {
        let permits = u32::try_from(bytes).ok()?;
        // Nobody overtakes: where there is a line, this fails although there might be enough for a small one.
        Arc::clone(&self.free).try_acquire_many_owned(permits).ok().map(Reserved)
    }

    /// Takes a place in the line for records of `bytes` that wait, until it is dropped.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE`: more than there are at all; `RESOURCE_EXHAUSTED` with a hint when to try again: the line is full.
    pub(crate) fn line_up(&self, bytes: usize) -> Result<Place<'_>, Fault> {
        let place = self.line.try_acquire_many(self.permits(bytes)?);
        place.map(Place).map_err(|_| {
            self.full(format!(
                "too much is waiting already, for buffer.memory or for its topic: at most {} bytes, as many as buffer.memory has",
                self.capacity
            ))
        })
    }

    /// Gives back bytes that were kept.
    pub(crate) fn free(&self, bytes: usize) {
        self.free.add_permits(bytes);
    }

    /// Bytes that there are.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that are not handed out.
    pub(crate) fn available(&self) -> usize {
        self.free.available_permits()
    }

    fn permits(&self, bytes: usize) -> Result<u32, Fault> {
        u32::try_from(bytes).ok().filter(|_| bytes <= self.capacity).ok_or_else(|| {
            let capacity = self.capacity;
            let message = format!(
                "the records of the request take {bytes} bytes; buffer.memory is {capacity}; send fewer at once or raise it"
            );
            Fault::new(ErrorCode::MessageTooLarge, message).with("bytes", bytes).with("buffer_memory", capacity)
        })
    }

    fn full(&self, why: String) -> Fault {
        let message = format!("{why}; nothing was taken in; try again later");
        Fault::new(ErrorCode::ResourceExhausted, message).with("buffer_memory", self.capacity).retry_after(RETRY_AFTER)
    }
}

impl Reserved {
    /// How many.
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Makes one of two; both are of one [`Buffer`].
    pub(crate) fn add(&mut self, other: Self) {
        self.0.merge(other.0);
    }

    /// Leaves the bytes taken until [`Buffer::free`] gives them back.
    pub(crate) fn keep(self) {
        self.0.forget();
    }
}

/// Long enough for some batches to be answered, short enough not to idle.
const RETRY_AFTER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_byte_is_given_and_one_more_waits_until_its_deadline() {
        let buffer = Buffer::new(10);
        let _a = buffer.reserve(9, soon()).await.expect("free");
        let b = buffer.reserve(1, soon()).await.expect("free");
        let fault = buffer.reserve(1, soon()).await.expect_err("full");
        assert_eq!(fault.code(), ErrorCode::ResourceExhausted);
        assert!(fault.message().contains("max.block.ms"), "{fault}");
        drop(b);
        let _c = buffer.reserve(1, soon()).await.expect("came back");
    }

    #[tokio::test]
    async fn more_than_there_is_is_refused_at_once_and_all_of_it_is_not() {
        let buffer = Buffer::new(10);
        let fault = buffer.reserve(11, later()).await.expect_err("never");
        assert_eq!(fault.code(), ErrorCode::MessageTooLarge);
        assert!(fault.message().contains("11") && fault.message().contains("10"), "{fault}");
        buffer.reserve(10, soon()).await.expect("all of it").keep();
        assert_eq!(buffer.available(), 0);
        buffer.free(10);
        assert_eq!(buffer.available(), 10);
    }

    #[tokio::test]
    async fn who_comes_first_is_served_first_even_if_larger() {
        let buffer = Buffer::new(10);
        buffer.reserve(8, soon()).await.expect("free").keep();
        let large = tokio::spawn({
            let buffer = buffer.clone();
            async move { buffer.reserve(10, later()).await }
        });
        tokio::task::yield_now().await;
        // There are two bytes, but somebody is waiting for ten.
        assert!(Arc::clone(&buffer.free).try_acquire_many_owned(2).is_err());
        buffer.free(8);
        assert!(large.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn the_line_has_a_limit_too() {
        let buffer = Buffer::new(10);
        buffer.reserve(10, soon()).await.expect("free").keep();
        let waiting = tokio::spawn({
            let buffer = buffer.clone();
            async move { buffer.reserve(10, later()).await }
        });
        tokio::task::yield_now().await;
        let fault = buffer.reserve(1, later()).await.expect_err("the line is full");
        assert_eq!(fault.code(), ErrorCode::ResourceExhausted);
        assert!(fault.message().contains("waiting"), "{fault}");
        buffer.free(10);
        assert!(waiting.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_leaves_nothing_behind() {
        let buffer = Buffer::new(10);
        buffer.reserve(10, soon()).await.expect("free").keep();
        let waiting = tokio::spawn({
            let buffer = buffer.clone();
            async move { buffer.reserve(10, later()).await.map(Reserved::keep) }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.expect_err("aborted").is_cancelled());
        buffer.free(10);
        assert_eq!((buffer.available(), buffer.line.available_permits()), (10, 10));
    }
}
