//! The one clock that the shell reads for the session.

use oncelog_proto::Monotonic;
use tokio::time::Instant;

/// Counts from its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The reading now.
    pub(crate) fn now(self) -> Monotonic {
        Monotonic::default().plus(self.0.elapsed())
    }

    /// When the reading will be `at`. Never before: who sleeps until then finds `now() >= at`.
    pub(crate) fn instant(self, at: Monotonic) -> Instant {
        self.0 + at.since(Monotonic::default())
    }
}
