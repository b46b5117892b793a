//! Judges what was promised by what happened: a history of calls and answers, and what a reader reads in the end, against the
//! invariants I1 to I8.

pub mod history;
