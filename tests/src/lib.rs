//! x
pub mod transcript;
