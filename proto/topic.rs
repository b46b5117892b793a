//! Topic names and partition counts: what is allowed, as in Kafka.

use std::{borrow::Borrow, fmt, sync::Arc};

use crate::{ErrorCode, Fault, PartitionIndex};

/// Longest topic name, in characters (Kafka's limit: a name has to fit a file name with a partition number).
pub const MAX_TOPIC_NAME_LEN: usize = 249;

/// Most partitions of one topic.
pub const MAX_PARTITIONS_PER_TOPIC: i32 = 10_000;

/// A topic name that is allowed. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Takes a name from the wire or a file.
    ///
    /// # Errors
    /// `INVALID_TOPIC_EXCEPTION`: empty, longer than 249 characters, `.` or `..`, or with a character other than
    /// `[a-zA-Z0-9._-]`.
    pub fn parse(name: &str) -> Result<Self, Fault> {
        let fault = |why: String| {
            let rule = "a topic name has 1 to 249 characters of [a-zA-Z0-9._-] and is not \".\" or \"..\"";
            Fault::new(ErrorCode::InvalidTopicException, format!("{why}; {rule}"))
        };
        if name.is_empty() {
            return Err(fault("the topic name is empty".to_owned()));
        }
        if name.len() > MAX_TOPIC_NAME_LEN {
            return Err(fault(format!("the topic name has {} bytes", name.len())));
        }
        if name == "." || name == ".." {
            return Err(fault(format!("the topic name is {name:?}")));
        }
        if let Some(bad) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            return Err(fault(format!("the topic name {name:?} has the character {bad:?}")));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A partition by name: what callers speak of, whether it exists or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number within it.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Takes both parts from the wire.
    ///
    /// # Errors
    /// `INVALID_TOPIC_EXCEPTION` for the name, `UNKNOWN_TOPIC_OR_PARTITION` for a negative partition.
    pub fn parse(topic: &str, partition: i32) -> Result<Self, Fault> {
        let topic = TopicName::parse(topic)?;
        let partition = PartitionIndex::new(partition)
            .map_err(|e| Fault::new(ErrorCode::UnknownTopicOrPartition, format!("topic {topic}: {e}")))?;
        Ok(Self { topic, partition })
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// How many partitions a topic has: 1 to [`MAX_PARTITIONS_PER_TOPIC`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionCount(i32);

impl PartitionCount {
    /// One partition.
    pub const ONE: Self = Self(1);

    /// Takes a count from the wire, a flag or a file.
    ///
    /// # Errors
    /// `INVALID_PARTITIONS`: not from 1 to 10,000.
    pub fn new(count: i32) -> Result<Self, Fault> {
        if (1..=MAX_PARTITIONS_PER_TOPIC).contains(&count) {
            return Ok(Self(count));
        }
        let message = format!("partitions is {count}; allowed is 1 to {MAX_PARTITIONS_PER_TOPIC}");
        Err(Fault::new(ErrorCode::InvalidPartitions, message))
    }

    /// The plain number.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// Is there a partition of this number?
    pub const fn contains(self, partition: PartitionIndex) -> bool {
        partition.get() < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_like_kafkas() {
        for good in ["a", "A.b_c-9", "...", &"x".repeat(249)] {
            assert!(TopicName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            let fault = TopicName::parse(bad).expect_err(bad);
            assert_eq!(fault.code(), ErrorCode::InvalidTopicException, "{bad}");
        }
    }

    #[test]
    fn partition_counts_end_at_the_limit() {
        assert!(PartitionCount::new(0).is_err());
        assert!(PartitionCount::new(1).is_ok());
        assert!(PartitionCount::new(MAX_PARTITIONS_PER_TOPIC).is_ok());
        assert!(PartitionCount::new(MAX_PARTITIONS_PER_TOPIC + 1).is_err());
    }
}
