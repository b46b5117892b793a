//! Things that may happen ten thousand times a second, and are told of once a second at most.

use std::sync::{Mutex, PoisonError};

use tokio::time::{Duration, Instant};

/// Counts what happens.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Untold>);

#[derive(Debug, Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Seldom {
    /// It happened. How often since it was last told, if it is to be told now.
    pub(crate) fn note(&self) -> Option<u64> {
        // Every change is a single assignment: what a panic left behind is whole.
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        let now = Instant::now();
        let is_due = untold.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        is_due.then(|| std::mem::replace(&mut *untold, Untold { count: 0, told: Some(now) }).count)
    }
}

const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_the_others_together() {
        let seldom = Seldom::default();
        assert_eq!(seldom.note(), Some(1));
        assert_eq!((seldom.note(), seldom.note()), (None, None));
        tokio::time::sleep(TELL_EVERY).await;
        assert_eq!(seldom.note(), Some(3));
        assert_eq!(seldom.note(), None);
    }
}
