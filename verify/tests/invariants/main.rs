//! For each invariant a history that violates exactly it, beside one that just does not.

mod answers;
mod callers;
mod durable;
mod in_the_log;
mod story;
