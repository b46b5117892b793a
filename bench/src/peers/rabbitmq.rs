//! RabbitMQ Streams, a node of its own with its own ports, directories and cookie. Producers have names and records publishing
//! ids, by which it drops what it has. It never syncs.
//!
//! A partition is a stream, as in a super stream. The client is RabbitMQ's own in Go.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::Context;
use tokio::process::Command;

use super::{
    Installed, Missing, Peer,
    client::Drive,
    debian::{self, versioned},
    go::Programs,
    install::unusable,
    server::Server,
};
use crate::{load::Load, measured::Measured, process::free_address, rows::names};

/// RabbitMQ with streams.
#[derive(Clone, Debug, Default)]
pub struct RabbitStreams {
    tools: OnceLock<Tools>,
}

#[derive(Clone, Debug)]
struct Tools {
    programs: Programs,
    /// Below it is `usr`, as Debian lays it out.
    root: PathBuf,
    rabbitmq: PathBuf,
    erts: PathBuf,
}

impl Peer for RabbitStreams {
    fn name(&self) -> &'static str {
        names::RABBITMQ
    }

    fn durability(&self) -> &'static str {
        "memory of the kernel; no sync"
    }

    fn install(&self, tools: &Path) -> Result<Installed, Missing> {
        let programs = Programs::built(tools)?;
        let root = debian::unpacked(tools, &["rabbitmq-server"])?;
        let root = root.canonicalize().map_err(|error| unusable(&root, &error))?;
        let (rabbitmq, version) = versioned(&root.join("usr/lib/rabbitmq/lib"), "rabbitmq_server-")?;
        let (erts, erts_version) = versioned(&root.join("usr/lib/erlang"), "erts-")?;
        let mut versions = programs.client_versions("github.com/rabbitmq/rabbitmq-stream-go-client")?;
        versions.insert("rabbitmq-server".to_owned(), version);
        versions.insert("Erlang runtime".to_owned(), erts_version);
        self.tools.get_or_init(|| Tools { programs, root, rabbitmq, erts });
        Ok(Installed(versions))
    }

    async fn run(&self, load: &Load, dir: &Path) -> anyhow::Result<Measured> {
        let tools = self.tools.get().context("install RabbitMQ first")?;
        let dir = &dir.canonicalize()?;
        let data = dir.join("mnesia");
        fs::write(dir.join("enabled_plugins"), "[rabbitmq_stream].\n")?;
        fs::create_dir(dir.join("bin"))?;
        let erl = dir.join("bin/erl");
        fs::write(&erl, tools.erl())?;
        fs::set_permissions(&erl, fs::Permissions::from_mode(0o755))?;

        // Erlang's port mapper would stay behind as a daemon; as a process of its own in the foreground it is stopped like the
        // node.
        let epmd_address = free_address()?;
        let mut command = Command::new(tools.erts.join("bin/epmd"));
        let mut epmd =
            Server::start("epmd", command.args(["-address", "127.0.0.1", "-port", &epmd_address.port().to_string()]), dir)?;
        epmd.listens(epmd_address).await?;

        let streams = free_address()?;
        let amqp = free_address()?;
        fs::write(
            dir.join("rabbitmq.conf"),
            format!(
                "listeners.tcp.1 = {amqp}\nstream.listeners.tcp.1 = {streams}\nstream.advertised_host = 127.0.0.1\nstream.advertised_port = {}\n",
                streams.port()
            ),
        )?;
        let mut command = Command::new(tools.rabbitmq.join("sbin/rabbitmq-server"));
        command
            .env("PATH", path_with(&dir.join("bin"))?)
            .env("LD_LIBRARY_PATH", tools.root.join("usr/lib/x86_64-linux-gnu"))
            // The cookie is kept there.
            .env("HOME", dir)
            .env("ERL_EPMD_PORT", epmd_address.port().to_string())
            .env("RABBITMQ_NODENAME", "bench@localhost")
            .env("RABBITMQ_DIST_PORT", free_address()?.port().to_string())
            .env("RABBITMQ_MNESIA_BASE", &data)
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            // The script then becomes the node instead of waiting for it, so that the process id is the node's.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .arg("-noinput");
        let mut server = Server::start("rabbitmq-server", &mut command, dir)?;
        server.listens(streams).await?;
        let drive = Drive {
            client: &tools.programs.client(),
            protocol: "rabbitmq",
            address: streams,
            connections: CONNECTIONS,
            data: &data,
        };
        let measured = drive.measure(load, &server).await?;
        server.stop().await?;
        epmd.stop().await?;
        Ok(measured)
    }
}

impl Tools {
    /// Debian's `erl` knows only the place where Debian installs it.
    fn erl(&self) -> String {
        let root = self.root.join("usr/lib/erlang");
        format!(
            "#!/bin/sh\nexport ROOTDIR='{}' BINDIR='{}' EMU=beam PROGNAME=erl\nexec \"$BINDIR/erlexec\" \"$@\"\n",
            root.display(),
            self.erts.join("bin").display()
        )
    }
}

fn path_with(first: &Path) -> anyhow::Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(std::iter::once(first.to_owned()).chain(env::split_paths(&rest)))?)
}

/// Measured with 1, 2, 4 and 8.
const CONNECTIONS: u32 = 2;
