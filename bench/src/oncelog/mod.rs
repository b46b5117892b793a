//! oncelog itself: the two services as they are shipped, as processes, with their default settings unless a row says otherwise.

mod binaries;
mod calling;
mod fetching;
mod known_producers;
mod log;
mod services;
mod starting;
mod tailing;
mod traced;

pub use binaries::{build, sizes};
pub use calling::{Calling, Calls, Content, Side};
pub use fetching::Fetching;
pub use known_producers::KnownProducers;
pub use log::PreparedLog;
pub use services::{Journal, Services, Settings};
pub use starting::{Starting, State};
pub use tailing::Tailing;
pub use traced::Traced;

/// What an acknowledgement of it means.
pub const DURABILITY: &str = "on disk: one fdatasync before all answers of its group";
