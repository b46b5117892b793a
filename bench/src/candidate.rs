//! Who takes part in a row.

use std::path::Path;

use crate::{load::Load, measured::Measured, peers::Peer};

/// Where a run works: directories on the disk under test.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Fresh, and removed after the run.
    pub run: &'a Path,
    /// The same for all runs of the row, and removed after it: for what takes long to make.
    pub row: &'a Path,
}

/// Something that can be measured with a load.
#[tonic::async_trait(?Send)]
pub trait Candidate {
    /// Starts what it needs, sends, reads back, stops.
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured>;
}

/// A candidate with its name, its promise and its load.
pub struct Entry {
    /// What it is called in the report; unique in its row.
    pub name: String,
    /// What an acknowledgement of it means.
    pub durability: String,
    /// What it is measured with.
    pub load: Load,
    /// Where the load's rate comes from.
    pub rate: Rate,
    /// Does the work.
    pub candidate: Box<dyn Candidate>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("load", &self.load).finish_non_exhaustive()
    }
}

/// Where the rate of an open loop comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// `load.rate`, which may be none.
    Given,
    /// A share of what another entry of the row reached in the same round; `load.records` last for so many seconds.
    ShareOf {
        /// The other entry; it stands before this one.
        entry: &'static str,
        /// 0 to 1.
        share: f64,
        /// How long the records last.
        seconds: f64,
    },
}

impl Entry {
    /// One that goes as its load says.
    pub fn new(name: impl Into<String>, durability: impl Into<String>, load: Load, candidate: impl Candidate + 'static) -> Self {
        Self { name: name.into(), durability: durability.into(), load, rate: Rate::Given, candidate: Box::new(candidate) }
    }

    /// The same at another rate.
    #[must_use]
    pub fn at(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }
}

/// A peer as a candidate.
#[derive(Debug)]
pub struct OfPeer<P>(pub P);

#[tonic::async_trait(?Send)]
impl<P: Peer> Candidate for OfPeer<P> {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        self.0.run(load, place.run).await
    }
}
