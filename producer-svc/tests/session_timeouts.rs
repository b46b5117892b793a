//! What time does: linger, delivery timeout, retries, close.

mod script;

use std::time::Duration;

use oncelog_proto::ErrorCode;
use producer_svc::session::{Event, FailureKind, RecordOutcome, SessionConfig};
use script::{PRODUCER, Script, ack, appended, one_by_one, recovered, refuse, tags, values};

fn lingering() -> SessionConfig {
    SessionConfig { linger: Duration::from_millis(5), batch_size: 10_000, max_request_size: 10_000, ..one_by_one() }
}

#[test]
fn a_batch_lingers_for_more_records() {
    let mut script = Script::new(lingering());
    script.send(0, "a");
    script.wait(4);
    script.send(0, "b");
    script.assert_no_call();
    script.wait(1);
    assert_eq!(values(&script.call()), [["a", "b"]]);
}

#[test]
fn close_ends_the_linger_of_what_is_there_and_of_what_follows() {
    let mut script = Script::new(lingering());
    script.send(0, "a");
    script.handle(Event::Close);
    assert_eq!(values(&script.call()), [["a"]]);
    script.send(0, "b");
    assert_eq!(values(&script.call()), [["b"]]);
    assert!(!script.session.is_idle());
}

#[test]
fn what_never_got_a_tag_in_time_is_certainly_not_in_the_log() {
    let mut script = Script::fresh(SessionConfig { delivery_timeout: Duration::from_secs(10), ..one_by_one() });
    let send = script.send(0, "a0");
    script.wait(9_999);
    assert_eq!(script.outcome(send), None);
    script.wait(1);
    assert_eq!(script.refusal(send), Some(ErrorCode::RequestTimedOut));
    assert_eq!(script.memory, 0);
    script.answer_init(PRODUCER, 0, Vec::new());
    script.assert_no_call();
    assert!(script.session.is_idle());
}

#[test]
fn what_was_tagged_is_unknown_after_its_time_and_keeps_its_tag_until_a_recovery() {
    let mut script = Script::new(one_by_one());
    let a0 = script.send(0, "a0");
    let call = script.call();
    script.wait(119_999);
    assert_eq!(script.outcome(a0), None);
    script.wait(1);
    assert_eq!(script.outcome(a0), Some(&RecordOutcome::Unknown));
    assert_eq!(script.memory, 0);
    let a1 = script.send(0, "a1");
    script.assert_no_call();
    // Late, and too late for the caller; the log says the same.
    script.answer(&call, vec![ack(0)]);
    script.answer_init(PRODUCER, 1, vec![recovered(0, &[&call.batches[0]])]);
    let next = script.call();
    assert_eq!(tags(&next), [(1, 0)]);
    script.answer(&next, vec![ack(1)]);
    assert_eq!(script.outcome(a1), Some(&appended(0, 1)));
    assert!(script.alarms.is_empty());
}

#[test]
fn what_expired_and_is_not_in_the_log_is_dropped_not_tagged_anew() {
    let mut script = Script::new(one_by_one());
    let a0 = script.send(0, "a0");
    script.call();
    script.wait(60_000);
    let a1 = script.send(0, "a1");
    script.call();
    script.wait(60_000);
    assert_eq!((script.outcome(a0), script.outcome(a1)), (Some(&RecordOutcome::Unknown), None));
    script.answer_init(PRODUCER, 1, Vec::new());
    let call = script.call();
    assert_eq!((tags(&call), values(&call)), (vec![(1, 0)], vec![vec!["a1".to_owned()]]));
    script.assert_no_call();
}

#[test]
fn a_refused_batch_is_unknown_if_no_recovery_says_more_in_time() {
    let mut script = Script::new(one_by_one());
    let a0 = script.send(0, "a0");
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::InvalidRecord)]);
    script.wait(120_000);
    assert_eq!(script.outcome(a0), Some(&RecordOutcome::Unknown));
}

#[test]
fn a_batch_that_failed_more_often_than_retries_is_unknown() {
    let mut script = Script::new(SessionConfig { retries: 2, ..one_by_one() });
    let a0 = script.send(0, "a0");
    for _ in 0..2 {
        let call = script.call();
        script.fail(&call, FailureKind::InDoubt);
        assert_eq!(script.outcome(a0), None);
        script.assert_no_init();
        script.wait(1_000);
    }
    let call = script.call();
    script.answer(&call, vec![refuse(ErrorCode::ResourceExhausted)]);
    assert_eq!(script.outcome(a0), Some(&RecordOutcome::Unknown));
    assert_eq!(script.init().1, Some((PRODUCER, 0)));
}

#[test]
fn waiting_its_turn_uses_up_no_retry() {
    let mut script = Script::new(SessionConfig { retries: 1, ..one_by_one() });
    script.send(0, "a0");
    let a1 = script.send(0, "a1");
    let (low, mut high) = (script.call(), script.call());
    script.answer(&high, vec![script::out_of_order(0)]);
    script.fail(&low, FailureKind::InDoubt);
    script.wait(1_000);
    let low = script.call();
    high = script.call();
    script.answer(&high, vec![script::out_of_order(0)]);
    script.answer(&low, vec![ack(0)]);
    high = script.call();
    script.answer(&high, vec![ack(1)]);
    assert_eq!(script.outcome(a1), Some(&appended(0, 1)));
}

#[test]
fn who_joins_a_waiting_batch_late_gets_a_batch_of_its_own() {
    let config = SessionConfig { batch_size: 1_000, max_request_size: 1_000, ..one_by_one() };
    let mut script = Script::fresh(config);
    script.send(0, "early");
    script.wait(100_000);
    let late = script.send(0, "late");
    script.wait(20_000);
    assert_eq!(script.outcome(late), None, "it has its own 120 seconds");
    script.answer_init(PRODUCER, 0, Vec::new());
    assert_eq!(values(&script.call()), [["late"]]);
}

#[test]
fn an_id_is_used_after_an_idle_hour_and_replaced_after_more() {
    for (idle_ms, producer) in [(3_600_000, PRODUCER), (3_600_001, 8)] {
        let mut script = Script::new(one_by_one());
        script.send(0, "a0");
        let call = script.call();
        script.answer(&call, vec![ack(0)]);
        script.wait(idle_ms);
        script.assert_no_init();
        let a1 = script.send(0, "a1");
        if producer != PRODUCER {
            script.assert_no_call();
            assert_eq!(script.init().1, None, "a fresh id; there is nothing to recover");
            let answer = script::init_answer(producer, 0, Vec::new());
            script.handle(Event::InitAnswered { init: producer_svc::session::InitId(1), answer });
        }
        script.assert_no_init();
        let call = script.call();
        let base = if producer == PRODUCER { 1 } else { 0 };
        assert_eq!((tags(&call), call.batches[0].tag.map(|tag| tag.producer.get())), (vec![(0, base)], Some(producer)));
        script.answer(&call, vec![ack(1)]);
        assert_eq!(script.outcome(a1), Some(&appended(0, 1)));
    }
}

#[test]
fn an_idle_id_stays_while_a_batch_tagged_with_it_is_unresolved() {
    let day = Duration::from_secs(24 * 3600);
    let mut script = Script::new(SessionConfig { delivery_timeout: day, ..one_by_one() });
    let a0 = script.send(0, "a0");
    let call = script.call();
    script.wait(2 * 3_600_000);
    script.send(0, "a1");
    script.assert_no_init();
    assert_eq!(tags(&script.call()), [(0, 1)]);
    script.answer(&call, vec![ack(0)]);
    assert_eq!(script.outcome(a0), Some(&appended(0, 0)));
}

#[test]
fn an_idle_id_is_not_replaced_for_nothing() {
    let mut script = Script::new(one_by_one());
    script.wait(100 * 3_600_000);
    script.assert_no_init();
}

#[test]
fn the_jitter_comes_from_the_seed() {
    let at = |seed| {
        let mut session = producer_svc::session::Session::new(one_by_one(), seed);
        let init = producer_svc::session::InitId(0);
        let failure = script::failure(FailureKind::InDoubt);
        session.handle(Event::InitFailed { init, failure }, oncelog_proto::Monotonic::default());
        session.next_wakeup()
    };
    assert_eq!(at(1), at(1));
    assert_ne!(at(1), at(2));
}
