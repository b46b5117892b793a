//! Where a page's commands are run: an empty directory beside a running `oncelog dev` with a log of its own, as its reader has
//! them who started it in the next window.
//!
//! Commands run as they are written, but for this: services listen on free ports, so the ports of the pages stand for those; and
//! `cargo`, `oncelog` and the services are a [stand-in](../tests/stand-in), which runs what the tests have built. It does not run
//! what would not end: a service, or minutes of building, testing, simulating and measuring. Of these every flag has to be in
//! `--help`, and every package and target has to be there.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Stdio, time::Duration};

use oncelog_proto::v1::{DescribeProducersRequest, broker_service_client::BrokerServiceClient};
use oncelog_tests::{binaries, dev::Dev, workplace::Workplace};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};
use tonic::transport::Endpoint;

use crate::page::root;

/// A directory, and what runs beside it.
#[derive(Debug)]
pub struct Stage {
    workplace: Workplace,
    dev: Option<Dev>,
    starts: usize,
}

/// How a script ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// With exit status 0?
    pub well: bool,
    /// What it wrote, errors and all, in the order in which a terminal would show it.
    pub said: String,
}

impl Stage {
    /// An empty one. Nothing runs yet.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        let workplace = Workplace::new();
        fs::create_dir(workplace.path("bin")).expect("a new directory");
        for name in ["cargo", "oncelog", "broker-svc", "producer-svc"] {
            let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand-in");
            symlink(stand_in, workplace.path("bin").join(name)).expect("a new file");
        }
        Self { workplace, dev: None, starts: 0 }
    }

    /// Runs a script with bash, which ends at the first command that fails. One that speaks of the log's directory is run beside
    /// a stopped `oncelog dev`, as its page says, every other one beside a running one.
    ///
    /// # Panics
    /// If `oncelog dev` or bash does not start, or the script takes too long.
    pub async fn run(&mut self, script: &str) -> Ended {
        if script.contains(DATA) {
            self.stop().await;
        }
        let mut command = Command::new("bash");
        if !script.contains(DATA) {
            let dev = self.running().await;
            command.env("ONCELOG_BROKER", format!("http://{}", dev.broker));
            command.env("ONCELOG_PRODUCER", format!("http://{}", dev.producer));
        }
        let bin = binaries::path("oncelog");
        let path = format!("{}:{}", self.workplace.path("bin").display(), env::var("PATH").expect("there is a PATH"));
        command
            .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", self.ported(script))])
            .current_dir(self.workplace.path("."))
            .env("PATH", path)
            .env("ONCELOG_BUILT", bin.parent().expect("a directory"))
            .env("ONCELOG_ROOT", root())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output =
            timeout(PATIENCE, command.output()).await.unwrap_or_else(|_| panic!("it takes longer than {PATIENCE:?}:\n{script}"));
        let output = output.expect("there is bash");
        Ended { well: output.status.success(), said: String::from_utf8_lossy(&output.stdout).into_owned() }
    }

    /// Stops what runs. Its log stays.
    ///
    /// # Panics
    /// If it does not end well.
    pub async fn stop(&mut self) {
        if let Some(dev) = self.dev.take() {
            let status = dev.process.terminate().await.expect("it is there");
            assert!(status.success(), "oncelog dev ends with {status}");
        }
    }

    async fn running(&mut self) -> &Dev {
        if self.dev.is_none() {
            self.starts += 1;
            let log = self.workplace.path(&format!("dev-{}.log", self.starts));
            let dev = Dev::start(&self.workplace.path(DATA), &log).await.expect("oncelog dev starts");
            timeout(PATIENCE, has_its_id(&dev)).await.expect("producer-svc gets an id");
            self.dev = Some(dev);
        }
        self.dev.as_ref().expect("started")
    }

    /// The script, with the ports of what runs.
    fn ported(&self, script: &str) -> String {
        let Some(dev) = &self.dev else { return script.to_owned() };
        let ports = [(50051, dev.broker), (50052, dev.producer), (9464, dev.broker_admin), (9465, dev.producer_admin)];
        ports.into_iter().fold(script.to_owned(), |script, (default, here)| {
            let [told, also] = [format!("127.0.0.1:{default}"), format!("localhost:{default}")];
            script.replace(&told, &here.to_string()).replace(&also, &here.to_string())
        })
    }
}

/// Waits until producer-svc has asked for its producer id: pages show ids, and the first one is its own.
async fn has_its_id(dev: &Dev) {
    let channel = Endpoint::from_shared(format!("http://{}", dev.broker)).expect("an address").connect_lazy();
    let mut client = BrokerServiceClient::new(channel);
    loop {
        let described = client.describe_producers(DescribeProducersRequest::default()).await;
        if described.is_ok_and(|answer| !answer.into_inner().producers.is_empty()) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// Where `oncelog dev` keeps its log, unless it is told otherwise.
const DATA: &str = "oncelog-data";
const PATIENCE: Duration = Duration::from_secs(180);
