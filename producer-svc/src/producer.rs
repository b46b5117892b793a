//! The service as a whole: its start, its running, its end.
//!
//! It ends in an order that loses nothing that can be kept: first it says that it is draining, and serves on until nobody sends
//! it new calls; then it takes in nothing more, and waits for the outcome of what it took in, then for the answers to reach their
//! callers. Each wait has a bound; what is still open at the end of it is told as unknown, if anybody can still be told.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use oncelog_edge::{
    accept::{self, Incoming},
    admin::Admin,
    health::Health,
    intake::{self, IntakeLayer},
    machine::{self, WallClock},
    metrics::calls::Calls,
    observe::ObserveLayer,
    reflection,
    security::{Security, access::AccessLayer},
    server,
    telemetry::Telemetry,
};
use oncelog_proto::v1::producer_service_server::ProducerServiceServer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::Stream;
use tonic::{
    server::NamedService,
    transport::{Endpoint, server::Connected},
};

use crate::{
    batch_limit::BatchLimit,
    broker_client::BrokerClient,
    buffer::Buffer,
    config::{Config, Settings},
    driver::Driver,
    metrics::Metrics,
    partitioner::Partitioner,
    rpc::{self, Admission, Stamping},
    session::Session,
    surroundings::{Seeds, Surroundings},
    topics::Topics,
    traces::Traces,
};

/// A running producer service.
#[derive(Debug)]
pub struct Producer {
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    drain_wait: Duration,
    shutdown_timeout: Duration,
    health: Health,
    stop: watch::Sender<bool>,
    driver: JoinHandle<()>,
    server: JoinHandle<anyhow::Result<()>>,
    admin: Option<JoinHandle<io::Result<()>>>,
}

impl Producer {
    /// Starts it: listens, serves, and connects to the broker when that is first needed. The settings that are in effect are
    /// logged, each with where it came from. Traces and metrics are exported to `telemetry`.
    ///
    /// # Errors
    /// A [`crate::ConfigError`], a file of security that cannot be used, or an address that cannot be listened on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(config: Config, telemetry: Telemetry) -> anyhow::Result<Self> {
        let settings = config.resolve(&|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))?;
        tell(&settings);

        let limits = accept::Limits { connections: settings.max_connections, ..accept::Limits::default() };
        let security = settings.security.clone().open()?;
        security.tell("producer-svc", settings.listen, settings.admin_listen);
        let Security { tls, access } = security;
        let dial = settings.broker_security.clone().open(&settings.broker, access.files()).map_err(anyhow::Error::msg)?;
        let connections = Incoming::bind(settings.listen, limits).await?.over(tls);
        let admin = match settings.admin_listen {
            Some(addr) => Some(Admin::bind(addr).await?),
            None => None,
        };
        let surroundings = Surroundings {
            local_addr: connections.local_addr(),
            connections,
            access,
            admin,
            bearer: dial.bearer(),
            connect: Box::new(move |endpoint: Endpoint| dial.connect_lazy(&endpoint)),
            wall_clock: WallClock::system(),
            seeds: Seeds {
                token: [machine::random()?, machine::random()?],
                session: machine::random()?,
                partitioner: machine::random()?,
            },
            telemetry,
        };
        Ok(Self::start_with(settings, surroundings).await)
    }

    /// [`Self::start`] in other surroundings than the machine's. Of the settings those are of no effect that say where to listen.
    ///
    /// # Panics
    /// As there.
    pub async fn start_with<I, C>(settings: Settings, surroundings: Surroundings<I>) -> Self
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let Surroundings { connections, local_addr, access, admin, connect, bearer, wall_clock, seeds, telemetry } = surroundings;
        let (stop, stopping) = watch::channel(false);
        let health = Health::new(SERVICES).await;

        let tracer = telemetry.tracer(env!("CARGO_PKG_NAME"));
        let calls = Arc::new(Calls::of(SERVICES));
        let metrics = Arc::new(Metrics::new(settings.batch_size));
        let buffer = Buffer::new(settings.buffer_memory);
        let mut registry = metrics.registry(&calls, &buffer);
        access.register(&mut registry);
        let registry = Arc::new(registry);
        telemetry.export(env!("CARGO_PKG_NAME"), &registry);
        let broker = BrokerClient::new(&settings, &connect, bearer, wall_clock, Arc::clone(&metrics.broker_calls));
        let topics = Topics::new(broker.clone(), settings.retry_backoff);
        let (hand_over, inbox) = mpsc::channel(INBOX);
        let batch_limit = BatchLimit::unknown();
        let stamping = Stamping { tracer: tracer.clone(), batch_limit: batch_limit.clone() };
        let admission = Admission::new(&settings, topics.clone(), buffer.clone(), hand_over, stamping);
        let [high, low] = seeds.token;
        let token = format!("{high:016x}{low:016x}");
        let driver = Driver {
            session: Session::new(settings.session(token), seeds.session),
            partitioner: Partitioner::new(settings.batch_size, seeds.partitioner),
            broker,
            batch_limit,
            topics,
            buffer,
            metrics,
            traces: Traces::new(tracer.clone(), &settings.broker),
        };

        let admin_addr = admin.as_ref().map(Admin::local_addr);
        let arriving = (2 * settings.buffer_memory).max(LEAST_ARRIVING * admission.max_message_bytes());
        let limits = server::Limits { connection_age: settings.connection_max_age, ..server::Limits::default() };
        let reflected = settings.reflection.then(|| (reflection::v1(SERVICES), reflection::v1alpha(SERVICES)));
        let (v1, v1alpha) = reflected.unzip();
        let serve = server::observed(limits, ObserveLayer::new(calls, tracer))
            .layer(AccessLayer::new(access.clone()))
            .layer(IntakeLayer::new(intake::Limits::of(arriving, BUFFER_MEMORY)))
            .add_service(rpc::service(admission, access))
            .add_service(health.server())
            .add_optional_service(v1)
            .add_optional_service(v1alpha)
            .serve_with_incoming_shutdown(connections, stopped(stopping.clone()));
        let mut producer = Self {
            local_addr,
            admin_addr,
            drain_wait: settings.drain_wait,
            shutdown_timeout: settings.shutdown_timeout,
            driver: tokio::spawn(driver.run(inbox, stopping.clone())),
            server: tokio::spawn(async move { serve.await.context("the server ended") }),
            admin: admin.map(|admin| {
                let text = move || registry.text();
                // Served to the very end: a drain is something to be seen.
                tokio::spawn(admin.serve(health.readiness(), text, std::future::pending()))
            }),
            health,
            stop,
        };
        // Ready although the broker may be away: until it comes, buffer.memory takes in what topics that are known get.
        producer.health.ready().await;
        tracing::info!(listen = %local_addr, admin = %admin_addr.map_or_else(|| "off".to_owned(), |addr| addr.to_string()), broker = %settings.broker, "ready");
        producer
    }

    /// Where callers reach it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where probes and metrics are served, unless that is off.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Waits until it ends by itself, which it never does in health; then drop it.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = &mut self.driver => match ended {
                Ok(()) => anyhow::anyhow!("the session's task ended"),
                Err(error) => anyhow::Error::new(error).context("the session's task ended"),
            },
            ended = &mut self.server => match ended {
                Ok(Ok(())) => anyhow::anyhow!("the server ended"),
                Ok(Err(error)) => error,
                Err(error) => anyhow::Error::new(error).context("the server ended"),
            },
        }
    }

    /// Drains it and ends it: it says that it is not ready and serves on for a while; then nothing more is taken in, what was
    /// taken in is sent without lingering, and its outcome is told.
    ///
    /// # Errors
    /// `shutdown.timeout.ms` passed before every outcome was known, or a task ended wrongly.
    pub async fn shutdown(mut self) -> anyhow::Result<()> {
        self.health.drain(self.drain_wait).await;
        self.stop.send_replace(true);
        let drained = match timeout(self.shutdown_timeout, &mut self.driver).await {
            Ok(ended) => ended.context("the session's task ended wrongly"),
            Err(_) => {
                // Its end tells every waiting caller that the outcome is unknown.
                self.driver.abort();
                let limit = self.shutdown_timeout.as_millis();
                Err(anyhow::anyhow!("not every outcome was known within shutdown.timeout.ms, {limit}; the others stay unknown"))
            }
        };
        let served = match timeout(ANSWERS, &mut self.server).await {
            Ok(ended) => ended.context("the server's task ended wrongly").and_then(|served| served),
            Err(_) => {
                tracing::warn!("callers that did not read their answers were cut off");
                Ok(())
            }
        };
        drained.and(served)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.driver.abort();
        self.server.abort();
        if let Some(admin) = &self.admin {
            admin.abort();
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // A sender that is gone stops it as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn tell(settings: &Settings) {
    for setting in &settings.effective {
        tracing::info!("{}={} ({})", setting.name, setting.value, setting.source);
    }
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
}

const BUFFER_MEMORY: (&str, &str) = ("buffer.memory", "buffer_memory");
const SERVICES: &[&str] = &[ProducerServiceServer::<()>::NAME];
/// Messages of the largest size that may be on their way in however little `buffer.memory` is.
const LEAST_ARRIVING: usize = 4;
/// `Send`s on their way to the session's task.
const INBOX: usize = 1024;
/// How long callers have to read their answers once every outcome is known.
const ANSWERS: Duration = Duration::from_secs(5);
