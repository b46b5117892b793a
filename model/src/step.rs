//! One thing that happens.

use oncelog_proto::ErrorCode;
use tonic::Code;

/// A step. Indices count what is there when it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next `Send` is handed over.
    Send,
    /// A call arrives at the broker.
    Arrive(usize),
    /// A call arrives, and a copy of it stays on its way.
    Double(usize),
    /// A call arrives, and its first batch is refused unseen; with a conflict, because somebody else has taken the id over.
    Refuse(usize, ErrorCode),
    /// A call ends with a status.
    Fail {
        /// Which.
        call: usize,
        /// With what.
        status: Code,
        /// It was carried out all the same.
        carried_out: bool,
    },
    /// An answer arrives at the session.
    Answer(usize),
    /// The session gives a call up: the n-th of those it waits for, by age; the `InitProducerId` call last.
    GiveUp(usize),
    /// The oldest group that is not durable becomes so.
    Sync,
    /// The broker's clock leaps to the end of a held batch's wait.
    BrokerTime,
    /// The session's clock leaps to its next wake-up.
    SessionTime,
    /// The broker stops and starts.
    Crash {
        /// So many of the groups that were written and not synced are there.
        kept: usize,
        /// It takes only smaller batches from now on.
        lowered: bool,
    },
    /// The producer process stops, and another one starts.
    Kill,
}
