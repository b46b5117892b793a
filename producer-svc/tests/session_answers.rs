//! The decision table, row by row, as the broker sees it: what the session does next.

mod script;

use std::time::Duration;

use oncelog_proto::ErrorCode;
use producer_svc::session::{BatchAnswer, FailureKind, RecordOutcome, SessionConfig};
use script::{PRODUCER, Script, ack, appended, init_answer, one_by_one, out_of_order, recovered, refuse, tags, values};

#[test]
fn an_acknowledgement_of_a_duplicate_is_one() {
    let mut script = Script::new(one_by_one());
    let send = script.send(0, "a0");
    let call = script.call();
    let BatchAnswer::Acknowledged { base_offset, append_time, .. } = ack(4) else { unreachable!("that is what it is") };
    script.answer(&call, vec![BatchAnswer::Acknowledged { base_offset, append_time, duplicate: true }]);
    assert_eq!(script.outcome(send), Some(&appended(0, 4)));
    assert_eq!(script.memory, 0);
    assert!(script.session.is_idle());
}

#[test]
fn acknowledgements_of_the_old_epoch_count_until_the_recovery_is_answered() {
    let mut script = Script::new(one_by_one());
    let sends = [script.send(0, "a0"), script.send(0, "a1")];
    let calls = [script.call(), script.call()];
    script.answer(&calls[1], vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer(&calls[0], vec![ack(0)]);
    assert_eq!(script.outcome(sends[0]), Some(&appended(0, 0)));
    script.answer_init(PRODUCER, 1, vec![recovered(0, &[&calls[0].batches[0]])]);
    let again = script.call();
    assert_eq!((tags(&again), values(&again)), (vec![(1, 0)], vec![vec!["a1".to_owned()]]));
    assert!(script.alarms.is_empty());
}

#[test]
fn an_early_batch_waits_until_the_call_before_it_ends_and_follows_it_unchanged() {
    let mut script = Script::new(one_by_one());
    script.send(0, "a0");
    script.send(0, "a1");
    let calls = [script.call(), script.call()];
    script.answer(&calls[1], vec![out_of_order(0)]);
    script.wait(5_000);
    script.assert_no_call();
    script.fail(&calls[0], FailureKind::InDoubt);
    script.wait(200);
    let (low, high) = (script.call(), script.call());
    assert_eq!((low.batches, &high.batches), (calls[0].batches.clone(), &calls[1].batches));
    script.assert_no_init();
    // Early once more: now it waits for the call that it followed.
    script.answer(&high, vec![out_of_order(0)]);
    script.wait(5_000);
    script.assert_no_call();
}

#[test]
fn an_early_batch_goes_out_at_once_when_the_lower_one_is_acknowledged() {
    let mut script = Script::new(one_by_one());
    script.send(0, "a0");
    script.send(0, "a1");
    let calls = [script.call(), script.call()];
    script.answer(&calls[1], vec![out_of_order(0)]);
    script.answer(&calls[0], vec![ack(0)]);
    assert_eq!(script.call().batches, calls[1].batches);
}

#[test]
fn out_of_order_that_fits_or_is_past_is_sent_again_after_a_pause() {
    for expected in [0, 1, 7] {
        let mut script = Script::new(one_by_one());
        script.send(0, "a0");
        let call = script.call();
        script.answer(&call, vec![out_of_order(expected)]);
        script.assert_no_call();
        script.wait(200);
        assert_eq!(script.call().batches, call.batches, "{expected}");
        script.assert_no_init();
    }
}

#[test]
fn a_conflict_is_an_alarm_a_refusal_and_a_fresh_id() {
    for answer in [refuse(ErrorCode::SequenceConflict), out_of_order(1)] {
        let mut script = Script::new(SessionConfig { batch_size: 1000, max_request_size: 1000, ..one_by_one() });
        // Two records a batch, so that an expected sequence can be inside it.
        let conflicting = script.send_all("t", &[(0, "a"), (0, "b")]);
        let other = script.send_all("t", &[(1, "c")]);
        let calls = [script.call(), script.call()];
        script.answer(&calls[0], vec![answer]);
        assert!(matches!(script.outcomes(conflicting), Some([RecordOutcome::Refused(_), RecordOutcome::Refused(_)])));
        assert_eq!(script.outcome(other), Some(&RecordOutcome::Unknown));
        assert_eq!(script.alarms.len(), 1);
        script.answer_init(8, 0, Vec::new());
        script.answer(&calls[1], vec![ack(0)]);
        script.send(1, "d");
        assert_eq!(tags(&script.call()), [(0, 0)]);
    }
}

#[test]
fn a_duplicate_without_an_offset_is_appended_and_a_defect() {
    let mut script = Script::new(one_by_one());
    let send = script.send(0, "a0");
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::DuplicateSequenceNumber)]);
    assert!(matches!(script.outcome(send), Some(RecordOutcome::Appended { offset: None, .. })));
    assert_eq!(script.alarms.len(), 1);
}

#[test]
fn what_may_succeed_later_is_sent_again_unchanged_after_a_growing_pause() {
    for code in [ErrorCode::ResourceExhausted, ErrorCode::RequestTimedOut, ErrorCode::KafkaStorageError, ErrorCode::Unspecified] {
        let mut script = Script::new(one_by_one());
        script.send(0, "a0");
        let first = script.call();
        script.answer(&first, vec![refuse(code)]);
        script.wait(79);
        script.assert_no_call();
        script.wait(42);
        let second = script.call();
        assert_eq!(second.batches, first.batches, "{code:?}");
        script.answer(&second, vec![refuse(code)]);
        script.wait(159);
        script.assert_no_call();
        script.wait(82);
        assert_eq!(script.call().batches, first.batches, "{code:?}");
        script.assert_no_init();
    }
}

#[test]
fn a_refusal_in_the_middle_leaves_its_neighbours_untouched_and_in_order() {
    let mut script = Script::new(one_by_one());
    let sends: Vec<_> = (0..4).map(|i| script.send(0, &format!("a{i}"))).collect();
    let calls: Vec<_> = (0..4).map(|_| script.call()).collect();
    script.answer(&calls[1], vec![refuse(ErrorCode::InvalidRecord)]);
    script.answer(&calls[0], vec![ack(0)]);
    script.fail(&calls[2], FailureKind::InDoubt);
    script.answer_init(PRODUCER, 1, vec![recovered(0, &[&calls[0].batches[0]])]);
    assert_eq!(script.refusal(sends[1]), Some(ErrorCode::InvalidRecord));
    let again = [script.call(), script.call()];
    assert_eq!(again.each_ref().map(values), [[["a2"]], [["a3"]]]);
    assert_eq!(again.each_ref().map(tags), [[(1, 0)], [(1, 1)]]);
}

#[test]
fn a_batch_too_large_for_the_broker_is_split_after_a_recovery_and_keeps_its_order() {
    let mut script = Script::new(SessionConfig { batch_size: 1000, max_request_size: 1000, ..one_by_one() });
    let send = script.send_all("t", &[(0, "a"), (0, "b"), (0, "c"), (0, "d")]);
    let next = script.send(0, "e");
    let (call, behind) = (script.call(), script.call());
    script.answer(&call, vec![refuse(ErrorCode::MessageTooLarge)]);
    script.fail(&behind, FailureKind::InDoubt);
    script.answer_init(PRODUCER, 1, Vec::new());
    let halves = [script.call(), script.call(), script.call()];
    assert_eq!(halves.each_ref().map(values), [[vec!["a", "b"]], [vec!["c", "d"]], [vec!["e"]]]);
    assert_eq!(halves.each_ref().map(tags), [[(1, 0)], [(1, 2)], [(1, 4)]]);
    for (call, offset) in halves.iter().zip([0, 2, 4]) {
        script.answer(call, vec![ack(offset)]);
    }
    let offsets = script.outcomes(send).expect("complete").iter().map(|outcome| match outcome {
        RecordOutcome::Appended { offset, .. } => offset.map(oncelog_proto::Offset::get),
        RecordOutcome::Refused(_) | RecordOutcome::Unknown => None,
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(script.outcome(next), Some(&appended(0, 4)));
    assert_eq!(script.memory, 0);
}

#[test]
fn a_single_record_too_large_for_the_broker_is_refused() {
    let mut script = Script::new(one_by_one());
    let send = script.send(0, "a0");
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::MessageTooLarge)]);
    script.answer_init(PRODUCER, 1, Vec::new());
    assert_eq!(script.refusal(send), Some(ErrorCode::MessageTooLarge));
    script.assert_no_call();
}

#[test]
fn a_batch_that_the_broker_is_known_not_to_take_is_split_before_it_has_a_tag() {
    let config = SessionConfig { batch_size: 1000, max_request_size: 1000, ..one_by_one() };
    let mut script = Script::fresh(config);
    let two = script.send_all("t", &[(0, "aaaaaaaa"), (0, "bbbbbbbb")]);
    let one = script.send_all("t", &[(1, &"c".repeat(100))]);
    let (init, ..) = script.init();
    let mut answer = init_answer(PRODUCER, 0, Vec::new());
    answer.max_batch_bytes = 12;
    script.handle(producer_svc::session::Event::InitAnswered { init, answer });
    assert_eq!(script.refusal(one), Some(ErrorCode::MessageTooLarge));
    let (first, second) = (script.call(), script.call());
    assert_eq!((values(&first), values(&second)), (vec![vec!["aaaaaaaa".to_owned()]], vec![vec!["bbbbbbbb".to_owned()]]));
    script.answer(&first, vec![ack(0)]);
    script.answer(&second, vec![ack(1)]);
    assert!(script.outcomes(two).is_some());
    script.assert_no_init();
}

#[test]
fn an_unknown_topic_fails_what_is_not_tagged_for_a_while_and_is_asked_again_afterwards() {
    for code in [ErrorCode::UnknownTopicOrPartition, ErrorCode::TopicAuthorizationFailed] {
        let mut script = Script::new(one_by_one());
        let sends: Vec<_> = (0..7).map(|i| script.send(0, &format!("a{i}"))).collect();
        let calls: Vec<_> = (0..5).map(|_| script.call()).collect();
        script.answer(&calls[0], vec![refuse(code)]);
        assert_eq!(script.forgotten.len(), 1);
        assert_eq!(
            (script.outcome(sends[0]), script.refusal(sends[5]), script.refusal(sends[6])),
            (None, Some(code), Some(code))
        );
        let at_once = script.send(1, "b");
        assert_eq!(script.refusal(at_once), Some(code));
        let other = script.send_all("u", &[(0, "c")]);
        script.answer_init(PRODUCER, 1, Vec::new());
        for send in &sends[..5] {
            assert_eq!(script.refusal(*send), Some(code), "certainly not in the log, and not asked again");
        }
        let call = script.call();
        assert_eq!(values(&call), [["c"]]);
        script.answer(&call, vec![ack(0)]);
        assert_eq!(script.outcome(other), Some(&appended(0, 0)));
        script.wait(1_000);
        script.send(1, "d");
        assert_eq!(values(&script.call()), [["d"]]);
    }
}

#[test]
fn a_call_in_doubt_is_sent_again_whole_and_unchanged() {
    let mut script =
        Script::new(SessionConfig { linger: Duration::from_millis(5), batch_size: 100, max_request_size: 1000, ..one_by_one() });
    for partition in 0..3 {
        script.send(partition, "a");
    }
    script.wait(5);
    let call = script.call();
    assert_eq!(call.batches.len(), 3);
    script.fail(&call, FailureKind::InDoubt);
    script.wait(200);
    assert_eq!(script.call().batches, call.batches);
    script.assert_no_call();
}

#[test]
fn an_answer_that_makes_no_sense_leaves_the_call_in_doubt() {
    let mut script = Script::new(one_by_one());
    let send = script.send(0, "a0");
    let call = script.call();
    script.answer(&call, vec![ack(0), ack(1)]);
    assert_eq!(script.outcome(send), None);
    script.wait(200);
    assert_eq!(script.call().batches, call.batches);
}

#[test]
fn a_call_refused_whole_is_bisected_down_to_the_batch_at_fault() {
    let mut script =
        Script::new(SessionConfig { linger: Duration::from_millis(5), batch_size: 100, max_request_size: 9000, ..one_by_one() });
    let sends: Vec<_> = (0..8).map(|partition| script.send(partition, "a")).collect();
    script.wait(5);
    let mut rounds = 0;
    let mut calls = vec![script.call()];
    let bad = |call: &producer_svc::session::ProduceCall| call.batches.iter().any(|b| b.partition.partition.get() == 5);
    while let Some(call) = calls.pop() {
        rounds += 1;
        if bad(&call) {
            script.fail(&call, FailureKind::Permanent);
            if call.batches.len() == 1 {
                break;
            }
            let halves = [script.call(), script.call()];
            assert!(halves.iter().all(|half| half.batches.len() <= call.batches.len().div_ceil(2)));
            calls.extend(halves);
        } else {
            let acks = call.batches.iter().map(|_| ack(0)).collect();
            script.answer(&call, acks);
        }
    }
    assert!(rounds <= 7, "halves, not one by one: {rounds}");
    for call in calls {
        let acks = call.batches.iter().map(|_| ack(0)).collect();
        script.answer(&call, acks);
    }
    assert_eq!(script.outcome(sends[5]), None, "refused-pending");
    assert_eq!(script.init().1, Some((PRODUCER, 0)));
    let done = sends.iter().filter(|send| script.outcome(**send).is_some()).count();
    assert_eq!(done, 7, "the others got through");
}

#[test]
fn a_call_that_no_broker_finds_too_large_is_in_doubt_and_comes_again_in_smaller_company() {
    let mut script =
        Script::new(SessionConfig { linger: Duration::from_millis(5), batch_size: 100, max_request_size: 9000, ..one_by_one() });
    let sends = [script.send(0, "a"), script.send(1, "b")];
    script.wait(5);
    let call = script.call();
    assert_eq!(call.batches.len(), 2);
    script.fail(&call, FailureKind::TooLarge);
    script.assert_no_call();
    script.wait(200);
    let halves = [script.call(), script.call()];
    assert_eq!([&halves[0].batches[..], &halves[1].batches[..]].concat(), call.batches);
    script.answer(&halves[1], vec![ack(0)]);
    script.fail(&halves[0], FailureKind::TooLarge);
    script.wait(500);
    assert_eq!(script.call().batches, halves[0].batches);
    script.assert_no_init();
    assert_eq!((script.outcome(sends[0]), script.outcome(sends[1])), (None, Some(&appended(1, 0))));
}

#[test]
fn a_call_that_is_too_large_for_the_broker_is_bisected_at_once() {
    let mut script = Script::new(SessionConfig {
        linger: Duration::from_millis(5),
        batch_size: 1_000_000,
        max_request_size: 9_000_000,
        ..one_by_one()
    });
    for partition in 0..2 {
        script.send(partition, &"a".repeat(600_000));
    }
    script.wait(5);
    let call = script.call();
    assert_eq!(call.batches.len(), 2);
    script.fail(&call, FailureKind::TooLarge);
    let halves = [script.call(), script.call()];
    assert_eq!([&halves[0].batches[..], &halves[1].batches[..]].concat(), call.batches);
}

#[test]
fn a_fresh_id_whose_answer_was_lost_is_asked_for_again() {
    let mut script = Script::fresh(one_by_one());
    let send = script.send(0, "a0");
    for kind in [FailureKind::InDoubt, FailureKind::Permanent, FailureKind::UnknownProducer] {
        assert_eq!(script.fail_init(kind), None);
        script.assert_no_init();
        script.wait(1_000);
    }
    script.answer_init(3, 0, Vec::new());
    assert_eq!(script.call().batches[0].tag.map(|tag| tag.producer.get()), Some(3));
    assert_eq!(script.outcome(send), None);
}

#[test]
fn a_recovery_answered_with_another_id_or_epoch_is_not_believed() {
    for (producer, epoch) in [(PRODUCER, 0), (PRODUCER, 2), (8, 1)] {
        let mut script = Script::new(one_by_one());
        let send = script.send(0, "a0");
        let call = script.call();
        script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
        script.answer_init(producer, epoch, Vec::new());
        assert_eq!(script.outcome(send), Some(&RecordOutcome::Unknown));
        assert_eq!(script.alarms.len(), 1);
        script.wait(1_000);
        assert_eq!(script.init().1, None);
    }
}

#[test]
fn recoveries_that_bring_no_acknowledgement_slow_down() {
    let mut script = Script::new(one_by_one());
    script.send(0, "a0");
    for round in 0..4 {
        let call = script.call();
        script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
        if round > 0 {
            script.assert_no_init();
            script.wait(1_000);
        }
        script.answer_init(PRODUCER, round + 1, Vec::new());
    }
    let call = script.call();
    script.answer(&call, vec![ack(0)]);
    script.send(0, "a1");
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    assert_eq!(script.init().1, Some((PRODUCER, 4)), "after a success at once");
}

/// The alarm gives the id up and makes unknown what is in doubt; what the same answer says for certain comes before that.
#[test]
fn an_answer_with_a_conflict_still_acknowledges_the_other_batches() {
    for conflict in [0, 1] {
        let linger = Duration::from_millis(5);
        let mut script = Script::new(SessionConfig { linger, batch_size: 100, max_request_size: 9000, ..one_by_one() });
        let sends = [script.send(0, "a"), script.send(1, "b")];
        script.wait(5);
        let call = script.call();
        let mut answers = vec![ack(0), ack(0)];
        answers[conflict] = refuse(ErrorCode::SequenceConflict);
        script.answer(&call, answers);
        assert_eq!(script.refusal(sends[conflict]), Some(ErrorCode::SequenceConflict));
        let other = 1 - conflict;
        assert_eq!(script.outcome(sends[other]), Some(&appended(other as i32, 0)), "batch {conflict} is in conflict");
        assert_eq!(script.alarms.len(), 1);
    }
}
