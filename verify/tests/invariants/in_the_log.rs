//! I1, I2 and I3: what stands in the log, how often, and in which order.

use oncelog_proto::{ErrorCode, Fault};
use oncelog_verify::{
    Evidence, Log, PartitionLog, Rule,
    history::{Began, CallerId, Digest, Event, FORMAT, Place, SendCalled, SendOutcome, Tag},
    judge_log, wire,
};
use tonic::Status;

use crate::story::*;

#[test]
fn i1_an_acknowledged_batch_that_is_not_in_the_log_is_lost() {
    let story = story(|s| {
        s.fresh(1).acked(tag(1, 0, 0), 0).acked(tag(1, 0, 2), 2);
    });
    assert_eq!(holds(&log(&[tag(1, 0, 0), tag(1, 0, 2)]), &story).counts.lost, 0);
    let report = violates(Rule::I1, &log(&[tag(1, 0, 0)]), &story);
    assert_eq!(report.counts.lost, 2);
    assert_eq!(report.violations[0].evidence[..2], [Evidence::Line(6), Evidence::Line(7)]);
}

#[test]
fn i1_other_content_at_the_place_that_was_acknowledged() {
    let told = |stored: u32| {
        let mut partition = PartitionLog::new(p0(), 0, 2);
        partition.push(place(0), Some(tag(1, 0, 0)), Some(stored), &[Digest(0), Digest(1)]);
        let mut log = Log::default();
        log.add(partition);
        log
    };
    let story = story(|s| {
        s.events[0] = Event::Began(Began { format: FORMAT, alone: false, once: false, expiration_ms: None });
        s.fresh(1).acked(tag(1, 0, 0), 0);
    });
    holds(&told(checksum(tag(1, 0, 0))), &story);
    assert_eq!(violates(Rule::I1, &told(7), &story).counts.lost, 2);
}

#[test]
fn an_offset_at_which_nothing_can_be_read_is_a_fault() {
    let read = |offsets: &[i64]| {
        let mut partition = PartitionLog::new(p0(), 0, 4);
        offsets.iter().for_each(|offset| partition.push(place(*offset), None, None, &[Digest(offset.unsigned_abs())]));
        let mut log = Log::default();
        log.add(partition);
        log
    };
    let judged = |log: &Log| {
        let report = judge_log(log);
        assert!(report.violations.iter().all(|violation| !violation.evidence.is_empty()), "{:?}", report.violations);
        (report.rules(), report.violation_count, report.unjudged.missing_offsets)
    };
    assert_eq!(judged(&read(&[0, 1, 2, 3])), (vec![], 0, 0));
    assert_eq!(judged(&read(&[0, 3])), (vec![Rule::I1], 1, 0));
    assert_eq!(judged(&read(&[1, 2])), (vec![Rule::I1], 2, 0));
    // Whoever read has named what is damaged.
    let mut damaged = read(&[0, 3]);
    damaged.note_damage();
    assert_eq!(judged(&damaged), (vec![], 0, 2));
}

#[test]
fn i1_an_accepted_record_that_is_not_in_the_log_is_lost_and_an_unknown_one_is_not() {
    let sends = story(|s| {
        let call = s.send(1, &[0, 1]);
        s.event(Event::SendAnswered {
            call,
            outcomes: vec![
                SendOutcome::Accepted { partition: 0, place: place(0) },
                SendOutcome::Accepted { partition: 0, place: Place { offset: 1, append_time: place(0).append_time } },
            ],
        });
        let call = s.send(1, &[2, 3]);
        s.event(Event::SendAnswered { call, outcomes: vec![SendOutcome::Unknown(2)] });
        // Never answered.
        s.send(1, &[4]);
    });
    assert_eq!(holds(&untagged(&[0, 1, 2]), &without_times(&sends)).counts.unknown_in_log, 1);
    let report = violates(Rule::I1, &untagged(&[0]), &without_times(&sends));
    assert_eq!((report.counts.lost, report.counts.unknown, report.counts.accepted), (1, 3, 2));
}

#[test]
fn i1_two_acknowledgements_of_equal_records_need_two_records() {
    let story = without_times(&story(|s| {
        let call = s.send(1, &[7]);
        s.accepted(call, &[-1]);
        let call = s.send(2, &[7]);
        s.accepted(call, &[-1]);
    }));
    holds(&untagged(&[7, 7]), &story);
    let report = violates(Rule::I1, &untagged(&[7]), &story);
    assert_eq!(report.violations[0].evidence.len(), 5, "both calls, both answers and the one record");
}

#[test]
fn i2_a_tag_that_is_in_the_log_twice() {
    let story = story(|s| {
        s.fresh(1).acked(tag(1, 0, 0), 0);
        s.produce(tag(1, 0, 2));
        s.produce(tag(1, 0, 2));
    });
    holds(&log(&[tag(1, 0, 0), tag(1, 0, 2)]), &story);
    let twice = log(&[tag(1, 0, 0), tag(1, 0, 2), tag(1, 0, 2)]);
    assert_eq!(violates(Rule::I2, &twice, &story).counts.duplicated, 2);
}

#[test]
fn i2_records_that_are_in_the_log_under_two_tags() {
    let story = |second: u64| {
        story(|s| {
            s.fresh(1);
            s.produce_named(tag(1, 0, 0), Some(1));
            s.ask_recovery(1, 0, "x");
            s.produce_named(tag(1, 1, 0), Some(second));
        })
    };
    let both = log(&[tag(1, 0, 0), tag(1, 1, 0)]);
    holds(&both, &story(2));
    violates(Rule::I2, &both, &story(1));
}

#[test]
fn i2_a_record_of_send_that_is_in_the_log_more_often_than_sent() {
    let unanswered = story(|s| {
        s.send(1, &[7]);
    });
    holds(&untagged(&[]), &unanswered);
    holds(&untagged(&[7]), &unanswered);
    assert_eq!(violates(Rule::I2, &untagged(&[7, 7]), &unanswered).counts.duplicated, 1);
    let refused = story(|s| {
        let call = s.send(1, &[7]);
        s.event(Event::SendAnswered { call, outcomes: vec![SendOutcome::Refused(1)] });
    });
    holds(&untagged(&[]), &refused);
    violates(Rule::I2, &untagged(&[7]), &refused);
}

#[test]
fn a_record_that_stands_in_another_partition_than_named() {
    let sent = |partition: Option<i32>, accepted: Option<i32>| {
        story(|s| {
            let call = s.call();
            let (topic, records) = ("t".to_owned(), vec![Digest(0)]);
            s.event(Event::SendCalled(SendCalled {
                call,
                caller: CallerId(1),
                streamed: false,
                repeats: false,
                topic,
                partition,
                records,
            }));
            if let Some(partition) = accepted {
                s.event(Event::SendAnswered { call, outcomes: vec![SendOutcome::Accepted { partition, place: place(0) }] });
            }
        })
    };
    let log = untagged(&[0]);
    for named in [None, Some(0)] {
        holds(&log, &sent(named, None));
        holds(&log, &sent(named, Some(0)));
    }
    for accepted in [None, Some(0)] {
        assert_eq!(violates(Rule::I2, &log, &sent(Some(1), accepted)).violation_count, 1);
    }
}

#[test]
fn what_a_draining_producer_says_was_not_taken_in_is_not_in_the_log() {
    let ended = |status: &Status| {
        story(|s| {
            let call = s.send(1, &[7]);
            s.event(Event::SendAnswered { call, outcomes: wire::send_stream_ended(1, status) });
        })
    };
    let draining = Fault::new(ErrorCode::BrokerNotAvailable, "the service is about to end").to_status();
    holds(&untagged(&[]), &ended(&draining));
    violates(Rule::I2, &untagged(&[7]), &ended(&draining));
    // As a connection looks that broke.
    holds(&untagged(&[7]), &ended(&Status::unavailable("broken")));
}

#[test]
fn i2_what_nobody_sent_is_a_fault_only_where_nobody_else_writes() {
    let elsewhere = story(|s| {
        s.fresh(1);
    });
    assert_eq!(holds(&log(&[tag(2, 0, 0)]), &elsewhere).counts.of_others, 2, "a topic that this history does not speak of");
    violates(Rule::I2, &log(&[tag(1, 0, 0)]), &elsewhere);
    let mut other = story(|s| {
        s.fresh(1);
        s.send(1, &[99]);
    });
    let report = violates(Rule::I2, &log(&[tag(2, 0, 0)]), &other);
    assert_eq!(report.counts.of_others, 2);
    other.events[0] = Event::Began(Began { format: FORMAT, alone: false, once: false, expiration_ms: None });
    holds(&log(&[tag(2, 0, 0)]), &other);
}

#[test]
fn i3_a_gap_an_exchange_and_a_late_beginning() {
    let follows = |tags: &[Tag]| judge_log(&log(tags));
    assert!(follows(&[tag(1, 0, 0), tag(1, 0, 2), tag(1, 1, 0)]).is_clean());
    assert!(follows(&[tag(1, 0, 0), tag(2, 0, 0), tag(1, 0, 2)]).is_clean());
    for broken in [&[tag(1, 0, 0), tag(1, 0, 4)][..], &[tag(1, 0, 2)], &[tag(1, 0, 0), tag(1, 0, 1)]] {
        assert_eq!(follows(broken).rules(), [Rule::I3], "{broken:?}");
    }
    assert_eq!(follows(&[tag(1, 0, 0), tag(1, 0, 4), tag(1, 0, 2)]).rules(), [Rule::I3]);
}

#[test]
fn i3_where_the_beginning_is_trimmed_a_later_one_is_counted_as_unjudged() {
    let mut log = Log::default();
    log.add(partition(10, &[tag(1, 0, 10), tag(1, 0, 12)]));
    let report = judge_log(&log);
    assert!(report.is_clean());
    assert_eq!(report.unjudged.trimmed, 1);
}
