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
    time::{sleep, timeout},
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
    /// What made a part end; each part holds a sender as long as it runs.
    failures: mpsc::Receiver<anyhow::Error>,
    server: JoinHandle<()>,
    admin: JoinHandle<io::Result<()>>,
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
        let (failed, failures) = mpsc::channel(PARTS);
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
        let part = Part::new("the server", &failed);
        let server = tokio::spawn(async move { part.end(serve.await) });
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
        let (tell_stats, receive_stats) = watch::channel(journal.stats());
        let _ = stats.set(receive_stats);

        let reader = journal.reader();
        let writer = journal.snapshot_writer();
        let background = journal.take_background().expect("it is taken once");
        let committer = Committer { journal, retention, groups, committed: tell_committed, released: release, stats: tell_stats };
        let snapshots = Snapshots { state, released, writer };
        spawn("journal", &failed, move || committer.run())?;
        spawn("snapshots", &failed, move || snapshots.run())?;
        spawn("tidying", &failed, move || tidying::run(background, &tidying_stop))?;
        let owner = Owner { pipeline, clocks, requests, to_commit, committed, vitals: tell_vitals, stop: stopping };
        let part = Part::new("the owner's task", &failed);
        tokio::spawn(async move {
            owner.run().await;
            drop(part);
        });
        assert!(open.set(Open { owner: handle, reader }).is_ok(), "it is opened once");
        health.ready().await;
        tracing::info!(listen = %local_addr, admin = %admin_addr, data_dir = %config.data_dir.display(), "ready");
        let shutdown_timeout = Duration::from_millis(config.shutdown_timeout_ms);
        Ok(Self { local_addr, admin_addr, shutdown_timeout, health, drain, stop, failures, server, admin, tidy })
    }

    /// Where callers reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where probes and metrics are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Waits until it ends by itself, which it does when the disk fails, or by a defect. Then the process has to end at once: what
    /// is on the disk is unknown, and only the next opening finds out (I8).
    pub async fn failed(&mut self) -> anyhow::Error {
        self.failures.recv().await.unwrap_or_else(|| anyhow::anyhow!("all parts of the broker ended"))
    }

    /// Ends it: takes no more connections, finishes the calls that are there, and closes the journal with a mark that it was
    /// closed in order. A stop without that, by `kill -9` or by a power failure, loses nothing either.
    ///
    /// # Errors
    /// A part ended wrongly, or the journal could not be closed in time.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.health.draining().await;
        self.health.end_watches().await;
        self.drain.send_replace(true);
        if timeout(self.shutdown_timeout, &mut self.server).await.is_err() {
            tracing::warn!("calls that did not end within --shutdown-timeout-ms were cut off");
            self.server.abort();
        }
        self.stop.send_replace(true);
        drop(self.tidy);
        // The owner ends when everything it took is answered, and the threads end after it. On a full disk that may be never.
        let ended = timeout(CLOSE_PATIENCE, self.failures.recv()).await;
        self.admin.abort();
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

/// A part of the broker as long as it runs: without any of them the others are not to go on.
struct Part {
    name: &'static str,
    failed: mpsc::Sender<anyhow::Error>,
}

impl Part {
    fn new(name: &'static str, failed: &mpsc::Sender<anyhow::Error>) -> Self {
        Self { name, failed: failed.clone() }
    }

    fn end<E: Into<anyhow::Error>>(self, result: Result<(), E>) {
        if let Err(error) = result {
            let error = error.into().context(format!("{} ended", self.name));
            tracing::error!("{error:#}");
            let _ = self.failed.try_send(error);
        }
    }
}

impl Drop for Part {
    /// A panic is a defect. Without its part the broker would answer nothing, or never delete anything, and still look healthy.
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.failed.try_send(anyhow::anyhow!("{} panicked, which is a defect of the broker", self.name));
        }
    }
}

async fn open_journal(config: &Config, health: &mut Health) -> anyhow::Result<(Journal, State, OpenReport)> {
    let (tell, told) = watch::channel(Progress { bytes: 0, total: 0 });
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
    name: &'static str,
    failed: &mpsc::Sender<anyhow::Error>,
    run: impl FnOnce() -> Result<(), journal::Fatal> + Send + 'static,
) -> anyhow::Result<()> {
    let part = Part::new(name, failed);
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || part.end(run()));
    thread.with_context(|| format!("starting the thread {name}")).map(drop)
}

async fn turned(mut turning: watch::Receiver<bool>) {
    // A sender that is gone stops it as well.
    let _ = turning.wait_for(|turned| *turned).await;
}

const SERVICES: &[&str] = &[BrokerServiceServer::<()>::NAME];
/// Parts that can fail.
const PARTS: usize = 5;
/// For what a stop still has to write: the last group, and a snapshot that was begun.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);
/// Groups that may wait to be folded by the snapshots' thread.
const RELEASED_AHEAD: usize = 1_024;
/// Between two words about the progress of an opening.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_told_and_the_end_of_all_parts_is_the_end_of_the_channel() {
        let (failed, mut failures) = mpsc::channel(PARTS);
        spawn("sound", &failed, || Ok(())).expect("a thread");
        spawn("unsound", &failed, || panic!("this is expected to be seen in the test's output")).expect("a thread");
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
