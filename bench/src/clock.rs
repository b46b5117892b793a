//! The only place of the bench that reads a clock.

use std::time::{Instant, SystemTime};

/// Now, for measuring.
#[expect(clippy::disallowed_methods, reason = "measuring is what this crate is for")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970, for the head of a report.
#[expect(clippy::disallowed_methods, reason = "a report says when it was made")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
