//! Whether callers should come: from the moment that the journal is open to the moment that the process is to end, except while
//! the journal stands still.
//!
//! A group that waits for space, or for a disk that does not answer, holds up every answer behind it. Nobody is told a lie
//! meanwhile, and nobody is told anything. After a while that is worth saying: what looks after the process can then do what it
//! does for one that is not ready, and whoever is on call sees why. It becomes ready again by itself.

use std::time::Duration;

use oncelog_edge::health::Health;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::committer::Underway;

/// Says it, as long as the broker runs.
#[derive(Debug)]
pub(crate) struct Readiness {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Health>,
}

impl Readiness {
    /// The journal is open. `underway` says which group is being committed.
    pub(crate) async fn start(mut health: Health, underway: watch::Receiver<Option<Underway>>) -> Self {
        health.ready().await;
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(run(health, underway, stopped)) }
    }

    /// The process is to end: says so, and serves on for `wait`.
    pub(crate) async fn drain(self, wait: Duration) {
        drop(self.stop);
        // It does nothing that could panic; if it did, its watches would end with it.
        if let Ok(mut health) = self.task.await {
            health.drain(wait).await;
        }
    }
}

async fn run(mut health: Health, underway: watch::Receiver<Option<Underway>>, mut stopped: oneshot::Receiver<()>) -> Health {
    let mut stands_still = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => return health,
            () = sleep(LOOK_PAUSE) => {}
        }
        let reason = standstill(*underway.borrow(), Instant::now());
        match &reason {
            Some(reason) => {
                if !stands_still {
                    tracing::error!("not ready: {reason}");
                }
                health.not_ready(reason.clone()).await;
            }
            None if stands_still => {
                tracing::info!("ready: the journal goes on");
                health.ready().await;
            }
            None => {}
        }
        stands_still = reason.is_some();
    }
}

/// Why the journal stands still, if it does.
fn standstill(underway: Option<Underway>, now: Instant) -> Option<String> {
    let Underway { since, waits_for_space } = underway?;
    let seconds = now.saturating_duration_since(since).as_secs();
    if seconds <= PATIENCE.as_secs() {
        return None;
    }
    Some(if waits_for_space {
        format!("a group has waited {seconds} s for space on the disk; free some, or grow the volume")
    } else {
        format!("the disk has not written and synced a group for {seconds} s")
    })
}

/// What a disk may take without being told of.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use oncelog_edge::health::Readiness as Told;

    use super::*;

    #[test]
    fn half_a_minute_is_a_slow_disk_and_more_is_a_standstill() {
        let since = Instant::now();
        let after = |seconds, waits_for_space| {
            standstill(Some(Underway { since, waits_for_space }), since + Duration::from_secs(seconds))
        };
        assert_eq!(after(30, false), None);
        assert!(after(31, false).expect("a standstill").contains("synced a group for 31 s"));
        assert!(after(3_600, true).expect("a standstill").contains("3600 s for space"));
        assert_eq!(standstill(None, since), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_ready_while_the_journal_stands_still_and_ready_again_when_it_goes_on() {
        let health = Health::new(&["a.Service"]).await;
        let mut told = health.readiness();
        let (tell, underway) = watch::channel(None);
        let readiness = Readiness::start(health, underway).await;
        assert_eq!(*told.borrow_and_update(), Told::Ready);
        tell.send_replace(Some(Underway { since: Instant::now(), waits_for_space: true }));
        sleep(Duration::from_secs(29)).await;
        assert_eq!(*told.borrow(), Told::Ready);
        sleep(Duration::from_secs(5)).await;
        assert!(matches!(&*told.borrow(), Told::NotReady(reason) if reason.contains("for space")));
        tell.send_replace(None);
        sleep(2 * LOOK_PAUSE).await;
        assert_eq!(*told.borrow(), Told::Ready);
        let began = Instant::now();
        readiness.drain(Duration::from_secs(7)).await;
        assert_eq!((&*told.borrow(), began.elapsed()), (&Told::Draining, Duration::from_secs(7)));
    }
}
