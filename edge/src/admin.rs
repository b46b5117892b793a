//! The plain HTTP port for probes and metrics, apart from the gRPC port so that it can stay inside.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 as long as the process answers at all: restarting it would not help a disk |
//! | `/readyz` | 200, or 503 with the reason |
//! | `/metrics` | metrics as text, in Prometheus' format |

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::health::Readiness;

/// An admin port that is bound and waits to be served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Admin {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr} (admin): {e}"));
        let listener = TcpListener::bind(addr).await.map_err(named)?;
        let local_addr = listener.local_addr().map_err(named)?;
        Ok(Self { listener, local_addr })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop`. `metrics` writes the metrics as they are now; it is called from the runtime's threads and must
    /// not block.
    ///
    /// # Errors
    /// None in practice: errors of connections end those connections only.
    pub async fn serve(
        self,
        readiness: watch::Receiver<Readiness>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let metrics = Arc::new(metrics);
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || std::future::ready(readyz(&readiness.borrow()))))
            .route("/metrics", get(move || std::future::ready(([(CONTENT_TYPE, PROMETHEUS)], metrics()))));
        // Dropping the future, not a graceful end: a kept-alive connection of a scraper must not hold up the process.
        tokio::select! {
            ended = axum::serve(self.listener, router).into_future() => ended,
            () = stop => Ok(()),
        }
    }
}

fn readyz(readiness: &Readiness) -> (StatusCode, String) {
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining: the process is about to end\n".to_owned()),
    }
}

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
