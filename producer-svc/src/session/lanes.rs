//! Every partition the session has something to remember of.
//!
//! Their number is bounded by what callers may write to: a lane without records and without a living sequence is dropped
//! again, at the latest when their number has doubled.

use std::collections::{BTreeMap, HashMap};

use oncelog_proto::{PartitionIndex, TopicName, TopicPartition};

use super::{lane::Lane, schedule::LaneId};

/// The lanes, by id and by name.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    free: Vec<LaneId>,
    // The outer map is never iterated, so its order decides nothing.
    by_topic: HashMap<TopicName, BTreeMap<PartitionIndex, LaneId>>,
    sweep_at: usize,
    tagged: bool,
}

impl Lanes {
    /// None yet. With `tagged` a lane is kept for as long as it has a sequence above 0.
    pub(super) fn new(tagged: bool) -> Self {
        Self { lanes: Vec::new(), free: Vec::new(), by_topic: HashMap::new(), sweep_at: MIN_SWEEP, tagged }
    }

    /// The lane of a partition, new if need be.
    pub(super) fn open(&mut self, topic: &TopicName, partition: PartitionIndex) -> LaneId {
        if let Some(id) = self.by_topic.get(topic).and_then(|lanes| lanes.get(&partition)) {
            return *id;
        }
        if self.lanes.len() - self.free.len() >= self.sweep_at {
            self.sweep();
        }
        let lane = Lane::new(TopicPartition { topic: topic.clone(), partition });
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.lanes.push(None);
                LaneId(self.lanes.len() - 1)
            }
        };
        self.lanes[id.0] = Some(lane);
        self.by_topic.entry(topic.clone()).or_default().insert(partition, id);
        id
    }

    /// The lane of an id, unless it was dropped.
    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id.0)?.as_ref()
    }

    /// The lane of an id, unless it was dropped.
    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id.0)?.as_mut()
    }

    /// The lane of a partition, if there is one.
    pub(super) fn of(&self, partition: &TopicPartition) -> Option<&Lane> {
        self.get(*self.by_topic.get(&partition.topic)?.get(&partition.partition)?)
    }

    /// The lanes of a topic, by partition.
    pub(super) fn of_topic(&self, topic: &TopicName) -> Vec<LaneId> {
        self.by_topic.get(topic).map(|lanes| lanes.values().copied().collect()).unwrap_or_default()
    }

    /// All lanes, in a fixed order.
    pub(super) fn ids(&self) -> Vec<LaneId> {
        (0..self.lanes.len()).filter(|i| self.lanes[*i].is_some()).map(LaneId).collect()
    }

    /// All lanes, in a fixed order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    fn sweep(&mut self) {
        for i in 0..self.lanes.len() {
            if let Some(lane) = self.lanes[i].take_if(|lane| lane.is_blank(self.tagged)) {
                let TopicPartition { topic, partition } = lane.partition;
                let of_topic = self.by_topic.get_mut(&topic).expect("each lane is listed under its topic");
                of_topic.remove(&partition);
                if of_topic.is_empty() {
                    self.by_topic.remove(&topic);
                }
                self.free.push(LaneId(i));
            }
        }
        self.sweep_at = MIN_SWEEP.max(2 * (self.lanes.len() - self.free.len()));
    }
}

/// Below this many lanes, blank ones cost nothing worth a walk.
const MIN_SWEEP: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn index(i: usize) -> PartitionIndex {
        PartitionIndex::new(i32::try_from(i).expect("small")).expect("not negative")
    }

    #[test]
    fn blank_lanes_go_and_their_ids_are_used_again() {
        let topic = |i: usize| TopicName::parse(&format!("t{i}")).expect("valid");
        let mut lanes = Lanes::new(true);
        for i in 0..MIN_SWEEP {
            assert_eq!(lanes.open(&topic(i), index(0)), LaneId(i));
        }
        assert_eq!(lanes.open(&topic(5), index(0)), LaneId(5), "known");
        for i in 0..MIN_SWEEP {
            lanes.open(&topic(MIN_SWEEP + i), index(0));
        }
        assert_eq!(lanes.lanes.len(), MIN_SWEEP);
        assert_eq!(lanes.by_topic.len(), MIN_SWEEP);
        assert!(lanes.of(&TopicPartition { topic: topic(5), partition: index(0) }).is_none());
    }

    #[test]
    fn the_lanes_of_a_topic_are_its_own() {
        let (a, b) = (TopicName::parse("a").expect("valid"), TopicName::parse("b").expect("valid"));
        let mut lanes = Lanes::new(true);
        let ids = [lanes.open(&a, index(3)), lanes.open(&b, index(0)), lanes.open(&a, index(1))];
        assert_eq!(lanes.of_topic(&a), [ids[2], ids[0]]);
        assert_eq!(lanes.ids(), ids);
    }
}
