//! The two clocks that the pipeline is told the time by.

use std::time::Duration;

use oncelog_edge::machine::WallClock;
use oncelog_proto::Monotonic;
use tokio::time::Instant;

use crate::pipeline::Now;

/// Reads both: the wall clock, and the runtime's, which only goes forward.
#[derive(Clone, Debug)]
pub(crate) struct Clocks {
    start: Instant,
    wall: WallClock,
}

impl Clocks {
    /// Starts the monotonic one.
    pub(crate) fn start(wall: WallClock) -> Self {
        Self { start: Instant::now(), wall }
    }

    /// Reads both.
    pub(crate) fn now(&self) -> Now {
        let monotonic = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { monotonic: Monotonic::from_micros(monotonic), wall: self.wall.now() }
    }

    /// When the monotonic one will say `at`; at the latest in some thirty years.
    pub(crate) fn instant(&self, at: Monotonic) -> Instant {
        self.start.checked_add(Duration::from_micros(at.as_micros())).unwrap_or_else(|| self.start + Duration::from_secs(1 << 30))
    }
}
