//! Work that goes on beside the call that asked for it, and what pays for it.
//!
//! A caller may give up at any moment, by a reset or by its deadline, and then its call's future is dropped where it waits. The
//! work goes on in its thread, and so does its memory. Whatever limits it, a turn or an account of bytes, therefore goes along
//! with the work and comes back with the result. If it stayed with the call, one caller that asks and gives up again and again
//! could keep every thread there is unpacking for nobody.

use oncelog_proto::Fault;

use super::mismatch;
use crate::workers::Workers;

/// Has a worker do it, so that nobody else is kept waiting.
pub(super) async fn beside<T, P>(workers: &Workers, paid: P, work: impl FnOnce() -> T + Send + 'static) -> Result<(T, P), Fault>
where
    T: Send + 'static,
    P: Send + 'static,
{
    workers.call(move || (work(), paid)).await.map_err(|_| mismatch())
}

/// Does work that unpacks so many bytes: little of it here and now, much of it by a worker.
pub(super) async fn unpacking<T, P>(
    workers: &Workers,
    bytes: u64,
    paid: P,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, P), Fault>
where
    T: Send + 'static,
    P: Send + 'static,
{
    if bytes <= UNPACKED_AT_ONCE {
        return Ok((work(), paid));
    }
    beside(workers, paid, work).await
}

/// About a millisecond's worth.
pub(super) const UNPACKED_AT_ONCE: u64 = 2 << 20;
