//! Order among callers, what holds without idempotence, and what is not judged.

use oncelog_verify::{
    Log, PartitionLog, Rule,
    history::{Began, CallId, CallerId, Digest, Event, FORMAT, Line, Place, SendCalled, SendOutcome, Sight},
    judge,
};

use crate::story::*;

#[test]
fn records_of_one_caller_keep_their_order_and_concurrent_ones_need_not() {
    let mut log = Log::default();
    let mut partition = PartitionLog::new(p0(), 0, 4);
    for offset in 0..4 {
        partition.push(place(offset), None, None, &[Digest(offset.unsigned_abs())]);
    }
    log.add(partition);
    let within = |records: [u64; 2]| {
        story(|s| {
            s.send(0, &[2, 3]);
            let call = s.send(1, &records);
            s.accepted(call, &records.map(|record| i64::try_from(record).expect("small")));
        })
    };
    holds(&log, &within([0, 1]));
    violates(Rule::Order, &log, &within([1, 0]));
    let calls = |first: i64, second: i64, caller: u64, concurrent: bool, streamed: bool| {
        let mut story = story(|s| {
            s.send(0, &[2, 3]);
            let one = s.send(1, &[first.unsigned_abs()]);
            if concurrent {
                let two = s.send(caller, &[second.unsigned_abs()]);
                s.accepted(one, &[first]).accepted(two, &[second]);
            } else {
                s.accepted(one, &[first]);
                let two = s.send(caller, &[second.unsigned_abs()]);
                s.accepted(two, &[second]);
            }
        });
        for event in &mut story.events {
            if let Event::SendCalled(send) = event {
                send.streamed = streamed;
            }
        }
        story
    };
    holds(&log, &calls(0, 1, 1, false, false));
    holds(&log, &calls(1, 0, 2, false, false));
    holds(&log, &calls(1, 0, 1, true, false));
    violates(Rule::Order, &log, &calls(1, 0, 1, false, false));
    holds(&log, &calls(0, 1, 1, true, true));
    violates(Rule::Order, &log, &calls(1, 0, 1, true, true));
}

#[test]
fn order_of_a_stream_holds_for_what_is_unknown_and_in_the_log() {
    let log = untagged(&[0, 1, 2]);
    let sent = |records: [u64; 3], streamed: bool, accepted: &[usize]| {
        let mut story = story(|s| {
            let calls = records.map(|record| s.send(1, &[record]));
            for at in accepted {
                let outcome = SendOutcome::Accepted {
                    partition: 0,
                    place: Place { offset: i64::try_from(records[*at]).expect("small"), append_time: 1_000 },
                };
                s.event(Event::SendAnswered { call: calls[*at], outcomes: vec![outcome] });
            }
        });
        for event in &mut story.events {
            if let Event::SendCalled(send) = event {
                send.streamed = streamed;
            }
        }
        story
    };
    holds(&log, &sent([0, 1, 2], true, &[]));
    holds(&log, &sent([0, 1, 2], true, &[1]));
    violates(Rule::Order, &log, &sent([0, 2, 1], true, &[]));
    violates(Rule::Order, &log, &sent([1, 0, 2], true, &[1]));
    violates(Rule::Order, &log, &sent([0, 2, 1], true, &[1]));
    // Of those that were answered it is said once.
    assert_eq!(violates(Rule::Order, &log, &sent([1, 0, 2], true, &[0, 1])).violation_count, 1);
    // Calls that go on at the same time may stand either way.
    holds(&log, &sent([2, 1, 0], false, &[]));
    // Which of two equal ones is which, nobody can tell.
    holds(&untagged(&[1, 0, 0]), &sent([0, 1, 0], true, &[]));
}

#[test]
fn without_idempotence_what_is_accepted_is_there_at_least_once() {
    let sent = |repeats: bool, offsets: [i64; 2]| {
        let mut story = without_times(&story(|s| {
            for (record, offset) in [7, 8].into_iter().zip(offsets) {
                let call = s.send(1, &[record]);
                s.accepted(call, &[offset]);
            }
        }));
        for event in &mut story.events {
            if let Event::SendCalled(send) = event {
                (send.repeats, send.streamed) = (repeats, true);
            }
        }
        story
    };
    let twice = untagged(&[7, 8, 7]);
    holds(&twice, &sent(true, [0, 1]));
    violates(Rule::I2, &twice, &sent(false, [0, 1]));
    let exchanged = untagged(&[8, 7]);
    holds(&exchanged, &sent(true, [1, 0]));
    violates(Rule::Order, &exchanged, &sent(false, [1, 0]));
    for repeats in [true, false] {
        violates(Rule::I1, &untagged(&[7]), &sent(repeats, [0, 1]));
    }
}

#[test]
fn a_deleted_topic_takes_its_records_along_and_its_duplicates_are_still_seen() {
    let deleted = |beside: bool| {
        story(|s| {
            let call = s.send(1, &[0]);
            if !beside {
                s.accepted(call, &[0]);
            }
            let delete = s.call();
            s.event(Event::DeleteCalled { call: delete, topic: "t".into() });
            s.event(Event::DeleteAnswered { call: delete, done: true });
            if beside {
                s.accepted(call, &[0]);
            }
        })
    };
    let empty = untagged(&[]);
    let report = holds(&empty, &deleted(false));
    assert_eq!((report.unjudged.deleted, report.counts.lost), (1, 0));
    assert_eq!(holds(&empty, &deleted(true)).unjudged.deleted, 1);

    let again = untagged(&[0]);
    violates(Rule::I2, &again, &deleted(false));
    // It may have been written to the new topic.
    holds(&again, &deleted(true));
}

#[test]
fn trimmed_records_are_counted_and_not_passed_in_silence() {
    let mut log = Log::default();
    log.add(partition(10, &[tag(1, 0, 10)]));
    let story = story(|s| {
        s.fresh(1).acked(tag(1, 0, 0), 0).acked(tag(1, 0, 10), 10);
        let call = s.send(1, &[77]);
        s.accepted(call, &[3]);
    });
    let report = holds(&log, &story);
    assert_eq!(report.unjudged.trimmed, 3);
    assert_eq!(report.unjudged.total(), 3);
}

#[test]
fn what_is_claimed_of_a_topic_that_was_not_read_is_not_judged() {
    let story = story(|s| {
        s.fresh(1).acked(tag(1, 0, 0), 0).recover(1, 0, "x", fenced(2, &[0]));
        s.saw(Sight::Ends { partition: p0(), log_start: 0, log_end: 2 });
        let call = s.send(1, &[5]);
        s.accepted(call, &[7]);
    });
    let report = holds(&Log::of(&["other".to_owned()]), &story);
    assert_eq!(report.unjudged.deleted, 4);
    assert_eq!(report.counts.lost, 0);
}

#[test]
fn a_history_that_contradicts_itself_is_no_history() {
    let judged = |events: &[Event]| {
        let lines: Vec<_> = events.iter().map(|event| Line { at: 0, event: event.clone() }).collect();
        judge(&Log::default(), &lines).map_err(|error| error.to_string())
    };
    let answer = Event::SendAnswered { call: CallId(1), outcomes: vec![SendOutcome::Unknown(2)] };
    assert!(
        judged(std::slice::from_ref(&answer)).expect_err("no call").starts_with("line 1 of the history: an answer to call 1")
    );
    let send = SendCalled {
        call: CallId(1),
        caller: CallerId(0),
        streamed: false,
        repeats: false,
        topic: "t".into(),
        partition: None,
        records: vec![Digest(0)],
    };
    let call = Event::SendCalled(send);
    assert!(judged(&[call.clone(), call.clone()]).expect_err("twice").contains("made before"));
    assert!(judged(&[call, answer]).expect_err("too many").contains("more outcomes than the 1 records"));
    let newer = Event::Began(Began { format: FORMAT + 1, alone: true, once: false, expiration_ms: None });
    assert!(judged(&[newer]).expect_err("newer").contains("format 1"));
}
