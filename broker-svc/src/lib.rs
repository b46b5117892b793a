//! The broker: a durable, partitioned log that knows what each producer has already written to it.

pub mod entry;
pub mod journal;
