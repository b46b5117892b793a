//! What the disk allows.

mod fio;
mod journal_loop;
mod read_file;

pub use fio::Fio;
pub use journal_loop::{JournalLoop, LoneSync};
pub use read_file::{Log, ReadFiles, drop_caches, warm};
