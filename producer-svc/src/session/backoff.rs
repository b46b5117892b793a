//! How long to wait before trying again: exponential, with jitter from a seeded generator.
//!
//! The jitter is drawn once for each wait. Drawing it anew at each look at the clock favours short waits (C48).

use std::time::Duration;

/// Pauses between attempts.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    random: SplitMix64,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self { first, max, random: SplitMix64(seed) }
    }

    /// The pause after `failures` failures in a row: the first doubled each time, ±20 %, capped (C46). None after no failure.
    pub(super) fn after(&mut self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 2f64.powi(i32::try_from(doublings.min(MAX_DOUBLINGS)).expect("at most 32"));
        let seconds = self.first.as_secs_f64() * factor * (0.8 + 0.4 * self.random.unit());
        Duration::from_secs_f64(seconds.min(self.max.as_secs_f64()))
    }

    /// The longest pause.
    pub(super) fn max(&self) -> Duration {
        self.max
    }
}

/// Steele, Lea and Flood's generator: one word of state, good enough to spread retries.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    /// From 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
        let numerator = (z >> 11) as f64;
        numerator / (1u64 << 53) as f64
    }
}

/// Enough for any cap; keeps the factor finite.
const MAX_DOUBLINGS: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_millis(1000), seed)
    }

    #[test]
    fn pauses_double_within_a_fifth_and_end_at_the_cap() {
        let mut backoff = backoff(1);
        assert_eq!(backoff.after(0), Duration::ZERO);
        for (failures, middle) in [(1, 100), (2, 200), (3, 400)] {
            for _ in 0..200 {
                let pause = backoff.after(failures).as_millis();
                assert!((middle * 8 / 10..=middle * 12 / 10).contains(&pause), "{failures}: {pause}");
            }
        }
        for failures in [5, 40, u32::MAX] {
            assert_eq!(backoff.after(failures), Duration::from_millis(1000));
        }
    }

    #[test]
    fn the_seed_decides() {
        let pauses = |seed| {
            let mut backoff = backoff(seed);
            (0..10).map(|_| backoff.after(1)).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
        assert!(pauses(1).iter().any(|p| *p != pauses(1)[0]), "each pause is drawn");
    }
}
