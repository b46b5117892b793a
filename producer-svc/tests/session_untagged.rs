//! `enable.idempotence=false`: no id, no tags, no promise beyond the acknowledgement.

mod script;

use oncelog_proto::{ErrorCode, v1::Acks};
use producer_svc::session::{BatchAnswer, FailureKind, RecordOutcome, SessionConfig};
use script::{Script, ack, appended, one_by_one, refuse, values};

fn untagged() -> SessionConfig {
    SessionConfig { idempotence: false, ..one_by_one() }
}

#[test]
fn no_id_is_asked_for_and_no_tag_is_sent() {
    let mut script = Script::new(untagged());
    script.assert_no_init();
    let send = script.send(0, "a0");
    let call = script.call();
    assert_eq!(call.batches[0].tag, None);
    script.answer(&call, vec![ack(0)]);
    assert_eq!(script.outcome(send), Some(&appended(0, 0)));
    assert_eq!(script.memory, 0);
}

#[test]
fn a_failed_call_is_sent_again_as_it_is() {
    let mut script = Script::new(untagged());
    script.send(0, "a0");
    let call = script.call();
    script.fail(&call, FailureKind::InDoubt);
    script.wait(200);
    assert_eq!(script.call().batches, call.batches);
    script.assert_no_init();
}

#[test]
fn with_one_call_in_flight_the_order_is_kept() {
    let mut script = Script::new(SessionConfig { max_in_flight: 1, ..untagged() });
    script.send(0, "a0");
    script.send(0, "a1");
    let call = script.call();
    script.fail(&call, FailureKind::InDoubt);
    script.wait(200);
    let again = script.call();
    assert_eq!(values(&again), [["a0"]]);
    script.answer(&again, vec![ack(0)]);
    assert_eq!(values(&script.call()), [["a1"]]);
}

#[test]
fn a_refusal_is_final_at_once_unless_an_attempt_was_in_doubt() {
    for doubt in [false, true] {
        let mut script = Script::new(untagged());
        let send = script.send(0, "a0");
        let mut call = script.call();
        if doubt {
            script.fail(&call, FailureKind::InDoubt);
            script.wait(200);
            call = script.call();
        }
        script.answer(&call, vec![refuse(ErrorCode::InvalidRecord)]);
        match doubt {
            false => assert_eq!(script.refusal(send), Some(ErrorCode::InvalidRecord)),
            true => assert_eq!(script.outcome(send), Some(&RecordOutcome::Unknown)),
        }
        script.assert_no_init();
        assert!(script.session.is_idle());
    }
}

#[test]
fn what_runs_out_of_time_or_retries_is_refused_only_if_it_is_certain() {
    let config = SessionConfig { retries: 1, ..untagged() };
    for (codes, certain) in [
        ([ErrorCode::ResourceExhausted, ErrorCode::ResourceExhausted], true),
        ([ErrorCode::ResourceExhausted, ErrorCode::RequestTimedOut], false),
        ([ErrorCode::RequestTimedOut, ErrorCode::ResourceExhausted], false),
    ] {
        let mut script = Script::new(config.clone());
        let send = script.send(0, "a0");
        for code in codes {
            let call = script.call();
            script.answer(&call, vec![refuse(code)]);
            script.wait(1_000);
        }
        script.assert_no_call();
        assert_eq!(script.refusal(send).is_some(), certain, "{codes:?}");
        assert_eq!(script.outcome(send) == Some(&RecordOutcome::Unknown), !certain, "{codes:?}");
    }
    let mut script = Script::new(config);
    let out = script.send(0, "a0");
    script.call();
    script.wait(120_000);
    assert_eq!(script.outcome(out), Some(&RecordOutcome::Unknown), "a call is out that may yet be carried out");
}

#[test]
fn a_batch_too_large_for_the_broker_is_split_at_once() {
    let mut script = Script::new(SessionConfig { batch_size: 1000, max_request_size: 1000, ..untagged() });
    let send = script.send_all("t", &[(0, "a"), (0, "b")]);
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::MessageTooLarge)]);
    let halves = [script.call(), script.call()];
    assert_eq!(halves.each_ref().map(values), [[["a"]], [["b"]]]);
    script.answer(&halves[0], vec![ack(0)]);
    script.answer(&halves[1], vec![refuse(ErrorCode::MessageTooLarge)]);
    assert!(matches!(script.outcomes(send), Some([RecordOutcome::Appended { .. }, RecordOutcome::Refused(_)])));
    assert_eq!(script.memory, 0);
}

#[test]
fn a_call_refused_whole_is_bisected_too() {
    let linger = std::time::Duration::from_millis(5);
    let mut script = Script::new(SessionConfig { linger, batch_size: 100, max_request_size: 9_000, ..untagged() });
    let sends = [script.send(0, "a"), script.send(1, "b")];
    script.wait(5);
    let call = script.call();
    assert_eq!(call.batches.len(), 2);
    script.fail(&call, FailureKind::Permanent);
    let calls = [script.call(), script.call()];
    script.fail(&calls[0], FailureKind::Permanent);
    script.answer(&calls[1], vec![ack(0)]);
    assert_eq!(script.refusal(sends[0]), Some(ErrorCode::InvalidRequest));
    assert_eq!(script.outcome(sends[1]), Some(&appended(1, 0)));
}

#[test]
fn a_call_that_may_be_too_large_for_the_broker_is_refused_and_a_smaller_one_is_in_doubt() {
    for (len, refusal) in [(65_000, None), (66_000, Some(ErrorCode::InvalidRequest))] {
        let mut script = Script::new(untagged());
        let send = script.send(0, &"a".repeat(len));
        let call = script.call();
        script.fail(&call, FailureKind::TooLarge);
        assert_eq!(script.refusal(send), refusal, "{len}");
        if refusal.is_none() {
            script.wait(200);
            assert_eq!(script.call().batches, call.batches);
        }
    }
}

#[test]
fn with_acks_0_an_acknowledgement_has_no_offset() {
    let mut script = Script::new(SessionConfig { acks: Acks::Zero, ..untagged() });
    let send = script.send(0, "a0");
    let call = script.call();
    let answer = BatchAnswer::Acknowledged { base_offset: None, append_time: Default::default(), duplicate: false };
    script.answer(&call, vec![answer]);
    assert!(matches!(script.outcome(send), Some(RecordOutcome::Appended { offset: None, .. })));
}

#[test]
#[should_panic(expected = "a tagged batch is acknowledged when it is durable")]
fn with_idempotence_acks_below_all_are_a_defect_of_the_caller() {
    Script::new(SessionConfig { acks: Acks::One, ..one_by_one() });
}

/// A half of the first waits in the queue when the second, which is younger, comes back to it.
#[test]
fn two_batches_too_large_at_once_are_both_split() {
    let mut script = Script::new(SessionConfig { batch_size: 1000, max_request_size: 1000, max_in_flight: 2, ..untagged() });
    let older = script.send_all("t", &[(0, "a"), (0, "b")]);
    script.wait(1);
    let younger = script.send_all("t", &[(0, "c"), (0, "d")]);
    for call in [script.call(), script.call()] {
        script.answer(&call, vec![refuse(ErrorCode::MessageTooLarge)]);
    }
    let mut sent = Vec::new();
    for offset in 0..4 {
        let call = script.call();
        sent.extend(values(&call).concat());
        script.answer(&call, vec![ack(offset)]);
    }
    assert_eq!(sent, ["a", "b", "c", "d"]);
    for send in [older, younger] {
        assert!(matches!(script.outcomes(send), Some([RecordOutcome::Appended { .. }, RecordOutcome::Appended { .. }])));
    }
}
