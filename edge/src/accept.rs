//! Which connections get in.
//!
//! At most [`Limits::connections`] are open at once; one more is closed as soon as it is accepted, so that its caller hears of
//! it instead of waiting in a queue that nobody serves. A connection that does not begin to speak HTTP/2 in time is closed, or
//! silent ones could take every place. `TCP_NODELAY` is set here, because tonic ignores its own setting for a listener that it
//! did not bind, and without it a small call waits for a delayed acknowledgement, 40 ms and more.
//!
//! Dropping [`Incoming`] closes the listening socket; open connections live on.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// What a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, from 1.
    pub connections: usize,
    /// Time from being accepted to the end of the HTTP/2 connection preface, which every client sends at once.
    pub preface: Duration,
}

impl Default for Limits {
    /// 1,000 connections; 10 seconds.
    fn default() -> Self {
        Self { connections: 1_000, preface: Duration::from_secs(10) }
    }
}

/// The connections of one listening socket, as tonic's `serve_with_incoming_shutdown` takes them.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
    places: Arc<Semaphore>,
    /// After an error of the listener itself, which would otherwise come again at once, and again.
    pause: Option<Pin<Box<Sleep>>>,
    turned_away: TurnedAway,
}

impl Incoming {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    ///
    /// # Panics
    /// If `limits.connections` is 0, or outside a tokio runtime.
    pub async fn bind(addr: SocketAddr, limits: Limits) -> io::Result<Self> {
        assert!(limits.connections > 0, "a listener that lets nobody in");
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
        let listener = TcpListener::bind(addr).await.map_err(named)?;
        let local_addr = listener.local_addr().map_err(named)?;
        let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { listener, local_addr, limits, places, pause: None, turned_away: TurnedAway::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.turned_away.note(peer, self.limits.connections);
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY refused: the peer has gone already");
            return None;
        }
        let preface = Some(Preface { missing: PREFACE_LEN, limit: Box::pin(sleep(self.limits.preface)) });
        Some(Connection { stream, preface, _place: place })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = self.pause.as_mut() {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                // The peer's fault, over with its connection.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    let addr = self.local_addr;
                    tracing::error!(%addr, %error, "cannot accept connections; trying again (too many open files? raise `ulimit -n`)");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

/// One accepted connection. It keeps its place until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(preface) = self.preface.as_mut() {
            preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
            if preface.missing == 0 {
                self.preface = None;
            } else if read.is_pending() && preface.limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 connection preface in time")));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What is still awaited of the first words of a connection.
#[derive(Debug)]
struct Preface {
    missing: usize,
    limit: Pin<Box<Sleep>>,
}

/// Those who found no place: counted, and told of at most once a second.
#[derive(Debug, Default)]
struct TurnedAway {
    since_told: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    fn note(&mut self, peer: SocketAddr, limit: usize) {
        self.since_told += 1;
        let now = Instant::now();
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY) {
            let count = self.since_told;
            tracing::warn!(%peer, limit, count, "connections closed: the limit is reached; close idle ones or raise the limit");
            *self = Self { since_told: 0, told: Some(now) };
        }
    }
}

/// Bytes of the HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE_LEN: usize = 24;
const PAUSE: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    async fn bind(limits: Limits) -> Incoming {
        Incoming::bind(([127, 0, 0, 1], 0).into(), limits).await.expect("a free port")
    }

    #[tokio::test]
    async fn the_last_place_is_given_and_the_next_caller_is_closed_until_one_is_free() {
        let mut incoming = bind(Limits { connections: 2, ..Limits::default() }).await;
        let addr = incoming.local_addr();
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(addr).await.expect("the socket listens"));
        }
        let first = incoming.next().await.expect("endless").expect("accepted");
        let second = incoming.next().await.expect("endless").expect("accepted");
        // The third is turned away while the stream is polled for the fourth, which gets the place that becomes free.
        let mut third = clients.pop().expect("three");
        let (end, _) = tokio::join!(third.read_u8(), async {
            tokio::select! {
                _ = incoming.next() => panic!("a third connection got in"),
                () = sleep(Duration::from_millis(200)) => {}
            }
        });
        assert!(end.is_err(), "the third caller was not told");
        drop(first);
        let _fourth = TcpStream::connect(addr).await.expect("the socket listens");
        let fourth = incoming.next().await.expect("endless").expect("accepted");
        assert!(fourth.stream.nodelay().expect("open"));
        drop(second);
    }

    #[tokio::test]
    async fn a_silent_connection_is_ended_and_one_that_spoke_is_not() {
        let preface = Duration::from_millis(50);
        let mut incoming = bind(Limits { preface, ..Limits::default() }).await;
        let addr = incoming.local_addr();

        let mut silent = TcpStream::connect(addr).await.expect("the socket listens");
        silent.write_all(&[0; PREFACE_LEN - 1]).await.expect("open");
        let mut connection = incoming.next().await.expect("endless").expect("accepted");
        let mut buf = [0; PREFACE_LEN];
        let error = connection.read_exact(&mut buf).await.expect_err("one byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut speaks = TcpStream::connect(addr).await.expect("the socket listens");
        speaks.write_all(&buf).await.expect("open");
        let mut connection = incoming.next().await.expect("endless").expect("accepted");
        connection.read_exact(&mut buf).await.expect("all bytes came");
        sleep(2 * preface).await;
        speaks.write_all(&[7]).await.expect("open");
        assert_eq!(connection.read_u8().await.expect("still open"), 7);
    }

    #[tokio::test]
    async fn a_dropped_listener_frees_its_port() {
        let incoming = bind(Limits::default()).await;
        let addr = incoming.local_addr();
        drop(incoming);
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let incoming = bind(Limits::default()).await;
        let error = Incoming::bind(incoming.local_addr(), Limits::default()).await.expect_err("in use");
        assert!(error.to_string().contains(&incoming.local_addr().to_string()), "{error}");
    }
}
