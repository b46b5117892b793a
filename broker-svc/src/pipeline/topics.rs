//! Topics: created, deleted, described.

use oncelog_proto::{Fault, TopicName, topic::PartitionCount};

use super::{Answer, Now, Pipeline};
use crate::{entry::Entry, state::TopicDescription};

impl<R> Pipeline<R> {
    pub(super) fn create_topic(
        &mut self,
        topic: &TopicName,
        partitions: Option<PartitionCount>,
        now: Now,
    ) -> Result<PartitionCount, Fault> {
        let entry = self.state.create_topic(topic, partitions, &self.options.limits)?;
        self.check_room(0)?;
        let Entry::CreateTopic { partitions, .. } = entry else { unreachable!("create_topic returns that entry") };
        self.enter(entry, None, now);
        Ok(partitions)
    }

    pub(super) fn delete_topic(&mut self, topic: &TopicName, now: Now) -> Answer {
        let gone = self.state.partition_ids(topic);
        match self.check_room(0).and_then(|()| self.state.delete_topic(topic)) {
            Ok(entry) => {
                self.enter(entry, None, now);
                self.draft(now).leaving.gone.extend(gone);
                let held = self.hold.take_topic(topic);
                self.rejudge(held, now);
                Answer::Deleted
            }
            Err(fault) => Answer::Refused(fault),
        }
    }

    pub(super) fn describe_topics(
        &mut self,
        topics: Vec<TopicName>,
        create: bool,
        now: Now,
    ) -> Result<Vec<TopicDescription>, Fault> {
        if topics.is_empty() {
            let all = self.state.topic_names();
            return all.iter().map(|topic| self.state.describe_topic(topic)).collect();
        }
        let mut described = Vec::with_capacity(topics.len());
        for topic in &topics {
            if create && self.options.limits.auto_create_topics && self.state.describe_topic(topic).is_err() {
                self.create_topic(topic, None, now)?;
            }
            described.push(self.state.describe_topic(topic)?);
        }
        Ok(described)
    }
}
