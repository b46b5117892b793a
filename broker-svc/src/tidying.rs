//! The loop that does what can wait: spares, indexes, deletions. A step at a time, with pauses, so that commits hardly notice.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout};

use crate::{
    journal::{Background, Fatal, Step},
    workers::Workers,
};

/// The loop's belongings.
pub(crate) struct Tidying {
    pub(crate) background: Background,
    pub(crate) workers: Workers,
    /// Nothing comes; its end is the loop's.
    pub(crate) stop: mpsc::Receiver<()>,
}

impl Tidying {
    /// Runs until the other end of `stop` is gone.
    ///
    /// # Errors
    /// The names in the directory are in doubt; the process ends.
    pub(crate) async fn run(mut self) -> Result<(), Fatal> {
        let mut is_postponed = false;
        loop {
            let pause = match self.background.step()? {
                Step::Idle => {
                    is_postponed = false;
                    IDLE_PAUSE
                }
                Step::Worked { bytes } => Duration::from_micros(bytes / BYTES_PER_MICROSECOND),
                Step::Postponed { what } => {
                    if !is_postponed {
                        tracing::warn!(what, "tidying has to wait; trying again every few seconds");
                    }
                    is_postponed = true;
                    POSTPONED_PAUSE
                }
            };
            self.workers.disk_time().await;
            if timeout(pause, self.stop.recv()).await.is_ok() {
                return Ok(());
            }
        }
    }
}

const IDLE_PAUSE: Duration = Duration::from_millis(100);
const POSTPONED_PAUSE: Duration = Duration::from_secs(5);
/// 200 MB a second.
const BYTES_PER_MICROSECOND: u64 = 200;
