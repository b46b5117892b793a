//! The service as a whole: its start, its running, its end.
//!
//! ```text
//!  calls ──▶ owner (task): Pipeline ──▶ committer (loop): Journal ──▶ snapshots (loop): a second State
//!              ▲                            │ durable                  tidying (loop): spares, indexes, deletions
//!              └────────────────────────────┘
//!  Fetch ──▶ Reader, as far as the owner says that the log is durable
//! ```
//!
//! Each loop has a thread of its own ([`Workers`]). It listens from the first moment, and is ready when the journal has been
//! read. When the disk fails it ends by itself, at once: see [`Broker::failed`].

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use anyhow::Context;
use oncelog_edge::{
    accept::{self, Incoming},
    admin::Admin,
    health::Health,
    intake::{self, IntakeLayer},
    machine::{self, WallClock},
    metrics::{Registry, calls::Calls},
    observe::ObserveLayer,
    reflection,
    security::{Security, access::AccessLayer},
    server,
    telemetry::Telemetry,
};
use oncelog_proto::v1::broker_service_server::BrokerServiceServer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_stream::Stream;
use tonic::{server::NamedService, transport::server::Connected};

use crate::{
    clocks::Clocks,
    committer::Committer,
    config::Config,
    journal::{self, Journal, OpenReport, Progress, RealDisk, Retention, Stats, disk::Disk},
    metrics::{Groups, Refusals, Sources},
    owner::{Handle, Owner, Vitals},
    pipeline::Pipeline,
    readiness::Readiness,
    rpc::{BrokerRpc, Open, Seen},
    snapshots::Snapshots,
    state::State,
    surroundings::Surroundings,
    tidying::Tidying,
    workers::Workers,
};

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    drain_wait: Duration,
    shutdown_timeout: Duration,
    metrics: Arc<Registry>,
    readiness: Readiness,
    /// Ends streams that follow a log, and the taking of connections.
    drain: watch::Sender<bool>,
    /// Ends the owner, once the calls have ended.
    stop: watch::Sender<bool>,
    /// What made a part end; each part holds a sender as long as it runs.
    failures: mpsc::Receiver<anyhow::Error>,
    server: JoinHandle<()>,
    admin: Option<JoinHandle<io::Result<()>>>,
    /// Its end tells the tidying to end.
    tidy: mpsc::Sender<()>,
}

impl Broker {
    /// Starts it: listens, opens the journal, and returns when it is ready to be called. Progress of a long opening is logged,
    /// and told by the admin port's `/readyz`. Traces and metrics are exported to `telemetry`.
    ///
    /// # Errors
    /// Settings that conflict ([`crate::config::Conflict`]), a file of security that cannot be used, an address that cannot be
    /// listened on, or a journal that cannot be opened: damaged, locked, or of a newer format.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        config.check()?;
        let limits = accept::Limits { connections: config.max_connections, ..accept::Limits::default() };
        let security = config.security().open()?;
        security.tell("broker-svc", config.listen, Some(config.admin_listen));
        let Security { tls, access } = security;
        let connections = Incoming::bind(config.listen, limits).await?.over(tls);
        let admin = Admin::bind(config.admin_listen).await?;
        let disk =
            RealDisk::open(&config.data_dir).with_context(|| format!("the data directory {}", config.data_dir.display()))?;
        let surroundings = Surroundings {
            disk: Arc::new(disk),
            workers: Workers::Threads,
            wall_clock: WallClock::system(),
            seed: machine::random()?,
            local_addr: connections.local_addr(),
            connections,
            access,
            admin: Some(admin),
            telemetry,
        };
        Self::start_with(config, surroundings).await
    }

    /// [`Self::start`] in other surroundings than the machine's. Of the settings those are of no effect that say where to listen
    /// and where the data is.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub async fn start_with<I, C>(config: Config, surroundings: Surroundings<I>) -> anyhow::Result<Self>
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        config.check()?;
        let Surroundings { disk, workers, wall_clock, seed, connections, local_addr, access, admin, telemetry } = surroundings;
        let mut health = Health::new(SERVICES).await;
        let (drain, draining) = watch::channel(false);
        let (stop, stopping) = watch::channel(false);
        let (failed, failures) = Failed::channel();
        let (tell_vitals, vitals) = watch::channel(Vitals::default());
        let stats: Arc<OnceLock<watch::Receiver<Stats>>> = Arc::default();
        let recovery: Arc<OnceLock<Duration>> = Arc::default();
        let (groups_committed, refusals) = (Arc::<Groups>::default(), Arc::<Refusals>::default());
        let tracer = telemetry.tracer(env!("CARGO_PKG_NAME"));
        let calls = Arc::new(Calls::of(SERVICES));
        let mut metrics = Sources {
            calls: Arc::clone(&calls),
            vitals,
            journal: Arc::clone(&stats),
            recovery: Arc::clone(&recovery),
            groups: Arc::clone(&groups_committed),
            refusals: Arc::clone(&refusals),
        }
        .registry();
        access.register(&mut metrics);
        let metrics = Arc::new(metrics);
        telemetry.export(env!("CARGO_PKG_NAME"), &metrics);

        let open: Arc<OnceLock<Open>> = Arc::default();
        let (max_message_bytes, max_fetches) = (config.max_message_bytes, config.max_fetches);
        let seen = Seen { tracer: tracer.clone(), refusals };
        let rpc = BrokerRpc::new(
            Arc::clone(&open),
            workers.clone(),
            max_message_bytes,
            max_fetches,
            draining.clone(),
            access.clone(),
            seen,
        );
        let reflected = config.reflection.then(|| (reflection::v1(SERVICES), reflection::v1alpha(SERVICES)));
        let (v1, v1alpha) = reflected.unzip();
        let arriving = intake::Limits::of(config.queued_max_request_bytes, QUEUED_MAX_REQUEST_BYTES);
        let serve = server::observed(config.server_limits(), ObserveLayer::new(calls, tracer.clone()))
            .layer(AccessLayer::new(access))
            .layer(IntakeLayer::new(arriving))
            .add_service(BrokerServiceServer::new(rpc).max_decoding_message_size(config.max_request_bytes))
            .add_service(health.server())
            .add_optional_service(v1)
            .add_optional_service(v1alpha)
            .serve_with_incoming_shutdown(connections, turned(draining));
        let part = Part::new("the server", &failed);
        let server = tokio::spawn(async move { part.end(serve.await) });
        let told = Arc::clone(&metrics);
        let text = move || told.text();
        let admin_addr = admin.as_ref().map(Admin::local_addr);
        let admin = admin.map(|admin| tokio::spawn(admin.serve(health.readiness(), text, std::future::pending())));

        let opening = Instant::now();
        let opened = open_journal(disk, &config, seed, &workers, &mut health).await;
        let (mut journal, state, report) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                server.abort();
                admin.inspect(JoinHandle::abort);
                return Err(error);
            }
        };
        let _ = recovery.set(opening.elapsed());
        let clocks = Clocks::start(wall_clock);
        // An earlier opening may have ended before its first group; then there is no time to go on from.
        let last_group = (report.last.group().get() > 0).then(|| report.last.time());
        let incarnation =
            u16::try_from(report.incarnation).context("the journal was restored more often than ids have room for")?;
        let pipeline_options = config.pipeline_options(journal.group_limit(), incarnation);
        let mut pipeline = Pipeline::open(pipeline_options, state.clone(), last_group, clocks.now());
        pipeline.on_room(journal.room());
        let mut retention = config.retention();
        if pipeline.is_clock_doubtful() {
            tracing::warn!(
                last_group = %report.last.time(),
                "at this start or an earlier one the clock stood more than a day ahead of the journal: nothing expires and nothing is \
                 dropped for its age until a start with --accept-clock-jump"
            );
            retention = Retention { age: None, ..retention };
        }

        let (handle, requests) = Handle::new(config.queued_max_request_bytes);
        let (to_commit, groups) = mpsc::channel(1);
        let (tell_committed, committed) = mpsc::channel(16);
        let (release, released) = mpsc::channel(RELEASED_AHEAD);
        let (tidy, stop_tidying) = mpsc::channel(1);
        let (tell_stats, receive_stats) = watch::channel(journal.stats());
        let (tell_underway, underway) = watch::channel(None);
        let _ = stats.set(receive_stats);

        let reader = journal.reader();
        let writer = journal.snapshot_writer();
        let background = journal.take_background().expect("it is taken once");
        let committer = Committer {
            journal,
            workers: workers.clone(),
            retention,
            groups,
            committed: tell_committed,
            released: release,
            stats: tell_stats,
            underway: tell_underway,
            groups_committed,
            tracer: tracer.clone(),
        };
        let snapshots = Snapshots { state, released, writer, workers: workers.clone() };
        let tidying = Tidying { background, workers: workers.clone(), stop: stop_tidying };
        spawn(&workers, "journal", &failed, committer.run())?;
        spawn(&workers, "snapshots", &failed, snapshots.run())?;
        spawn(&workers, "tidying", &failed, tidying.run())?;
        let has_failed = failed.any.subscribe();
        let owner =
            Owner { pipeline, clocks, requests, to_commit, committed, vitals: tell_vitals, tracer, has_failed, stop: stopping };
        let part = Part::new("the owner's task", &failed);
        tokio::spawn(async move {
            owner.run().await;
            drop(part);
        });
        assert!(open.set(Open { owner: handle, reader }).is_ok(), "it is opened once");
        let readiness = Readiness::start(health, underway).await;
        let admin_at = admin_addr.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        tracing::info!(listen = %local_addr, admin = admin_at, data_dir = %config.data_dir.display(), "ready");
        let shutdown_timeout = Duration::from_millis(config.shutdown_timeout_ms);
        let drain_wait = Duration::from_millis(config.drain_wait_ms);
        Ok(Self {
            local_addr,
            admin_addr,
            drain_wait,
            shutdown_timeout,
            metrics,
            readiness,
            drain,
            stop,
            failures,
            server,
            admin,
            tidy,
        })
    }

    /// Where callers reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where probes and metrics are served, unless that is off.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// What the admin port serves as metrics, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    /// Waits until it ends by itself, which it does when the disk fails, or by a defect. Then the process has to end at once:
    /// what is on the disk is unknown, and only the next opening finds out (I8).
    pub async fn failed(&mut self) -> anyhow::Error {
        self.failures.recv().await.unwrap_or_else(|| anyhow::anyhow!("all parts of the broker ended"))
    }

    /// Ends it: says that it is not ready and serves on for a while, takes no more connections, finishes the calls that are
    /// there, and closes the journal with a mark that it was closed in order. A stop without that, by `kill -9` or by a power
    /// failure, loses nothing either.
    ///
    /// # Errors
    /// A part ended wrongly, or the journal could not be closed in time.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        tokio::select! {
            () = self.readiness.drain(self.drain_wait) => {}
            Some(error) = self.failures.recv() => return Err(error),
        }
        self.drain.send_replace(true);
        if timeout(self.shutdown_timeout, &mut self.server).await.is_err() {
            tracing::warn!("calls that did not end within --shutdown-timeout-ms were cut off");
            self.server.abort();
        }
        self.stop.send_replace(true);
        drop(self.tidy);
        // The owner ends when everything it took is answered, and the loops end after it. On a full disk that may be never.
        let ended = timeout(CLOSE_PATIENCE, self.failures.recv()).await;
        self.admin.inspect(JoinHandle::abort);
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(_) => anyhow::bail!(
                "the journal was not closed within {CLOSE_PATIENCE:?}: its disk is full or stands still; nothing that was \
                 acknowledged is lost, and the next start finds out what was written last"
            ),
        }
    }
}

/// Where parts say that they failed.
#[derive(Clone)]
struct Failed {
    /// Turns true with the first of them. Who answers looks here before each turn: the disk may have failed under a part that the
    /// journal does not hear of, and the process does not end in the same instant (I8).
    any: watch::Sender<bool>,
    why: mpsc::Sender<anyhow::Error>,
}

impl Failed {
    fn channel() -> (Self, mpsc::Receiver<anyhow::Error>) {
        let (why, failures) = mpsc::channel(PARTS);
        (Self { any: watch::Sender::new(false), why }, failures)
    }

    fn tell(&self, error: anyhow::Error) {
        self.any.send_replace(true);
        let _ = self.why.try_send(error);
    }
}

/// A part of the broker as long as it runs: without any of them the others are not to go on.
struct Part {
    name: &'static str,
    failed: Failed,
}

impl Part {
    fn new(name: &'static str, failed: &Failed) -> Self {
        Self { name, failed: failed.clone() }
    }

    fn end<E: Into<anyhow::Error>>(self, result: Result<(), E>) {
        if let Err(error) = result {
            let error = error.into().context(format!("{} ended", self.name));
            let text = format!("{error:#}");
            // First: the log may be slow, and meanwhile somebody would be answered.
            self.failed.tell(error);
            tracing::error!("{text}");
        }
    }
}

impl Drop for Part {
    /// A panic is a defect. Without its part the broker would answer nothing, or never delete anything, and still look healthy.
    fn drop(&mut self) {
        if thread::panicking() {
            self.failed.tell(anyhow::anyhow!("{} panicked, which is a defect of the broker", self.name));
        }
    }
}

async fn open_journal(
    disk: Arc<dyn Disk>,
    config: &Config,
    seed: u64,
    workers: &Workers,
    health: &mut Health,
) -> anyhow::Result<(Journal, State, OpenReport)> {
    let (tell, told) = watch::channel(Progress { bytes: 0, total: 0 });
    let options = config.journal_options(seed);
    let mut opening = pin!(workers.call(move || {
        let mut state = State::default();
        let mut progress = |progress| {
            tell.send_replace(progress);
        };
        let (journal, report) = journal::open(disk, options, &mut state, &mut progress)?;
        anyhow::Ok((journal, state, report))
    }));
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            () = sleep(PROGRESS_PAUSE) => {
                let Progress { bytes, total } = *told.borrow();
                let percent = (bytes * 100).checked_div(total).unwrap_or(0);
                health.not_ready(format!("reading the journal: {percent} % of {total} bytes")).await;
                tracing::info!(percent, bytes, total, "reading the journal");
            }
        }
    };
    let opened = opened.context("the opening of the journal ended wrongly")?;
    let (journal, state, report) =
        opened.with_context(|| format!("the journal in {} cannot be opened", config.data_dir.display()))?;
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
    workers: &Workers,
    name: &'static str,
    failed: &Failed,
    run: impl Future<Output = Result<(), journal::Fatal>> + Send + 'static,
) -> anyhow::Result<()> {
    let part = Part::new(name, failed);
    workers.spawn(name, async move { part.end(run.await) }).with_context(|| format!("starting the thread {name}"))
}

async fn turned(mut turning: watch::Receiver<bool>) {
    // A sender that is gone stops it as well.
    let _ = turning.wait_for(|turned| *turned).await;
}

const QUEUED_MAX_REQUEST_BYTES: (&str, &str) = ("--queued-max-request-bytes", "queued_max_request_bytes");
const SERVICES: &[&str] = &[BrokerServiceServer::<()>::NAME];
/// Parts that can fail.
const PARTS: usize = 5;
/// For what a stop still has to write: the last group, and a snapshot that was begun.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// Groups that may wait to be folded for snapshots.
const RELEASED_AHEAD: usize = 1_024;
/// Between two words about the progress of an opening.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_told_and_the_end_of_all_parts_is_the_end_of_the_channel() {
        let (failed, mut failures) = Failed::channel();
        spawn(&Workers::Threads, "sound", &failed, async { Ok(()) }).expect("a thread");
        spawn(&Workers::Threads, "unsound", &failed, async { panic!("this is expected to be seen in the test's output") })
            .expect("a thread");
        let part = Part::new("the task", &failed);
        tokio::spawn(async move {
            let _part = part;
            panic!("this as well");
        });
        drop(failed);
        let mut told = Vec::new();
        while let Some(error) = failures.recv().await {
            told.push(error.to_string());
        }
        told.sort();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("the task panicked") && told[1].starts_with("unsound panicked"), "{told:?}");
    }
}
