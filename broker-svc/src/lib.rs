//! x
pub mod config;
pub mod entry;
pub mod hold;
pub mod journal;
pub mod pipeline;
pub mod state;
pub mod wire;
