//! Redis Streams, a server of its own with an append-only file. It does not recognise what it was sent twice.
//!
//! A partition is a stream under its own key. `XADD`s are pipelined. As everywhere, one connection keeps the order of a
//! partition, so there are never more connections than partitions.

use std::{
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

use anyhow::Context;
use tokio::process::Command;

use super::{Installed, Missing, Peer, client::Drive, debian, go::Programs, install::finish, server::Server};
use crate::{load::Load, measured::Measured, process::free_address, rows::names};

/// Redis with streams.
#[derive(Clone, Debug)]
pub struct RedisStreams {
    appendfsync: Appendfsync,
    tools: OnceLock<Tools>,
}

#[derive(Clone, Copy, Debug)]
enum Appendfsync {
    Everysec,
    Always,
}

#[derive(Clone, Debug)]
struct Tools {
    programs: Programs,
    server: PathBuf,
}

impl RedisStreams {
    /// `appendfsync everysec`, the default of the append-only file.
    pub fn syncing_every_second() -> Self {
        Self { appendfsync: Appendfsync::Everysec, tools: OnceLock::new() }
    }

    /// `appendfsync always`.
    pub fn syncing_always() -> Self {
        Self { appendfsync: Appendfsync::Always, tools: OnceLock::new() }
    }
}

impl Peer for RedisStreams {
    fn name(&self) -> &'static str {
        match self.appendfsync {
            Appendfsync::Everysec => names::REDIS,
            Appendfsync::Always => names::REDIS_ALWAYS,
        }
    }

    fn durability(&self) -> &'static str {
        match self.appendfsync {
            Appendfsync::Everysec => "memory of the kernel; sync every second; no deduplication",
            Appendfsync::Always => "on disk: sync before the answers of each round of its event loop; no deduplication",
        }
    }

    fn install(&self, tools: &Path) -> Result<Installed, Missing> {
        let programs = Programs::built(tools)?;
        // The server is a link into redis-tools, which has the program.
        let server = debian::unpacked(tools, &["redis-server", "redis-tools"])?.join("usr/bin/redis-server");
        let said = finish(process::Command::new(&server).arg("--version"))?;
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or(&said).to_owned();
        let mut versions = programs.client_versions("github.com/gomodule/redigo")?;
        versions.insert("redis-server".to_owned(), version);
        self.tools.get_or_init(|| Tools { programs, server });
        Ok(Installed(versions))
    }

    async fn run(&self, load: &Load, dir: &Path) -> anyhow::Result<Measured> {
        let tools = self.tools.get().context("install Redis first")?;
        let dir = &dir.canonicalize()?;
        let address = free_address()?;
        let data = dir.join("redis");
        std::fs::create_dir(&data)?;
        let mut command = Command::new(&tools.server);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(&data).args(self.settings());
        let mut server = Server::start("redis-server", &mut command, dir)?;
        server.listens(address).await?;
        let drive = Drive { client: &tools.programs.client(), protocol: "redis", address, connections: CONNECTIONS, data: &data };
        let measured = drive.measure(load, &server).await?;
        server.stop().await?;
        Ok(measured)
    }
}

impl RedisStreams {
    fn settings(&self) -> [&'static str; 8] {
        let appendfsync = match self.appendfsync {
            Appendfsync::Everysec => "everysec",
            Appendfsync::Always => "always",
        };
        [
            // Without it nothing but snapshots every few minutes would be on disk.
            "--appendonly",
            "yes",
            "--appendfsync",
            appendfsync,
            // The append-only file is the log. Snapshots beside it, and rewriting a file of nothing but additions, would cost
            // time and keep nothing more.
            "--save",
            "",
            "--auto-aof-rewrite-percentage",
            "0",
        ]
    }
}

/// Measured with 1, 2, 4 and 8. With `always`, what all connections have sent meanwhile shares a sync.
const CONNECTIONS: u32 = 8;
