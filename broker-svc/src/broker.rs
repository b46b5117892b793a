//! The service as a whole: its start, its running, its end.
//!
//! ```text
//!  calls ──▶ owner (task): Pipeline ──▶ committer (thread): Journal ──▶ snapshots (thread): a second State
//!              ▲                            │ durable                    tidying (thread): spares, indexes, deletions
//!              └────────────────────────────┘
//!  Fetch ──▶ Reader, as far as the owner says that the log is durable
//! ```
//!
//! It listens from the first moment, and is ready when the journal has been read. When the disk fails it ends by itself, at
//! once: see [`Broker::failed`].

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock, mpsc as sync_mpsc},
    thread,
    time::Duration,
};

use anyhow::Context;
use oncelog_edge::{
    accept::{self, Incoming},
    admin::Admin,
    health::Health,
    reflection, server,
};
use oncelog_proto::v1::broker_service_server::BrokerServiceServer;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tonic::server::NamedService;

use crate::{
    committer::Committer,
    config::Config,
    journal::{self, Journal, OpenReport, Progress, RealDisk, Retention, Stats},
    metrics,
    owner::{Clocks, Handle, Owner, Vitals},
    pipeline::Pipeline,
    rpc::{BrokerRpc, Open},
    snapshots::Snapshots,
    state::State,
    tidying,
};

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    local_addr: SocketAddr,
    admin_addr: SocketAddr,
    shutdown_timeout: Duration,
    health: Health,
    /// Ends streams that follow a log, and the taking of connections.
    drain: watch::Sender<bool>,
    /// Ends the owner, once the calls have ended.
    stop: watch::Sender<bool>,
    failures: mpsc::Receiver<anyhow::Error>,
    owner: JoinHandle<()>,
    server: JoinHandle<anyhow::Result<()>>,
    admin: JoinHandle<io::Result<()>>,
    threads: Vec<thread::JoinHandle<()>>,
    /// Its end tells the tidying thread to end.
    tidy: sync_mpsc::Sender<()>,
}

impl Broker {
    /// Starts it: listens, opens the journal, and returns when it is ready to be called. Progress of a long opening is logged,
    /// and told by the admin port's `/readyz`.
    ///
    /// # Errors
    /// Settings that conflict ([`crate::config::Conflict`]), an address that cannot be listened on, or a journal that cannot be
    /// opened: damaged, locked, or of a newer format.
    ///
    /// # Panics
    /// Outside a multi-threaded tokio runtime.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        config.check()?;
        let limits = accept::Limits { connections: config.max_connections, ..accept::Limits::default() };
        let incoming = Incoming::bind(config.listen, limits).await?;
        let admin = Admin::bind(config.admin_listen).await?;
        let mut health = Health::new(SERVICES).await;
        let (drain, draining) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        let (tell_vitals, vitals) = watch::channel(Vitals::default());
        let stats: Arc<OnceLock<watch::Receiver<Stats>>> = Arc::default();

        let open: Arc<OnceLock<Open>> = Arc::default();
        let rpc = BrokerRpc::new(Arc::clone(&open), config.max_message_bytes, config.max_fetches, draining.clone());
        let (local_addr, admin_addr) = (incoming.local_addr(), admin.local_addr());
        let serve = server::builder(server::Limits::default())
            .add_service(BrokerServiceServer::new(rpc).max_decoding_message_size(config.max_request_bytes))
            .add_service(health.server())
            .add_service(reflection::v1(SERVICES))
            .add_service(reflection::v1alpha(SERVICES))
            .serve_with_incoming_shutdown(incoming, turned(draining));
        let server = tokio::spawn(async move { serve.await.context("the server ended") });
        let journal_stats = Arc::clone(&stats);
        let text = move || metrics::text(&vitals.borrow(), journal_stats.get().map(|stats| *stats.borrow()).as_ref());
        let admin = tokio::spawn(admin.serve(health.readiness(), text, std::future::pending()));

        let opened = open_journal(&config, &mut health).await;
        let (mut journal, state, report) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                server.abort();
                admin.abort();
                return Err(error);
            }
        };
        let clocks = Clocks::start();
        let last_group = (!report.first_opening).then(|| report.last.time());
        let incarnation =
            u16::try_from(report.incarnation).context("the journal was restored more often than ids have room for")?;
        let pipeline_options = config.pipeline_options(journal.group_limit(), incarnation);
        let pipeline = Pipeline::open(pipeline_options, state.clone(), last_group, clocks.now());
        let mut retention = config.retention();
        if pipeline.is_clock_doubtful() {
            tracing::warn!(
                last_group = %report.last.time(),
                "the clock stands more than a day ahead of the journal: nothing expires and nothing is dropped for its age until a \
                 start with --accept-clock-jump"
            );
            retention = Retention { age: None, ..retention };
        }

        let (handle, requests) = Handle::new(config.queued_max_request_bytes);
        let (to_commit, groups) = sync_mpsc::sync_channel(1);
        let (tell_committed, committed) = mpsc::channel(16);
        let (release, released) = sync_mpsc::sync_channel(RELEASED_AHEAD);
        let (tidy, tidying_stop) = sync_mpsc::channel();
        let (failed, failures) = mpsc::channel(4);
        let (tell_stats, receive_stats) = watch::channel(journal.stats());
        let _ = stats.set(receive_stats);

        let reader = journal.reader();
        let writer = journal.snapshot_writer();
        let background = journal.take_background().expect("it is taken once");
        let committer = Committer { journal, retention, groups, committed: tell_committed, released: release, stats: tell_stats };
        let snapshots = Snapshots { state, released, writer };
        let threads = vec![
            spawn("journal", &failed, move || committer.run())?,
            spawn("snapshots", &failed, move || snapshots.run())?,
            spawn("tidying", &failed, move || tidying::run(background, &tidying_stop))?,
        ];
        let owner = Owner { pipeline, clocks, requests, to_commit, committed, vitals: tell_vitals, stop: stopping };
        let owner = tokio::spawn(owner.run());
        assert!(open.set(Open { owner: handle, reader }).is_ok(), "it is opened once");
        health.ready().await;
        tracing::info!(listen = %local_addr, admin = %admin_addr, data_dir = %config.data_dir.display(), "ready");
        let shutdown_timeout = Duration::from_millis(config.shutdown_timeout_ms);
        Ok(Self { local_addr, admin_addr, shutdown_timeout, health, drain, stop, failures, owner, server, admin, threads, tidy })
    }

    /// Where callers reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where probes and metrics are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Waits until it ends by itself, which it does when the disk fails. Then the process has to end at once: what is on the
    /// disk is unknown, and only the next opening finds out (I8).
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(error) => error,
            None => anyhow::anyhow!("the threads of the broker ended"),
        }
    }

    /// Ends it: takes no more connections, finishes the calls that are there, and closes the journal with a mark that it was
    /// closed in order. A stop without that, by `kill -9` or by a power failure, loses nothing either.
    ///
    /// # Errors
    /// A task or thread ended wrongly.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.health.draining().await;
        self.health.end_watches().await;
        self.drain.send_replace(true);
        if timeout(self.shutdown_timeout, &mut self.server).await.is_err() {
            tracing::warn!("calls that did not end within --shutdown-timeout-ms were cut off");
            self.server.abort();
        }
        self.stop.send_replace(true);
        (&mut self.owner).await.context("the owner's task ended wrongly")?;
        drop(self.tidy);
        for thread in self.threads {
            tokio::task::spawn_blocking(|| thread.join())
                .await?
                .map_err(|_| anyhow::anyhow!("a thread of the broker panicked"))?;
        }
        self.admin.abort();
        match self.failures.try_recv() {
            Ok(error) => Err(error),
            Err(_) => Ok(()),
        }
    }
}

async fn open_journal(config: &Config, health: &mut Health) -> anyhow::Result<(Journal, State, OpenReport)> {
    let (tell, mut told) = watch::channel(Progress { bytes: 0, total: 0 });
    let seed = getrandom::u64().map_err(|e| anyhow::anyhow!("the operating system has no randomness: {e}"))?;
    let options = config.journal_options(seed);
    let data_dir = config.data_dir.clone();
    let mut opening = tokio::task::spawn_blocking(move || {
        let mut state = State::default();
        let disk = RealDisk::open(&data_dir).with_context(|| format!("the data directory {}", data_dir.display()))?;
        let mut progress = |progress| {
            tell.send_replace(progress);
        };
        let (journal, report) = journal::open(Arc::new(disk), options, &mut state, &mut progress)
            .with_context(|| format!("the journal in {} cannot be opened", data_dir.display()))?;
        anyhow::Ok((journal, state, report))
    });
    let opened = loop {
        match timeout(PROGRESS_PAUSE, &mut opening).await {
            Ok(opened) => break opened,
            Err(_) => {
                let Progress { bytes, total } = *told.borrow_and_update();
                let percent = (bytes * 100).checked_div(total).unwrap_or(0);
                health.not_ready(format!("reading the journal: {percent} % of {total} bytes")).await;
                tracing::info!(percent, bytes, total, "reading the journal");
            }
        }
    };
    let (journal, state, report) = opened.context("the opening of the journal ended wrongly")??;
    tell_report(&report);
    Ok((journal, state, report))
}

fn tell_report(report: &OpenReport) {
    if let Some(cut) = &report.cut {
        tracing::warn!(
            file = cut.file,
            position = cut.position,
            bytes = cut.bytes,
            copy = cut.copy,
            "the last group was torn when the machine stopped ({}); nobody was told of it; it was cut off and a copy kept",
            cut.what
        );
    }
    for damaged in &report.damaged_snapshots {
        tracing::error!("a snapshot cannot be used: {damaged}");
    }
    if let Some(name) = report.doubtful_file_system {
        tracing::warn!("the data directory is on {name}: what is durable there may not survive the machine");
    }
    let (opening, groups, snapshot, clean) = (report.opening, report.groups_replayed, report.snapshot.as_deref(), report.clean);
    tracing::info!(opening, groups, snapshot, clean, "the journal is open");
}

fn spawn(
    name: &str,
    failed: &mpsc::Sender<anyhow::Error>,
    run: impl FnOnce() -> Result<(), journal::Fatal> + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let failed = failed.clone();
    let named = name.to_owned();
    let body = move || {
        if let Err(error) = run() {
            tracing::error!(thread = named, %error, "the disk failed");
            let _ = failed.try_send(error.into());
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).with_context(|| format!("starting the thread {name}"))
}

async fn turned(mut turning: watch::Receiver<bool>) {
    // A sender that is gone stops it as well.
    let _ = turning.wait_for(|turned| *turned).await;
}

const SERVICES: &[&str] = &[BrokerServiceServer::<()>::NAME];
/// Groups that may wait to be folded by the snapshots' thread.
const RELEASED_AHEAD: usize = 1_024;
/// Between two words about the progress of an opening.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
