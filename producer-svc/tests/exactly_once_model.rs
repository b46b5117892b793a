//! The promise, over a network that is as bad as it may be: every record that was acknowledged is in the log exactly once, where
//! the acknowledgement says; every record of unknown outcome at most once; no refused one; all in the order of their `Send`s.
//!
//! Against two brokers. One is the contract in as few words as possible, and never fails: it tells what the session does wrong.
//! The other is the real state machine over a disk that forgets what was not synced: it tells whether the two keep the promise
//! together, through crashes, deletions, expiry and limits that change.

mod model;

use model::{
    Step, What, World,
    broker::Broker,
    config,
    real::{Disk, RealBroker},
    reference::ReferenceBroker,
};
use producer_svc::session::{RecordOutcome, SessionConfig};
use proptest::prelude::*;

/// What may happen whenever two machines talk to each other.
fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        28 => Just(What::Send),
        40 => Just(What::Arrive),
        32 => Just(What::Answer),
        40 => Just(What::Work),
        16 => Just(What::Wait),
        10 => Just(What::DoubleCall),
        5 => Just(What::LoseCall),
        5 => Just(What::LoseAnswer),
        8 => Just(What::GiveUp),
        2 => Just(What::Refuse),
        1 => Just(What::RefuseCall),
        2 => Just(What::Crash),
    ];
    at_random(what)
}

/// And what operators and idle hours add to it.
fn rarer_step() -> impl Strategy<Value = Step> {
    let rare = prop_oneof![
        1 => Just(What::ExpireProducers),
        1 => Just(What::Idle),
        1 => Just(What::CreateTopic),
        2 => Just(What::DeleteTopic),
    ];
    prop_oneof![30 => step(), 1 => at_random(rare)]
}

fn at_random(what: impl Strategy<Value = What>) -> impl Strategy<Value = Step> {
    (what, any::<u16>(), any::<u16>()).prop_map(|(what, which, how)| Step { what, which: which.into(), how: how.into() })
}

fn run<B: Broker>(broker: B, config: SessionConfig, seed: u64, steps: &[Step]) -> World<B> {
    let mut world = World::new(broker, config, seed);
    for step in steps {
        world.step(*step);
    }
    world.heal();
    world
}

fn reference() -> ReferenceBroker {
    ReferenceBroker::new(400)
}

fn real() -> RealBroker {
    RealBroker::new(Disk::Honest)
}

/// Alarms, without those that a deletion explains.
fn unexplained<B>(world: &World<B>) -> Vec<&String> {
    world.alarms.iter().filter(|alarm| !alarm.contains("the topic was deleted")).collect()
}

mod reference_broker {
    use super::*;

    proptest! {
        #[test]
        fn every_record_is_in_the_log_as_its_outcome_says(
            max_in_flight in 1usize..=5,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let world = run(reference(), config(max_in_flight), seed, &steps);
            prop_assert_eq!(world.violation(), None);
            prop_assert_eq!(&world.alarms, &Vec::<String>::new());
        }

        #[test]
        fn a_producer_that_expires_and_a_topic_that_is_deleted_break_no_promise(
            seed in any::<u64>(),
            steps in prop::collection::vec(rarer_step(), 1..300),
        ) {
            let world = run(reference(), config(5), seed, &steps);
            prop_assert_eq!(world.violation(), None);
            prop_assert_eq!(unexplained(&world), Vec::<&String>::new());
        }

        #[test]
        fn a_batch_that_fails_too_often_is_unknown_and_breaks_no_promise(
            retries in 1u32..4,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let world = run(reference(), SessionConfig { retries, ..config(5) }, seed, &steps);
            prop_assert_eq!(world.violation(), None);
        }

        #[test]
        fn the_same_events_give_the_same_actions(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..200)) {
            prop_assert_eq!(run(reference(), config(5), seed, &steps).trace, run(reference(), config(5), seed, &steps).trace);
        }

        #[test]
        fn without_idempotence_what_was_acknowledged_is_in_the_log_at_least_once(
            max_in_flight in 1usize..=5,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let world = run(reference(), SessionConfig { idempotence: false, ..config(max_in_flight) }, seed, &steps);
            prop_assert_eq!(world.lost(), Vec::<u64>::new());
        }
    }
}

mod real_broker {
    use super::*;

    proptest! {
        #[test]
        fn every_record_is_in_the_log_as_its_outcome_says_however_often_the_broker_crashed(
            max_in_flight in 1usize..=5,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let world = run(real(), config(max_in_flight), seed, &steps);
            prop_assert_eq!(world.violation(), None);
            prop_assert_eq!(&world.alarms, &Vec::<String>::new());
        }

        #[test]
        fn expiry_deletion_and_limits_that_change_break_no_promise(
            seed in any::<u64>(),
            steps in prop::collection::vec(rarer_step(), 1..400),
        ) {
            let world = run(RealBroker::with_varying_limits(), config(5), seed, &steps);
            prop_assert_eq!(world.violation(), None);
            prop_assert_eq!(unexplained(&world), Vec::<&String>::new());
        }

        #[test]
        fn a_batch_that_fails_too_often_is_unknown_and_breaks_no_promise(
            retries in 1u32..4,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let world = run(real(), SessionConfig { retries, ..config(5) }, seed, &steps);
            prop_assert_eq!(world.violation(), None);
        }

        #[test]
        fn without_idempotence_what_was_acknowledged_is_in_the_log_at_least_once(
            max_in_flight in 1usize..=5,
            seed in any::<u64>(),
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let world = run(real(), SessionConfig { idempotence: false, ..config(max_in_flight) }, seed, &steps);
            prop_assert_eq!(world.lost(), Vec::<u64>::new());
        }
    }
}

/// Steps of which each can mean only one thing.
fn plainly(whats: &[What]) -> Vec<Step> {
    whats.iter().map(|what| Step { what: *what, which: 0, how: 0 }).collect()
}

/// Everything that is under way comes to its end.
fn settled() -> Vec<Step> {
    use What::{Answer, Arrive, Wait, Work};
    plainly(&[Wait, Wait, Wait, Wait, Wait, Wait, Work, Arrive, Work, Work, Answer]).repeat(3)
}

/// The model is worth something only if it sees a broken promise: without tags this very network doubles records.
#[test]
fn without_tags_the_model_sees_duplicates() {
    let steps = [plainly(&[What::Send]), settled(), plainly(&[What::Send, What::Wait, What::Wait, What::Wait])].concat();
    let steps = [steps, plainly(&[What::Wait, What::Wait, What::DoubleCall, What::Arrive, What::Arrive])].concat();
    let untagged = || SessionConfig { idempotence: false, ..config(5) };
    assert_eq!(run(reference(), config(5), 1, &steps).violation(), None);
    assert!(run(reference(), untagged(), 1, &steps).violation().is_some(), "two copies of an untagged call are two appends");
    assert_eq!(run(real(), config(5), 1, &steps).violation(), None);
    assert!(run(real(), untagged(), 1, &steps).violation().is_some(), "two copies of an untagged call are two appends");
}

/// Nor would it be worth anything if crashes did no harm: a disk that says "synced" too early loses what was acknowledged.
#[test]
fn with_a_disk_that_lies_the_model_sees_what_is_lost() {
    use What::{Answer, Arrive, Crash, Send, Wait, Work};
    let steps = [settled(), plainly(&[Send, Wait, Wait, Wait, Wait, Wait, Wait, Arrive, Work, Answer, Crash])].concat();
    assert_eq!(run(real(), config(5), 1, &steps).violation(), None);
    let world = run(RealBroker::new(Disk::Lying), config(5), 1, &steps);
    assert_eq!(world.lost(), [0], "acknowledged before it was durable");
    assert!(world.violation().is_some());
}

/// The broker forgets an idle producer after a day. The session knows, and does not have the next batch end as "unknown" (R10).
#[test]
fn a_day_without_records_costs_nothing() {
    let day = Step { what: What::Idle, which: 1, how: 0 };
    let steps = [plainly(&[What::Send]), settled(), vec![day], plainly(&[What::Send]), settled()].concat();
    let world = run(real(), config(5), 1, &steps);
    assert_eq!(world.violation(), None);
    let appended = |(_, outcome): &(_, RecordOutcome)| matches!(outcome, RecordOutcome::Appended { .. });
    assert!(world.outcomes.values().all(appended), "{:?}", world.outcomes);
}
