//! The one truth about readiness, told over gRPC (`grpc.health.v1`) and to the admin port.
//!
//! A service is not ready until [`Health::ready`] says so, and never again after [`Health::draining`]. Every name is known
//! from the first moment: the overall one (`""`, which tonic-health would start as serving, and which a probe without a
//! service asks for) and the full names of the services; `Watch` on a name that is not yet known would fail for good.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

/// Is the service ready to be called?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not now, for this reason, in words for people.
    NotReady(String),
    /// Yes.
    Ready,
    /// Never again: the process is about to end.
    Draining,
}

/// Says whether a service is ready. It has one owner, so that what is said last is what stays.
#[derive(Debug)]
pub struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
    readiness: watch::Sender<Readiness>,
}

impl Health {
    /// Not ready yet. `services` are full names, as in `BrokerServiceServer::<()>::NAME`.
    pub async fn new(services: &[&'static str]) -> Self {
        let names: Vec<_> = std::iter::once("").chain(services.iter().copied()).collect();
        let health = Self {
            reporter: HealthReporter::new(),
            names,
            readiness: watch::Sender::new(Readiness::NotReady("starting".to_owned())),
        };
        health.tell().await;
        health
    }

    /// The gRPC service that tells it; add it to the server.
    pub fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// What is told now, and whenever it changes.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The service can be called, unless it is draining.
    pub async fn ready(&mut self) {
        self.change(Readiness::Ready).await;
    }

    /// The service cannot be called, for `reason`; it may become ready again.
    pub async fn not_ready(&mut self, reason: impl Into<String>) {
        self.change(Readiness::NotReady(reason.into())).await;
    }

    /// The service is about to end: load balancers should send no new calls.
    pub async fn draining(&mut self) {
        self.change(Readiness::Draining).await;
    }

    /// Says that the service is about to end, and waits as long as callers may need to see it. Until then they are served as
    /// ever: what finds callers for a service sends them on for a while after it has heard. Then ends every open `Watch`.
    pub async fn drain(&mut self, wait: Duration) {
        self.draining().await;
        sleep(wait).await;
        self.end_watches().await;
    }

    /// Ends every open `Watch`, each after it told its last status. A drain waits for open streams, and a `Watch` never ends
    /// by itself. From here on the names are unknown.
    pub async fn end_watches(&mut self) {
        for name in &self.names {
            self.reporter.clear_service_status(name).await;
        }
    }

    async fn change(&mut self, to: Readiness) {
        // A start may end after the stop was asked for, and would call callers to a process that is on its way out.
        if *self.readiness.borrow() == Readiness::Draining {
            return;
        }
        self.readiness.send_replace(to);
        self.tell().await;
    }

    async fn tell(&self) {
        let status = match *self.readiness.borrow() {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::NotReady(_) | Readiness::Draining => ServingStatus::NotServing,
        };
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
