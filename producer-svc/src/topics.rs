//! How many partitions each topic has: asked once, remembered for five minutes, forgotten when the broker says so.
//!
//! Whoever needs a topic while it is being asked for shares the one call. A count that has become old is still used while it is
//! asked again, so that a broker that is away stops no `Send` to a topic that was known. A `Send` to an unknown one waits, up
//! to its deadline; the question is repeated as long as somebody waits for its answer.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use oncelog_proto::{ErrorCode, Fault, PartitionIndex, TopicName, topic::PartitionCount};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout_at},
};

/// Who knows topics: the broker.
pub(crate) trait Describe: Clone + Send + Sync + 'static {
    /// The number of partitions of `topic`, which is created if it does not exist and the broker does that.
    fn describe(&self, topic: &TopicName) -> impl Future<Output = Result<PartitionCount, DescribeError>> + Send;
}

/// Why the number of partitions is not known.
#[derive(Clone, Debug)]
pub(crate) enum DescribeError {
    /// The broker said no, and would say it again.
    Refused(Fault),
    /// It did not say anything that counts; in words.
    Unreachable(String),
}

/// The numbers of partitions. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Topics<D> {
    broker: D,
    backoff: Duration,
    calls: Arc<Semaphore>,
    entries: Arc<Mutex<HashMap<TopicName, Entry>>>,
}

/// Never empty: it is removed when neither part is left.
#[derive(Debug, Default)]
struct Entry {
    known: Option<Known>,
    question: Option<watch::Receiver<Question>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    count: PartitionCount,
    since: Instant,
}

#[derive(Clone, Debug)]
enum Question {
    /// Not answered yet; why not, once it was tried.
    Open(Option<String>),
    Answered(Result<PartitionCount, Fault>),
}

impl<D: Describe> Topics<D> {
    /// Nothing is known yet. A question without an answer is repeated after `backoff`.
    pub(crate) fn new(broker: D, backoff: Duration) -> Self {
        Self { broker, backoff: backoff.max(MIN_BACKOFF), calls: Arc::new(Semaphore::new(MAX_CALLS)), entries: Arc::default() }
    }

    /// The number of partitions of `topic`, which has to contain `partition` if one is named.
    ///
    /// # Errors
    /// `UNKNOWN_TOPIC_OR_PARTITION`: there is no such partition, or no such topic and the broker creates none;
    /// `BROKER_NOT_AVAILABLE`: no answer until `deadline`; `RESOURCE_EXHAUSTED`: too many topics are asked for; or what else
    /// the broker answered.
    pub(crate) async fn count(
        &self,
        topic: &TopicName,
        partition: Option<PartitionIndex>,
        deadline: Instant,
    ) -> Result<PartitionCount, Fault> {
        let fits = |count: PartitionCount| partition.is_none_or(|partition| count.contains(partition));
        let mut question = {
            let mut entries = self.lock();
            let known = entries.get(topic).and_then(|entry| entry.known);
            if let Some(known) = known {
                let age = Instant::now().duration_since(known.since);
                if fits(known.count) {
                    if age >= MAX_AGE {
                        self.ask(&mut entries, topic)?;
                    }
                    return Ok(known.count);
                }
                // The topic may have been created anew with more partitions. But a caller with a wrong number must not
                // make the broker answer for each of its requests.
                if age < MIN_AGE {
                    return Err(no_such_partition(topic, known.count, partition));
                }
            }
            self.ask(&mut entries, topic)?
        };
        let answered = question.wait_for(|question| matches!(question, Question::Answered(_)));
        // Whether it was answered or not, in time or not: what counts is how the question stands afterwards.
        let _ = timeout_at(deadline, answered).await;
        let question = question.borrow().clone();
        match question {
            Question::Answered(Ok(count)) if fits(count) => Ok(count),
            Question::Answered(Ok(count)) => Err(no_such_partition(topic, count, partition)),
            Question::Answered(Err(fault)) => Err(fault),
            Question::Open(reason) => Err(not_available(topic, reason.as_deref())),
        }
    }

    /// What is known of `topic` is asked again by the next who needs it.
    pub(crate) fn forget(&self, topic: &TopicName) {
        let mut entries = self.lock();
        if let Some(entry) = entries.get_mut(topic) {
            entry.known = None;
            if entry.question.is_none() {
                entries.remove(topic);
            }
        }
    }

    /// Joins the question that is open for `topic`, or asks it.
    fn ask(&self, entries: &mut HashMap<TopicName, Entry>, topic: &TopicName) -> Result<watch::Receiver<Question>, Fault> {
        if !entries.contains_key(topic) && entries.len() >= MAX_TOPICS {
            make_room(entries)?;
        }
        let entry = entries.entry(topic.clone()).or_default();
        if let Some(question) = &entry.question {
            return Ok(question.clone());
        }
        let (answer, question) = watch::channel(Question::Open(None));
        entry.question = Some(question.clone());
        // A task of its own: the caller who asked first may go away while others wait.
        tokio::spawn(self.clone().find_out(topic.clone(), answer));
        Ok(question)
    }

    async fn find_out(self, topic: TopicName, answer: watch::Sender<Question>) {
        loop {
            let call = self.calls.acquire().await;
            let described = self.broker.describe(&topic).await;
            drop(call);
            match described {
                Ok(count) => {
                    let entry = Entry { known: Some(Known { count, since: Instant::now() }), question: None };
                    self.lock().insert(topic, entry);
                    return answer.send_modify(|question| *question = Question::Answered(Ok(count)));
                }
                Err(DescribeError::Refused(fault)) => {
                    // A broker that is merely busy has not said that the topic changed.
                    close_question(&mut self.lock(), &topic, !fault.code().is_retriable());
                    return answer.send_modify(|question| *question = Question::Answered(Err(fault)));
                }
                Err(DescribeError::Unreachable(reason)) => {
                    answer.send_modify(|question| *question = Question::Open(Some(reason)))
                }
            }
            sleep(self.backoff).await;
            // Looked at under the lock, or somebody could join a question that is being given up. The entry itself holds one
            // receiver.
            let mut entries = self.lock();
            if answer.receiver_count() <= 1 {
                return close_question(&mut entries, &topic, false);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicName, Entry>> {
        // Every change is a single assignment: what a panic left behind is whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody asks for `topic` any more; what is known of it may be forgotten too.
fn close_question(entries: &mut HashMap<TopicName, Entry>, topic: &TopicName, forget: bool) {
    let Some(entry) = entries.get_mut(topic) else { return };
    entry.question = None;
    if forget || entry.known.is_none() {
        entries.remove(topic);
    }
}

/// Leaves out the oldest half of what is known. What is being asked for stays.
fn make_room(entries: &mut HashMap<TopicName, Entry>) -> Result<(), Fault> {
    let mut ages: Vec<_> = entries.values().filter(|e| e.question.is_none()).filter_map(|e| e.known).map(|k| k.since).collect();
    if ages.is_empty() {
        let message = format!("{MAX_TOPICS} topics are being asked for at once, which is the limit; try again later");
        return Err(Fault::new(ErrorCode::ResourceExhausted, message).with("limit", MAX_TOPICS).retry_after(RETRY_AFTER));
    }
    ages.sort_unstable();
    let oldest = ages[ages.len() / 2];
    entries.retain(|_, entry| entry.question.is_some() || entry.known.is_some_and(|known| known.since > oldest));
    Ok(())
}

fn no_such_partition(topic: &TopicName, count: PartitionCount, partition: Option<PartitionIndex>) -> Fault {
    let partition = partition.unwrap_or(PartitionIndex::MIN);
    let message = format!("partition is {partition}, but topic {topic} has {} partitions, counted from 0", count.get());
    Fault::new(ErrorCode::UnknownTopicOrPartition, message)
        .with("topic", topic)
        .with("partition", partition)
        .with("partitions", count.get())
}

fn not_available(topic: &TopicName, reason: Option<&str>) -> Fault {
    let reason = reason.unwrap_or("it has not answered yet");
    let message = format!(
        "the broker did not tell the partitions of topic {topic} within max.block.ms: {reason}; nothing was taken in; try again later"
    );
    Fault::new(ErrorCode::BrokerNotAvailable, message).with("topic", topic).retry_after(RETRY_AFTER)
}

/// `metadata.max.age.ms` of Kafka.
const MAX_AGE: Duration = Duration::from_secs(300);
/// A count is not asked again because of a partition out of its range before this.
const MIN_AGE: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(10);
const MAX_TOPICS: usize = 10_000;
/// Questions on the wire at once.
const MAX_CALLS: usize = 16;
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

    use super::*;

    /// Knows every topic but `missing`; 0: is busy; negative: cannot be reached.
    #[derive(Clone, Default)]
    struct Fake {
        partitions: Arc<AtomicI32>,
        calls: Arc<AtomicUsize>,
    }

    impl Describe for Fake {
        async fn describe(&self, topic: &TopicName) -> Result<PartitionCount, DescribeError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5)).await;
            if topic.as_str() == "missing" {
                return Err(DescribeError::Refused(Fault::new(ErrorCode::UnknownTopicOrPartition, "no")));
            }
            let partitions = self.partitions.load(Ordering::Relaxed);
            if partitions == 0 {
                return Err(DescribeError::Refused(Fault::new(ErrorCode::ResourceExhausted, "busy")));
            }
            PartitionCount::new(partitions).map_err(|_| DescribeError::Unreachable("away".to_owned()))
        }
    }

    fn name(name: &str) -> TopicName {
        TopicName::parse(name).expect("valid")
    }

    fn fake(partitions: i32) -> (Fake, Topics<Fake>) {
        let fake = Fake::default();
        fake.partitions.store(partitions, Ordering::Relaxed);
        (fake.clone(), Topics::new(fake, Duration::from_millis(100)))
    }

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn partition(index: i32) -> Option<PartitionIndex> {
        Some(PartitionIndex::new(index).expect("valid"))
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_once_share_one_call_and_those_after_need_none() {
        let (fake, topics) = fake(3);
        let (t, at) = (name("t"), in_a_minute());
        let (a, b) = tokio::join!(topics.count(&t, None, at), topics.count(&t, partition(2), at));
        assert_eq!((a.map(PartitionCount::get), b.map(PartitionCount::get)), (Ok(3), Ok(3)));
        assert_eq!(topics.count(&name("t"), None, in_a_minute()).await.map(PartitionCount::get), Ok(3));
        assert_eq!(fake.calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_is_kept_for_five_minutes_and_used_while_it_is_asked_again() {
        let (fake, topics) = fake(3);
        topics.count(&name("t"), None, in_a_minute()).await.expect("known");
        sleep(MAX_AGE - Duration::from_millis(10)).await;
        topics.count(&name("t"), None, in_a_minute()).await.expect("known");
        sleep(Duration::from_millis(10)).await;
        assert_eq!(fake.calls.load(Ordering::Relaxed), 1);
        fake.partitions.store(4, Ordering::Relaxed);
        assert_eq!(topics.count(&name("t"), None, in_a_minute()).await.map(PartitionCount::get), Ok(3));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(topics.count(&name("t"), None, in_a_minute()).await.map(PartitionCount::get), Ok(4));
        assert_eq!(fake.calls.load(Ordering::Relaxed), 2);
        // An old count outlives a broker that is away, and one that is busy.
        sleep(MAX_AGE).await;
        for partitions in [-1, 0, 0] {
            fake.partitions.store(partitions, Ordering::Relaxed);
            assert_eq!(topics.count(&name("t"), None, Instant::now()).await.map(PartitionCount::get), Ok(4));
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(fake.calls.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_asked_again() {
        let (fake, topics) = fake(3);
        topics.count(&name("t"), None, in_a_minute()).await.expect("known");
        topics.forget(&name("t"));
        topics.forget(&name("never-seen"));
        fake.partitions.store(5, Ordering::Relaxed);
        assert_eq!(topics.count(&name("t"), None, in_a_minute()).await.map(PartitionCount::get), Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_away_is_waited_for_until_the_deadline() {
        let (fake, topics) = fake(-1);
        let fault = topics.count(&name("t"), None, in_a_minute()).await.expect_err("away");
        assert_eq!(fault.code(), ErrorCode::BrokerNotAvailable);
        assert!(fault.message().contains("away"), "{fault}");
        assert!(fake.calls.load(Ordering::Relaxed) > 100);
        // Nobody waits any more, so nobody asks any more.
        sleep(Duration::from_secs(1)).await;
        let calls = fake.calls.load(Ordering::Relaxed);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(fake.calls.load(Ordering::Relaxed), calls);
        assert!(topics.lock().is_empty());
        // It comes back while somebody waits.
        let waiting = tokio::spawn({
            let topics = topics.clone();
            async move { topics.count(&name("t"), None, in_a_minute()).await }
        });
        sleep(Duration::from_secs(30)).await;
        fake.partitions.store(2, Ordering::Relaxed);
        assert_eq!(waiting.await.expect("no panic").map(PartitionCount::get), Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_told_at_once_and_not_remembered() {
        let (fake, topics) = fake(1);
        for calls in [1, 2] {
            let fault = topics.count(&name("missing"), None, in_a_minute()).await.expect_err("refused");
            assert_eq!(fault.code(), ErrorCode::UnknownTopicOrPartition);
            assert_eq!(fake.calls.load(Ordering::Relaxed), calls);
        }
        assert!(topics.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_out_of_range_is_refused_after_a_second_look() {
        let (fake, topics) = fake(3);
        assert!(topics.count(&name("t"), partition(2), in_a_minute()).await.is_ok());
        let fault = topics.count(&name("t"), partition(3), in_a_minute()).await.expect_err("out of range");
        assert_eq!(fault.code(), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(fake.calls.load(Ordering::Relaxed), 1);
        sleep(MIN_AGE).await;
        assert!(topics.count(&name("t"), partition(3), in_a_minute()).await.is_err());
        assert_eq!(fake.calls.load(Ordering::Relaxed), 2);
        sleep(MIN_AGE).await;
        fake.partitions.store(4, Ordering::Relaxed);
        assert!(topics.count(&name("t"), partition(3), in_a_minute()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_topics_have_a_limit() {
        let (_, topics) = fake(1);
        for i in 0..=MAX_TOPICS {
            let known = Some(Known { count: PartitionCount::ONE, since: Instant::now() });
            if i < MAX_TOPICS {
                topics.lock().insert(name(&format!("t{i}")), Entry { known, question: None });
            } else {
                assert!(topics.count(&name("one-more"), None, in_a_minute()).await.is_ok());
            }
        }
        assert!(topics.lock().len() <= MAX_TOPICS);
        assert!(topics.lock().contains_key("one-more"));
    }
}
