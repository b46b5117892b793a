//! What is on its way between the two machines, in any order.
//!
//! A call and its answer are never lost as such: what is lost is what never arrives, and a call that is given up leaves a copy
//! behind that nobody waits for.

use std::{
    fmt,
    hash::{Hash, Hasher},
    rc::Rc,
};

use oncelog_proto::{Epoch, ProducerId};
use producer_svc::session::{BatchAnswer, CallId, FailureKind, InitAnswer, InitId, OutgoingBatch};

/// A batch with the numbers of its records.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) batch: OutgoingBatch,
    pub(crate) records: Vec<u8>,
}

/// What a call says.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Message {
    Produce(Rc<[Sent]>),
    Init { recover: Option<(ProducerId, Epoch)>, token: Rc<str> },
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiter {
    Produce(CallId),
    Init(InitId),
}

/// A call on its way to the broker.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Nobody waits for the answer to a copy of a call that was given up.
    pub(crate) waiter: Option<Waiter>,
    pub(crate) message: Message,
}

/// An answer on its way back, to somebody who waits for it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Produce(CallId, Result<Vec<BatchAnswer>, FailureKind>),
    Init(InitId, Result<InitAnswer, FailureKind>),
}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, into: &mut H) {
        (&self.batch.partition, self.batch.tag, &self.records).hash(into);
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Message::Produce(sent) => {
                for Sent { batch, records } in &**sent {
                    let tag = batch.tag.map_or_else(|| "no tag".to_owned(), |tag| tag.to_string());
                    write!(f, "[{tag} in {}: records {records:?}] ", batch.partition)?;
                }
            }
            Message::Init { recover: Some((producer, epoch)), .. } => write!(f, "[recover {producer} epoch {epoch}] ")?,
            Message::Init { recover: None, .. } => write!(f, "[fresh id] ")?,
        }
        match self.waiter {
            Some(waiter) => write!(f, "for {waiter:?}"),
            None => write!(f, "for nobody"),
        }
    }
}

impl Message {
    /// Does it ask for a fresh id?
    pub(crate) fn is_fresh(&self) -> bool {
        matches!(self, Self::Init { recover: None, .. })
    }
}

impl Answer {
    pub(crate) fn waiter(&self) -> Waiter {
        match self {
            Self::Produce(call, _) => Waiter::Produce(*call),
            Self::Init(init, _) => Waiter::Init(*init),
        }
    }

    /// The answer without its name.
    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        match self {
            Self::Produce(_, answer) => answer.hash(into),
            Self::Init(_, answer) => answer.hash(into),
        }
    }
}
