//! What the end-to-end tests stand on: real processes, killed and paused; a network that breaks; records from real life.
//! Processes, networks and what breaks them are `oncelog_chaos`'s.
//!
//! | module | owns |
//! |---|---|
//! | [`authority`] | certificates, made for a test |
//! | [`binaries`] | where the built commands are, built when the tests run |
//! | [`workplace`] | a directory for one test |
//! | [`records`] | keyed records, and their form on the stdin and stdout of `oncelog` |
//! | [`secured`] | both services behind certificates, tokens and permissions |
//! | [`stack`] | a stage in a directory of its own, and its log read by `oncelog` |
//! | [`lone_broker`] | a broker on its own, spoken to by its contract |
//! | [`dev`] | both in one process |
//! | [`collector`] | a real OpenTelemetry Collector |
//! | [`produce`] | Produce requests, in a line each |
//! | [`footprint`] | everything a broker holds, to see that a refusal left nothing behind |
//! | [`ordeal`] | the package list through all of it, while it breaks |
//! | [`small_disk`] | a real file system, small enough to fill, over memory that may run out |
//! | [`transcript`] | conversations with a broker, written down as text |
//! | [`verdict`] | whether everything is there, once, in order |

pub mod authority;
pub mod binaries;
pub mod collector;
pub mod dev;
pub mod footprint;
pub mod lone_broker;
pub mod ordeal;
pub mod produce;
pub mod records;
pub mod secured;
pub mod small_disk;
pub mod stack;
pub mod transcript;
pub mod verdict;
pub mod workplace;
