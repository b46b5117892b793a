//! Servers that do nothing but speak: the same messages, the same runtime, the same HTTP/2 settings as the services, and no
//! state, no disk. What they reach is what the gRPC stack allows.
//!
//! They are processes of their own, as the services are: hidden commands of the bench.

mod relay;
mod sink;

use std::{net::SocketAddr, path::Path};

use clap::Subcommand;
use oncelog_edge::{
    accept::{self, Incoming},
    server,
};
use oncelog_proto::v1::{broker_service_server::BrokerServiceServer, producer_service_server::ProducerServiceServer};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{self, Server};

/// Which of them to be.
#[derive(Clone, Debug, Subcommand)]
pub enum Bare {
    /// Answers everything at once.
    Sink {
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Hands everything on.
    Relay {
        /// Where.
        #[arg(long)]
        listen: SocketAddr,
        /// Whom to.
        #[arg(long)]
        to: SocketAddr,
    },
}

impl Bare {
    /// Serves until SIGTERM.
    ///
    /// # Errors
    /// The address cannot be listened on, or there is nobody to hand on to.
    pub async fn serve(self) -> anyhow::Result<()> {
        let (Self::Sink { listen } | Self::Relay { listen, .. }) = self;
        let incoming = Incoming::bind(listen, accept::Limits::default()).await?;
        let mut term = signal(SignalKind::terminate())?;
        let stop = async move {
            term.recv().await;
        };
        let mut builder = server::builder(server::Limits::default());
        let router = match self {
            Self::Sink { .. } => builder
                .add_service(BrokerServiceServer::new(sink::Sink::default()).max_decoding_message_size(MAX_REQUEST_BYTES))
                .add_service(ProducerServiceServer::new(sink::Sink::default())),
            Self::Relay { to, .. } => builder.add_service(ProducerServiceServer::new(relay::Relay::connect(to).await?)),
        };
        Ok(router.serve_with_incoming_shutdown(incoming, stop).await?)
    }
}

/// Starts a sink; its address.
///
/// # Errors
/// It does not start.
pub async fn start_sink(directory: &Path) -> anyhow::Result<(Server, SocketAddr)> {
    let listen = process::free_address()?;
    start("sink", &["bare", "sink", "--listen", &listen.to_string()], listen, directory).await
}

/// Starts a relay to a sink; its address.
///
/// # Errors
/// It does not start.
pub async fn start_relay(to: SocketAddr, directory: &Path) -> anyhow::Result<(Server, SocketAddr)> {
    let listen = process::free_address()?;
    start("relay", &["bare", "relay", "--listen", &listen.to_string(), "--to", &to.to_string()], listen, directory).await
}

async fn start(name: &'static str, args: &[&str], listen: SocketAddr, directory: &Path) -> anyhow::Result<(Server, SocketAddr)> {
    let mut server = Server::start(name, &std::env::current_exe()?, args, directory)?;
    server.ready(async || process::listens(listen).await).await?;
    Ok((server, listen))
}

/// As the broker's default.
const MAX_REQUEST_BYTES: usize = 8 << 20;
