//! What a user would pick instead: one file for each.

use std::{collections::BTreeMap, path::Path};

use crate::{load::Load, measured::Measured};

/// Versions of what was installed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed(pub BTreeMap<String, String>);

/// Why a peer cannot be had: what was tried, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

/// A system that can be measured with the same load.
pub trait Peer {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What its acknowledgement means.
    fn durability(&self) -> &'static str;
    /// Installs it by name from a package registry into `tools`, unless it is there.
    ///
    /// # Errors
    /// It cannot be had.
    fn install(&self, tools: &Path) -> Result<Installed, Missing>;
    /// Starts the server in `dir`, which is fresh and on the disk under test; sends, reads back, stops.
    ///
    /// # Errors
    /// Something did not work, or did not come back as it was sent.
    fn run(&self, load: &Load, dir: &Path) -> impl Future<Output = anyhow::Result<Measured>>;
}
