//! The state as what the journal is replayed into.

use oncelog_proto::Timestamp;

use crate::{
    entry::Entry,
    journal::{GroupNumber, Replay},
    state::State,
};

impl Replay for State {
    fn restore(&mut self, chunks: &mut dyn Iterator<Item = Vec<u8>>) -> Result<(), String> {
        *self = Self::from_chunks(chunks).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn apply(&mut self, _group: GroupNumber, time: Timestamp, entry: &Entry) -> Result<(), String> {
        Self::apply(self, entry, time).map_err(|error| error.to_string())
    }
}
