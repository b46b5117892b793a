//! Judges what was promised by what happened: a history of calls and answers, and what a reader reads when all of it is over,
//! against the invariants I1 to I8.
//!
//! It knows the contract and nothing of the services behind it, so that the same judgement serves a simulation, a run over real
//! processes, and anybody's deployment.
//!
//! | module | owns |
//! |---|---|
//! | [`history`] | what was asked and answered |
//! | [`history_file`] | histories on disk and in memory |
//! | [`wire`] | answers of the contract as events of a history |
//! | [`log`] | what a reader reads |
//! | [`live`] | reading a running broker |
//! | [`judge()`] | the judgement |
//! | [`report`] | what came of it |

pub mod history;
pub mod history_file;
mod judge;
pub mod live;
pub mod log;
pub mod report;
pub mod wire;

pub use history_file::{History, HistoryError, HistoryFile, HistoryWriter};
pub use judge::{judge, judge_log};
pub use log::{Log, PartitionLog};
pub use report::{Evidence, Report, Rule, Violation};
