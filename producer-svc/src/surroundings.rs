//! What a producer stands in: its network, its randomness, its clock.
//!
//! [`Producer::start`](crate::Producer::start) takes the machine's own. A simulation hands in others, and can then drive the
//! whole producer on one thread, the same way each time: nothing in this crate reaches around what stands here, but for tokio's
//! clock and tasks, which are those of the runtime that it is started in.

use std::{fmt, net::SocketAddr};

use oncelog_edge::{admin::Admin, machine::WallClock, security::access::Access, telemetry::Telemetry};
use oncelog_proto::Bearer;
use tonic::transport::{Channel, Endpoint};

/// The surroundings of one producer, from its start to its end. `I` is a stream of connections.
pub struct Surroundings<I> {
    /// The connections that are let in.
    pub connections: I,
    /// Where they come from callers, to be told to them.
    pub local_addr: SocketAddr,
    /// Who of them may do what.
    pub access: Access,
    /// For probes and metrics; none: they are not served.
    pub admin: Option<Admin>,
    /// Makes the channel to the broker. It connects when it is first used, and again after it broke.
    pub connect: Connect,
    /// What calls to the broker show.
    pub bearer: Bearer,
    /// What people call the time.
    pub wall_clock: WallClock,
    /// What is random in a producer.
    pub seeds: Seeds,
    /// Where traces and metrics are exported to.
    pub telemetry: Telemetry,
}

/// Makes a channel that connects when it is first used.
pub type Connect = Box<dyn Fn(Endpoint) -> Channel + Send + Sync>;

/// Random numbers, for what is random in a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// Of the token that tells this process from every other when it recovers (R13).
    pub token: [u64; 2],
    /// Of the jitter between two tries.
    pub session: u64,
    /// Of the choice of a partition for records without a key.
    pub partitioner: u64,
}

impl<I> fmt::Debug for Surroundings<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}
