//! Model checking: every order of events between the real session and the real pipeline, within small bounds.
//!
//! A state is a producer process, a broker with its disk, and what is on its way between them. The rules are the code's own pure
//! functions, [`producer_svc::session::Session`] and [`broker_svc::pipeline::Pipeline`]; nothing of them is written here a second
//! time. The explorer takes every step that may come next, from every state, until there is no new state; two ways that lead to
//! states of equal digest are one from there on.
//!
//! | file | owns |
//! |---|---|
//! | [`bounds`] | what may happen, and how often |
//! | [`scenarios`] | the bounds that are explored, by name |
//! | [`step`] | one thing that happens |
//! | [`world`] | a state: what may come next, and what comes of it |
//! | `process`, `broker` | the two ends, each around its real machine |
//! | `travel`, `wire` | what is on its way; from one machine's words to the other's |
//! | `ledger` | what was sent, told, and made durable; judges every promise |
//! | [`explore`] | the explorer: shortest counterexamples, and liveness |
//! | [`broken`] | rules broken on purpose, to see that it is noticed |
//!
//! # What is checked
//!
//! At every step: I1 and I2 (a record is in the log once, where its acknowledgement says; one of unknown outcome at most once; a
//! refused one never), I3 (sequences and the records of one process in order, without gaps), I4 and I7 (each answer that leaves
//! the broker is true of the durable log, so no later one can differ), I5 (what was lived equals what is replayed), I6 (no append
//! of an epoch after a newer one was granted), recovery answers tell exactly the fenced epoch (R2, R3), no alarm and no unknown
//! outcome unless the bounds call for it, no panic.
//!
//! From every state: if from now on nothing fails, every `Send` gets its outcome. What is on its way arrives, what was lost is
//! timed out; the continuation is one of the steps that are explored anyway, so it is a pointer from each state to another, and a
//! cycle of pointers is a livelock.
//!
//! # What is left out
//!
//! - Time is an order of timeouts: each machine's clock leaps to its next wake-up, whenever. Pauses are all of one length,
//!   batches do not linger, the broker's wall clock stands still. So backoff, jitter, expiry of producers and idle ids are not in
//!   it.
//! - The disk is as honest as the journal makes it: a group is whole or gone, and gone only if it was not synced.
//! - Topics are not deleted (R12), acknowledgements are `all`, groups are far below their limit.
//! - A copy of a call for a fresh id that nobody waits for is dropped: it would hand out an id that nobody uses.
//! - Two states are taken for one if their 64-bit digests are equal. With n states the odds of an error are about n² in 2⁶⁵.
//!
//! # Why an explorer of its own
//!
//! Of the crates, stateright fits best. But its `eventually` takes a cycle for a join and so misses livelocks, and a liveness
//! check from every state of its own would cost many times the exploration. With the pointers it costs nothing, and they need the
//! visited set.

pub mod bounds;
pub mod broken;
mod broker;
pub mod explore;
mod ledger;
mod process;
pub mod scenarios;
pub mod step;
mod travel;
mod wire;
pub mod world;

pub use ledger::Violation;
