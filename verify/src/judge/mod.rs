//! The judgement: one pass over the log, one over the history for its outline, one to judge it. The time is linear in both, but
//! for a logarithm where a batch is looked for by its tag.
//!
//! | module | judges |
//! |---|---|
//! | `ground` | the log alone: I1, I2, I3, I5, I6 |
//! | `produces`, `claim` | batches and the answers to them: I1, I2, I4, I5, I7 |
//! | `epochs` | producer ids, recoveries: I4, I5, I6, I7 |
//! | `sends`, `accepted`, `named` | records of `Send`: I1, I2, I4 |
//! | `order`, `streams` | and their order |
//! | `sights` | what was read and described: I5, I7 |
//! | `outline`, `known` | which topic a call spoke of; what was known when |
//!
//! A broker has many lives in a history. I8 is judged here: who asked after a disk had failed and is told "in the log" by the
//! same life was told too much.
//!
//! What cannot be judged is counted ([`crate::report::Unjudged`]), never passed in silence. In memory, beside the log: some 100
//! bytes for each record that was sent by `Send` or is in the log, some 80 more for each record of a stream of which not
//! everything was answered, and some 20 for each that was sent to a partition by its number; 12 for each batch in the log, some
//! 40 for each that was given a name; and what is known of each producer in each partition.

mod accepted;
mod claim;
mod epochs;
mod ground;
mod known;
mod named;
mod order;
mod outline;
mod produces;
mod sends;
mod sights;
mod streams;

use std::collections::{HashMap, HashSet};

use self::{
    epochs::{Asked, Epochs},
    ground::Ground,
    known::Known,
    outline::Outline,
    produces::{Produced, Produces},
    sends::Sends,
    sights::Look,
};
use crate::{
    history::{CallId, Event, FORMAT, Line, ProduceAnswer, SendCalled, SendOutcome},
    history_file::{History, HistoryError},
    log::Log,
    report::{Evidence, Report, Rule},
};

/// Judges a log by itself, and by what the broker says of its producers if that was added to it.
pub fn judge_log(log: &Log) -> Report {
    let mut report = Report::default();
    Ground::new(log, Outline::default(), &mut report);
    report.counts.of_others = report.counts.in_log;
    report
}

/// Judges a history by what is in the log when all of it is over.
///
/// # Errors
/// The history cannot be read, or contradicts itself: an answer without a call, two calls of one name.
pub fn judge(log: &Log, history: &(impl History + ?Sized)) -> Result<Report, HistoryError> {
    let mut report = Report::default();
    let ground = Ground::new(log, Outline::of(history)?, &mut report);
    let mut judge = Judge {
        sends: Sends::new(&ground),
        produces: Produces::new(&ground),
        epochs: Epochs::default(),
        known: Known::default(),
        open: HashMap::new(),
        life: 0,
        disk_failed: None,
        alone: false,
        once: false,
        topics: HashSet::new(),
        ground,
        report,
    };
    for (number, line) in (1..).zip(history.lines()?) {
        judge.line(number, line?)?;
    }
    judge.end(history)
}

/// When an event was seen.
#[derive(Clone, Copy, Debug)]
struct Moment {
    line: u64,
    at: u64,
    life: u32,
}

/// A call that was made.
#[derive(Debug)]
struct Call<T> {
    what: T,
    line: u64,
    at: u64,
}

/// A call that is not answered yet.
#[derive(Debug)]
enum Open {
    Init(Call<Asked>),
    Produce(Call<Produced>),
    Send(Call<SendCalled>),
    Look(Look),
    Delete,
}

struct Judge<'a> {
    ground: Ground<'a>,
    report: Report,
    sends: Sends,
    produces: Produces,
    epochs: Epochs,
    known: Known,
    open: HashMap<CallId, Open>,
    life: u32,
    /// Line in which the disk of this life failed.
    disk_failed: Option<u64>,
    alone: bool,
    once: bool,
    /// Topics that somebody wrote to in this history.
    topics: HashSet<String>,
}

impl Judge<'_> {
    fn line(&mut self, number: u64, line: Line) -> Result<(), HistoryError> {
        let now = Moment { line: number, at: line.at, life: self.life };
        match line.event {
            Event::Began(began) => {
                if number != 1 || began.format != FORMAT {
                    let what = format!("a history begins once, in format {FORMAT}; this says format {}", began.format);
                    return Err(HistoryError::line(number, what));
                }
                (self.alone, self.once) = (began.alone, began.once);
                self.epochs = Epochs::new(began.expiration_ms);
            }
            Event::InitCalled(init) => {
                let id = init.call;
                let what = self.epochs.called(&self.ground, &self.known, init, now);
                self.open(id, Open::Init(Call::new(what, now)), number)?;
            }
            Event::ProduceCalled(batch) => {
                let id = batch.call;
                self.wrote_to(&batch.partition.topic);
                let what = self.produces.called(&self.ground, &self.known, batch, now, &mut self.report);
                self.open(id, Open::Produce(Call::new(what, now)), number)?;
            }
            Event::SendCalled(send) => {
                let id = send.call;
                self.wrote_to(&send.topic);
                self.sends.called(&send, now, &mut self.report);
                self.open(id, Open::Send(Call::new(send, now)), number)?;
            }
            Event::LookCalled { call } => self.open(call, Open::Look(Look { line: number, life: self.life }), number)?,
            Event::DeleteCalled { call, .. } => self.open(call, Open::Delete, number)?,
            Event::InitAnswered { call, answer } => match self.open.remove(&call) {
                Some(Open::Init(init)) => self.epochs.answered(&self.ground, init, answer, now, &mut self.report),
                _ => return Err(no_such_call(number, call)),
            },
            Event::ProduceAnswered { call, answer } => match self.open.remove(&call) {
                Some(Open::Produce(batch)) => {
                    let acknowledged = matches!(answer, ProduceAnswer::Acknowledged { .. });
                    check_disk(self.disk_failed.filter(|_| acknowledged), batch.line, number, &mut self.report);
                    let (known, epochs) = (&mut self.known, &mut self.epochs);
                    self.produces.answered(&self.ground, known, epochs, batch, answer, now, &mut self.report);
                }
                _ => return Err(no_such_call(number, call)),
            },
            Event::SendAnswered { call, outcomes } => match self.open.remove(&call) {
                Some(Open::Send(send)) => {
                    let accepted = outcomes.iter().any(|outcome| matches!(outcome, SendOutcome::Accepted { .. }));
                    check_disk(self.disk_failed.filter(|_| accepted), send.line, number, &mut self.report);
                    self.sends.answered(&self.ground, send, &outcomes, now, &mut self.report)?;
                }
                _ => return Err(no_such_call(number, call)),
            },
            Event::Saw { call, sight } => match self.open.get(&call) {
                // It may see more.
                Some(Open::Look(look)) => sights::judge(&self.ground, &self.known, *look, &sight, now, &mut self.report),
                _ => return Err(no_such_call(number, call)),
            },
            Event::DeleteAnswered { call, .. } => match self.open.remove(&call) {
                Some(Open::Delete) => {}
                _ => return Err(no_such_call(number, call)),
            },
            Event::BrokerStarted => {
                self.life += 1;
                self.disk_failed = None;
            }
            Event::DiskFailed => {
                self.disk_failed.get_or_insert(number);
            }
            Event::BrokerDied | Event::ProducerDied | Event::ProducerStarted => {}
        }
        Ok(())
    }

    fn wrote_to(&mut self, topic: &str) {
        if !self.topics.contains(topic) {
            self.topics.insert(topic.to_owned());
        }
    }

    fn open(&mut self, call: CallId, open: Open, line: u64) -> Result<(), HistoryError> {
        match self.open.insert(call, open) {
            None => Ok(()),
            Some(_) => Err(HistoryError::line(line, format!("call {} was made before and is not answered", call.0))),
        }
    }

    fn end(mut self, history: &(impl History + ?Sized)) -> Result<Report, HistoryError> {
        for open in self.open.into_values() {
            if let Open::Send(send) = open {
                self.sends.unanswered(&send.what, &mut self.report);
            }
        }
        let epochs = &self.epochs;
        self.produces.end(&self.ground, |id| epochs.is_own(id), self.alone, self.once, &mut self.report);
        for partition in self.ground.log.partitions() {
            let is_alone = self.alone && self.topics.contains(&partition.name().topic);
            for (offset, batch, digest) in partition.records() {
                let tag = partition.batch(batch).tag;
                if self.sends.knows(&partition.name().topic, digest) || tag.is_some_and(|tag| epochs.is_own(tag.producer.id)) {
                    continue;
                }
                self.report.counts.of_others += 1;
                if is_alone {
                    let evidence = Evidence::Record { partition: partition.name().clone(), offset };
                    let what = format!("{} offset {offset}: a record that nobody sent", partition.name());
                    self.report.accuse(Rule::I2, what, vec![evidence]);
                }
            }
        }
        self.sends.end(&self.ground, history, &mut self.report)?;
        Ok(self.report)
    }
}

impl<T> Call<T> {
    fn new(what: T, now: Moment) -> Self {
        Self { what, line: now.line, at: now.at }
    }
}

/// An acknowledgement was heard. If this life's disk failed before the call was made, it was not this life's to give (I8).
fn check_disk(failed: Option<u64>, called: u64, answered: u64, report: &mut Report) {
    if let Some(failed) = failed.filter(|failed| *failed < called) {
        let what = "a call that was made after the disk had failed was acknowledged".to_owned();
        report.accuse(Rule::I8, what, [failed, called, answered].map(Evidence::Line).into());
    }
}

fn no_such_call(line: u64, call: CallId) -> HistoryError {
    HistoryError::line(line, format!("an answer to call {}, which was not made, is answered, or is another kind of call", call.0))
}
