//! What a front asks of whoever owns the services.

use tokio::sync::{mpsc, oneshot};

/// Asks that the service behind is killed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Commands(mpsc::Sender<oneshot::Sender<()>>);

/// Hears it.
pub(crate) type Kills = mpsc::Receiver<oneshot::Sender<()>>;

impl Commands {
    /// Commands, and who hears them.
    pub(crate) fn new() -> (Self, Kills) {
        let (tell, hear) = mpsc::channel(1);
        (Self(tell), hear)
    }

    /// Returns when it is down; it comes back by itself. If nobody hears any more, the run is over.
    pub(crate) async fn kill(&self) {
        let (tell, done) = oneshot::channel();
        if self.0.send(tell).await.is_ok() {
            let _ = done.await;
        }
    }
}
