//! I4, I5 and I6: what a producer is told, across restarts and epochs.

use oncelog_verify::{
    Log, Rule,
    history::{Began, Event, FORMAT, InitAnswer, Place, ProduceAnswer, Producer, Sight, Tag},
    judge, judge_log,
    log::Stand,
};

use crate::story::*;

#[test]
fn i4_a_repetition_is_told_another_place_or_time() {
    let log = log(&[tag(1, 0, 0), tag(1, 0, 2)]);
    let again = |place: Place| {
        story(|s| {
            s.fresh(1).acked(tag(1, 0, 0), 0).acked(tag(1, 0, 2), 2);
            s.told(tag(1, 0, 0), ProduceAnswer::Acknowledged { place, duplicate: true });
        })
    };
    let report = holds(&log, &again(place(0)));
    assert_eq!((report.counts.duplicates_refused, report.counts.retried), (1, 1));
    violates(Rule::I4, &log, &again(place(2)));
    violates(Rule::I4, &log, &again(Place { offset: 0, append_time: 7 }));
}

#[test]
fn i4_holds_also_for_what_is_trimmed_since() {
    let mut log = Log::default();
    log.add(partition(10, &[tag(1, 0, 10)]));
    let twice = |second: i64| {
        story(|s| {
            s.fresh(1).acked(tag(1, 0, 0), 0).acked(tag(1, 0, 0), second).acked(tag(1, 0, 10), 10);
        })
    };
    assert_eq!(holds(&log, &twice(0)).unjudged.trimmed, 3);
    violates(Rule::I4, &log, &twice(2));
}

#[test]
fn i4_a_conflict_with_itself() {
    let conflict = |tag: Tag| {
        story(|s| {
            s.fresh(1);
            s.told(tag, ProduceAnswer::Conflict);
        })
    };
    violates(Rule::I4, &log(&[tag(1, 0, 0)]), &conflict(tag(1, 0, 0)));
}

#[test]
fn i4_a_repetition_of_one_of_the_last_five_batches_is_told_that_its_place_is_forgotten() {
    let six = [0, 2, 4, 6, 8, 10].map(|base| tag(1, 0, base));
    let told = |repeated: Tag| {
        story(|s| {
            s.fresh(1);
            six.iter().for_each(|tag| {
                s.acked(*tag, tag.base_sequence);
            });
            s.told(repeated, ProduceAnswer::DuplicateBelowWindow);
        })
    };
    holds(&log(&six), &told(six[0]));
    violates(Rule::I4, &log(&six), &told(six[1]));
}

#[test]
fn i5_a_broker_that_forgot_what_it_had_acknowledged() {
    let log = log(&[tag(1, 0, 0), tag(1, 0, 2)]);
    let expected = |expected_sequence: i64| {
        story(|s| {
            s.fresh(1).acked(tag(1, 0, 0), 0).acked(tag(1, 0, 2), 2).killed();
            s.told(tag(1, 0, 8), ProduceAnswer::OutOfOrder { expected_sequence });
        })
    };
    holds(&log, &expected(4));
    violates(Rule::I5, &log, &expected(2));
}

#[test]
fn i5_an_answer_that_was_under_way_may_be_older_than_what_is_known() {
    let log = log(&[tag(1, 0, 0)]);
    holds(
        &log,
        &story(|s| {
            s.fresh(1);
            let early = s.produce(tag(1, 0, 2));
            s.acked(tag(1, 0, 0), 0).answered(early, ProduceAnswer::OutOfOrder { expected_sequence: 0 });
        }),
    );
}

#[test]
fn i5_a_window_that_lost_an_entry() {
    let bases = [0, 2, 4, 6, 8, 10];
    let log = log(&bases.map(|base| tag(1, 0, base)));
    let recovered = |window: &[i64]| {
        story(|s| {
            s.fresh(1);
            for base in bases {
                s.acked(tag(1, 0, base), base);
            }
            s.killed().recover(1, 0, "x", fenced(12, window));
        })
    };
    holds(&log, &recovered(&[2, 4, 6, 8, 10]));
    violates(Rule::I5, &log, &recovered(&[4, 6, 8, 10]));
    violates(Rule::I4, &log, &recovered(&[0, 4, 6, 8, 10]));
}

#[test]
fn i5_a_description_after_a_restart_falls_behind_or_is_not_what_the_log_says() {
    let mut log = log(&[tag(1, 0, 0)]);
    let described = |next_sequence: i64| {
        story(|s| {
            let producer = Producer { id: 1, epoch: 0 };
            s.fresh(1).acked(tag(1, 0, 0), 0).killed().saw(Sight::Next { partition: p0(), producer, next_sequence });
        })
    };
    holds(&log, &described(2));
    violates(Rule::I5, &log, &described(0));
    let stand = |next_sequence| Stand { producer: Producer { id: 1, epoch: 0 }, partition: p0(), next_sequence };
    log.add_stand(stand(2));
    assert!(judge_log(&log).is_clean());
    log.add_stand(stand(1));
    assert_eq!(judge_log(&log).rules(), [Rule::I5]);
}

#[test]
fn i5_an_id_that_is_forgotten_too_early_or_handed_out_twice() {
    let log = log(&[tag(1, 0, 0)]);
    let unknown = |after_ms: u64, expiration_ms: Option<u64>| {
        let story = story(|s| {
            s.fresh(1).acked(tag(1, 0, 0), 0).told(tag(1, 0, 2), ProduceAnswer::UnknownProducer);
        });
        let mut lines = story.lines();
        lines[0].event = Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms });
        // The last one that it was heard of is that of the acknowledged batch.
        lines[6].at = lines[3].at + after_ms * 1_000;
        judge(&log, &lines).expect("a history")
    };
    assert_eq!(unknown(999, Some(1_000)).rules(), [Rule::I5]);
    assert!(unknown(1_000, Some(1_000)).is_clean());
    let untold = unknown(1, None);
    assert!(untold.is_clean());
    assert_eq!(untold.unjudged.expiry, 1);
    let twice = story(|s| {
        s.fresh(1).fresh(2).fresh(1);
        s.produce(tag(1, 0, 0));
    });
    violates(Rule::I5, &log, &twice);
}

#[test]
fn i5_a_producer_is_told_that_it_was_fenced_and_nobody_did_it() {
    let fenced = |recovered: bool| {
        story(|s| {
            s.fresh(1);
            if recovered {
                s.ask_recovery(1, 0, "x");
            }
            s.told(tag(1, 0, 0), ProduceAnswer::Fenced);
        })
    };
    holds(&log(&[]), &fenced(true));
    violates(Rule::I5, &log(&[]), &fenced(false));
}

#[test]
fn i6_the_older_epoch_writes_after_the_newer_one() {
    assert_eq!(judge_log(&log(&[tag(1, 0, 0), tag(1, 1, 0), tag(1, 0, 2)])).rules(), [Rule::I6]);
    let late = |in_old: bool| {
        story(|s| {
            s.fresh(1).acked(tag(1, 0, 0), 0).recover(1, 0, "x", fenced(2, &[0]));
            if in_old {
                s.produce(tag(1, 0, 2));
            }
        })
    };
    holds(&log(&[tag(1, 0, 0)]), &late(false));
    holds(&log(&[tag(1, 0, 0)]), &late(true));
    violates(Rule::I6, &log(&[tag(1, 0, 0), tag(1, 0, 2)]), &late(true));
}

#[test]
fn i6_an_epoch_is_given_to_two_or_skipped() {
    let twice = |second: &str| {
        story(|s| {
            s.fresh(1).recover(1, 0, "x", Vec::new()).recover(1, 0, second, Vec::new());
        })
    };
    holds(&log(&[]), &twice("x"));
    violates(Rule::I6, &log(&[]), &twice("y"));
    let skipped = story(|s| {
        s.fresh(1);
        let call = s.ask_recovery(1, 0, "x");
        let producer = Producer { id: 1, epoch: 2 };
        s.event(Event::InitAnswered { call, answer: InitAnswer::Granted { producer, fenced: Vec::new() } });
    });
    violates(Rule::I6, &log(&[]), &skipped);
}
