//! NATS JetStream, a server of its own with file storage. Records have ids (`Nats-Msg-Id`), by which it drops what it got within
//! the last two minutes.
//!
//! A partition is a stream (`client/nats.go` says why). The client is the one in Go that NATS itself measures with.

use std::{fs, path::Path, sync::OnceLock};

use anyhow::Context;
use tokio::process::Command;

use super::{Installed, Missing, Peer, client::Drive, go::Programs, install::finish, server::Server};
use crate::{load::Load, measured::Measured, process::free_address, rows::names};

/// JetStream.
#[derive(Clone, Debug)]
pub struct JetStream {
    sync: Sync,
    programs: OnceLock<Programs>,
}

#[derive(Clone, Copy, Debug)]
enum Sync {
    /// As it comes.
    Default,
    /// `sync_interval: always`.
    Always,
}

impl JetStream {
    /// As it comes.
    pub fn syncing_by_default() -> Self {
        Self { sync: Sync::Default, programs: OnceLock::new() }
    }

    /// With `sync_interval: always`.
    pub fn syncing_always() -> Self {
        Self { sync: Sync::Always, programs: OnceLock::new() }
    }
}

impl Peer for JetStream {
    fn name(&self) -> &'static str {
        match self.sync {
            Sync::Default => names::JETSTREAM,
            Sync::Always => names::JETSTREAM_ALWAYS,
        }
    }

    fn durability(&self) -> &'static str {
        match self.sync {
            Sync::Default => "memory of the kernel; sync every 2 minutes",
            Sync::Always => "on disk: sync after every message",
        }
    }

    fn install(&self, tools: &Path) -> Result<Installed, Missing> {
        let programs = Programs::built(tools)?;
        let said = finish(std::process::Command::new(programs.nats_server()).arg("--version"))?;
        let version = said.trim().trim_start_matches("nats-server: v").to_owned();
        let mut versions = programs.client_versions("github.com/nats-io/nats.go")?;
        versions.insert("nats-server".to_owned(), version);
        self.programs.get_or_init(|| programs);
        Ok(Installed(versions))
    }

    async fn run(&self, load: &Load, dir: &Path) -> anyhow::Result<Measured> {
        let programs = self.programs.get().context("install NATS first")?;
        let dir = &dir.canonicalize()?;
        let address = free_address()?;
        let data = dir.join("jetstream");
        let configuration = dir.join("nats.conf");
        fs::write(&configuration, self.configuration(address.port(), &data))?;
        let mut server = Server::start("nats-server", Command::new(programs.nats_server()).arg("-c").arg(&configuration), dir)?;
        server.listens(address).await?;
        let drive = Drive { client: &programs.client(), protocol: "nats", address, connections: CONNECTIONS, data: &data };
        let measured = drive.measure(load, &server).await?;
        server.stop().await?;
        Ok(measured)
    }
}

impl JetStream {
    fn configuration(&self, port: u16, data: &Path) -> String {
        let sync = match self.sync {
            Sync::Default => "",
            Sync::Always => "sync_interval: always",
        };
        let data = data.display();
        format!("listen: \"127.0.0.1:{port}\"\njetstream {{\n  store_dir: \"{data}\"\n  {sync}\n}}\n")
    }
}

/// Measured with 1, 2, 4 and 8.
const CONNECTIONS: u32 = 2;
