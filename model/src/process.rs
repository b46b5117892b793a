//! A producer process: the real session, and what its shell remembers.

use std::{
    collections::BTreeSet,
    hash::{Hash, Hasher},
    time::Duration,
};

use oncelog_proto::{Compression, Monotonic, v1::Acks};
use producer_svc::session::{Action, CallFailure, CallId, Event, FailureKind, InitId, Session, SessionConfig};

use crate::{
    bounds::{Bounds, HORIZON},
    broken::Broken,
    travel::{Answer, Waiter},
};

/// The process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    session: Session,
    now: Monotonic,
    calls: BTreeSet<CallId>,
    init: Option<InitId>,
}

impl Process {
    /// The `generation`-th one; what it wants done first comes out of [`Self::act`].
    pub(crate) fn start(bounds: &Bounds, generation: u8) -> Self {
        let config = SessionConfig {
            linger: Duration::ZERO,
            batch_size: bounds.batch_size,
            max_request_size: 1 << 20,
            max_in_flight: bounds.max_in_flight,
            request_timeout: Duration::from_secs(1),
            delivery_timeout: bounds.delivery_timeout,
            retries: u32::MAX,
            // Far above the longest pause, so that all pauses are of that length.
            retry_backoff: bounds.pause * 10,
            retry_backoff_max: bounds.pause,
            compression: Compression::None,
            idempotence: bounds.broken != Some(Broken::NoTags),
            acks: Acks::All,
            token: format!("process {generation}"),
        };
        let now = Monotonic::from_micros(1_000_000);
        Self { session: Session::new(config, 0), now, calls: BTreeSet::new(), init: None }
    }

    /// Something happens to the session.
    pub(crate) fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now);
    }

    /// The next thing that the session wants done, and who is not waited for any more because of that.
    pub(crate) fn act(&mut self) -> Option<(Action, Option<Waiter>)> {
        let action = self.session.poll_action()?;
        let forgotten = match &action {
            Action::Produce(call) => {
                self.calls.insert(call.call);
                None
            }
            Action::Init { init, recover, .. } => {
                // An id may be given up while its recovery is out: then a fresh one is asked for, and that answer is not heard.
                let before = self.init.replace(*init);
                assert!(before.is_none() || recover.is_none(), "one recovery at a time");
                before.map(Waiter::Init)
            }
            _ => None,
        };
        Some((action, forgotten))
    }

    /// An answer arrives.
    pub(crate) fn answer(&mut self, answer: Answer) {
        if !self.stops_waiting(answer.waiter()) {
            return;
        }
        let failure = |kind| CallFailure { kind, message: String::new() };
        self.handle(match answer {
            Answer::Produce(call, Ok(results)) => Event::ProduceAnswered { call, results },
            Answer::Produce(call, Err(kind)) => Event::ProduceFailed { call, failure: failure(kind) },
            Answer::Init(init, Ok(answer)) => Event::InitAnswered { init, answer },
            Answer::Init(init, Err(kind)) => Event::InitFailed { init, failure: failure(kind) },
        });
    }

    /// A call is given up.
    pub(crate) fn give_up(&mut self, waiter: Waiter) {
        self.answer(match waiter {
            Waiter::Produce(call) => Answer::Produce(call, Err(FailureKind::InDoubt)),
            Waiter::Init(init) => Answer::Init(init, Err(FailureKind::InDoubt)),
        });
    }

    fn stops_waiting(&mut self, waiter: Waiter) -> bool {
        match waiter {
            Waiter::Produce(call) => self.calls.remove(&call),
            Waiter::Init(init) => self.init.take_if(|waiting| *waiting == init).is_some(),
        }
    }

    /// Who waits, the oldest call first.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = Waiter> {
        let calls = self.calls.iter().map(|call| Waiter::Produce(*call));
        calls.chain(self.init.map(Waiter::Init))
    }

    /// The place of a waiter among all.
    pub(crate) fn place(&self, waiter: Waiter) -> Option<u64> {
        self.waiters().position(|other| other == waiter).map(|place| place as u64)
    }

    /// When time alone makes the session act, unless that is too far.
    pub(crate) fn next_wakeup(&self) -> Option<Monotonic> {
        self.session.next_wakeup().filter(|at| at.since(self.now) <= HORIZON)
    }

    /// Time passes until the next wake-up.
    pub(crate) fn pass(&mut self) {
        self.now = self.next_wakeup().expect("only asked if there is one");
        self.handle(Event::Tick);
    }

    /// Has every `Send` its outcome?
    pub(crate) fn is_idle(&self) -> bool {
        self.session.is_idle()
    }

    pub(crate) fn digest(&self, into: &mut impl Hasher) {
        self.session.digest(into);
        (self.calls.len(), self.init.is_some()).hash(into);
    }
}
