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

use std::{collections::VecDeque, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
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
    let mut exchanges = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
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
        by_age.retain(|exchange| !exchange.is_finished());
        if exchanges.len() >= connections {
            // The oldest makes room, and not the newest: whoever holds all places in silence must not shut out the probes.
            by_age.pop_front().inspect(AbortHandle::abort);
            exchanges.join_next().await;
        }
        let service = TowerToHyperService::new(router.clone());
        by_age.push_back(exchanges.spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
            server.http1().keep_alive(false);
            // Whoever is too slow, or goes away, is cut off.
            let _ = timeout(exchange, server.serve_connection(TokioIo::new(stream), service)).await;
        }));
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
    async fn the_one_that_is_silent_for_longest_makes_room_and_all_of_them_are_ended_in_time() {
        let exchange = Duration::from_secs(1);
        let (addr, _serving) = serve(Limits { connections: 2, exchange }).await;
        let mut silent = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(addr).await.expect("it listens");
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("open");
            silent.push(stream);
        }
        assert!(ask(addr, "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("answered").ends_with("ok\n"));
        // The first one has gone by now, and the second one is still listened to.
        let end = silent[0].read_u8().await.expect_err("nothing was asked");
        // Whether it is closed or reset is the machine's affair.
        assert!(matches!(end.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{end}");
        silent[1].write_all(b"host: test\r\n\r\n").await.expect("open");
        let mut answer = String::new();
        silent[1].read_to_string(&mut answer).await.expect("answered");
        assert!(answer.ends_with("ok\n"), "{answer}");

        let mut alone = TcpStream::connect(addr).await.expect("it listens");
        let end = timeout(20 * exchange, alone.read_u8()).await.expect("in time");
        assert_eq!(end.expect_err("nothing was asked").kind(), io::ErrorKind::UnexpectedEof);
    }
}
