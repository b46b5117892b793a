//! The thread that does what can wait: spares, indexes, deletions. A step at a time, with pauses, so that commits hardly notice.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use crate::journal::{Background, Fatal, Step};

/// Runs until the other end of `stop` is gone.
///
/// # Errors
/// The names in the directory are in doubt; the process ends.
pub(crate) fn run(mut background: Background, stop: &Receiver<()>) -> Result<(), Fatal> {
    let mut is_postponed = false;
    loop {
        let pause = match background.step()? {
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
        if !matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            return Ok(());
        }
    }
}

const IDLE_PAUSE: Duration = Duration::from_millis(100);
const POSTPONED_PAUSE: Duration = Duration::from_secs(5);
/// 200 MB a second.
const BYTES_PER_MICROSECOND: u64 = 200;
