//! The plain HTTP port for probes and metrics, apart from the gRPC port so that it can stay inside.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 as long as the process answers at all: restarting it would not help a disk |
//! | `/readyz` | 200, or 503 with the reason |
//! | `/metrics` | metrics as text, in Prometheus' format |
//!
//! Nobody is asked who they are, so nobody gets much: a connection is for one request, and is closed a few seconds after it
//! began, however far that is. One more than there are places for is closed as soon as it is accepted.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::health::Readiness;

/// An admin port that is bound and waits to be served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
}

/// What the port gives to whoever comes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    /// From the beginning of a connection to its end.
    exchange: Duration,
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
        Ok(Self { listener, local_addr, limits: LIMITS })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `stop`. `metrics` writes the metrics as they are now; it is called from the runtime's threads and must
    /// not block.
    ///
    /// # Errors
    /// None: errors of connections end those connections only.
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
        // Dropping the connections, not a graceful end: a scraper that is slow must not hold up the process.
        tokio::select! {
            () = accept(&self.listener, self.limits, router) => unreachable!("it goes on for ever"),
            () = stop => Ok(()),
        }
    }
}

async fn accept(listener: &TcpListener, Limits { connections, exchange }: Limits, router: Router) {
    let places = Arc::new(Semaphore::new(connections));
    let mut exchanges = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = exchanges.join_next() => continue,
        };
        let Ok((stream, _)) = stream else {
            // Too many open files, mostly: it would be so again at once.
            sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(router.clone());
        exchanges.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
            server.http1().keep_alive(false);
            // Whoever is too slow, or goes away, is cut off.
            let _ = timeout(exchange, server.serve_connection(TokioIo::new(stream), service)).await;
            drop(place);
        });
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
const LIMITS: Limits = Limits { connections: 64, exchange: Duration::from_secs(5) };
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        task::JoinHandle,
    };

    use super::*;

    async fn serve(limits: Limits) -> (SocketAddr, JoinHandle<io::Result<()>>) {
        let admin = Admin { limits, ..Admin::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port") };
        let (addr, readiness) = (admin.local_addr(), watch::channel(Readiness::Ready).1);
        (addr, tokio::spawn(admin.serve(readiness, || "told 1\n".to_owned(), std::future::pending())))
    }

    /// What is answered to this until the connection ends.
    async fn ask(addr: SocketAddr, request: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn each_path_is_answered_and_the_connection_is_over() {
        let (addr, _serving) = serve(LIMITS).await;
        for (path, code, body) in
            [("/healthz", 200, "ok\n"), ("/readyz", 200, "ready\n"), ("/metrics", 200, "told 1\n"), ("/", 404, "")]
        {
            let answer = ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await.expect("answered");
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        }
    }

    #[tokio::test]
    async fn silent_connections_are_ended_and_the_last_place_is_given_and_no_more() {
        let exchange = Duration::from_secs(1);
        let (addr, _serving) = serve(Limits { connections: 2, exchange }).await;
        let mut first = TcpStream::connect(addr).await.expect("it listens");
        first.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("open");
        // The last place.
        assert!(ask(addr, "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("answered").ends_with("ok\n"));
        let mut second = TcpStream::connect(addr).await.expect("it listens");
        // Whether it is closed or reset is the machine's affair.
        let third = ask(addr, "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await;
        assert!(third.as_ref().map_or(true, String::is_empty), "{third:?}");
        for silent in [&mut first, &mut second] {
            let end = timeout(20 * exchange, silent.read_u8()).await.expect("in time");
            assert_eq!(end.expect_err("nothing was asked").kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(ask(addr, "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("answered").ends_with("ok\n"));
    }
}
