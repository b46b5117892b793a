//! What bounds the state, and what must not break at the bounds. The decisions themselves stand in the transcripts.

use oncelog_proto::{Epoch, PackedBatch, Tag, v1};

use super::*;
use crate::entry::{OwnerHash, TokenHash};

const NOW: Timestamp = Timestamp::MAX;

fn limits() -> Limits {
    Limits {
        max_message_bytes: 1 << 20,
        auto_create_topics: true,
        default_partitions: PartitionCount::ONE,
        max_partitions: 1_000_000,
        max_producers: 100,
        max_windows: 1_000_000,
        producer_id_expiration: Duration::from_secs(3600),
    }
}

fn producer(id: i64) -> ProducerId {
    ProducerId::new(id).expect("not negative")
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("allowed")
}

/// Producers 1 to `count`, in epoch 0.
fn with_producers(count: i64) -> State {
    let mut state = State::default();
    for id in 1..=count {
        let entry = Entry::InitProducer { producer: producer(id), epoch: Epoch::ZERO, token: None };
        state.apply(&entry, NOW).expect("a fresh id");
    }
    state
}

fn create(state: &mut State, name: &TopicName, partitions: i32) {
    let partitions = PartitionCount::new(partitions).expect("allowed");
    let entry = state.create_topic(name, Some(partitions), &limits()).expect("there is room");
    state.apply(&entry, NOW).expect("it was decided");
}

/// The first batch of a producer's epoch in a partition.
fn first_batch(id: i64, epoch: Epoch, topic: &TopicName, partition: i32) -> Arrival {
    let partition = TopicPartition { topic: topic.clone(), partition: PartitionIndex::new(partition).expect("not negative") };
    let tag = Some(Tag { producer: producer(id), epoch, base: Sequence::ZERO });
    Arrival { partition, tag, packed: PackedBatch::from_records(&[v1::Record::default()]).expect("valid"), trace: None }
}

fn append(state: &mut State, arrival: &Arrival, limits: &Limits) {
    let Verdict::Append { append, .. } = state.judge(arrival, limits) else { panic!("{arrival:?} is not appended") };
    state.apply(&Entry::Append(append), NOW).expect("it was decided");
}

#[test]
fn at_the_cap_of_windows_a_producer_that_recovered_goes_on_and_another_does_not() {
    let mut state = with_producers(2);
    create(&mut state, &topic("t"), 3);
    let limits = Limits { max_windows: 2, ..limits() };
    for partition in 0..2 {
        append(&mut state, &first_batch(1, Epoch::ZERO, &topic("t"), partition), &limits);
    }
    let epoch = Epoch::ZERO.next().expect("1");
    let raise = Entry::InitProducer { producer: producer(1), epoch, token: Some(TokenHash([7; 16])) };
    state.apply(&raise, NOW).expect("the next epoch");
    let refused = |state: &State, arrival: &Arrival| match state.judge(arrival, &limits) {
        Verdict::Refuse(fault) => Some(fault.code()),
        _ => None,
    };
    let other = first_batch(2, Epoch::ZERO, &topic("t"), 2);
    assert_eq!(refused(&state, &other), Some(ErrorCode::ResourceExhausted));
    for partition in 0..2 {
        append(&mut state, &first_batch(1, epoch, &topic("t"), partition), &limits);
    }
    assert_eq!(refused(&state, &first_batch(1, epoch, &topic("t"), 2)), Some(ErrorCode::ResourceExhausted));
    assert_eq!(refused(&state, &other), Some(ErrorCode::ResourceExhausted));
}

#[test]
fn a_topic_that_the_partition_ids_do_not_suffice_for_is_refused() {
    let mut state = State { topics: Topics::restore(u32::MAX - 2), ..State::default() };
    let three = PartitionCount::new(3).expect("3");
    let fault = state.create_topic(&topic("t"), Some(three), &limits()).expect_err("two are left");
    assert_eq!(fault.code(), ErrorCode::ResourceExhausted);
    create(&mut state, &topic("t"), 2);
}

#[test]
fn closed_markers_come_back_from_a_snapshot_of_small_chunks() {
    let mut state = with_producers(1);
    let name = topic(&"t".repeat(249));
    create(&mut state, &name, 5_000);
    for partition in 0..5_000 {
        append(&mut state, &first_batch(1, Epoch::ZERO, &name, partition), &limits());
    }
    state.apply(&Entry::DeleteTopic { topic: name }, NOW).expect("it exists");
    let chunks = state.to_chunks();
    assert!(chunks.iter().all(|chunk| chunk.len() < 1 << 20));
    assert_eq!(State::from_chunks(&chunks).expect("readable"), state);
    assert_eq!(state.producer_counts(), (1, 5_000));
}

#[test]
fn pages_of_producers_join_to_the_whole_and_end_where_they_get_long() {
    let mut state = with_producers(5);
    create(&mut state, &topic("t"), 6_000);
    for id in [1, 2, 4] {
        for partition in 0..6_000 {
            append(&mut state, &first_batch(id, Epoch::ZERO, &topic("t"), partition), &limits());
        }
    }
    let pages = |topic: Option<&TopicName>, most| {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = state.describe_producers(None, topic, after, most);
            pages.push(page.producers.iter().map(|p| p.producer.get()).collect::<Vec<_>>());
            after = page.after;
            if after.is_none() {
                return pages;
            }
        }
    };
    assert_eq!(pages(None, 100), [vec![1, 2], vec![3, 4, 5]]);
    assert_eq!(pages(None, 1), [vec![1], vec![2], vec![3], vec![4], vec![5], vec![]]);
    assert_eq!(pages(Some(&topic("t")), 100), [vec![1, 2], vec![4]]);
    assert_eq!(state.describe_producers(Some(producer(4)), None, None, 1).producers.len(), 1);
}

#[test]
fn an_id_is_its_owners_alone_and_stays_so_over_a_snapshot() {
    let (mine, other) = (Some(OwnerHash([1; 16])), Some(OwnerHash([2; 16])));
    let mut state = with_producers(1);
    let granted = |decision| match decision {
        InitDecision::Grant { entry, granted } => (entry, granted),
        other => panic!("{other:?}"),
    };
    let (entry, fresh) = granted(state.init_producer(InitRequest::Fresh, mine, 0, &limits()));
    assert_eq!(entry, Entry::GrantProducer { producer: fresh.producer, owner: OwnerHash([1; 16]) });
    state.apply(&entry, NOW).expect("a fresh id");
    let state = State::from_chunks(state.to_chunks()).expect("readable");
    let owners = |id| [None, mine, other].map(|caller| state.owns(caller, id));
    assert_eq!(owners(producer(1)), [true, false, false], "it was handed out to nobody in particular");
    assert_eq!(owners(fresh.producer), [false, true, false]);
    assert_eq!(owners(producer(99)), [false; 3]);

    let recover = InitRequest::Recover { producer: fresh.producer, epoch: Epoch::ZERO, token: TokenHash([7; 16]) };
    for caller in [None, other] {
        let InitDecision::Refuse(fault) = state.init_producer(recover, caller, 0, &limits()) else { panic!("fenced by another") };
        assert_eq!(fault.code(), ErrorCode::UnknownProducerId);
    }
    let mut state = state.clone();
    let (raise, _) = granted(state.init_producer(recover, mine, 0, &limits()));
    state.apply(&raise, NOW).expect("decided");
    assert!(state.owns(mine, fresh.producer), "a recovery does not change whose it is");
}
