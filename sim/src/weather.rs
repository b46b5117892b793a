//! Whether things fail at present. A run begins in a storm; in the calm after it everything that was begun has to end well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use oncelog_edge::machine::WallClock;
use oncelog_proto::Timestamp;

/// Clones are the same weather.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    is_calm: Arc<AtomicBool>,
    /// How wrong the wall clock is, in milliseconds.
    clock_error: Arc<AtomicI64>,
}

impl Weather {
    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    pub(crate) fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    /// Sets the wall clock forward or back.
    pub(crate) fn jump(&self, millis: i64) {
        self.clock_error.fetch_add(millis, Ordering::Relaxed);
    }

    /// What people in this world call the time.
    pub(crate) fn wall_clock(&self) -> WallClock {
        let clock_error = Arc::clone(&self.clock_error);
        WallClock::new(move || {
            let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_micros();
            let micros = i64::try_from(elapsed).expect("a run is short") + 1_000 * clock_error.load(Ordering::Relaxed);
            Timestamp::from_micros(EPOCH_MICROS.saturating_add_signed(micros))
        })
    }
}

/// The beginning of this world: 2026-01-01.
const EPOCH_MICROS: u64 = 1_767_225_600_000_000;
