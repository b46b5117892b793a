//! The signals that end a process. The first asks it to drain; the second ends it at once, for whoever does not want to wait.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, caught from the moment of registration on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches both signals. Do it first: a signal that comes before ends the process without a drain.
    ///
    /// # Errors
    /// The operating system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn register() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first signal. From then on a second one ends the process with code 130, in whatever state it is.
    pub async fn stop(mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "stopping; once more to stop at once");
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!(signal = name, "stopped at once");
            std::process::exit(STOPPED_AT_ONCE);
        });
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What a shell reports for a process that SIGINT ended.
const STOPPED_AT_ONCE: i32 = 130;
