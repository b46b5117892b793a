//! Topics: created, deleted, described.

use oncelog_proto::{Fault, TopicName, topic::PartitionCount};

use super::{Answer, Now, Pipeline};
use crate::{entry::Entry, state::TopicPage};

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
        mut topics: Vec<TopicName>,
        create: bool,
        after: Option<&TopicName>,
        now: Now,
    ) -> Result<TopicPage, Fault> {
        if topics.is_empty() {
            topics = self.state.topic_names();
            topics.retain(|topic| after.is_none_or(|after| topic > after));
        } else if let Some(after) = after {
            let at = topics.iter().position(|topic| topic == after);
            topics.drain(..at.map_or(0, |at| at + 1));
        }
        let mut page = TopicPage::default();
        let mut partitions = 0;
        for topic in &topics {
            if partitions >= PAGE_PARTITIONS {
                page.after = page.topics.last().map(|last| last.topic.clone());
                break;
            }
            if create && self.options.limits.auto_create_topics && self.state.describe_topic(topic).is_err() {
                self.create_topic(topic, None, now)?;
            }
            let described = self.state.describe_topic(topic)?;
            partitions += described.partitions.len();
            page.topics.push(described);
        }
        Ok(page)
    }
}

/// So that an answer stays below the 4 MiB that most clients take: a partition takes up to some 60 bytes, and the last topic may
/// have 10,000.
const PAGE_PARTITIONS: usize = 20_000;
