//! Both services behind certificates, tokens and permissions, as real processes.

use std::{net::SocketAddr, path::Path, process::Output, time::Duration};

use oncelog_chaos::{
    port,
    process::{Process, get},
    program::Program,
};
use oncelog_edge::security::{dial, reload::Reload};
use oncelog_proto::{
    Link,
    v1::{broker_service_client::BrokerServiceClient, producer_service_client::ProducerServiceClient},
};
use tokio::time::{sleep, timeout};
use tonic::transport::Uri;

use crate::{binaries, workplace::Workplace};

/// One service.
#[derive(Debug)]
pub struct Service {
    program: Program,
    flags: Vec<String>,
    log: String,
    process: Option<Process>,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where its probes and metrics are.
    pub admin: SocketAddr,
}

impl Service {
    /// Starts `broker-svc` with `flags` added.
    ///
    /// # Panics
    /// It does not start.
    pub async fn broker(workplace: &Workplace, flags: &[String]) -> Self {
        let data = format!("--data-dir={}", workplace.path("data").display());
        Self::start("broker-svc", workplace, [&[data], flags].concat()).await
    }

    /// Starts `producer-svc` with `flags` added.
    ///
    /// # Panics
    /// It does not start.
    pub async fn producer(workplace: &Workplace, flags: &[String]) -> Self {
        Self::start("producer-svc", workplace, flags.to_vec()).await
    }

    /// Starts `broker-svc` on all interfaces, for a moment.
    ///
    /// # Panics
    /// It does not start.
    pub async fn broker_on_all_interfaces(workplace: &Workplace) -> Self {
        let data = format!("--data-dir={}", workplace.path("data").display());
        let addr = port::free();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        Self::start_on("broker-svc", workplace, vec![data], addr, everywhere).await
    }

    async fn start(name: &str, workplace: &Workplace, flags: Vec<String>) -> Self {
        let addr = port::free();
        Self::start_on(name, workplace, flags, addr, addr).await
    }

    async fn start_on(name: &str, workplace: &Workplace, mut flags: Vec<String>, addr: SocketAddr, listen: SocketAddr) -> Self {
        let admin = port::free();
        flags.extend([format!("--listen={listen}"), format!("--admin-listen={admin}")]);
        // Everything that it could say, and the libraries, which say it only if they are named.
        let said = "trace,h2=trace,hyper=trace,hyper_util=trace,tower=trace,tonic=trace,axum=trace";
        let program = binaries::program(name).with_variable("ONCELOG_LOG", said);
        let log = workplace.path(&format!("{name}.log")).display().to_string();
        let mut service = Self { program, flags, log, process: None, addr, admin };
        service.launch().await;
        service
    }

    async fn launch(&mut self) {
        let mut process = Process::start(&self.program, &self.flags, Path::new(&self.log)).expect("it starts");
        process.ready(self.admin).await.expect("it is ready");
        self.process = Some(process);
    }

    /// Its process.
    ///
    /// # Panics
    /// It does not run.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// SIGKILL, and a start on the same data.
    ///
    /// # Panics
    /// It had ended by itself, or does not start.
    pub async fn kill_and_restart(&mut self) {
        self.process.take().expect("it runs").kill().await.expect("it ran");
        self.launch().await;
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// It does not end well.
    pub async fn stop(&mut self) {
        let status = self.process.take().expect("it runs").terminate().await.expect("it ends");
        assert!(status.success(), "{status}");
    }

    /// What it has said.
    ///
    /// # Panics
    /// There is no log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits until it has said this.
    ///
    /// # Panics
    /// It does not within half a minute.
    pub async fn says(&self, what: &str) {
        self.until(what, async || self.said().contains(what)).await;
    }

    /// Waits until a metric has this value.
    ///
    /// # Panics
    /// It does not within half a minute.
    pub async fn tells(&self, sample: &str) {
        self.until(sample, async || get(self.admin, "/metrics").await.is_ok_and(|text| text.lines().any(|line| line == sample)))
            .await;
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let wait = async {
            while !is_so().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("it never says {what}"));
    }

    /// Its address over TLS, by a name that its certificate has.
    pub fn https(&self) -> String {
        format!("https://localhost:{}", self.addr.port())
    }

    /// Its address in plaintext.
    pub fn http(&self) -> String {
        format!("http://{}", self.addr)
    }
}

/// A connection to `url`, made when it is used.
///
/// # Panics
/// The files cannot be read.
pub fn link(url: &str, files: dial::Files) -> Link {
    let to: Uri = url.parse().expect("an address");
    let dial = files.open(&to, &Reload::default()).expect("the files are right");
    dial.bearer().on(dial.connect_lazy(&dial::endpoint(&to)))
}

/// A client of the broker at `url`.
///
/// # Panics
/// As [`link`].
pub fn broker(url: &str, files: dial::Files) -> BrokerServiceClient<Link> {
    BrokerServiceClient::new(link(url, files))
}

/// A client of the producer at `url`.
///
/// # Panics
/// As [`link`].
pub fn producer(url: &str, files: dial::Files) -> ProducerServiceClient<Link> {
    ProducerServiceClient::new(link(url, files))
}

/// Runs `oncelog` with `args` and `stdin`.
///
/// # Panics
/// It cannot be run.
pub async fn oncelog(workplace: &Workplace, args: &[String], stdin: &str) -> Output {
    let input = workplace.path("stdin");
    std::fs::write(&input, stdin).expect("writable");
    let mut command = binaries::command("oncelog");
    command.args(args).stdin(std::fs::File::open(input).expect("readable"));
    command.output().await.expect("it runs")
}

/// A flag with a file.
pub fn flag(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}
