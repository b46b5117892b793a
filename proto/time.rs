//! Instants: as the log keeps them, and as pure code is told them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Microseconds since 1970 UTC. Never before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The highest instant that the wire's form can express: the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Takes microseconds since 1970; later than the year 9999 counts as its end.
    pub fn from_micros(micros: u64) -> Self {
        Self(micros).min(Self::MAX)
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// A clock's reading; before 1970 counts as 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Time since `earlier`; none if that is later than this.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The instant this much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The instant this much earlier; not before 1970.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The wire's form.
    pub fn to_proto(self) -> prost_types::Timestamp {
        let nanos = (self.0 % 1_000_000) * 1_000;
        prost_types::Timestamp {
            seconds: i64::try_from(self.0 / 1_000_000).expect("a u64 / 10^6 fits"),
            nanos: i32::try_from(nanos).expect("below 10^9"),
        }
    }

    /// From the wire's form; before 1970 counts as 1970. Parts of a microsecond are dropped.
    pub fn from_proto(time: &prost_types::Timestamp) -> Self {
        let seconds = u64::try_from(time.seconds).unwrap_or(0);
        let micros = u64::try_from(time.nanos / 1_000).unwrap_or(0);
        Self::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_proto().fmt(f)
    }
}

/// A reading of a clock that only goes forward, in microseconds since a start of no meaning.
///
/// Pure code never reads a clock; it is told `now` by whoever drives it, a thin task or a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(u64);

impl Monotonic {
    /// Takes microseconds since the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; none if that is later than this.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The reading this much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_and_back_is_the_same_instant() {
        for micros in [0, 1, 999_999, 1_000_000, 1_764_000_000_123_456, Timestamp::MAX.as_micros()] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::from_proto(&time.to_proto()), time);
        }
        assert_eq!(Timestamp::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.500Z");
    }
}
