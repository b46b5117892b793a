//! When what leaves: the rules of release, which transcripts cannot show.

use std::collections::HashMap;

use oncelog_proto::{
    Epoch, Offset, PackedBatch, ProducerId, RecordCount, Sequence, Tag, TopicName, TopicPartition, topic::PartitionCount, v1,
};

use super::*;
use crate::{
    entry::{Append, OwnerHash, TokenHash},
    state::{Arrival, Ends, InitRequest, Recovered, TopicPage},
};

/// A pipeline whose journal is driven by hand.
struct World {
    pipeline: Pipeline<&'static str>,
    now: Now,
    answers: HashMap<&'static str, Answer>,
    moved: Vec<(PartitionId, Ends)>,
    gone: Vec<PartitionId>,
    group: Option<Group>,
}

fn options() -> Options {
    Options {
        limits: Limits {
            max_message_bytes: 1 << 20,
            auto_create_topics: true,
            default_partitions: PartitionCount::ONE,
            max_partitions: 100,
            max_producers: 100,
            max_windows: 100,
            producer_id_expiration: Duration::from_secs(3600),
        },
        hold: Duration::from_millis(200),
        hold_bytes: 1 << 20,
        group_limit: small_groups(),
        incarnation: 0,
        accept_clock_jump: false,
    }
}

impl World {
    fn new(options: Options) -> Self {
        let now = Now { monotonic: Monotonic::from_micros(0), wall: Timestamp::from_micros(1_000_000_000) };
        let pipeline = Pipeline::open(options, State::default(), None, now);
        let (answers, moved, gone) = (HashMap::new(), Vec::new(), Vec::new());
        let mut world = Self { pipeline, now, answers, moved, gone, group: None };
        world.sync_all();
        world
    }

    fn with_producer() -> Self {
        let mut world = Self::new(options());
        world.ask("init", Request::InitProducer(InitRequest::Fresh));
        world.sync_all();
        world
    }

    fn ask(&mut self, who: &'static str, request: Request) {
        self.pipeline.on_request(who, request, self.now);
        self.hear();
    }

    fn produce(&mut self, who: &'static str, batch: Arrival) {
        self.ask(who, Request::Produce { acks: Acks::All, batches: vec![Ok(batch)] });
    }

    fn hear(&mut self) {
        while let Some(output) = self.pipeline.poll_output() {
            match output {
                Output::Answer(who, answer) => drop(self.answers.insert(who, answer)),
                Output::Moved(partition, ends) => self.moved.push((partition, ends)),
                Output::Gone(partition) => self.gone.push(partition),
            }
        }
    }

    /// The journal takes the next group.
    fn write(&mut self) -> &Group {
        assert!(self.group.is_none(), "one group at a time");
        self.group = self.pipeline.poll_group();
        self.hear();
        self.group.as_ref().expect("there is something to write")
    }

    fn sync(&mut self) {
        assert!(self.group.take().is_some(), "only what was written can be synced");
        self.pipeline.on_synced(u64::MAX);
        self.hear();
    }

    fn sync_all(&mut self) {
        while let Some(group) = self.pipeline.poll_group() {
            self.group = Some(group);
            self.sync();
        }
        self.hear();
    }

    fn outcome(&self, who: &str) -> Option<&BatchOutcome> {
        match self.answers.get(who)? {
            Answer::Produced(outcomes) => Some(&outcomes[0]),
            other => panic!("{other:?}"),
        }
    }

    fn code(&self, who: &str) -> Option<ErrorCode> {
        match self.outcome(who)? {
            BatchOutcome::Refused(fault) => Some(fault.code()),
            BatchOutcome::Acknowledged { .. } => None,
        }
    }

    fn offset(&self, who: &str) -> Option<i64> {
        match self.outcome(who)? {
            BatchOutcome::Acknowledged { base_offset, .. } => base_offset.map(Offset::get),
            BatchOutcome::Refused(fault) => panic!("{fault}"),
        }
    }
}

/// Groups of about 1 MiB.
fn small_groups() -> GroupLimit {
    crate::journal::Options { segment_bytes: 1 << 20, ..crate::journal::Options::new(0) }.group_limit()
}

/// One record of 10 bytes for partition 0 of topic `t`, by producer 1 in epoch 0.
fn batch(base: i64) -> Arrival {
    let record = v1::Record { value: Some(format!("{base:010}").into()), ..Default::default() };
    Arrival {
        partition: TopicPartition::parse("t", 0).expect("allowed"),
        tag: Some(Tag {
            producer: ProducerId::new(1).expect("1"),
            epoch: Epoch::ZERO,
            base: Sequence::new(base).expect("not negative"),
        }),
        packed: PackedBatch::from_records(&[record]).expect("valid"),
        trace: None,
    }
}

fn untagged() -> Arrival {
    Arrival { tag: None, ..batch(0) }
}

fn recover() -> Request {
    let producer = ProducerId::new(1).expect("1");
    Request::InitProducer(InitRequest::Recover { producer, epoch: Epoch::ZERO, token: TokenHash([7; 16]) })
}

#[test]
fn an_acknowledgement_leaves_when_its_group_is_synced_and_not_when_it_is_written() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    assert_eq!(world.outcome("a"), None);
    world.write();
    world.pipeline.on_written();
    world.hear();
    assert_eq!(world.outcome("a"), None);
    world.sync();
    assert_eq!(world.offset("a"), Some(0));
}

#[test]
fn a_duplicate_waits_for_the_sync_of_its_original() {
    let mut world = World::with_producer();
    world.produce("original", batch(0));
    world.write();
    world.produce("duplicate", batch(0));
    assert_eq!(world.outcome("duplicate"), None);
    world.sync();
    assert_eq!(world.offset("original"), Some(0));
    assert_eq!(world.offset("duplicate"), Some(0));
}

#[test]
fn a_rejection_waits_for_what_it_was_computed_from() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.write();
    // Its refusal tells that sequence 0 is taken. Said before the sync it could turn out false (R14).
    let mut other = batch(0);
    other.packed = batch(1).packed;
    world.produce("conflict", other);
    assert_eq!(world.code("conflict"), None);
    world.sync();
    assert_eq!(world.code("conflict"), Some(ErrorCode::SequenceConflict));
}

#[test]
fn a_recovery_answer_waits_for_the_batches_it_tells_of() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.write();
    world.ask("recovery", recover());
    assert!(!world.answers.contains_key("recovery"));
    world.sync();
    assert!(!world.answers.contains_key("recovery"), "the raised epoch is not durable yet");
    world.write();
    world.sync();
    let Answer::Granted(granted) = &world.answers["recovery"] else { panic!("refused") };
    let [Recovered { next, window, .. }] = granted.recovered.as_slice() else { panic!("one partition") };
    assert_eq!((next.get(), window.len()), (1, 1));
}

#[test]
fn a_description_waits_too_and_leaves_at_once_when_nothing_is_pending() {
    let mut world = World::with_producer();
    let describe = || Request::DescribeTopics { topics: Vec::new(), create: false, after: None };
    world.ask("empty", describe());
    assert_eq!(world.answers["empty"], Answer::Topics(TopicPage::default()));
    world.produce("a", batch(0));
    world.ask("full", describe());
    assert!(!world.answers.contains_key("full"));
    world.sync_all();
    assert!(world.answers.contains_key("full"));
}

#[test]
fn what_comes_during_a_sync_is_gathered_into_one_group() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.write();
    for (who, base) in [("b", 1), ("c", 2), ("d", 3)] {
        world.produce(who, batch(base));
    }
    assert!(world.pipeline.poll_group().is_none(), "one group is being written");
    world.sync();
    let appends = world.write().entries().iter().filter(|entry| matches!(entry, Entry::Append(_))).count();
    assert_eq!(appends, 3);
    world.sync();
    assert_eq!(["b", "c", "d"].map(|who| world.offset(who)), [Some(1), Some(2), Some(3)]);
}

#[test]
fn a_full_group_is_followed_by_another_and_no_answer_overtakes() {
    let mut world = World::new(options());
    let record = v1::Record { value: Some(vec![7; 400_000].into()), ..Default::default() };
    let large = Arrival { packed: PackedBatch::from_records(&[record]).expect("valid"), ..untagged() };
    for who in ["a", "b", "c"] {
        world.produce(who, large.clone());
    }
    assert_eq!(world.write().payloads().len(), 2);
    world.sync();
    assert_eq!(world.offset("a"), Some(0));
    assert_eq!(world.outcome("c"), None);
    world.sync_all();
    assert_eq!(world.offset("c"), Some(2));
    assert!(world.pipeline.is_idle());
}

#[test]
fn acks_zero_leaves_at_once_and_acks_one_when_written() {
    let mut world = World::new(options());
    let ask = |acks| Request::Produce { acks, batches: vec![Ok(untagged())] };
    world.ask("zero", ask(Acks::Zero));
    assert_eq!(world.offset("zero"), None);
    assert!(world.outcome("zero").is_some());
    world.ask("one", ask(Acks::One));
    world.ask("all", ask(Acks::All));
    world.write();
    assert!(world.pipeline.is_written_awaited());
    world.pipeline.on_written();
    world.hear();
    assert_eq!(world.offset("one"), Some(1));
    assert_eq!(world.outcome("all"), None);
    // Readers, however, are told when it is durable.
    assert_eq!(world.moved, []);
    world.sync();
    assert_eq!(world.offset("all"), Some(2));
    assert_eq!(world.moved.len(), 1);
}

#[test]
fn readers_are_told_where_the_durable_log_ends_and_not_where_the_state_is() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.write();
    world.produce("b", batch(1));
    world.sync();
    let ends = |world: &World| world.moved.last().map(|(_, ends)| ends.end.get());
    assert_eq!(ends(&world), Some(1));
    world.sync_all();
    assert_eq!(ends(&world), Some(2));
}

#[test]
fn readers_of_a_deleted_topic_are_told_when_the_deletion_is_durable() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.sync_all();
    world.ask("delete", Request::DeleteTopic(TopicName::parse("t").expect("allowed")));
    assert_eq!(world.gone, []);
    world.sync_all();
    assert_eq!(world.gone, [PartitionId(0)]);
    assert_eq!(world.answers["delete"], Answer::Deleted);
}

#[test]
fn a_call_is_answered_when_its_last_batch_is() {
    let mut world = World::with_producer();
    let mut early = batch(1);
    early.partition = TopicPartition::parse("u", 0).expect("allowed");
    world.ask("call", Request::Produce { acks: Acks::All, batches: vec![Ok(batch(0)), Ok(early.clone())] });
    world.sync_all();
    assert!(!world.answers.contains_key("call"));
    early.tag = batch(0).tag;
    world.produce("first of u", early);
    world.sync_all();
    let Answer::Produced(outcomes) = &world.answers["call"] else { panic!("refused") };
    assert_eq!(outcomes.iter().filter(|o| matches!(o, BatchOutcome::Acknowledged { .. })).count(), 2);
}

#[test]
fn an_early_batch_is_refused_at_its_deadline_and_not_before() {
    let mut world = World::with_producer();
    world.produce("early", batch(1));
    let tick = |world: &mut World, micros| {
        world.now.monotonic = Monotonic::from_micros(micros);
        world.pipeline.on_tick(world.now);
        world.hear();
    };
    tick(&mut world, 199_999);
    assert_eq!(world.code("early"), None);
    assert_eq!(world.pipeline.next_wakeup(), Monotonic::from_micros(200_000));
    tick(&mut world, 200_000);
    assert_eq!(world.code("early"), Some(ErrorCode::OutOfOrderSequenceNumber));
}

#[test]
fn a_full_disk_refuses_new_batches_and_acknowledges_duplicates() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.sync_all();
    let needed = (batch(1).packed.data().len() + draft::CHANGE_BYTES_MAX + RESERVED_BYTES) as u64;
    world.pipeline.on_room(needed - 1);
    world.produce("b", batch(1));
    assert_eq!(world.code("b"), Some(ErrorCode::ResourceExhausted));
    world.produce("a again", batch(0));
    assert_eq!(world.offset("a again"), Some(0));
    world.pipeline.on_room(needed);
    world.produce("b", batch(1));
    // The room is promised to b until b is written.
    world.produce("c", batch(2));
    world.sync_all();
    assert_eq!(world.offset("b"), Some(1));
    assert_eq!(world.code("c"), Some(ErrorCode::ResourceExhausted));
}

/// Time passes by both clocks.
fn pass(world: &mut World, passed: Duration) {
    world.now = Now { monotonic: world.now.monotonic.plus(passed), wall: world.now.wall.plus(passed) };
    world.pipeline.on_tick(world.now);
}

#[test]
fn on_a_full_disk_only_a_trim_is_written() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.sync_all();
    world.pipeline.on_room((draft::CHANGE_BYTES_MAX + RESERVED_BYTES) as u64 - 1);
    let topic = |name| TopicName::parse(name).expect("allowed");
    world.ask("init", Request::InitProducer(InitRequest::Fresh));
    world.ask("recovery", recover());
    world.ask("create", Request::CreateTopic { topic: topic("u"), partitions: None });
    world.ask("describe", Request::DescribeTopics { topics: vec![topic("v")], create: true, after: None });
    world.ask("delete", Request::DeleteTopic(topic("t")));
    for who in ["init", "recovery", "create", "describe", "delete"] {
        let Some(Answer::Refused(fault)) = world.answers.get(who) else { panic!("{who} was not refused at once") };
        assert_eq!(fault.code(), ErrorCode::ResourceExhausted, "{who}");
    }
    // Neither a sign of life nor an expiry takes the room that the trim needs; both come later.
    pass(&mut world, Duration::from_secs(3500));
    world.produce("a again", batch(0));
    assert_eq!(world.offset("a again"), Some(0));
    pass(&mut world, Duration::from_secs(3600));
    assert!(world.pipeline.poll_group().is_none());
    world.pipeline.on_trim(1, Vec::new(), world.now);
    world.write();
    world.sync();
    pass(&mut world, Duration::from_secs(3600));
    assert_eq!(world.pipeline.counts().expired_producers, 1);
}

#[test]
fn answers_to_acks_zero_wait_once_a_whole_group_is_gathered() {
    let mut world = World::new(options());
    let record = v1::Record { value: Some(vec![7; 600_000].into()), ..Default::default() };
    let large = Arrival { packed: PackedBatch::from_records(&[record]).expect("valid"), ..untagged() };
    let ask = || Request::Produce { acks: Acks::Zero, batches: vec![Ok(large.clone())] };
    world.ask("first", ask());
    world.write();
    world.ask("second", ask());
    assert!(world.outcome("second").is_some());
    world.ask("third", ask());
    assert_eq!(world.outcome("third"), None);
    world.sync();
    world.sync_all();
    assert!(world.outcome("third").is_some());
}

#[test]
fn idle_producers_expire_by_broker_time_and_a_duplicate_keeps_one_alive() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.sync_all();
    let pass = |world: &mut World, minutes: u64| {
        pass(world, Duration::from_secs(60 * minutes));
        world.sync_all();
    };
    pass(&mut world, 50);
    world.produce("a again", batch(0));
    world.sync_all();
    pass(&mut world, 50);
    world.produce("still known", batch(0));
    world.sync_all();
    assert_eq!(world.offset("still known"), Some(0));
    // A sign of life so soon after another one is not journaled, and counts all the same.
    pass(&mut world, 2);
    world.produce("recognised", batch(0));
    world.sync_all();
    pass(&mut world, 59);
    world.produce("alive", batch(0));
    world.sync_all();
    assert_eq!(world.offset("alive"), Some(0));
    pass(&mut world, 63);
    world.produce("forgotten", batch(0));
    assert_eq!(world.code("forgotten"), Some(ErrorCode::UnknownProducerId));
    assert_eq!(world.pipeline.counts().expired_producers, 1);
}

#[test]
fn downtime_does_not_count_for_expiry() {
    let mut world = World::with_producer();
    let half = Duration::from_secs(1800);
    let now = Now { monotonic: world.now.monotonic.plus(half), wall: world.now.wall.plus(half) };
    world.pipeline.on_tick(now);
    world.sync_all();
    // The broker is away for ten hours, and then runs for less than the other half of the expiration.
    let reopened = now.wall.plus(Duration::from_secs(36_000));
    let now = Now { monotonic: now.monotonic, wall: reopened };
    let state = world.pipeline.state().clone();
    let last_group = now.wall.minus(Duration::from_secs(36_000));
    world.pipeline = Pipeline::open(options(), state, Some(last_group), now);
    world.now = Now { monotonic: now.monotonic.plus(Duration::from_secs(1700)), wall: now.wall.plus(Duration::from_secs(1700)) };
    world.pipeline.on_tick(world.now);
    world.sync_all();
    world.produce("a", batch(0));
    world.sync_all();
    assert_eq!(world.offset("a"), Some(0));
}

#[test]
fn a_second_start_after_a_doubtful_clock_still_drops_nothing_for_its_age() {
    let mut world = World::with_producer();
    world.sync_all();
    let reopen = |world: &mut World, ahead: Duration, options: Options| {
        let last_group = world.now.wall;
        world.now.wall = last_group.plus(ahead);
        let state = world.pipeline.state().clone();
        world.pipeline = Pipeline::open(options, state, Some(last_group), world.now);
        world.sync_all();
        world.pipeline.is_clock_doubtful()
    };
    let month = Duration::from_secs(30 * 24 * 3600);
    assert!(reopen(&mut world, month, options()));
    assert!(reopen(&mut world, Duration::from_secs(1), options()), "the last group has that time now");
    let chunks = world.pipeline.state().to_chunks();
    assert!(State::from_chunks(chunks).expect("sound").is_clock_doubtful(), "a snapshot tells it too");
    assert!(!reopen(&mut world, Duration::from_secs(1), Options { accept_clock_jump: true, ..options() }));
    assert!(!reopen(&mut world, Duration::from_secs(1), options()), "once is enough");
}

#[test]
fn a_trim_lists_no_partitions_of_deleted_topics_and_so_fits_a_group() {
    let mut world = World::with_producer();
    world.sync_all();
    let gone = |id| Trimmed { partition: PartitionId(id), log_start: Offset::ZERO, bytes: 1 };
    // More than a group of 8 MiB has room for.
    world.pipeline.on_trim(7, (1_000..600_000).map(gone).collect(), world.now);
    assert_eq!(world.write().entries(), [Entry::Trim { through_segment: 7, partitions: Vec::new() }]);
}

#[test]
fn a_trim_moves_the_log_start_and_leaves_the_windows_alone() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    world.sync_all();
    world.moved.clear();
    let one = Trimmed { partition: PartitionId(0), log_start: Offset::new(1).expect("1"), bytes: 12 };
    // The segment may hold records of a topic that is deleted by now.
    let unknown = Trimmed { partition: PartitionId(9), log_start: Offset::ZERO, bytes: 0 };
    world.pipeline.on_trim(7, vec![one, unknown], world.now);
    assert!(matches!(world.write().entries(), [Entry::Trim { through_segment: 7, .. }]));
    world.sync();
    let ends = Ends { start: Offset::new(1).expect("1"), end: Offset::new(1).expect("1") };
    assert_eq!(world.moved, [(PartitionId(0), ends)]);
    // The window is not forgotten with its records (W7).
    world.produce("a again", batch(0));
    assert_eq!(world.offset("a again"), Some(0));
}

#[test]
fn the_journal_is_told_what_the_batch_says() {
    let mut world = World::with_producer();
    world.produce("a", batch(0));
    let expected = batch(0);
    let group = world.write();
    let Some(Entry::Append(append)) = group.entries().last() else { panic!("an append") };
    let Append { tag, count, checksum, data_len, .. } = append.clone();
    assert_eq!((tag, count, checksum), (expected.tag, RecordCount::MIN, expected.packed.checksum()));
    assert_eq!(data_len as usize, expected.packed.data().len());
    assert_eq!(group.payloads(), [expected.packed.data().clone()]);
}

#[test]
fn a_group_tells_the_traces_of_what_it_appends_once_and_the_hold_those_that_waited() {
    let context = |n: u8| oncelog_proto::TraceContext::new([n; 16], [n; 8]);
    let traced = |base: i64, n: u8| Arrival { trace: context(n), ..batch(base) };
    let mut world = World::with_producer();
    world.produce("early", traced(1, 1));
    world.now.monotonic = world.now.monotonic.plus(Duration::from_millis(30));
    world.produce("on its turn", traced(0, 2));
    world.produce("duplicate", traced(0, 3));
    world.produce("in no trace", batch(2));
    let waited = world.pipeline.poll_waited();
    assert_eq!(waited.map(|waited| (Some(waited.trace), waited.time)), Some((context(1), Duration::from_millis(30))));
    assert_eq!(world.pipeline.poll_waited(), None);
    world.write();
    let traces = world.pipeline.take_traces();
    assert_eq!(traces.contexts(), [context(2), context(1)].map(|context| context.expect("not zero")));
    assert!(world.pipeline.take_traces().is_empty());
    world.sync();
    let counts = world.pipeline.counts();
    assert_eq!((counts.duplicate_batches, counts.duplicate_records, counts.held_batches), (1, 1, 1));
}

#[test]
fn a_batch_below_the_window_is_a_window_miss_and_one_in_it_is_not() {
    let mut world = World::with_producer();
    for base in 0..6 {
        world.produce("a", batch(base));
    }
    world.produce("in the window", batch(1));
    assert_eq!(world.pipeline.counts().window_misses, 0);
    world.produce("below it", batch(0));
    assert_eq!(world.pipeline.counts().window_misses, 1);
}

#[test]
fn a_batch_with_anothers_producer_id_is_refused_as_with_an_unknown_one_and_leaves_nothing() {
    let mut world = World::new(options());
    let owner = Some(OwnerHash([1; 16]));
    let ask = |world: &mut World, caller, who, request| {
        world.pipeline.on_request_of(caller, who, request, world.now);
        world.hear();
        world.sync_all();
    };
    ask(&mut world, owner, "init", Request::InitProducer(InitRequest::Fresh));
    let produce = |n| Request::Produce { acks: Acks::All, batches: vec![Ok(batch(n))] };
    ask(&mut world, owner, "first", produce(0));
    assert_eq!(world.offset("first"), Some(0));
    for (caller, who) in [(None, "nobody"), (Some(OwnerHash([2; 16])), "another")] {
        // One that is in the log, the next one, and an early one, which is not held either.
        for n in [0, 1, 3] {
            ask(&mut world, caller, who, produce(n));
            assert_eq!(world.code(who), Some(ErrorCode::UnknownProducerId), "{who} {n}");
        }
        assert_eq!(world.pipeline.held(), (0, 0));
    }
    ask(&mut world, owner, "second", produce(1));
    assert_eq!(world.offset("second"), Some(1));
}
