//! What a broker stands in: its disk, its network, its clocks, its randomness, and who does the work that blocks.
//!
//! [`Broker::start`](crate::Broker::start) takes the machine's own. A simulation hands in others, and can then drive the whole
//! broker on one thread, the same way each time: nothing in this crate reaches around what stands here, but for tokio's clock
//! and tasks, which are those of the runtime that it is started in.

use std::{net::SocketAddr, sync::Arc};

use oncelog_edge::{admin::Admin, machine::WallClock, security::access::Access, telemetry::Telemetry};

use crate::{journal::disk::Disk, workers::Workers};

/// The surroundings of one broker, from its start to its end. `I` is a stream of connections.
#[derive(Debug)]
pub struct Surroundings<I> {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Who waits for the disk.
    pub workers: Workers,
    /// What people call the time; it may jump.
    pub wall_clock: WallClock,
    /// A random number, another one at each start: the salts of the segments come from it, and they tell segments apart.
    pub seed: u64,
    /// The connections that are let in.
    pub connections: I,
    /// Where they come from callers, to be told to them.
    pub local_addr: SocketAddr,
    /// Who of them may do what.
    pub access: Access,
    /// For probes and metrics; none: they are not served.
    pub admin: Option<Admin>,
    /// Where traces and metrics are exported to.
    pub telemetry: Telemetry,
}
