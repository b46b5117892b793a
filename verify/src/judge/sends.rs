//! Judges `Send`: each record by what it is, because its caller knows nothing of tags.
//!
//! An accepted record stands where the answer says (I1, I4). A record is in the log at most as often as it was sent and not
//! refused, and only in the partition that it was sent to, if one was named (I2). Without idempotence only the first is promised,
//! and that the partition is the one that was named.

use std::collections::{HashMap, HashSet};

use super::{
    Call, Moment,
    accepted::{Accepted, find},
    ground::Ground,
    named::{self, Named},
    order::Orders,
    outline::Standing,
    streams,
};
use crate::{
    history::{CallerId, Digest, Event, Partition, SendCalled, SendOutcome},
    history_file::{History, HistoryError},
    report::{Evidence, Report, Rule},
};

/// What was sent so far.
#[derive(Debug, Default)]
pub(super) struct Sends {
    topics: HashMap<String, u32>,
    tallies: HashMap<Key, Tally>,
    orders: Orders,
    named: Named,
    /// Callers of streams of which not everything was answered, or not with certainty.
    doubtful_streams: HashSet<CallerId>,
}

/// A record of a topic.
pub(super) type Key = u64;

/// How often a record was sent, and is there.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    in_log: u32,
    /// Sent, whatever came of it.
    sent: u32,
    /// Acknowledged, and speaking of the topic that is there.
    accepted: u32,
    /// Of those: not accused one by one.
    found: u32,
    /// May be in the log: unknown, or doubtful, or not answered yet. [`ANY`]: without idempotence.
    possible: u32,
}

impl Tally {
    /// One of those that may be in the log is not among them any more.
    fn settle(&mut self) {
        self.possible = if self.possible == ANY { ANY } else { self.possible - 1 };
    }
}

impl Sends {
    /// Counts what is in the log.
    pub(super) fn new(ground: &Ground<'_>) -> Self {
        let mut sends = Self::default();
        for partition in ground.log.partitions() {
            let topic = sends.topic(&partition.name().topic);
            for (_, _, digest) in partition.records() {
                sends.tallies.entry(key(topic, digest)).or_default().in_log += 1;
            }
        }
        sends
    }

    fn topic(&mut self, name: &str) -> u32 {
        let next = u32::try_from(self.topics.len()).expect("topics are few");
        *self.topics.entry(name.to_owned()).or_insert(next)
    }

    pub(super) fn called(&mut self, send: &SendCalled, now: Moment, report: &mut Report) {
        let topic = self.topic(&send.topic);
        report.counts.sent += send.records.len() as u64;
        for digest in &send.records {
            let key = key(topic, *digest);
            let tally = self.tallies.entry(key).or_default();
            tally.sent += 1;
            tally.possible = if send.repeats { ANY } else { tally.possible.saturating_add(1) };
            self.named.note(send.partition, key);
        }
        if !send.repeats {
            self.orders.called(send.caller, now.line);
        }
    }

    pub(super) fn answered(
        &mut self,
        ground: &Ground<'_>,
        call: Call<SendCalled>,
        outcomes: &[SendOutcome],
        now: Moment,
        report: &mut Report,
    ) -> Result<(), HistoryError> {
        let Call { what: send, line: called, .. } = call;
        let standing = ground.standing(&send.topic, called, now.line);
        let topic = self.topic(&send.topic);
        let mut records = send.records.iter().copied();
        let mut placed: Vec<(usize, i64)> = Vec::new();
        let mut is_doubtful = false;
        for outcome in outcomes {
            let count = match *outcome {
                SendOutcome::Accepted { .. } => 1,
                SendOutcome::Refused(count) | SendOutcome::Unknown(count) => count as usize,
            };
            for _ in 0..count {
                let too_many = || HistoryError::line(now.line, format!("more outcomes than the {} records", send.records.len()));
                let digest = records.next().ok_or_else(too_many)?;
                let tally = self.tallies.entry(key(topic, digest)).or_default();
                match *outcome {
                    SendOutcome::Unknown(_) => {
                        report.counts.unknown += 1;
                        is_doubtful = true;
                    }
                    SendOutcome::Refused(_) => {
                        tally.settle();
                        report.counts.refused += 1;
                    }
                    SendOutcome::Accepted { partition, place } => {
                        report.counts.accepted += 1;
                        named::check_answer(&send, partition, [called, now.line], report);
                        match standing {
                            Standing::Current => {}
                            Standing::Doubtful => {
                                report.unjudged.deleted += 1;
                                continue;
                            }
                            Standing::Gone => {
                                tally.settle();
                                report.unjudged.deleted += 1;
                                continue;
                            }
                        }
                        tally.settle();
                        tally.accepted += 1;
                        let name = Partition { topic: send.topic.clone(), partition };
                        match find(ground, &name, place, digest, [called, now.line], report) {
                            Accepted::There(index) => {
                                tally.found += 1;
                                placed.push((index, place.offset));
                            }
                            Accepted::Somewhere => tally.found += 1,
                            Accepted::Trimmed => {
                                tally.accepted -= 1;
                                tally.possible = tally.possible.saturating_add(1);
                            }
                            Accepted::Missing => {}
                        }
                    }
                }
            }
        }
        let untold = records.count();
        report.counts.unknown += untold as u64;
        if send.repeats {
            return Ok(());
        }
        if send.streamed && (is_doubtful || untold > 0) {
            self.doubtful_streams.insert(send.caller);
        }
        self.orders.answered(ground, &send, called, &placed, now, report);
        Ok(())
    }

    /// It was never answered.
    pub(super) fn unanswered(&mut self, send: &SendCalled, report: &mut Report) {
        report.counts.unknown += send.records.len() as u64;
        if send.streamed && !send.repeats {
            self.doubtful_streams.insert(send.caller);
        }
    }

    /// How a record of a topic is known here; none: nobody wrote to the topic.
    pub(super) fn key(&self, topic: &str, digest: Digest) -> Option<Key> {
        self.topics.get(topic).map(|topic| key(*topic, digest))
    }

    /// A record that was sent once and is in the log once, and whether its caller was told so.
    pub(super) fn only_one(&self, topic: &str, digest: Digest) -> Option<(Key, bool)> {
        let key = self.key(topic, digest)?;
        let tally = self.tallies.get(&key)?;
        (tally.sent == 1 && tally.in_log == 1).then_some((key, tally.accepted > 0))
    }

    /// Was a record of this topic sent by anybody?
    pub(super) fn knows(&self, topic: &str, digest: Digest) -> bool {
        let tally = self.key(topic, digest).and_then(|key| self.tallies.get(&key));
        tally.is_some_and(|tally| tally.sent > 0)
    }

    /// At the end: what is in the log too often, or not often enough, or in the wrong order.
    pub(super) fn end(
        self,
        ground: &Ground<'_>,
        history: &(impl History + ?Sized),
        report: &mut Report,
    ) -> Result<(), HistoryError> {
        streams::judge(&self, &self.doubtful_streams, ground, history, report)?;
        self.named.check_log(&self, ground, report);
        let mut suspects: Vec<(Key, Tally)> = Vec::new();
        for (key, tally) in &self.tallies {
            let Tally { in_log, sent, accepted, found, possible } = *tally;
            report.counts.unknown_in_log += u64::from(in_log.saturating_sub(accepted).min(possible));
            let most = accepted.saturating_add(possible);
            if sent > 0 && in_log > most {
                report.counts.duplicated += u64::from(in_log - most);
                suspects.push((*key, *tally));
            } else if in_log < found {
                report.counts.lost += u64::from(found - in_log);
                suspects.push((*key, *tally));
            }
        }
        suspects.sort_unstable_by_key(|(key, _)| *key);
        let evidence = self.evidence(ground, history, suspects.iter().take(EXPLAINED).map(|(key, _)| *key).collect())?;
        for (key, tally) in suspects {
            let Tally { in_log, sent, accepted, possible, .. } = tally;
            let evidence = evidence.get(&key).cloned().unwrap_or_default();
            let most = accepted.saturating_add(possible);
            if in_log < most {
                let what = format!("a record was acknowledged {accepted} times and is in the log {in_log} times");
                report.accuse(Rule::I1, what, evidence);
            } else {
                let what =
                    format!("a record that was sent {sent} times may be in the log {most} times and is there {in_log} times");
                report.accuse(Rule::I2, what, evidence);
            }
        }
        Ok(())
    }

    /// Goes once more through everything, for the few records that something is wrong with: to remember the lines of all of them
    /// from the start would cost more than all the rest.
    fn evidence(
        &self,
        ground: &Ground<'_>,
        history: &(impl History + ?Sized),
        keys: HashSet<Key>,
    ) -> Result<HashMap<Key, Vec<Evidence>>, HistoryError> {
        let mut found: HashMap<Key, Vec<Evidence>> = HashMap::new();
        if keys.is_empty() {
            return Ok(found);
        }
        let mut calls = HashMap::new();
        for (number, line) in (1..).zip(history.lines()?) {
            match line?.event {
                Event::SendCalled(send) => {
                    let topic = self.topics[&send.topic];
                    let touched: Vec<_> =
                        send.records.iter().map(|digest| key(topic, *digest)).filter(|key| keys.contains(key)).collect();
                    for key in &touched {
                        found.entry(*key).or_default().push(Evidence::Line(number));
                    }
                    calls.insert(send.call, touched);
                }
                Event::SendAnswered { call, .. } => {
                    for key in calls.remove(&call).unwrap_or_default() {
                        found.entry(key).or_default().push(Evidence::Line(number));
                    }
                }
                _ => {}
            }
        }
        for partition in ground.log.partitions() {
            let topic = self.topics[&partition.name().topic];
            for (offset, _, digest) in partition.records() {
                let key = key(topic, digest);
                if keys.contains(&key) {
                    let evidence = Evidence::Record { partition: partition.name().clone(), offset };
                    found.entry(key).or_default().push(evidence);
                }
            }
        }
        Ok(found)
    }
}

/// Mixes the topic in: the same record in two topics is two records.
fn key(topic: u32, digest: Digest) -> Key {
    digest.0 ^ u64::from(topic).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Any number of records.
const ANY: u32 = u32::MAX;
/// Records whose lines and offsets are looked for.
const EXPLAINED: usize = 100;
