//! The broker: a durable, partitioned log that knows what each producer has already written to it.
//!
//! The way of a batch, module by module:
//!
//! | module | what it does with a batch |
//! |---|---|
//! | `rpc`, [`wire`] | parse the message once; tell the outcome at the end |
//! | `owner` | the one task that owns the pipeline: clocks and channels, no decisions |
//! | [`pipeline`] | the way as a pure machine: what is admitted, what is gathered into a group, what leaves when |
//! | [`hold`] | lets an early batch wait for its turn |
//! | [`state`] | admits: append, duplicate, or refuse; everything the broker knows, as a fold over [`entry`]s |
//! | `committer` | the one loop that owns the journal: one write, one sync |
//! | [`journal`] | the log on disk, and reading it |
//! | `snapshots`, `tidying` | the state written down now and then; what can wait |
//! | `readiness` | whether callers should come: not while the journal stands still |
//!
//! [`config`] says how, [`surroundings`] and [`workers`] on what, [`Broker`] holds it together.

mod broker;
mod clocks;
mod committer;
pub mod config;
pub mod entry;
pub mod hold;
pub mod journal;
mod metrics;
mod owner;
pub mod pipeline;
mod readiness;
mod replay;
mod rpc;
mod snapshots;
pub mod state;
pub mod surroundings;
mod tidying;
pub mod wire;
pub mod workers;

pub use broker::Broker;
pub use config::Config;
pub use surroundings::Surroundings;
pub use workers::Workers;
