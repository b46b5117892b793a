//! The producer service: takes records from callers in any language and brings each of them to the broker's log exactly once.
//!
//! The way of a record, module by module:
//!
//! | module | what it does with a record |
//! |---|---|
//! | `rpc` | checks it, waits for its topic and for memory, hands it over; tells its outcome at the end |
//! | `topics`, `buffer` | how many partitions its topic has; the memory it takes until its outcome is known |
//! | `driver` | the one task that owns the two below, and carries out what they decide |
//! | [`partitioner`] | chooses its partition |
//! | [`session`] | puts it into a batch, tags the batch, sends it until its outcome is known: pure, and the heart of it all |
//! | `broker_client` | makes the calls |
//! | `batch_limit` | how large a batch the broker takes |
//! | `traces` | follows it, if it is in a trace |
//! | [`wire`] | what is read from callers and from the broker, before any of the above sees it |
//!
//! [`config`] says how, [`surroundings`] on what, [`Producer`] holds it together.

pub mod accumulator;
mod batch_limit;
mod broker_client;
mod buffer;
mod clock;
pub mod config;
mod driver;
mod metrics;
pub mod partitioner;
mod producer;
mod rpc;
pub mod session;
pub mod surroundings;
mod topics;
mod traces;
pub mod wire;

pub use config::{Config, ConfigError};
pub use producer::Producer;
pub use surroundings::Surroundings;
