//! The producer's part of the rules, each with the trace that breaks the promise without it. R4, R11, R14 and R15 are the
//! broker's alone.

mod script;

use oncelog_proto::ErrorCode;
use producer_svc::session::{Event, FailureKind, RecordOutcome};
use script::{
    PRODUCER, Script, ack, appended, init_answer, one_by_one, out_of_order, partition_of_t, recovered, refuse, sequence, tags,
    values,
};

/// A script in which a0, a1, … were sent to partition 0, each in its own call.
fn sent<const N: usize>() -> (Script, [producer_svc::session::SendId; N], [producer_svc::session::ProduceCall; N]) {
    let mut script = Script::new(one_by_one());
    let mut calls = Vec::new();
    let sends = std::array::from_fn(|i| {
        let send = script.send(0, &format!("a{i}"));
        calls.push(script.call());
        send
    });
    (script, sends, calls.try_into().expect("as many"))
}

/// R1: a0's call is cancelled but its copy lives. If a5 were tagged because a1 to a4 are acknowledged and so only one call is
/// out, the copy could be appended, then a1 to a5, and the resend of a0 would find itself outside the broker's memory of five.
#[test]
fn r1_tagged_batches_span_five_from_the_lowest_unresolved_one_on() {
    let (mut script, _, calls) = sent::<5>();
    for (i, call) in calls.iter().enumerate().skip(1) {
        script.answer(call, vec![ack(i as i64)]);
    }
    let sixth = script.send(0, "a5");
    script.assert_no_call();
    script.fail(&calls[0], FailureKind::InDoubt);
    script.assert_no_call();
    script.wait(200);
    let resend = script.call();
    assert_eq!((tags(&resend), values(&resend)), (vec![(0, 0)], vec![vec!["a0".to_owned()]]));
    script.assert_no_call();
    script.answer(&resend, vec![ack(0)]);
    let last = script.call();
    assert_eq!(tags(&last), [(0, 5)]);
    script.answer(&last, vec![ack(5)]);
    assert_eq!(script.outcome(sixth), Some(&appended(0, 5)));
}

/// R2: a0 is appended, its answer is lost, and recovery says that it is in the log: the caller hears its offset all the same.
#[test]
fn r2_a_recovery_tells_the_offset_of_a_batch_whose_answer_was_lost() {
    let (mut script, [a0, a1], [call, fenced]) = sent::<2>();
    script.fail(&call, FailureKind::InDoubt);
    script.answer(&fenced, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer_init(PRODUCER, 1, vec![recovered(0, &[&call.batches[0]])]);
    assert_eq!(script.outcome(a0), Some(&appended(0, 0)));
    assert_eq!(script.outcome(a1), None);
    let again = script.call();
    assert_eq!((tags(&again), values(&again)), (vec![(1, 0)], vec![vec!["a1".to_owned()]]));
}

/// R3: a partition that the recovery does not list holds nothing of the fenced epoch.
#[test]
fn r3_a_partition_that_is_absent_from_a_recovery_holds_nothing_of_the_epoch() {
    let (mut script, [a0], [call]) = sent::<1>();
    let b0 = script.send(1, "b0");
    let other = script.call();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer_init(PRODUCER, 1, vec![recovered(1, &[&other.batches[0]])]);
    assert_eq!(script.outcome(b0), Some(&appended(1, 0)));
    assert_eq!(script.outcome(a0), None);
    assert_eq!(values(&script.call()), [["a0"]]);
    assert_eq!(script.alarms, Vec::<String>::new());
}

/// R5: a0 is refused as too large while a copy of it is on its way and a1 is held as sequence 1. If a1 became sequence 0, the
/// copy might fit after all, and then a1 would be lost or the order wrong.
#[test]
fn r5_a_refused_batch_keeps_its_tag_until_a_recovery() {
    let (mut script, [a0, a1], [first, second]) = sent::<2>();
    script.answer(&first, vec![refuse(ErrorCode::InvalidRecord)]);
    script.assert_no_call();
    assert_eq!((script.outcome(a0), script.outcome(a1)), (None, None), "nothing is certain yet");
    script.fail(&second, FailureKind::InDoubt);
    script.wait(500);
    script.assert_no_call();
    script.answer_init(PRODUCER, 1, Vec::new());
    assert_eq!(script.refusal(a0), Some(ErrorCode::InvalidRecord));
    let again = script.call();
    assert_eq!((tags(&again), values(&again)), (vec![(1, 0)], vec![vec!["a1".to_owned()]]));
}

/// R5, the other end of it: the copy was appended after all.
#[test]
fn r5_a_refused_batch_that_is_in_the_log_is_appended() {
    let (mut script, [a0], [call]) = sent::<1>();
    script.answer(&call, vec![refuse(ErrorCode::MessageTooLarge)]);
    script.answer_init(PRODUCER, 1, vec![recovered(0, &[&call.batches[0]])]);
    assert_eq!(script.outcome(a0), Some(&appended(0, 0)));
}

/// R6: the answer to a call of the fenced epoch arrives after the recovery. Its "fenced" would start the next recovery, whose
/// old calls would start the next.
#[test]
fn r6_an_answer_counts_only_for_a_batch_that_still_carries_its_tag() {
    let (mut script, [a0, a1, a2], [first, late_fenced, late_ack]) = sent::<3>();
    script.answer(&first, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer_init(PRODUCER, 1, Vec::new());
    let again = [script.call(), script.call(), script.call()];
    assert_eq!(again.each_ref().map(tags), [vec![(1, 0)], vec![(1, 1)], vec![(1, 2)]]);
    script.answer(&late_fenced, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.assert_no_init();
    script.answer(&late_ack, vec![ack(99)]);
    assert_eq!((script.outcome(a1), script.outcome(a2)), (None, None));
    for (call, offset) in again.iter().zip(0..) {
        script.answer(call, vec![ack(offset)]);
    }
    for (send, offset) in [a0, a1, a2].into_iter().zip(0..) {
        assert_eq!(script.outcome(send), Some(&appended(0, offset)));
    }
}

/// R7: a1 was early, and its "expected 0" is heard after a0 was acknowledged. It says what was, not that a0 is lost.
#[test]
fn r7_a_delayed_out_of_order_is_judged_by_what_was_known_when_the_call_was_sent() {
    let (mut script, _, [first, second]) = sent::<2>();
    script.answer(&first, vec![ack(0)]);
    script.answer(&second, vec![out_of_order(0)]);
    script.assert_no_init();
    let again = script.call();
    assert_eq!((tags(&again), again.batches), (vec![(0, 1)], second.batches));
}

/// R7, the other side: the call left after a0 was acknowledged, so "expected 0" means that a0 is gone.
#[test]
fn r7_an_out_of_order_below_what_was_acknowledged_before_is_a_gap() {
    let (mut script, _, [first]) = sent::<1>();
    script.answer(&first, vec![ack(0)]);
    script.send(0, "a1");
    let second = script.call();
    script.answer(&second, vec![out_of_order(0)]);
    assert_eq!(script.init().1, Some((PRODUCER, 0)));
}

/// R8: a1 hears "expected 0" while a0 is in doubt. That a0 is not there yet does not mean that it will not be.
#[test]
fn r8_an_out_of_order_proves_no_absence() {
    let (mut script, [a0, a1], [first, second]) = sent::<2>();
    script.answer(&second, vec![out_of_order(0)]);
    script.assert_no_call();
    script.fail(&first, FailureKind::InDoubt);
    script.wait(200);
    let (low, high) = (script.call(), script.call());
    assert_eq!((&low.batches, &high.batches), (&first.batches, &second.batches), "the same tags, the same bytes, in order");
    assert_eq!((script.outcome(a0), script.outcome(a1)), (None, None));
}

/// R9: "fenced" names an epoch; nothing is sent under it. The next epoch is the one that the recovery answers.
#[test]
fn r9_an_epoch_is_learned_from_a_recovery_alone() {
    let (mut script, _, [call]) = sent::<1>();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.send(0, "a1");
    script.wait(1000);
    script.assert_no_call();
    assert_eq!(script.init().1, Some((PRODUCER, 0)), "one's own epoch is what is recovered");
    script.assert_no_init();
}

/// R10: the broker forgot the producer. What was handed over may be in the log and may not; only what never was goes on.
#[test]
fn r10_what_was_handed_over_under_a_lost_id_is_unknown_for_good() {
    let (mut script, sends, calls) = sent::<5>();
    let untagged = script.send(0, "a5");
    script.answer(&calls[0], vec![refuse(ErrorCode::UnknownProducerId)]);
    assert_eq!(script.fail_init(FailureKind::UnknownProducer), Some((PRODUCER, 0)), "recovery first");
    for send in sends {
        assert_eq!(script.outcome(send), Some(&RecordOutcome::Unknown));
    }
    script.wait(1000);
    script.answer_init(8, 0, Vec::new());
    let call = script.call();
    assert_eq!((tags(&call), values(&call)), (vec![(0, 0)], vec![vec!["a5".to_owned()]]));
    assert_eq!(call.batches[0].tag.map(|tag| tag.producer.get()), Some(8));
    script.answer(&call, vec![ack(0)]);
    assert_eq!(script.outcome(untagged), Some(&appended(0, 0)));
    script.answer(&calls[1], vec![ack(1)]);
    assert!(script.session.is_idle());
}

/// R12: the topic was deleted, and the broker refuses what this epoch still sends to its name. The epoch is one's own all the
/// same; only raising it opens the name again.
#[test]
fn r12_fenced_at_ones_own_epoch_is_a_reason_to_recover() {
    let (mut script, _, [call]) = sent::<1>();
    script.answer(&call, vec![ack(0)]);
    let a1 = script.send(0, "a1");
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer_init(PRODUCER, 1, Vec::new());
    let again = script.call();
    assert_eq!(tags(&again), [(1, 0)]);
    script.answer(&again, vec![ack(0)]);
    assert_eq!(script.outcome(a1), Some(&appended(0, 0)));
}

/// R13: a recovery call whose answer was lost is repeated as it was, so that the broker knows it for a repetition.
#[test]
fn r13_a_lost_recovery_is_repeated_with_the_same_id_epoch_and_token() {
    let (mut script, _, [call]) = sent::<1>();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    let (first, recover, token) = script.init();
    for _ in 0..3 {
        let failure = script::failure(FailureKind::InDoubt);
        script.handle(Event::InitFailed { init: first, failure });
        script.wait(1000);
    }
    let (second, repeated, same) = script.init();
    assert_eq!((repeated, same), (recover, token));
    script.assert_no_init();
    script.handle(Event::InitAnswered { init: first, answer: init_answer(PRODUCER, 1, Vec::new()) });
    script.assert_no_call();
    script.handle(Event::InitAnswered { init: second, answer: init_answer(PRODUCER, 1, Vec::new()) });
    assert_eq!(tags(&script.call()), [(1, 0)]);
}

/// R13: the broker does not know the token, so somebody else raised the epoch.
#[test]
fn r13_a_recovery_that_is_refused_means_that_the_id_is_shared() {
    let (mut script, [a0], [call]) = sent::<1>();
    script.answer(&call, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
    script.fail_init(FailureKind::Permanent);
    assert_eq!(script.outcome(a0), Some(&RecordOutcome::Unknown));
    assert_eq!(script.alarms.len(), 1);
    script.wait(1000);
    assert_eq!(script.init().1, None, "a fresh id");
}

/// R13: a log that holds what this process never sent was written by another one.
#[test]
fn a_recovery_that_contradicts_what_was_sent_means_that_the_id_is_shared() {
    type Change = fn(&mut producer_svc::session::RecoveredPartition);
    let cases: [(&str, Change); 4] = [
        ("next above the highest tag", |r| r.next = sequence(3)),
        ("another checksum", |r| r.window[0].checksum ^= 1),
        ("another count", |r| r.window[0].count = oncelog_proto::RecordCount::of_len(2).expect("2")),
        ("a partition never written to", |r| r.partition = partition_of_t(9)),
    ];
    for (what, change) in cases {
        let (mut script, [a0, a1], [first, second]) = sent::<2>();
        script.answer(&second, vec![refuse(ErrorCode::InvalidProducerEpoch)]);
        let mut answer = recovered(0, &[&first.batches[0]]);
        change(&mut answer);
        script.answer_init(PRODUCER, 1, vec![answer]);
        assert_eq!(script.alarms.len(), 1, "{what}");
        for send in [a0, a1] {
            assert_eq!(script.outcome(send), Some(&RecordOutcome::Unknown), "{what}");
        }
        script.wait(1000);
        assert_eq!(script.init().1, None, "{what}");
    }
}

/// I1: `next` below what was acknowledged. That the broker has nothing at all has a harmless reason too, a deletion.
#[test]
fn acknowledged_records_that_are_gone_raise_an_alarm_and_those_cut_off_the_loudest() {
    for (there, loudest) in [(1, true), (0, false)] {
        let (mut script, _, calls) = sent::<3>();
        script.answer(&calls[0], vec![ack(0)]);
        script.answer(&calls[1], vec![ack(1)]);
        script.answer(&calls[2], vec![refuse(ErrorCode::InvalidProducerEpoch)]);
        let batches: Vec<_> = calls.iter().take(there).map(|call| &call.batches[0]).collect();
        let partitions = if there == 0 { Vec::new() } else { vec![recovered(0, &batches)] };
        script.answer_init(PRODUCER, 1, partitions);
        assert_eq!(script.alarms.len(), 1);
        assert_eq!(script.alarms[0].contains("ARE LOST in 1 partition"), loudest, "{}", script.alarms[0]);
        assert_eq!(values(&script.call()), [["a2"]], "what was not acknowledged goes on");
    }
}
