//! A simulated file with its two contents, and a change of names: what a sync keeps and what a power loss may take.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Made(String, u64),
    Renamed(String, String),
    Removed(String),
}

impl NameChange {
    pub(super) fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Made(name, id) => {
                names.insert(name, id);
            }
            Self::Renamed(from, to) => {
                if let Some(id) = names.remove(&from) {
                    names.insert(to, id);
                }
            }
            Self::Removed(name) => {
                names.remove(&name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimContent {
    /// What a reader sees.
    pub(super) seen: Vec<u8>,
    /// What a power loss leaves, of what was synced.
    pub(super) durable: Vec<u8>,
    /// Pages written since the last sync, by number.
    pub(super) unsynced: BTreeSet<usize>,
    pub(super) length_unsynced: bool,
}

impl SimContent {
    pub(super) fn write(&mut self, bytes: &[u8], position: u64) {
        let from = usize::try_from(position).expect("in memory");
        let to = from + bytes.len();
        if self.seen.len() < to {
            self.resize(to as u64);
        }
        self.seen[from..to].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.unsynced.extend(from / PAGE..=(to - 1) / PAGE);
        }
    }

    pub(super) fn resize(&mut self, len: u64) {
        let (old, len) = (self.seen.len(), usize::try_from(len).expect("in memory"));
        set_length(&mut self.seen, len);
        // Cut and made longer again: what the durable content has there is older than the zeros.
        if old < len && old < self.durable.len() {
            self.unsynced.extend(old / PAGE..=(len - 1) / PAGE);
        }
        self.length_unsynced = true;
    }

    pub(super) fn sync(&mut self) {
        set_length(&mut self.durable, self.seen.len());
        for page in std::mem::take(&mut self.unsynced) {
            self.keep(page);
        }
        self.length_unsynced = false;
    }

    /// Makes one page durable, as far as both contents reach.
    fn keep(&mut self, page: usize) {
        let end = ((page + 1) * PAGE).min(self.seen.len()).min(self.durable.len());
        let start = (page * PAGE).min(end);
        self.durable[start..end].copy_from_slice(&self.seen[start..end]);
    }

    /// Returns how many pages were lost, and how many made it.
    pub(super) fn crash(&mut self, random: &mut Random) -> (u64, u64) {
        let (mut lost, mut kept) = (0, 0);
        if self.length_unsynced && random.below(2) == 0 {
            set_length(&mut self.durable, self.seen.len());
        }
        for page in std::mem::take(&mut self.unsynced) {
            if random.below(2) == 0 {
                self.keep(page);
                kept += 1;
            } else {
                lost += 1;
            }
        }
        self.seen.clone_from(&self.durable);
        self.length_unsynced = false;
        (lost, kept)
    }
}

/// As `Vec::resize` with zeros, which takes a byte at a time in a build without optimisation.
fn set_length(content: &mut Vec<u8>, len: usize) {
    if let Some(growth) = len.checked_sub(content.len()) {
        content.extend_from_slice(&vec![0; growth]);
    }
    content.truncate(len);
}

const PAGE: usize = 4096;
