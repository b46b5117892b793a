//! The one source of chance: everything that a seed decides is thrown here.

use std::{ops::RangeInclusive, time::Duration};

/// SplitMix64: small, and the same everywhere. Not `Clone`: two that throw the same would be a mistake.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice for somebody else, so that what one part throws does not move what another one gets.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.next() % len as u64).expect("below a usize")
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// True in so many of a hundred throws.
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub(crate) fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        let (from, to) = (range.start() * 1_000, range.end() * 1_000);
        Duration::from_micros(self.within(from..=to))
    }

    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.within(0..=u64::try_from(most.as_micros()).expect("short")))
    }

    /// Seldom as long as `most`: half of the time at most the half of it, a quarter of the time a quarter.
    pub(crate) fn long_tailed(&mut self, most: Duration) -> Duration {
        let halvings = self.next().trailing_ones().min(10);
        self.up_to(most / (1 << halvings))
    }
}
