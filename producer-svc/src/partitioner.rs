//! Which partition a record goes to: Kafka's rule, so that records keep their partitions when a Kafka producer is replaced.
//!
//! In this order (C61): the partition the caller names; the hash of the key, if there is one, and an empty key is one (C65);
//! else the *sticky* partition of the topic, which changes after `batch.size` bytes, so that records without keys fill whole
//! batches instead of many small ones (C66). The next one is chosen uniformly, from a seed.

use std::collections::HashMap;

use oncelog_proto::{PartitionIndex, TopicName, record_set::RecordSetEncoder, topic::PartitionCount, v1::Record};

/// Chooses partitions. Pure: the same seed and the same records give the same partitions.
#[derive(Debug)]
pub struct Partitioner {
    batch_size: usize,
    sticky: HashMap<TopicName, Sticky>,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sticky {
    partition: PartitionIndex,
    bytes: usize,
}

impl Partitioner {
    /// A sticky partition changes after `batch_size` bytes.
    pub fn new(batch_size: usize, seed: u64) -> Self {
        Self { batch_size, sticky: HashMap::new(), random: seed }
    }

    /// The partition of `record` in a topic of `count` partitions.
    pub fn choose(&mut self, topic: &TopicName, count: PartitionCount, record: &Record) -> PartitionIndex {
        match &record.key {
            Some(key) => of_key(key, count),
            None => self.sticky(topic, count, RecordSetEncoder::added_len(record)),
        }
    }

    fn sticky(&mut self, topic: &TopicName, count: PartitionCount, bytes: usize) -> PartitionIndex {
        if count == PartitionCount::ONE {
            return PartitionIndex::MIN;
        }
        if let Some(sticky) = self.sticky.get_mut(topic)
            && sticky.bytes < self.batch_size
            && count.contains(sticky.partition)
        {
            sticky.bytes += bytes;
            return sticky.partition;
        }
        let partition = self.any(count);
        // Forgetting costs a few smaller batches and nothing else.
        if self.sticky.len() >= MAX_TOPICS && !self.sticky.contains_key(topic) {
            self.sticky.clear();
        }
        self.sticky.insert(topic.clone(), Sticky { partition, bytes });
        partition
    }

    fn any(&mut self, count: PartitionCount) -> PartitionIndex {
        // SplitMix64: every seed is good, and a partition needs no better randomness.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        index((z >> 33) as u32, count)
    }
}

/// The partition of a key: the low 31 bits of its hash, modulo the number of partitions (C62).
fn of_key(key: &[u8], count: PartitionCount) -> PartitionIndex {
    index(murmur2(key).cast_unsigned() & 0x7fff_ffff, count)
}

fn index(number: u32, count: PartitionCount) -> PartitionIndex {
    let count = count.get().cast_unsigned();
    PartitionIndex::new((number % count).cast_signed()).expect("below a positive i32")
}

/// The 32-bit MurmurHash2 of Kafka's Java client (C63).
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Java's length is an int; a key is far below its end.
    let mut h = SEED ^ data.len() as u32;
    let mut blocks = data.chunks_exact(4);
    for block in &mut blocks {
        let mut k = u32::from_le_bytes(block.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let tail = blocks.remainder();
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h.cast_signed()
}

/// Topics whose sticky partition is remembered.
const MAX_TOPICS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: i32) -> PartitionCount {
        PartitionCount::new(n).expect("valid")
    }

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).expect("valid")
    }

    fn record(key: Option<&'static str>, bytes: usize) -> Record {
        Record { key: key.map(Into::into), value: Some(vec![0; bytes].into()), ..Record::default() }
    }

    #[test]
    fn hashes_are_kafkas() {
        let vectors = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_key_decides_by_the_low_31_bits_of_its_hash() {
        // −973932308 & 0x7fffffff is 1173551340: not its absolute value, which would give partition 8 of 10.
        assert_eq!(of_key(b"21", count(10)).get(), 0);
        assert_eq!(of_key(b"21", count(7)).get(), 3);
    }

    #[test]
    fn a_key_has_one_partition_whatever_the_record_and_the_seed() {
        let (mut a, mut b) = (Partitioner::new(1, 1), Partitioner::new(100, 2));
        for n in [1, 2, 3, 1000] {
            let expected = of_key(b"k", count(n));
            for bytes in [0, 1000] {
                assert_eq!(a.choose(&topic("t"), count(n), &record(Some("k"), bytes)), expected);
                assert_eq!(b.choose(&topic("t"), count(n), &record(Some("k"), bytes)), expected);
            }
        }
    }

    #[test]
    fn an_empty_key_is_hashed_and_an_absent_one_is_not() {
        let mut partitioner = Partitioner::new(1, 7);
        let many = count(1000);
        let empty: Vec<_> = (0..20).map(|_| partitioner.choose(&topic("t"), many, &record(Some(""), 10))).collect();
        assert_eq!(empty, vec![of_key(b"", many); 20]);
        let absent: Vec<_> = (0..20).map(|_| partitioner.choose(&topic("t"), many, &record(None, 10))).collect();
        assert_ne!(absent, vec![absent[0]; 20]);
    }

    #[test]
    fn a_sticky_partition_changes_after_batch_size_bytes_and_not_before() {
        let one = RecordSetEncoder::added_len(&record(None, 100));
        let many = count(10_000);
        let run = |batch_size: usize| {
            let mut partitioner = Partitioner::new(batch_size, 3);
            let chosen: Vec<_> = (0..4).map(|_| partitioner.choose(&topic("t"), many, &record(None, 100))).collect();
            chosen.iter().filter(|p| **p == chosen[0]).count()
        };
        assert_eq!(run(3 * one), 3);
        assert_eq!(run(3 * one + 1), 4);
        assert_eq!(run(1), 1);
    }

    #[test]
    fn topics_stick_apart_and_a_partition_that_is_no_more_is_left() {
        let mut partitioner = Partitioner::new(1 << 20, 3);
        let many = count(10_000);
        let a = partitioner.choose(&topic("a"), many, &record(None, 1));
        let b = partitioner.choose(&topic("b"), many, &record(None, 1));
        assert_ne!(a, b);
        assert_eq!(partitioner.choose(&topic("a"), many, &record(None, 1)), a);
        assert!(a.get() >= 2, "the seed gives a high one");
        assert!(partitioner.choose(&topic("a"), count(2), &record(None, 1)).get() < 2);
    }

    #[test]
    fn sticky_choices_spread_over_all_partitions() {
        let mut partitioner = Partitioner::new(1, 42);
        let mut seen = [0; 8];
        for _ in 0..8_000 {
            seen[partitioner.choose(&topic("t"), count(8), &record(None, 1)).get() as usize] += 1;
        }
        assert!(seen.iter().all(|n| (800..1_200).contains(n)), "{seen:?}");
    }

    #[test]
    fn remembered_topics_have_a_limit() {
        let mut partitioner = Partitioner::new(1 << 20, 3);
        for i in 0..=MAX_TOPICS {
            partitioner.choose(&topic(&format!("t{i}")), count(2), &record(None, 1));
            assert!(partitioner.sticky.len() <= MAX_TOPICS);
        }
        assert_eq!(partitioner.sticky.len(), 1);
    }
}
