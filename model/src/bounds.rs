//! What may happen in a world, and how often.

use std::time::Duration;

use oncelog_proto::ErrorCode;
use tonic::Code;

use crate::broken::Broken;

/// The bounds of an exploration.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What callers send, in this order: for each `Send` the partition of each of its records. Fewer than 100 records in all.
    pub sends: Vec<Vec<i32>>,
    /// Calls of a client that is not a session, on their way from the start. None of them is ever answered to anybody.
    pub strangers: Vec<Stranger>,
    /// Bytes at which the session's batches are full; a record has some ten. 0: a batch for each record.
    pub batch_size: usize,
    /// Most outstanding calls, 1 to 5.
    pub max_in_flight: usize,
    /// The pause before each resend. Zero: none, and the session's clock stands still.
    pub pause: Duration,
    /// The session's delivery timeout. Above [`HORIZON`]: never.
    pub delivery_timeout: Duration,
    /// Does the broker hold early batches?
    pub hold: bool,
    /// Bytes of all held batches together; each takes some 520.
    pub hold_bytes: usize,
    /// How often which failure may happen.
    pub failures: Failures,
    /// What a batch may be refused with although nothing is wrong with it. A conflict is no lie: somebody else takes the id over
    /// then.
    pub refusals: Vec<ErrorCode>,
    /// What a call may end with, carried out or not.
    pub statuses: Vec<Code>,
    /// The largest batch that the broker takes after [`Failures::lowered`], in bytes.
    pub lowered_bytes: usize,
    /// A rule that is broken on purpose.
    pub broken: Option<Broken>,
}

/// How often each failure may still happen. Delays and reordering are no failures: there is no end to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Failures {
    /// A call is given up although it or its answer is on its way; its copy lives.
    pub give_ups: u8,
    /// A call arrives, and a copy of it stays on its way.
    pub doubles: u8,
    /// The broker stops and starts; what is not synced is lost but for a part at its front.
    pub crashes: u8,
    /// At a crash the largest batch becomes smaller.
    pub lowered: u8,
    /// The producer process stops, and another one starts.
    pub kills: u8,
    /// A batch is refused unseen.
    pub refusals: u8,
    /// A call ends with a status.
    pub statuses: u8,
}

/// A call of somebody else than the session, under producer id 1, which is handed out before all begins.
#[derive(Clone, Debug)]
pub enum Stranger {
    /// A batch of the records `records`, from sequence `base` on, in partition 0.
    Produce {
        /// The epoch of its tag.
        epoch: i32,
        /// Its first sequence.
        base: i64,
        /// The numbers of its records, below 100.
        records: Vec<u8>,
    },
    /// A recovery of this epoch.
    Recover {
        /// The epoch to be fenced.
        epoch: i32,
        /// Its token.
        token: &'static str,
    },
}

/// The session's clock leaps to no wake-up that is farther than this.
pub const HORIZON: Duration = Duration::from_secs(60);

impl Default for Bounds {
    /// Nothing is sent and nothing fails.
    fn default() -> Self {
        Self {
            sends: Vec::new(),
            strangers: Vec::new(),
            batch_size: 0,
            max_in_flight: 5,
            pause: Duration::ZERO,
            delivery_timeout: HORIZON * 10,
            hold: true,
            hold_bytes: 1 << 20,
            failures: Failures::default(),
            refusals: Vec::new(),
            statuses: Vec::new(),
            lowered_bytes: 0,
            broken: None,
        }
    }
}

impl Bounds {
    /// May a record of a living process end as "unknown"?
    pub(crate) fn may_be_unknown(&self) -> bool {
        self.delivery_timeout <= HORIZON || self.may_alarm()
    }

    /// May a record be refused?
    pub(crate) fn may_be_refused(&self) -> bool {
        self.delivery_timeout <= HORIZON || self.failures.refusals + self.failures.statuses + self.failures.lowered > 0
    }

    /// May the session raise an alarm although its id is its own? Only if a status lies about it: whoever answers "unknown" or
    /// "fenced" to a recovery.
    pub(crate) fn may_alarm(&self) -> bool {
        self.failures.statuses > 0
    }
}
