//! The end that somebody asks for: Ctrl-C, SIGTERM, or a terminal that is closed. Whoever waits for it can clean up; without that, files
//! and processes of a run outlive it, and a terminal stays without a cursor.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// The signals, caught from here on.
#[derive(Debug)]
pub(crate) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// Catches them.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// Waits for the first of them. From then on a second one ends the process at once, for whoever does not want to wait until it
    /// has cleaned up.
    pub(crate) async fn asked(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(Exit::Interrupted.number().into());
        });
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
