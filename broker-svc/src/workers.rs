//! Who does the work that blocks: on a disk, or on a processor for long.
//!
//! The loops of the journal, of the snapshots and of the tidying are written once, as futures. A thread of its own drives each
//! of them, and there a call to the disk simply takes its time. On a simulated disk every call returns at once, so the same
//! loops can be tasks of the one runtime that does everything; then the time that the disk would have taken is waited for
//! between two calls, and there everything else goes on, or the machine stops.

use std::{fmt, future::Future, io, sync::Arc, thread, time::Duration};

use tokio::{runtime, task, time::sleep};

/// Who does it.
#[derive(Clone)]
pub enum Workers {
    /// Threads, so that nobody waits who need not.
    Threads,
    /// Tasks of the runtime, and the disk whose time they wait for.
    Tasks(Arc<dyn DiskTime>),
}

/// The time that a simulated disk takes. A task asks for it right after what it did there, before anybody else has a turn.
pub trait DiskTime: Send + Sync {
    /// How long the disk took since this was last asked.
    fn take(&self) -> Taken;

    /// That time is over: what was synced is durable now, and not before.
    fn over(&self, taken: Taken);
}

/// A time to wait for.
#[derive(Debug)]
pub struct Taken {
    /// How long.
    pub time: Duration,
    /// Whose it is.
    pub number: u64,
}

impl Workers {
    /// Runs a loop to its end, beside everything else.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(crate) fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self {
            Self::Threads => {
                // A runtime of its own, for its timers alone: what the loop waits for must not wake other threads.
                let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
                thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(work)).map(drop)
            }
            Self::Tasks(_) => {
                drop(tokio::spawn(work));
                Ok(())
            }
        }
    }

    /// Does one piece of work, where it keeps nobody else waiting. It is done even if the caller goes away.
    ///
    /// # Errors
    /// It panicked.
    pub(crate) async fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, task::JoinError> {
        match self {
            Self::Threads => task::spawn_blocking(work).await,
            Self::Tasks(_) => {
                let done = work();
                self.disk_time().await;
                Ok(done)
            }
        }
    }

    /// Waits as long as the disk took. A thread has done that in the calls themselves.
    pub(crate) async fn disk_time(&self) {
        if let Self::Tasks(disk) = self {
            let taken = disk.take();
            if !taken.time.is_zero() {
                sleep(taken.time).await;
            }
            disk.over(taken);
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}
