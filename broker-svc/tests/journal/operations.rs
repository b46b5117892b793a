//! Every operation of a busy life fails once, whatever it is: what was acknowledged stays, nothing is acknowledged afterwards
//! that would not, and the next start is a sound one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use broker_svc::{
    entry::Entry,
    journal::{Options, ReadError, Replay, Retention, SnapshotError, WriteError, sim_disk::SimDisk},
};
use oncelog_proto::Timestamp;

use crate::{
    failing_disk::{FailingDisk, Failure, Plan},
    support::{Broker, State, options, payload},
};

/// How far a life came.
#[derive(Default)]
struct Life {
    acknowledged: State,
    /// The same and the group in flight.
    in_flight: State,
}

/// Why it ended before its time, in the words of whoever ended it.
struct Stopped(String);

impl<E: std::error::Error> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Life {
    /// Two openings; segments rolled, spares, indexes, snapshots, a trim, markers, reads. Ends at the first error after which a
    /// broker has to end.
    fn live(&mut self, disk: &SimDisk, failing: &FailingDisk) -> Result<(), Stopped> {
        for opening in 0..2_i64 {
            let with = Options { spares: 1, ballast_bytes: 64 << 10, ..options(disk) };
            let mut broker = Broker::open_over(disk, Arc::new(failing.clone()), with)?;
            assert_eq!(broker.state, self.acknowledged, "the start of a process loses nothing");
            for round in 0..4 {
                let batches: Vec<_> = (0..3).map(|p| (p, payload(opening * 100 + round * 10 + i64::from(p), 100_000))).collect();
                self.commit(&mut broker, &batches)?;
                if round % 2 == 1 {
                    broker.journal.write_marker(false).inspect_err(|_| assert_dead(&mut broker))?;
                }
                for _ in 0..3 {
                    broker.background.step()?;
                }
                if round == 2 {
                    self.snapshot(&broker)?;
                }
            }
            self.read(&broker);
            self.trim(&mut broker)?;
            for _ in 0..6 {
                broker.background.step()?;
            }
            if opening == 0 {
                broker.journal.write_marker(true).inspect_err(|_| assert_dead(&mut broker))?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, broker: &mut Broker, batches: &[(u32, Vec<u8>)]) -> Result<(), Stopped> {
        let (after, group) = broker.gather(batches);
        self.in_flight = after;
        match broker.journal.write(&group) {
            // Nothing has changed; there is room the next time.
            Err(WriteError::NoSpace(_)) => drop(broker.journal.write(&group)?),
            Err(WriteError::Fatal(fatal)) => {
                assert_dead(broker);
                return Err(fatal.into());
            }
            Ok(_) => {}
        }
        broker.journal.sync().inspect_err(|_| assert_dead(broker))?;
        broker.state = self.in_flight.clone();
        self.acknowledged = self.in_flight.clone();
        Ok(())
    }

    fn snapshot(&self, broker: &Broker) -> Result<(), Stopped> {
        let write = || broker.journal.snapshot_writer().write(broker.journal.position(), &mut broker.state.chunks());
        match write() {
            // The older ones are as they were, and a later try may succeed.
            Err(SnapshotError::Dropped { .. }) => write()?,
            Err(fatal @ SnapshotError::Fatal(_)) => return Err(fatal.into()),
            Ok(()) => {}
        }
        Ok(())
    }

    fn trim(&mut self, broker: &mut Broker) -> Result<(), Stopped> {
        let limits = Retention { bytes: Some(1 << 20), age: None };
        let Some((through_segment, partitions)) = broker.journal.plan_trim(limits, Timestamp::default()) else { return Ok(()) };
        let entry = Entry::Trim { through_segment, partitions };
        let (time, group) = (broker.journal.position().time().plus(Duration::from_micros(1)), broker.journal.position().group());
        Replay::apply(&mut self.in_flight, group, time, &entry).expect("folded");
        broker.commit_entry(entry)?;
        assert_eq!(broker.state, self.in_flight);
        self.acknowledged = self.in_flight.clone();
        Ok(())
    }

    /// Reads everything; what fails once is there the next time.
    fn read(&self, broker: &Broker) {
        for partition in 0..3 {
            let mut read = broker.read_from(partition, 0);
            if matches!(read, Err(ReadError::Io { .. })) {
                read = broker.read_from(partition, 0);
            }
            if let Err(ReadError::Trimmed { next }) = read {
                read = broker.read_from(partition, next.get());
            }
            let (last, _) = read.expect("readable").pop().expect("there are some");
            assert_eq!(last + 1, self.acknowledged.next(partition), "to the end");
        }
    }

    /// What a later process finds.
    fn check(&self, disk: &SimDisk, what: &str) {
        let mut broker = Broker::open(disk).unwrap_or_else(|e| panic!("{what}: the next start: {e}"));
        assert!(
            broker.state == self.acknowledged || broker.state == self.in_flight,
            "{what}: something was lost, or came from nowhere"
        );
        let found = Self { acknowledged: broker.state.clone(), in_flight: broker.state.clone() };
        if found.acknowledged.next(2) > 0 {
            found.read(&broker);
        }
        broker.commit_bytes(1_000);
    }
}

/// After a fatal error nothing more is written and nothing acknowledged (I8).
fn assert_dead(broker: &mut Broker) {
    assert!(matches!(broker.write(&[(0, vec![1])]), Err(WriteError::Fatal(_))), "a further group is refused");
    assert!(broker.journal.sync().is_err(), "a sync is not tried again");
    assert!(broker.journal.write_marker(true).is_err(), "not even the mark of a clean end is written");
}

/// One life with one failure; true if it ended early.
fn try_plan(plan: Plan, kind: &str) -> bool {
    let disk = SimDisk::new();
    let failing = FailingDisk::new(&disk, Some(plan));
    let mut life = Life::default();
    let what = format!("{kind}, {plan:?}");
    let stopped = match life.live(&disk, &failing) {
        Ok(()) => false,
        Err(Stopped(error)) => {
            let told = std::io::Error::from_raw_os_error(plan.errno).to_string();
            assert!(error.contains(&told) || error.contains("bytes free"), "{what}: the error says what happened: {error}");
            true
        }
    };
    assert!(failing.has_failed(), "{what}: it came to that");
    let (restarted, crashed) = (disk.fork(), disk.fork());
    restarted.restart();
    crashed.crash(plan.number);
    life.check(&restarted, &what);
    life.check(&crashed, &format!("{what}, and then the power went"));
    stopped
}

#[test]
fn whatever_fails_nothing_that_was_acknowledged_is_lost() {
    let disk = SimDisk::new();
    let sound = FailingDisk::new(&disk, None);
    let whole = Life::default().live(&disk, &sound);
    assert!(whole.is_ok(), "{:?}", whole.err().map(|Stopped(error)| error));
    assert!(disk.names().iter().any(|name| name.ends_with(".idx")) && disk.names().iter().any(|name| name.starts_with("snap")));
    let mut plans = Vec::new();
    for (number, (kind, changes)) in (0..).zip(sound.asked()) {
        let failures: &[_] = match (kind, changes) {
            ("write", _) => &[Failure::Undone, Failure::Half, Failure::Done],
            (_, true) => &[Failure::Undone, Failure::Done],
            (_, false) => &[Failure::Undone],
        };
        plans.extend(failures.iter().map(|failure| (kind, Plan { number, failure: *failure, errno: EIO })));
        if changes && kind != "remove" && kind != "sync of the directory" {
            plans.push((kind, Plan { number, failure: Failure::Undone, errno: ENOSPC }));
        }
    }
    let next = AtomicUsize::new(0);
    let tally: Mutex<BTreeMap<&str, (u64, u64)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((kind, plan)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let stopped = try_plan(*plan, kind);
                    let mut tally = tally.lock().expect("no case fails");
                    let counts = tally.entry(*kind).or_default();
                    *(if stopped { &mut counts.0 } else { &mut counts.1 }) += 1;
                }
            });
        }
    });
    let tally = tally.into_inner().expect("no case fails");
    for (kind, (stopped, lived_on)) in &tally {
        eprintln!("{kind}: {} failed, {stopped} ended the broker, {lived_on} did not", stopped + lived_on);
    }
    let (stopped, lived_on) = tally.values().fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
    eprintln!(
        "{} operations, failed in {} ways: {stopped} ended the broker, {lived_on} did not",
        sound.asked().len(),
        plans.len()
    );
    assert!(stopped > 50 && lived_on > 50);
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
