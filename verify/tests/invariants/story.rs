//! Histories, written down call by call, and what judges them.

use oncelog_verify::{
    Log, PartitionLog, Report, Rule,
    history::{
        Began, CallId, CallerId, Digest, Event, FORMAT, FencedPartition, InitAnswer, InitCalled, Line, Partition, Place,
        ProduceAnswer, ProduceCalled, Producer, SendCalled, SendOutcome, Sight, Tag, WindowEntry,
    },
    judge,
};

/// The only partition of most tests.
pub(crate) fn p0() -> Partition {
    Partition::new("t", 0)
}

pub(crate) fn place(offset: i64) -> Place {
    Place { offset, append_time: 1_000 + offset.unsigned_abs() }
}

pub(crate) fn tag(id: i64, epoch: i32, base_sequence: i64) -> Tag {
    Tag { producer: Producer { id, epoch }, base_sequence }
}

/// A partition of batches of two records each, one behind the other; the digests are the offsets.
pub(crate) fn partition(log_start: i64, tags: &[Tag]) -> PartitionLog {
    let end = log_start + 2 * i64::try_from(tags.len()).expect("few");
    let mut partition = PartitionLog::new(p0(), log_start, end);
    for (offset, tag) in (log_start..).step_by(2).zip(tags) {
        let digest = |offset: i64| Digest(offset.unsigned_abs());
        partition.push(place(offset), Some(*tag), Some(checksum(*tag)), &[digest(offset), digest(offset + 1)]);
    }
    partition
}

pub(crate) fn log(tags: &[Tag]) -> Log {
    let mut log = Log::default();
    log.add(partition(0, tags));
    log
}

/// One batch of records without a tag; none if there are no records.
pub(crate) fn untagged(records: &[u64]) -> Log {
    let mut partition = PartitionLog::new(p0(), 0, i64::try_from(records.len()).expect("few"));
    if !records.is_empty() {
        partition.push(place(0), None, None, &records.iter().copied().map(Digest).collect::<Vec<_>>());
    }
    let mut log = Log::default();
    log.add(partition);
    log
}

/// What a batch holds; that of another epoch holds something else.
pub(crate) fn checksum(tag: Tag) -> u32 {
    u32::try_from(tag.base_sequence).expect("small") + 100 * tag.producer.epoch.unsigned_abs()
}

/// A history that is written down call by call.
pub(crate) struct Story {
    pub(crate) events: Vec<Event>,
    pub(crate) calls: u64,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            events: vec![Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms: Some(1_000) })],
            calls: 0,
        }
    }

    pub(crate) fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    pub(crate) fn event(&mut self, event: Event) -> &mut Self {
        self.events.push(event);
        self
    }

    pub(crate) fn fresh(&mut self, id: i64) -> &mut Self {
        let call = self.call();
        let producer = Producer { id, epoch: 0 };
        self.event(Event::InitCalled(InitCalled { call, recover: None, token: String::new() }));
        self.event(Event::InitAnswered { call, answer: InitAnswer::Granted { producer, fenced: Vec::new() } })
    }

    pub(crate) fn ask_recovery(&mut self, id: i64, epoch: i32, token: &str) -> CallId {
        let call = self.call();
        let recover = Some(Producer { id, epoch });
        self.event(Event::InitCalled(InitCalled { call, recover, token: token.into() }));
        call
    }

    pub(crate) fn recover(&mut self, id: i64, epoch: i32, token: &str, fenced: Vec<FencedPartition>) -> &mut Self {
        let call = self.ask_recovery(id, epoch, token);
        let producer = Producer { id, epoch: epoch + 1 };
        self.event(Event::InitAnswered { call, answer: InitAnswer::Granted { producer, fenced } })
    }

    pub(crate) fn produce(&mut self, tag: Tag) -> CallId {
        self.produce_named(tag, None)
    }

    pub(crate) fn produce_named(&mut self, tag: Tag, batch: Option<u64>) -> CallId {
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

    pub(crate) fn answered(&mut self, call: CallId, answer: ProduceAnswer) -> &mut Self {
        self.event(Event::ProduceAnswered { call, answer })
    }

    pub(crate) fn acked(&mut self, tag: Tag, offset: i64) -> &mut Self {
        let call = self.produce(tag);
        self.answered(call, ProduceAnswer::Acknowledged { place: place(offset), duplicate: false })
    }

    pub(crate) fn told(&mut self, tag: Tag, answer: ProduceAnswer) -> &mut Self {
        let call = self.produce(tag);
        self.answered(call, answer)
    }

    pub(crate) fn send(&mut self, caller: u64, records: &[u64]) -> CallId {
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

    pub(crate) fn accepted(&mut self, call: CallId, offsets: &[i64]) -> &mut Self {
        let outcomes = offsets.iter().map(|offset| SendOutcome::Accepted { partition: 0, place: place(*offset) }).collect();
        self.event(Event::SendAnswered { call, outcomes })
    }

    pub(crate) fn saw(&mut self, sight: Sight) -> &mut Self {
        let call = self.call();
        self.event(Event::LookCalled { call });
        self.event(Event::Saw { call, sight })
    }

    pub(crate) fn killed(&mut self) -> &mut Self {
        self.event(Event::BrokerDied);
        self.event(Event::BrokerStarted)
    }

    /// Every event a millisecond after the one before.
    pub(crate) fn lines(&self) -> Vec<Line> {
        (0..).step_by(1_000).zip(&self.events).map(|(at, event)| Line { at, event: event.clone() }).collect()
    }

    pub(crate) fn judged(&self, log: &Log) -> Report {
        judge(log, &self.lines()).expect("a history")
    }
}

pub(crate) fn story(tell: impl FnOnce(&mut Story)) -> Story {
    let mut story = Story::new();
    tell(&mut story);
    story
}

#[track_caller]
pub(crate) fn holds(log: &Log, story: &Story) -> Report {
    let report = story.judged(log);
    assert!(report.is_clean(), "{:#?}", report.violations);
    report
}

#[track_caller]
pub(crate) fn violates(rule: Rule, log: &Log, story: &Story) -> Report {
    let report = story.judged(log);
    assert_eq!(report.rules(), [rule], "{:#?}", report.violations);
    assert!(report.violations.iter().all(|violation| !violation.evidence.is_empty()), "{:#?}", report.violations);
    report
}

pub(crate) fn window(bases: &[i64]) -> Vec<WindowEntry> {
    let entry = |base: &i64| WindowEntry {
        base_sequence: *base,
        record_count: 2,
        place: place(*base),
        checksum: checksum(tag(1, 0, *base)),
    };
    bases.iter().map(entry).collect()
}

pub(crate) fn fenced(next_sequence: i64, bases: &[i64]) -> Vec<FencedPartition> {
    vec![FencedPartition { partition: p0(), next_sequence, window: window(bases) }]
}

/// The records of a batch share its time, while these stories give each offset its own.
pub(crate) fn without_times(story: &Story) -> Story {
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
