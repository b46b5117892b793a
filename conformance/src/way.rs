//! The way to a service and back, as a script wants it: calls that are lost, answers that are lost, silence, delay.
//!
//! What is carried out is carried out in a task of its own. So a call that the program gives up is not undone: that is what makes
//! its outcome unknown.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tonic::Status;

use crate::script::Way;

/// What is under way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    /// Carries a call out, on this way.
    pub(crate) async fn take<T, F>(&self, way: Option<Way>, call: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        match way {
            None => self.carry_out(Duration::ZERO, call).await,
            Some(Way::Slow(by)) => self.carry_out(by, call).await,
            Some(Way::SlowAnswer(by)) => {
                let answer = self.carry_out(Duration::ZERO, call).await;
                sleep(by).await;
                answer
            }
            Some(Way::LoseCall) => Err(broken()),
            Some(Way::LoseAnswer) => {
                let _ = self.carry_out(Duration::ZERO, call).await;
                Err(broken())
            }
            Some(Way::Silence) => {
                let _ = self.carry_out(Duration::ZERO, call).await;
                pending().await
            }
            Some(Way::Stray(by)) => {
                drop(self.carry_out(by, call));
                Err(broken())
            }
        }
    }

    /// Starts at once, whether or not anybody waits for the answer.
    fn carry_out<T, F>(&self, delay: Duration, call: F) -> impl Future<Output = Result<T, Status>> + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let under_way = Arc::clone(&self.0);
        under_way.fetch_add(1, Ordering::Relaxed);
        let task = tokio::spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            // No way is longer than that, and no run waits for one for ever.
            let answer = timeout(LONGEST, call).await.unwrap_or_else(|_| Err(broken()));
            under_way.fetch_sub(1, Ordering::Relaxed);
            answer
        });
        async { task.await.unwrap_or_else(|_| Err(broken())) }
    }

    /// Waits until nothing is under way any more: what is read then is all there will be.
    pub(crate) async fn at_rest(&self) {
        while self.0.load(Ordering::Relaxed) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What a broken connection looks like: a status without a reason.
fn broken() -> Status {
    Status::unavailable("the connection broke")
}

const LONGEST: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_lost_call_is_not_carried_out() {
        let by = Duration::from_secs(1);
        for (way, is_answered, is_carried_out) in [
            (None, true, true),
            (Some(Way::LoseCall), false, false),
            (Some(Way::LoseAnswer), false, true),
            (Some(Way::Silence), false, true),
            (Some(Way::Stray(by)), false, true),
            (Some(Way::Slow(by)), true, true),
            (Some(Way::SlowAnswer(by)), true, true),
        ] {
            let under_way = UnderWay::default();
            let done = Arc::new(AtomicUsize::new(0));
            let doing = Arc::clone(&done);
            let call = async move { Ok(doing.fetch_add(1, Ordering::Relaxed)) };
            let answer = timeout(2 * by, under_way.take(way, call)).await;
            under_way.at_rest().await;
            assert_eq!(answer.is_ok_and(|answer| answer.is_ok()), is_answered, "{way:?}");
            assert_eq!(done.load(Ordering::Relaxed), usize::from(is_carried_out), "{way:?}");
        }
    }
}
