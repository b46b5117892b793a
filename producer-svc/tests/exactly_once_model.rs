//! The promise, against a broker that is the contract and a network that is as bad as it may be: every record that was
//! acknowledged is in the log exactly once, where the acknowledgement says; every record of unknown outcome at most once; no
//! refused one; all in the order of their `Send`s.

mod model;

use model::{Step, What, World, broker::ReferenceBroker, config};
use producer_svc::session::SessionConfig;
use proptest::prelude::*;

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        12 => Just(What::Send),
        16 => Just(What::Arrive),
        12 => Just(What::Answer),
        6 => Just(What::DoubleCall),
        3 => Just(What::LoseCall),
        3 => Just(What::LoseAnswer),
        5 => Just(What::GiveUp),
        2 => Just(What::Refuse),
        1 => Just(What::RefuseCall),
        1 => Just(What::Restart),
        8 => Just(What::Wait),
    ];
    (what, any::<u16>(), any::<u16>()).prop_map(|(what, which, how)| Step { what, which: which.into(), how: how.into() })
}

fn run(config: SessionConfig, seed: u64, steps: &[Step]) -> World<ReferenceBroker> {
    let mut world = World::new(ReferenceBroker::new(400), config, seed);
    for step in steps {
        world.step(*step);
    }
    world.heal();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_in_the_log_as_its_outcome_says(
        max_in_flight in 1usize..=5,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let world = run(config(max_in_flight), seed, &steps);
        prop_assert_eq!(world.violation(), None);
        prop_assert_eq!(&world.alarms, &Vec::<String>::new());
    }

    #[test]
    fn a_producer_that_expires_and_a_topic_that_is_deleted_break_no_promise(
        seed in any::<u64>(),
        steps in prop::collection::vec(
            prop_oneof![
                20 => step(),
                1 => any::<u16>().prop_map(|which| Step { what: What::ExpireProducers, which: which.into(), how: 0 }),
                1 => any::<u16>().prop_map(|which| Step { what: What::DeleteTopic, which: which.into(), how: 0 }),
            ],
            1..300,
        ),
    ) {
        let world = run(config(5), seed, &steps);
        prop_assert_eq!(world.violation(), None);
    }

    #[test]
    fn a_batch_that_fails_too_often_is_unknown_and_breaks_no_promise(
        retries in 1u32..4,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let world = run(SessionConfig { retries, ..config(5) }, seed, &steps);
        prop_assert_eq!(world.violation(), None);
    }

    #[test]
    fn the_same_events_give_the_same_actions(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..200)) {
        prop_assert_eq!(run(config(5), seed, &steps).trace, run(config(5), seed, &steps).trace);
    }

    #[test]
    fn without_idempotence_what_was_acknowledged_is_in_the_log_at_least_once(
        max_in_flight in 1usize..=5,
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let world = run(SessionConfig { idempotence: false, ..config(max_in_flight) }, seed, &steps);
        prop_assert_eq!(world.lost(), Vec::<u64>::new());
    }
}

/// The model is worth something only if it sees a broken promise: without tags this very network doubles records.
#[test]
fn without_tags_the_model_sees_duplicates() {
    let step = |what| Step { what, which: 0, how: 0 };
    let steps = [What::Send, What::Wait, What::Wait, What::Wait, What::Wait, What::Wait, What::Wait].map(step);
    let steps = [steps.as_slice(), &[What::DoubleCall, What::Arrive, What::Arrive, What::Answer].map(step)].concat();
    assert_eq!(run(config(5), 1, &steps).violation(), None);
    let violation = run(SessionConfig { idempotence: false, ..config(5) }, 1, &steps).violation();
    assert!(violation.is_some(), "two copies of an untagged call are two appends");
}
