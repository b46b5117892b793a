//! Two million events: what the judgement takes in time is linear, and in memory what its documentation says. A process of its
//! own, because its memory is what is measured.

use oncelog_verify::{
    History, HistoryError, Log, PartitionLog,
    history::{Began, CallId, CallerId, Digest, Event, FORMAT, Line, Partition, Place, Producer, SendCalled, SendOutcome, Tag},
    judge,
};

const RECORDS: u64 = 1_000_000;

/// Made up while it is read, so that it takes no memory.
struct Synthetic;

impl History for Synthetic {
    fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<Line, HistoryError>> + '_>, HistoryError> {
        let began = Event::Began(Began { format: FORMAT, alone: true, once: false, expiration_ms: None });
        let calls = (0..RECORDS).flat_map(|number| {
            let (call, record) = (CallId(number), Digest(mixed(number)));
            let send = SendCalled {
                call,
                caller: CallerId(number % 7),
                streamed: false,
                repeats: false,
                topic: "t".into(),
                partition: None,
                records: vec![record],
            };
            let place = Place { offset: i64::try_from(number).expect("a million"), append_time: number };
            let outcomes = vec![SendOutcome::Accepted { partition: 0, place }];
            [Event::SendCalled(send), Event::SendAnswered { call, outcomes }]
        });
        Ok(Box::new(std::iter::once(began).chain(calls).map(|event| Ok(Line { at: 0, event }))))
    }
}

fn mixed(number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))?;
    Some(peak.trim().parse::<u64>().ok()? << 10)
}

#[test]
fn two_million_events_take_the_memory_that_is_said() {
    let mut partition = PartitionLog::new(Partition::new("t", 0), 0, i64::try_from(RECORDS).expect("a million"));
    let producer = Producer { id: 1, epoch: 0 };
    for number in 0..RECORDS {
        let offset = i64::try_from(number).expect("a million");
        let tag = Tag { producer, base_sequence: offset };
        partition.push(Place { offset, append_time: number }, Some(tag), None, &[Digest(mixed(number))]);
    }
    let mut log = Log::default();
    log.add(partition);
    let before = peak_bytes();
    let report = judge(&log, &Synthetic).expect("a history");
    assert!(report.is_clean(), "{:?}", report.violations);
    assert_eq!((report.counts.sent, report.counts.accepted, report.counts.in_log), (RECORDS, RECORDS, RECORDS));
    assert_eq!((report.counts.lost, report.counts.duplicated, report.unjudged.total()), (0, 0, 0));
    // Vectors and maps may be half empty, or be copied while they grow.
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        let log = before / RECORDS;
        let judged = (after - before) / RECORDS;
        eprintln!("{log} bytes for a record of the log, in a batch of its own; {judged} to judge it");
        assert!(log <= 250 && judged <= 150, "{log} bytes for a record of the log, {judged} to judge it");
    } else {
        eprintln!("this system does not tell how much memory a process has: not measured");
    }
}
