//! The topics that the broker has just refused.
//!
//! A refused batch costs a recovery, which fences every partition of the process (R5). So for a while nothing more is tagged
//! for such a topic; what is not tagged fails without asking.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
    time::Duration,
};

use oncelog_proto::{ErrorCode, Fault, Monotonic, TopicName};

use super::digest::Moment;

/// Refused topics, each with its fault and the end of its time.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedTopics {
    until: BTreeMap<TopicName, (Monotonic, Fault)>,
}

impl RefusedTopics {
    /// Is this a code that speaks of the topic, not of the batch?
    pub(super) const fn concerns(code: ErrorCode) -> bool {
        matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::TopicAuthorizationFailed)
    }

    /// From now on, for `pause`, the topic is refused.
    pub(super) fn refuse(&mut self, topic: TopicName, fault: Fault, now: Monotonic, pause: Duration) {
        self.forget(now);
        self.until.insert(topic, (now.plus(pause), fault));
    }

    /// Why the topic is refused, if it is.
    pub(super) fn fault(&self, topic: &TopicName, now: Monotonic) -> Option<Fault> {
        self.until.get(topic).filter(|(until, _)| now < *until).map(|(_, fault)| fault.clone())
    }

    /// What decides its future.
    pub(super) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        for (topic, (until, fault)) in self.until.iter().filter(|(_, (until, _))| moment.now() < *until) {
            (topic, moment.until(*until), fault.code()).hash(into);
        }
    }

    fn forget(&mut self, now: Monotonic) {
        self.until.retain(|_, (until, _)| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_refused_until_its_pause_ends() {
        let (topic, fault) = (TopicName::parse("t").expect("valid"), Fault::new(ErrorCode::UnknownTopicOrPartition, "no"));
        let at = Monotonic::from_micros;
        let mut refused = RefusedTopics::default();
        refused.refuse(topic.clone(), fault.clone(), at(0), Duration::from_micros(10));
        assert_eq!(refused.fault(&topic, at(9)), Some(fault.clone()));
        assert_eq!(refused.fault(&topic, at(10)), None);
        refused.refuse(TopicName::parse("u").expect("valid"), fault, at(10), Duration::from_micros(10));
        assert_eq!(refused.until.len(), 1, "what has ended is forgotten");
    }
}
