//! `oncelog dev`, as a process.

use std::{net::SocketAddr, path::Path};

use oncelog_chaos::{port, process::Process};

use crate::binaries;

/// Both services in one process.
#[derive(Debug)]
pub struct Dev {
    /// The process.
    pub process: Process,
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// Where the producer listens.
    pub producer: SocketAddr,
    /// Where the broker's probes and metrics are.
    pub broker_admin: SocketAddr,
    /// Where the producer's probes and metrics are.
    pub producer_admin: SocketAddr,
}

impl Dev {
    /// Starts it on free ports, with its data in `data`, and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(data: &Path, log: &Path) -> anyhow::Result<Self> {
        let [broker, producer, broker_admin, producer_admin] = std::array::from_fn(|_| port::free());
        let args = [
            "dev".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--broker-listen={broker}"),
            format!("--producer-listen={producer}"),
            format!("--broker-admin-listen={broker_admin}"),
            format!("--producer-admin-listen={producer_admin}"),
        ];
        let mut process = Process::start(&binaries::program("oncelog"), &args, log)?;
        process.ready(broker_admin).await?;
        process.ready(producer_admin).await?;
        Ok(Self { process, broker, producer, broker_admin, producer_admin })
    }
}
