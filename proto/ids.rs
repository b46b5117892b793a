//! Numbers with a meaning. Each is a type of its own, so that an offset is never taken for a sequence.
//!
//! All of them are non-negative; the wire's "absent" is an `Option`, never a sentinel like Kafka's −1 (S6).

use std::fmt;

/// A number below its range, or absent where it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}; allowed is {min} to {max}")]
pub struct OutOfRange {
    name: &'static str,
    value: i64,
    min: i64,
    max: i64,
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident($int:ty), $name:literal, from $min:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type($int);

        impl $type {
            /// The lowest allowed value.
            pub const MIN: Self = Self($min);
            /// The highest allowed value.
            pub const MAX: Self = Self(<$int>::MAX);

            /// Takes a number from the wire or a file.
            ///
            /// # Errors
            /// The number is below the range.
            pub const fn new(value: $int) -> Result<Self, OutOfRange> {
                if value < $min {
                    Err(OutOfRange { name: $name, value: value as i64, min: $min, max: <$int>::MAX as i64 })
                } else {
                    Ok(Self(value))
                }
            }

            /// The plain number, for the wire, a file or a message to people.
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl TryFrom<$int> for $type {
            type Error = OutOfRange;
            fn try_from(value: $int) -> Result<Self, OutOfRange> {
                Self::new(value)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }
    };
}

number! {
    /// Names a producer; handed out by the broker, never twice.
    ProducerId(i64), "producer_id", from 0
}

number! {
    /// Counts the recoveries of a producer id. A higher epoch fences every lower one.
    Epoch(i32), "producer_epoch", from 0
}

number! {
    /// Counts the records of one (producer, epoch, partition), from 0. 64 bits wide, so it never wraps: Kafka's 32 bits wrap
    /// after some hours at full speed, and break its own client (W23).
    Sequence(i64), "base_sequence", from 0
}

number! {
    /// Position of a record in its partition, from 0, without gaps.
    Offset(i64), "offset", from 0
}

number! {
    /// Number of a partition within its topic, from 0.
    PartitionIndex(i32), "partition", from 0
}

number! {
    /// Number of records in a batch.
    RecordCount(i32), "record_count", from 1
}

impl Epoch {
    /// The epoch of a fresh producer id.
    pub const ZERO: Self = Self(0);

    /// The epoch after this one; none after the highest.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }

    /// The epoch before this one; none before the first.
    pub const fn previous(self) -> Option<Self> {
        if self.0 == 0 { None } else { Some(Self(self.0 - 1)) }
    }
}

impl Sequence {
    /// The first sequence of every (producer, epoch, partition) (S2, S18).
    pub const ZERO: Self = Self(0);

    /// The sequence `count` records later; none past the highest.
    pub const fn checked_add(self, count: RecordCount) -> Option<Self> {
        match self.0.checked_add(count.0 as i64) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records later; none past the highest.
    pub const fn checked_add(self, count: RecordCount) -> Option<Self> {
        match self.0.checked_add(count.0 as i64) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The offset of the record at `index` of a batch that starts here.
    ///
    /// # Panics
    /// The sum overflows, which no admitted batch can reach: admission checked its end.
    pub fn at(self, index: usize) -> Self {
        Self(self.0 + i64::try_from(index).expect("a batch has at most i32::MAX records"))
    }
}

impl RecordCount {
    /// The count of a collection that is known to be small and not empty.
    ///
    /// # Errors
    /// There are no records, or more than a count holds.
    pub fn of_len(len: usize) -> Result<Self, OutOfRange> {
        Self::new(i32::try_from(len).unwrap_or(-1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_their_range_are_refused_and_the_lowest_is_taken() {
        assert!(ProducerId::new(-1).is_err());
        assert!(ProducerId::new(0).is_ok());
        assert!(Epoch::new(-1).is_err());
        assert!(Sequence::new(-1).is_err());
        assert!(Offset::new(i64::MAX).is_ok());
        assert!(RecordCount::new(0).is_err());
        assert!(RecordCount::new(1).is_ok());
        assert_eq!(
            RecordCount::new(0).map_err(|e| e.to_string()),
            Err("record_count is 0; allowed is 1 to 2147483647".to_owned())
        );
    }

    #[test]
    fn arithmetic_stops_at_the_highest_number() {
        let one = RecordCount::MIN;
        assert_eq!(Sequence::MAX.checked_add(one), None);
        assert_eq!(Sequence::ZERO.checked_add(one).map(Sequence::get), Some(1));
        assert_eq!(Offset::MAX.checked_add(one), None);
        assert_eq!(Epoch::MAX.next(), None);
        assert_eq!(Epoch::ZERO.previous(), None);
    }
}
