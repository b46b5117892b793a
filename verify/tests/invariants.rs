//! For each invariant a history that violates exactly it, beside one that just does not.

use oncelog_proto::{ErrorCode, Fault};
use oncelog_verify::{
    Evidence, Log, PartitionLog, Report, Rule,
    history::{
        Began, CallId, CallerId, Digest, Event, FORMAT, FencedPartition, InitAnswer, InitCalled, Line, Partition, Place,
        ProduceAnswer, ProduceCalled, Producer, SendCalled, SendOutcome, Sight, Tag, WindowEntry,
    },
    judge, judge_log,
    log::Stand,
    wire,
};
use tonic::Status;

/// The only partition of most tests.
fn p0() -> Partition {
    Partition::new("t", 0)
}

fn place(offset: i64) -> Place {
    Place { offset, append_time: 1_000 + offset.unsigned_abs() }
}

fn tag(id: i64, epoch: i32, base_sequence: i64) -> Tag {
    Tag { producer: Producer { id, epoch }, base_sequence }
}

/// A partition of batches of two records each, one behind the other; the digests are the offsets.
fn partition(log_start: i64, tags: &[Tag]) -> PartitionLog {
    let end = log_start + 2 * i64::try_from(tags.len()).expect("few");
    let mut partition = PartitionLog::new(p0(), log_start, end);
    for (offset, tag) in (log_start..).step_by(2).zip(tags) {
        let digest = |offset: i64| Digest(offset.unsigned_abs());
        partition.push(place(offset), Some(*tag), Some(checksum(*tag)), &[digest(offset), digest(offset + 1)]);
    }
    partition
}

fn log(tags: &[Tag]) -> Log {
    let mut log = Log::default();
    log.add(partition(0, tags));
    log
}

/// One batch of records without a tag; none if there are no records.
fn untagged(records: &[u64]) -> Log {
    let mut partition = PartitionLog::new(p0(), 0, i64::try_from(records.len()).expect("few"));
    if !records.is_empty() {
        partition.push(place(0), None, None, &records.iter().copied().map(Digest).collect::<Vec<_>>());
    }
    let mut log = Log::default();
    log.add(partition);
    log
}

/// What a batch holds; that of another epoch holds something else.
fn checksum(tag: Tag) -> u32 {
    u32::try_from(tag.base_sequence).expect("small") + 100 * tag.producer.epoch.unsigned_abs()
}

/// A history that is written down call by call.
struct Story {
    events: Vec<Event>,
    calls: u64,
}

impl Story {
    fn new() -> Self {
        Self {
            events: vec![Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms: Some(1_000) })],
            calls: 0,
        }
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    fn event(&mut self, event: Event) -> &mut Self {
        self.events.push(event);
        self
    }

    fn fresh(&mut self, id: i64) -> &mut Self {
        let call = self.call();
        let producer = Producer { id, epoch: 0 };
        self.event(Event::InitCalled(InitCalled { call, recover: None, token: String::new() }));
        self.event(Event::InitAnswered { call, answer: InitAnswer::Granted { producer, fenced: Vec::new() } })
    }

    fn ask_recovery(&mut self, id: i64, epoch: i32, token: &str) -> CallId {
        let call = self.call();
        let recover = Some(Producer { id, epoch });
        self.event(Event::InitCalled(InitCalled { call, recover, token: token.into() }));
        call
    }

    fn recover(&mut self, id: i64, epoch: i32, token: &str, fenced: Vec<FencedPartition>) -> &mut Self {
        let call = self.ask_recovery(id, epoch, token);
        let producer = Producer { id, epoch: epoch + 1 };
        self.event(Event::InitAnswered { call, answer: InitAnswer::Granted { producer, fenced } })
    }

    fn produce(&mut self, tag: Tag) -> CallId {
        self.produce_named(tag, None)
    }

    fn produce_named(&mut self, tag: Tag, batch: Option<u64>) -> CallId {
        let call = self.call();
        let checksum = checksum(tag);
        self.event(Event::ProduceCalled(ProduceCalled {
            call,
            partition: p0(),
            tag: Some(tag),
            record_count: 2,
            checksum,
            batch,
        }));
        call
    }

    fn answered(&mut self, call: CallId, answer: ProduceAnswer) -> &mut Self {
        self.event(Event::ProduceAnswered { call, answer })
    }

    fn acked(&mut self, tag: Tag, offset: i64) -> &mut Self {
        let call = self.produce(tag);
        self.answered(call, ProduceAnswer::Acknowledged { place: place(offset), duplicate: false })
    }

    fn told(&mut self, tag: Tag, answer: ProduceAnswer) -> &mut Self {
        let call = self.produce(tag);
        self.answered(call, answer)
    }

    fn send(&mut self, caller: u64, records: &[u64]) -> CallId {
        let call = self.call();
        let records = records.iter().map(|record| Digest(*record)).collect();
        let send = SendCalled {
            call,
            caller: CallerId(caller),
            streamed: false,
            repeats: false,
            topic: "t".into(),
            partition: None,
            records,
        };
        self.event(Event::SendCalled(send));
        call
    }

    fn accepted(&mut self, call: CallId, offsets: &[i64]) -> &mut Self {
        let outcomes = offsets.iter().map(|offset| SendOutcome::Accepted { partition: 0, place: place(*offset) }).collect();
        self.event(Event::SendAnswered { call, outcomes })
    }

    fn saw(&mut self, sight: Sight) -> &mut Self {
        let call = self.call();
        self.event(Event::LookCalled { call });
        self.event(Event::Saw { call, sight })
    }

    fn killed(&mut self) -> &mut Self {
        self.event(Event::BrokerDied);
        self.event(Event::BrokerStarted)
    }

    /// Every event a millisecond after the one before.
    fn lines(&self) -> Vec<Line> {
        (0..).step_by(1_000).zip(&self.events).map(|(at, event)| Line { at, event: event.clone() }).collect()
    }

    fn judged(&self, log: &Log) -> Report {
        judge(log, &self.lines()).expect("a history")
    }
}

fn story(tell: impl FnOnce(&mut Story)) -> Story {
    let mut story = Story::new();
    tell(&mut story);
    story
}

#[track_caller]
fn holds(log: &Log, story: &Story) -> Report {
    let report = story.judged(log);
    assert!(report.is_clean(), "{:#?}", report.violations);
    report
}

#[track_caller]
fn violates(rule: Rule, log: &Log, story: &Story) -> Report {
    let report = story.judged(log);
    assert_eq!(report.rules(), [rule], "{:#?}", report.violations);
    assert!(report.violations.iter().all(|violation| !violation.evidence.is_empty()), "{:#?}", report.violations);
    report
}

fn window(bases: &[i64]) -> Vec<WindowEntry> {
    let entry = |base: &i64| WindowEntry {
        base_sequence: *base,
        record_count: 2,
        place: place(*base),
        checksum: checksum(tag(1, 0, *base)),
    };
    bases.iter().map(entry).collect()
}

fn fenced(next_sequence: i64, bases: &[i64]) -> Vec<FencedPartition> {
    vec![FencedPartition { partition: p0(), next_sequence, window: window(bases) }]
}

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

/// The records of a batch share its time, while these stories give each offset its own.
fn without_times(story: &Story) -> Story {
    let mut events = story.events.clone();
    for event in &mut events {
        let Event::SendAnswered { outcomes, .. } = event else { continue };
        for outcome in outcomes {
            if let SendOutcome::Accepted { place, .. } = outcome {
                place.append_time = 1_000;
            }
        }
    }
    Story { events, calls: story.calls }
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
