//! Who the session is to the broker: its producer id and epoch, and the `InitProducerId` calls that get them.
//!
//! Invariants: one call matters at a time; an epoch is learned from an `InitProducerId` answer and from nothing else (R9); an
//! answer to a call that no longer matters is not heard. That is a recovery whose id was given up while it was out, because a
//! late answer of the old epoch spoke of a conflict: then the call for a fresh id goes out beside it. It harms nobody. What it
//! fences is an epoch that this process writes in no more.

use std::{
    hash::{Hash, Hasher},
    mem,
    time::Duration,
};

use oncelog_defects::{Defect, is_on};
use oncelog_proto::Monotonic;

use super::{InitId, calls::Incarnation, digest::Moment};

/// Id, epoch, and the call that is under way for them.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    mode: Mode,
    call: Call,
    /// Failures of the current handshake in a row.
    failures: u32,
    /// Handshakes since something was acknowledged. A broker that accepts the handshake and refuses every batch is not asked
    /// as fast as it answers.
    fruitless: u32,
    /// When the broker last showed that it knows the id: by handing it out, or by an acknowledgement.
    known_at: Monotonic,
    calls: u64,
}

/// What the session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// Idempotence is off: no id, no tags.
    Untagged,
    /// It has no id yet, or gave its id up.
    Fresh,
    /// It tags and sends.
    Established(Incarnation),
    /// This epoch is being fenced. Nothing is sent; acknowledgements of it still count, until the answer.
    Recovering(Incarnation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    None,
    Due(Monotonic),
    Out(InitId),
}

impl Handshake {
    /// Asks for a fresh id at once, or never.
    pub(super) fn new(idempotence: bool) -> Self {
        let (mode, call) =
            if idempotence { (Mode::Fresh, Call::Due(Monotonic::default())) } else { (Mode::Untagged, Call::None) };
        Self { mode, call, failures: 0, fruitless: 0, known_at: Monotonic::default(), calls: 0 }
    }

    /// What the session may do.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// May `Produce` be called?
    pub(super) fn may_produce(&self) -> bool {
        matches!(self.mode, Mode::Untagged | Mode::Established(_))
    }

    /// Whose acknowledgements count.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        match self.mode {
            Mode::Established(incarnation) | Mode::Recovering(incarnation) => Some(incarnation),
            Mode::Untagged | Mode::Fresh => None,
        }
    }

    /// Handshakes in a row that brought no acknowledgement.
    pub(super) fn fruitless(&self) -> u32 {
        self.fruitless
    }

    /// Something was acknowledged.
    pub(super) fn bears_fruit(&mut self, now: Monotonic) {
        (self.fruitless, self.known_at) = (0, now);
    }

    /// Was the id last used so long ago that the broker may soon forget it?
    pub(super) fn is_stale(&self, now: Monotonic) -> bool {
        matches!(self.mode, Mode::Established(_)) && now.since(self.known_at) > IDLE_ID_MAX
    }

    /// The current epoch is to be fenced. The call is due at `at`.
    pub(super) fn recover(&mut self, at: Monotonic) {
        if let Mode::Established(incarnation) = self.mode {
            self.begin(Mode::Recovering(incarnation), at);
        }
    }

    /// The id is given up. The call for a fresh one is due at `at`.
    pub(super) fn start_over(&mut self, at: Monotonic) {
        assert_ne!(self.mode, Mode::Untagged, "without idempotence there is no id");
        self.begin(Mode::Fresh, at);
    }

    fn begin(&mut self, mode: Mode, at: Monotonic) {
        (self.mode, self.call, self.failures) = (mode, Call::Due(at), 0);
        self.fruitless = self.fruitless.saturating_add(1);
    }

    /// The call that is due now: its id, and what it recovers.
    pub(super) fn poll(&mut self, now: Monotonic) -> Option<(InitId, Option<Incarnation>)> {
        match (self.call, self.mode) {
            (Call::Due(at), Mode::Recovering(Incarnation { producer, epoch })) if at <= now && is_on(Defect::EpochIsGuessed) => {
                self.establish(Incarnation { producer, epoch: epoch.next().unwrap_or(epoch) }, now);
                None
            }
            (Call::Due(at), _) if at <= now => {
                let id = InitId(self.calls);
                self.calls += 1;
                self.call = Call::Out(id);
                Some((id, self.incarnation()))
            }
            (Call::None | Call::Due(_) | Call::Out(_), _) => None,
        }
    }

    /// When [`Self::poll`] has something.
    pub(super) fn due(&self) -> Option<Monotonic> {
        match self.call {
            Call::Due(at) => Some(at),
            Call::None | Call::Out(_) => None,
        }
    }

    /// A call ended. False if it no longer matters.
    pub(super) fn ended(&mut self, init: InitId) -> bool {
        let matters = self.call == Call::Out(init);
        if matters {
            self.call = Call::None;
        }
        matters
    }

    /// Counts a failure of the call that has just ended.
    pub(super) fn fail(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// The call is repeated as it was: same id, same epoch, same token (R13).
    pub(super) fn repeat(&mut self, at: Monotonic) {
        assert_eq!(self.call, Call::None, "a call is repeated after it has ended");
        self.call = Call::Due(at);
    }

    /// The broker said who the session is.
    pub(super) fn establish(&mut self, incarnation: Incarnation, now: Monotonic) {
        (self.mode, self.call, self.known_at) = (Mode::Established(incarnation), Call::None, now);
    }

    /// What decides its future: at most one call is out, so it needs no name; and how often it failed only makes pauses longer.
    pub(super) fn digest(&self, moment: Moment<'_>, into: &mut impl Hasher) {
        (self.mode, self.fruitless > 0, self.is_stale(moment.now())).hash(into);
        mem::discriminant(&self.call).hash(into);
        self.due().map(|at| moment.until(at)).hash(into);
    }
}

/// An id that was not used for longer than this is not used again. Well below the 24 hours after which a broker forgets an idle
/// producer unless it was told otherwise: the broker's clock runs on its own, and it notes duplicates only about hourly (W5).
const IDLE_ID_MAX: Duration = Duration::from_secs(3600);
