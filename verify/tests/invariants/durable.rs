//! I7 and I8: nobody is told what is not there, and nothing is acknowledged by a broker whose disk failed.

use oncelog_verify::{
    Log, Rule,
    history::{Began, Digest, Event, FORMAT, ProduceAnswer, Producer, Sight},
};

use crate::story::*;

#[test]
fn i7_what_was_told_or_read_is_not_in_the_log() {
    let log = log(&[tag(1, 0, 0)]);
    let told = |answer: ProduceAnswer| {
        story(|s| {
            s.fresh(1);
            s.produce(tag(1, 0, 0));
            s.told(tag(1, 0, 2), answer);
        })
    };
    holds(&log, &told(ProduceAnswer::OutOfOrder { expected_sequence: 2 }));
    violates(Rule::I7, &log, &told(ProduceAnswer::OutOfOrder { expected_sequence: 4 }));
    violates(Rule::I7, &log, &told(ProduceAnswer::DuplicateBelowWindow));
    let saw = |sight: Sight| {
        story(|s| {
            s.fresh(1);
            s.produce(tag(1, 0, 0));
            s.saw(sight);
        })
    };
    let records = |offset, digest| Sight::Records { partition: p0(), offset, records: vec![Digest(digest)] };
    holds(&log, &saw(records(1, 1)));
    violates(Rule::I7, &log, &saw(records(1, 5)));
    violates(Rule::I7, &log, &saw(records(2, 2)));
    let ends = |log_end| Sight::Ends { partition: p0(), log_start: 0, log_end };
    holds(&log, &saw(ends(2)));
    violates(Rule::I7, &log, &saw(ends(3)));
    let next = |next_sequence| Sight::Next { partition: p0(), producer: Producer { id: 1, epoch: 0 }, next_sequence };
    holds(&log, &saw(next(2)));
    violates(Rule::I7, &log, &saw(next(3)));
}

#[test]
fn i7_a_refusal_of_what_was_appended_by_the_same_call() {
    let told = |answers: &[ProduceAnswer], once: bool| {
        story(|s| {
            s.events[0] = Event::Began(Began { format: FORMAT, alone: true, once, expiration_ms: None });
            s.fresh(1);
            s.ask_recovery(1, 0, "x");
            for answer in answers {
                s.told(tag(1, 0, 0), *answer);
            }
        })
    };
    let log = log(&[tag(1, 0, 0)]);
    let early = ProduceAnswer::OutOfOrder { expected_sequence: 0 };
    for refusal in [ProduceAnswer::Refused, ProduceAnswer::Fenced, early] {
        violates(Rule::I7, &log, &told(&[refusal], true));
        violates(Rule::I7, &log, &told(&[refusal, ProduceAnswer::Refused], true));
        // Another call may have brought it there, or a copy of this one.
        holds(&log, &told(&[refusal, ProduceAnswer::Unknown], true));
        holds(&log, &told(&[refusal], false));
    }
    // Nor is it said of a call that is not answered yet.
    let mut open = told(&[ProduceAnswer::Refused], true);
    open.produce(tag(1, 0, 0));
    holds(&log, &open);
}

#[test]
fn i7_a_trim_that_was_seen_and_is_undone() {
    let mut log = Log::default();
    log.add(partition(10, &[tag(1, 0, 10)]));
    let saw = |log_start: i64| {
        story(|s| {
            s.fresh(1);
            s.produce(tag(1, 0, 10));
            s.saw(Sight::Ends { partition: p0(), log_start, log_end: 12 });
        })
    };
    holds(&log, &saw(8));
    holds(&log, &saw(10));
    violates(Rule::I7, &log, &saw(11));
}

#[test]
fn i7_a_recovery_tells_of_what_is_not_in_the_log() {
    let recovered = |next: i64, bases: &[i64]| {
        story(|s| {
            s.fresh(1);
            s.produce(tag(1, 0, 0));
            s.recover(1, 0, "x", fenced(next, bases));
        })
    };
    holds(&log(&[tag(1, 0, 0)]), &recovered(2, &[0]));
    violates(Rule::I7, &log(&[tag(1, 0, 0)]), &recovered(4, &[0, 2]));
    violates(Rule::I7, &log(&[]), &recovered(2, &[0]));
}

#[test]
fn i8_an_acknowledgement_after_the_disk_failed_and_before_a_restart() {
    let log = log(&[tag(1, 0, 0)]);
    let failing = |restarted: bool, called_before: bool| {
        story(|s| {
            s.fresh(1);
            let early = called_before.then(|| s.produce(tag(1, 0, 0)));
            s.event(Event::DiskFailed);
            if restarted {
                s.killed();
            }
            let call = early.unwrap_or_else(|| s.produce(tag(1, 0, 0)));
            s.answered(call, ProduceAnswer::Acknowledged { place: place(0), duplicate: false });
        })
    };
    holds(&log, &failing(true, false));
    // The answer may have been on its way when the disk failed.
    holds(&log, &failing(false, true));
    violates(Rule::I8, &log, &failing(false, false));
}
