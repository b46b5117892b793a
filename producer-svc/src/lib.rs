//! x
pub mod accumulator;
pub mod session;
